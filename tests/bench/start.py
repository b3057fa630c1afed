"""The time from exec to READY=1, and resident memory after a minute; against a bare Python."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.bench.load import crowd, workers
from tests.bench.table import Figure, NotHere, Row

IDLE = 1_000
WORKERS = 16
SIZE = "64MiB"
VALUES = 7
READY_WITHIN_S = 30.0
RESIDE_S = 60.0
START_LIMIT_S = 0.5
RESIDENT_LIMIT_MIB = 40.0
POLICY = """\
[daemon]
mode = "observe"
state_dir = "{folder}/state"
runtime_dir = "{folder}/run"
[log]
level = "error"
[metrics]
listen = "127.0.0.1:{port}"
"""


def rows() -> Iterator[Row]:
    """Start it again and again, on the machine as it is and on a full one; then let it run."""
    if os.geteuid() != 0:
        why = "the daemon needs CAP_SYS_PTRACE; run this as root"
        raise NotHere(why)
    bare = Figure.of(_bare_s() for _ in range(VALUES + 1))
    yield _started("as the machine is", bare)
    with crowd(IDLE), workers(WORKERS, f"--size {SIZE}"):
        case = f"{IDLE:,} processes, {WORKERS} workers"
        yield _started(case, bare)
        yield from _resident(case)


def _started(case: str, bare: Figure) -> Row:
    # Once unmeasured: it compiles what was never imported.
    _start_s()
    ours = Figure.of(_start_s() for _ in range(VALUES))
    note = "wall time from exec to READY=1; theirs: python -c pass"
    return Row("start", f"{case}: ready", ours, bare, "s", note=note).below(START_LIMIT_S)


def _resident(case: str) -> Iterator[Row]:
    with _daemon() as (daemon, port, _), _asleep() as bare:
        time.sleep(RESIDE_S)
        _scrape(port)
        ours, theirs = _memory_mib(daemon.pid), _memory_mib(bare.pid)
    note = f"after {RESIDE_S:.0f} s and a scrape; theirs: a Python that sleeps"
    for name in ("VmRSS", "Pss"):
        figures = Figure.of([ours[name]]), Figure.of([theirs[name]])
        row = Row("start", f"{case}: {name}", *figures, "MiB", note=note)
        yield row.below(RESIDENT_LIMIT_MIB)


def _bare_s() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True, timeout=READY_WITHIN_S)
    return time.monotonic() - began


def _start_s() -> float:
    with _daemon() as (_, _, ready_s):
        return ready_s


@contextlib.contextmanager
def _daemon() -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    """Run the daemon; hand out it, its metrics' port, and the seconds until it was ready."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="numad-py-bench-")))
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.bind(str(folder / "notify"))
        policy = folder / "policy.toml"
        port = _free_port()
        policy.write_text(POLICY.format(folder=folder, port=port))
        environ = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
        began = time.monotonic()
        daemon = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "numad_py", "run", "--config", str(policy)], env=environ
            )
        )
        stack.callback(daemon.kill)
        manager.settimeout(READY_WITHIN_S)
        while b"READY=1" not in manager.recv(4096):
            pass
        yield daemon, port, time.monotonic() - began


@contextlib.contextmanager
def _asleep() -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python that does nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _memory_mib(pid: int) -> dict[str, float]:
    """Return VmRSS and Pss of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.findall(r"^(VmRSS|Pss):\s+(\d+) kB$", status + rollup, re.MULTILINE)
    return {name: int(kib) / 1024 for name, kib in found}


def _scrape(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        answer.read()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
