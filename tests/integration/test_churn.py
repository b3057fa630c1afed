"""Workers found on this machine's own kernel, amid hundreds of processes that come and go."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from numad_py.errors import NumadError
from numad_py.kernel import rights
from numad_py.kernel.procfs import ProcFs
from numad_py.serve.control import call
from tests.guest.project import ROOT
from tests.integration.program import policy

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the load is a C program"),
    pytest.mark.skipif(
        "CAP_SYS_PTRACE" not in rights.effective_capabilities(),
        reason="without CAP_SYS_PTRACE the daemon does not run",
    ),
]

INTERVAL_S = 1.0
STORM_S = 60.0 if os.environ.get("NUMAD_PY_FULL") else 20.0
RATE = 500
"""Processes a second that are no workers, each with a life of LIFE_MS."""
LIFE_MS = 20
BURST_RATE = 4000
"""On top of them for a tenth of the time, as far as the machine manages."""
SHELL_S = 0.3
"""So long a worker is a shell before it execs."""
WORKER_S = 2 * INTERVAL_S + 0.3
"""A worker is in two looks at least, whenever they come."""
WORKERS_A_S = 4
CPU_SHARE = 0.05
"""Of one CPU. In each second: a listing, a few ms for what then lives of the storm, about 1 ms for
each worker, and four answers to this test. Reading each process that is made, at 75 us, would be
beyond it."""
GROWTH_BYTES = 2 << 20
"""What an interpreter may need more after a while; 100 bytes for each fork are beyond it."""
WITHIN_S = 20.0


@pytest.fixture(scope="module")
def forkstorm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program that makes short-lived processes."""
    program = tmp_path_factory.mktemp("churn") / "forkstorm"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
    source = ROOT / "tests/load/forkstorm.c"
    subprocess.run(["gcc", *flags, "-o", program, source], check=True, timeout=60)
    return program


@contextlib.contextmanager
def ended(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command, at most until the block ends."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()


@dataclass
class Watched:
    """A daemon as its clients and the kernel see it."""

    socket: Path
    pid: int
    seen: dict[int, str] = field(default_factory=dict)
    """Label by pid, of all workers that were ever told of."""
    rss_bytes: list[int] = field(default_factory=list)
    cpu_ticks: int = 0

    def look(self) -> None:
        """Ask it who the workers are, and the kernel what it costs."""
        document = cast("dict[str, Any]", call(self.socket, "status", timeout_s=WITHIN_S))
        self.seen.update({w["pid"]: w["worker"] for w in document["workers"]})
        stat = ProcFs().stat(self.pid)
        self.rss_bytes.append(stat.resident_bytes)
        self.cpu_ticks = stat.cpu_ticks

    def wait_for_cycles(self, count: int) -> None:
        """Wait until it has looked so many times."""
        limit = time.monotonic() + WITHIN_S
        while True:
            with contextlib.suppress(NumadError):  # not up, or in its first cycle
                document = cast("dict[str, Any]", call(self.socket, "status", timeout_s=WITHIN_S))
                if document["cycles"] >= count:
                    return
            assert time.monotonic() < limit, f"no {count} cycles within {WITHIN_S} s"
            time.sleep(0.1)


@contextlib.contextmanager
def observing(folder: Path) -> Iterator[Watched]:
    """Run the daemon on this machine until the block ends."""
    text = (
        '[metrics]\nlisten = ""\n[discovery]\nknown_servers = false\n'
        '[[rule]]\nname = "churn"\nexe = "/churn-worker$"\n'
    )
    path = policy(folder, text)
    path.write_text(
        path.read_text().replace("[daemon]\n", f'[daemon]\ninterval = "{INTERVAL_S}s"\n')
    )
    command = [sys.executable, "-m", "numad_py", "run", "--mode", "observe", "--config", str(path)]
    with ended(*command) as process:
        watched = Watched(folder / "run/control.sock", process.pid)
        watched.wait_for_cycles(3)
        yield watched
        assert process.poll() is None, "the daemon has ended"


def made(storm: subprocess.Popen[str]) -> int:
    """Return how many processes a storm made, once it is over."""
    out, _ = storm.communicate(timeout=WITHIN_S)
    return int(out.split()[1])


def test_every_worker_is_found_in_a_storm_of_short_lived_processes(
    tmp_path: Path, forkstorm: Path
) -> None:
    """All that live for two looks are told of, and nobody else; CPU and memory stay bounded."""
    program = tmp_path / "churn-worker"
    shutil.copy(forkstorm, program)
    become = f"sleep {SHELL_S}; exec {program} 0 {WORKER_S} 0"
    last_s = STORM_S - SHELL_S - WORKER_S - INTERVAL_S
    workers: list[subprocess.Popen[str]] = []
    bursts: list[subprocess.Popen[str]] = []

    def storm(rate: int, seconds: float) -> subprocess.Popen[str]:
        command: list[str | Path] = [forkstorm, str(rate), str(seconds), str(LIFE_MS)]
        return stack.enter_context(ended(*command, stdout=subprocess.PIPE))

    with observing(tmp_path) as watched, contextlib.ExitStack() as stack:
        watched.look()
        began_ticks, began_s = watched.cpu_ticks, time.monotonic()
        steady = storm(RATE, STORM_S)
        while (passed_s := time.monotonic() - began_s) < STORM_S:
            if passed_s < last_s and len(workers) <= passed_s * WORKERS_A_S:
                workers.append(
                    stack.enter_context(ended("sh", "-c", become, stdout=subprocess.DEVNULL))
                )
            if passed_s > STORM_S / 2 and not bursts:
                bursts.append(storm(BURST_RATE, STORM_S / 10))
            watched.look()
            time.sleep(1 / WORKERS_A_S)
        share = (watched.cpu_ticks - began_ticks) / ProcFs().clock_ticks / passed_s
        assert made(steady) > 0.8 * RATE * STORM_S
        burst = made(bursts[0])

    third = len(watched.rss_bytes) // 3
    growth = max(watched.rss_bytes[third:]) - max(watched.rss_bytes[:third])
    told = (
        f"{share:.3f} of a CPU, {growth} bytes more, {burst} in the burst, {len(workers)} workers"
    )
    print(told)
    assert len(workers) > last_s * WORKERS_A_S / 2
    assert {w.pid for w in workers} == watched.seen.keys(), told
    assert share < CPU_SHARE, told
    assert growth < GROWTH_BYTES, told
