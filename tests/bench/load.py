"""Idle processes and workers on this machine, for the time of a block."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.guest.project import build_crowd, build_load

READY_WITHIN_S = 120


@contextlib.contextmanager
def crowd(count: int) -> Iterator[None]:
    """Have so many idle processes."""
    with _ended([str(build_crowd()), str(count)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        if parent.stdout.readline().strip() != str(count).encode():
            msg = f"no {count} processes could be made; see above"
            raise RuntimeError(msg)
        yield
    # Thousands take seconds to end, and must not be there when something else is measured.
    end = time.monotonic() + READY_WITHIN_S
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(parent.pid, 0)
            time.sleep(0.1)


@contextlib.contextmanager
def loaded(size: str, thp: str) -> Iterator[int]:
    """Have a worker that has touched so much memory; hand out its pid.

    Args:
        size: as in ``64MiB``.
        thp: ``always`` or ``never``.
    """
    with workers(1, f"--size {size} --thp {thp}") as (pid,):
        yield pid


@contextlib.contextmanager
def workers(count: int, options: str) -> Iterator[tuple[int, ...]]:
    """Have so many workers that the shipped policy knows; hand out their pids when all are ready.

    Args:
        count: how many.
        options: of the load generator; they pause for 3 s between two passes.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="numad-py-bench-")))
        server = folder / "llama-server"
        shutil.copy(build_load(), server)
        started = {}
        for i in range(count):
            ready = folder / f"ready-{i}"
            words = [str(server), *options.split(), "--pause-ms", "3000", "--ready", str(ready)]
            started[ready] = stack.enter_context(_ended(words))
        end = time.monotonic() + READY_WITHIN_S
        while not all(path.exists() and path.read_text() for path in started):
            if time.monotonic() > end or any(p.poll() is not None for p in started.values()):
                msg = f"not all of {count} workers ({options}) became ready; see above"
                raise RuntimeError(msg)
            time.sleep(0.1)
        yield tuple(process.pid for process in started.values())


@contextlib.contextmanager
def _ended(command: list[str], stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends, or this process does."""
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
