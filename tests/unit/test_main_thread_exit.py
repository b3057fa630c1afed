"""A worker whose main thread has exited while others of its threads live on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from numad_py.act.mover import Mover
from numad_py.act.tally import Tally
from numad_py.kernel import clock
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.outcome import End
from numad_py.model.plan import MemoryMove
from numad_py.model.snapshot import WorkerId
from tests.unit.fake_kernel import MIB
from tests.unit.moving import UNPACED, decision

PROGRAM = """
import ctypes, sys, threading, time
memory = bytearray(8 << 20)
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
sys.stdin.buffer.raw.read(1)
ctypes.CDLL(None).pthread_exit(None)
"""


class Worker:
    """A process of two threads, the main one of which exits when it is told to."""

    def __init__(self) -> None:
        """Start it."""
        self.procfs = ProcFs()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        self.id = WorkerId(self.process.pid, self.procfs.stat(self.process.pid).start_ticks)

    def leave(self) -> None:
        """Have its main thread exit."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"x")
        self.process.stdin.flush()
        until_s = clock.monotonic_s() + 10
        while self.procfs.stat(self.id.pid).state != "Z":
            assert clock.monotonic_s() < until_s
            time.sleep(0.01)

    def move(self, procfs: ProcFs) -> Tally:
        """Move 8 MiB of it from node 0 to node 1."""
        tally, stop = Tally(), threading.Event()
        mover = Mover(procfs, Syscalls(), lambda _node, _page_bytes: 1 << 60, stop)
        mover.move(decision(self.id, [MemoryMove(0, 1, 8 * MIB)]), UNPACED, tally)
        return tally


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Return one; it ends with the test."""
    made = Worker()
    yield made
    made.process.kill()
    made.process.communicate()


class LeavesAtLook(ProcFs):
    """The real /proc; the worker's main thread exits before its areas are read."""

    def __init__(self, leave: Callable[[], None]) -> None:
        """Take what makes it exit."""
        super().__init__()
        self._leave: Callable[[], None] | None = leave

    def numa_maps(self, pid: int, between: Callable[[], None] | None = None) -> str:
        """Return the areas, which are none by then."""
        if self._leave is not None:
            leave, self._leave = self._leave, None
            leave()
        return super().numa_maps(pid, between)


@pytest.mark.parametrize("meanwhile", [False, True], ids=["before the move", "in the move"])
def test_a_worker_without_its_main_thread_is_neither_done_nor_gone(
    worker: Worker,
    meanwhile: bool,  # noqa: FBT001
) -> None:
    """The kernel shows none of its memory under its pid any more: that is said, and it lives."""
    procfs = LeavesAtLook(worker.leave) if meanwhile else ProcFs()
    if not meanwhile:
        worker.leave()
    tally = worker.move(procfs)
    assert tally.end is End.FAILED
    assert tally.error is not None
    assert "its main thread has exited" in tally.error
    assert not tally.moved


def test_a_worker_that_has_ended_is_gone(worker: Worker) -> None:
    """A zombie that nobody has waited for has no other thread."""
    worker.process.kill()
    pid = worker.id.pid
    # Its other thread may take a moment longer to end.
    while worker.procfs.stat(pid).state != "Z" or worker.procfs.tids(pid) != {pid}:
        time.sleep(0.01)
    assert worker.move(ProcFs()).end is End.GONE
