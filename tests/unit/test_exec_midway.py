"""A worker that becomes another program while its memory moves: a real exec, made memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.errors import Vanished
from numad_py.kernel.held import HeldMemory
from numad_py.kernel.procfs import ProcFs
from numad_py.model.outcome import End
from numad_py.model.snapshot import WorkerId
from tests.unit.moving import this_process
from tests.unit.test_actuator import CHUNK, SOON_S, Bench

BECOMES = """
import os, sys
print("ready", flush=True)
sys.stdin.readline()
os.execv("/bin/sleep", ["sleep", "60"])
"""
EXECS_AT_CALL = 2


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Return one that execs when it is told to."""
    command = [sys.executable, "-c", BECOMES]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield running
        running.kill()


def become(process: subprocess.Popen[bytes]) -> None:
    """Let it exec, and wait until it has."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    end = time.monotonic() + SOON_S
    while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
        assert time.monotonic() < end
        time.sleep(0.01)


def test_memory_is_held_until_exec_or_the_end(process: subprocess.Popen[bytes]) -> None:
    """The new program's memory is another one; so is that of nobody."""
    with closing(HeldMemory("/proc", process.pid)) as before:
        assert before.there()
        become(process)
        assert not before.there()
    with closing(HeldMemory("/proc", process.pid)) as after:
        assert after.there()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not after.there()
        process.wait()
        assert not after.there()
    with pytest.raises(Vanished):
        HeldMemory("/proc", process.pid)


def test_exec_ends_a_move_and_keeps_the_masks_known(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    """No call is made for the new program; it has our mask, and gets its own back."""
    worker = WorkerId(process.pid, ProcFs().stat(process.pid).start_ticks)
    bench = Bench(tmp_path, worker)

    def on_call(calls: int) -> None:
        if calls == EXECS_AT_CALL:
            become(process)

    bench.kernel.on_call = on_call
    before = bench.masks()
    cpus = frozenset({min(os.sched_getaffinity(0))})
    try:
        bench.actuator.submit(bench.decision(bind_cpus=cpus))
        (outcome,) = bench.outcomes(1)
        assert outcome.end is End.GONE
        assert outcome.moved_bytes == (EXECS_AT_CALL + 1) * CHUNK
        assert outcome.after is None
        bench.actuator.forget_ended(frozenset())
        assert bench.journal.entry(worker) is not None
        assert bench.masks() == {cpus}
        assert bench.actuator.restore_all() == 1
        assert bench.masks() == before
        assert bench.journal.entries() == ()
    finally:
        bench.actuator.stop(SOON_S)
        bench.journal.close()


def test_what_was_decided_about_a_program_is_not_done_to_the_next(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    """It became another while its decision waited for its turn: neither bound nor moved."""
    worker = WorkerId(process.pid, ProcFs().stat(process.pid).start_ticks)
    bench = Bench(tmp_path, worker)
    inside, go = threading.Event(), threading.Event()

    def on_call(_calls: int) -> None:
        inside.set()
        assert go.wait(SOON_S)

    bench.kernel.on_call = on_call
    before = bench.masks()
    open_before = len([*Path("/proc/self/fd").iterdir()])
    try:
        bench.actuator.submit(replace(bench.decision(1), worker=this_process()))
        assert inside.wait(SOON_S)
        cpus = frozenset({min(os.sched_getaffinity(0))})
        bench.actuator.submit(bench.decision(2, bind_cpus=cpus))
        become(process)
        go.set()
        first, second = bench.outcomes(2)
        assert (first.end, second.end) == (End.DONE, End.GONE)
        assert (second.threads_bound, second.moved) == (0, {})
        assert bench.masks() == before
        assert len([*Path("/proc/self/fd").iterdir()]) == open_before
    finally:
        go.set()
        bench.actuator.stop(SOON_S)
        bench.journal.close()
