"""Becoming another program on given CPUs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from numad_py.errors import NumadError

_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores these, and what is ignored stays so over exec (signal(7))."""


def own_cpus() -> frozenset[int]:
    """Return the CPUs that this thread may use: its own affinity, within its cpuset."""
    return frozenset(os.sched_getaffinity(0))


def require_program(name: str) -> None:
    """Raise NumadError where there is no such program to start."""
    if shutil.which(name) is None:
        msg = f"{name}: there is no such program that we may start"
        raise NumadError(msg)


def become(command: Sequence[str], cpus: Iterable[int]) -> NoReturn:
    """Bind ourselves to these CPUs and run a program in our place.

    Raises:
        NumadError: the kernel refused the CPUs or the program.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.sched_setaffinity(0, cpus)
        for ignored in _IGNORED:
            signal.signal(ignored, signal.SIG_DFL)
        os.execvp(command[0], list(command))  # noqa: S606 - a shell is what is not wanted
    except OSError as error:
        msg = f"{command[0]} cannot be started: {error}"
        raise NumadError(msg) from None
