"""numad-py and numad side by side on this machine, in namespaces in which it has four nodes.

With one node numad looks at no process (manage_loads, numad.c). So a mount namespace has made
files in the place of the kernel's nodes, each with all CPUs and much free memory, and a PID
namespace nothing but what is measured: numad finds no process that it would move, and could not
bind one to anything but all CPUs. Every process ends with its namespace.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.table import Figure, NotHere
from tests.guest.image import cache_folder
from tests.guest.numad import COMMAND

ROOT = Path(__file__).parents[2]
SIZE = "64MiB"
"""Of a worker."""
TOOLS = ("setpriv", "unshare", "mount", "gcc")
APART = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child", "--"]
FIRST = ["sh", "-c", '"$@"; exit $?', "sh"]
"""A namespace's first process, which reaps those whose parent has ended."""
FETCH_LIMIT_S = 120
START_LIMIT_S = 180
REST_LIMIT_S = 130
"""After each window the next rest is waited for, and cycles are counted."""


@dataclass(frozen=True)
class Load:
    """What is looked at, and for how long."""

    idle: int
    """Processes that do nothing."""
    workers: int
    """0: no server is known by name either."""
    settle_s: float
    window_s: float
    windows: int


@dataclass(frozen=True)
class Compared:
    """CPU time of both over the same windows."""

    ours: Figure
    """Milliseconds a cycle."""
    theirs: Figure
    note: str


def compared(loads: Sequence[Load]) -> list[Compared]:
    """Measure under each load, all at once, each in namespaces of its own: none sees another.

    Raises:
        NotHere: no rights, tools or numad.
        RuntimeError: it was no comparison: one of the two did not look, or had more to do.
    """
    _check()
    numad = _numad()
    with contextlib.ExitStack() as stack:
        begun = [(load, stack.enter_context(_begun(load, numad))) for load in loads]
        return [_answer(load, process) for load, process in begun]


def _check() -> None:
    if os.geteuid() != 0:
        why = "namespaces and the daemon need root"
        raise NotHere(why)
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        why = f"this machine has no {', '.join(missing)}"
        raise NotHere(why)
    # In a container even root may not.
    done = subprocess.run([*APART, "true"], capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        why = f"no namespaces of our own: {done.stderr.strip()}"
        raise NotHere(why)


def _numad() -> Path:
    """Return numad's program: the installed one, else one that is only unpacked.

    Installing Debian's package would start it as a service.
    """
    if found := shutil.which("numad"):
        return Path(found)
    if missing := [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]:
        why = f"no numad here, and no {' or '.join(missing)} to get it with"
        raise NotHere(why)
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "numad.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = cache / "numad"
        if not folder.exists():
            _unpack(folder)
    return folder / "usr/bin/numad"


def _unpack(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="numad-") as scratch:
        try:
            _run(["apt-get", "-qq", "download", "numad"], scratch)
            (package,) = Path(scratch).glob("numad_*.deb")
            _run(["dpkg-deb", "-x", str(package), "out"], scratch)
        except (subprocess.SubprocessError, ValueError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip()
            why = f"numad cannot be fetched (try apt-get update): {said.splitlines()[-1]}"
            raise NotHere(why) from None
        (Path(scratch) / "out").rename(folder)


def _run(command: list[str], folder: str) -> None:
    subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, timeout=FETCH_LIMIT_S
    )


@contextlib.contextmanager
def _begun(load: Load, numad: Path) -> Iterator[subprocess.Popen[str]]:
    """Let it run in its namespaces, which end with the block or with this process."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="numad-py-bench-", ignore_cleanup_errors=True)
        )
        inside = [sys.executable, "-m", "tests.bench.apart", json.dumps(asdict(load)), str(numad)]
        process = stack.enter_context(
            subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *APART, *FIRST, *inside],
                cwd=ROOT,
                # What it makes goes with the folder, also where it is killed.
                env={**os.environ, "TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        stack.callback(process.kill)
        yield process


def _answer(load: Load, process: subprocess.Popen[str]) -> Compared:
    limit_s = START_LIMIT_S + load.settle_s + load.windows * (load.window_s + REST_LIMIT_S)
    text, _ = process.communicate(timeout=limit_s)
    if process.returncode:
        msg = f"what ran in namespaces of its own failed ({process.returncode}); see above"
        raise RuntimeError(msg)
    found = json.loads(text)
    _check_looks(load, found["status"], found["seen"])
    ours, theirs = (
        Figure.of(1e3 * window["cpu_s"] / window["cycles"] for window in found[name])
        for name in ("ours", "theirs")
    )
    return Compared(
        ours,
        theirs,
        f"CPU a cycle; theirs: {COMMAND}, which read the stat of {min(found['seen'])} to "
        f"{max(found['seen'])} processes in each cycle and moved {found['moved']}; natively, "
        f"both at once, {load.settle_s:.0f} s after their start; the four nodes are made files",
    )


def _check_looks(load: Load, status: dict[str, Any], seen: Sequence[int]) -> None:
    """Raise RuntimeError unless both have looked at all there is and had nothing to do."""
    if min(seen) < load.idle + load.workers:
        msg = f"numad looked at {min(seen)} processes only"
        raise RuntimeError(msg)
    at_home = [w["decision"]["verdict"] for w in status["workers"]].count("rest")
    if at_home != load.workers or status["unmatched_processes"] < load.idle:
        msg = (
            f"numad-py found {at_home} of {load.workers} workers at home among "
            f"{status['unmatched_processes']} other processes"
        )
        raise RuntimeError(msg)
