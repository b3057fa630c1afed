"""Passes over the threads of a worker that goes on creating and ending some."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from numad_py.errors import Malformed, Vanished
from numad_py.kernel import clock
from numad_py.kernel.procfs import ProcFs
from numad_py.model.snapshot import Thread, WorkerId

_PASSES = 20
_TRYING_S = 2.0
"""So many passes over the threads and so long, whichever is more: a worker that never stops
creating threads is not waited for; new threads inherit their creator's mask, so only those created
by ones not seen to are missed."""
_CLEAN_PASSES = 2
_CLEAN_IN_CHURN = 5
"""Where threads end while they are listed, the list may lack living ones (``next_tid``,
fs/proc/base.c, ends where the thread that it stands at has ended)."""
_AT_ONCE = 3
"""Passes before there is a short rest between two."""
_REST_S = 0.005


def never() -> bool:
    """Say no."""
    return False


@dataclass
class Passes:
    """Passes over a worker's threads, until enough in a row find nothing to do."""

    stopped: Callable[[], bool]
    began_s: float = field(default_factory=clock.monotonic_s)
    number: int = 0
    clean: int = 0
    halted: bool = False
    churn: bool = False
    """A thread ended in the pass before it could be read."""

    def more(self) -> bool:
        """Say whether there is to be another one; rests before it."""
        self.halted = self.halted or self.stopped()
        if self.halted or self.settled:
            return False
        if self.number >= _PASSES and clock.monotonic_s() - self.began_s >= _TRYING_S:
            return False
        if self.number >= _AT_ONCE:
            time.sleep(_REST_S)
        self.number += 1
        self.churn = False
        return True

    @property
    def settled(self) -> bool:
        """Whether nothing was left to do."""
        return self.clean >= (_CLEAN_IN_CHURN if self.churn else _CLEAN_PASSES)

    def ended(self, *, clean: bool) -> None:
        """Count a pass."""
        self.clean = self.clean + 1 if clean else 0

    def threads(self, worker: WorkerId, procfs: ProcFs) -> Iterator[Thread]:
        """Yield threads as each is read, so that little time passes until its mask is set."""
        for tid in sorted(procfs.tids(worker.pid)):
            if self.stopped():
                self.halted = True
                return
            try:
                yield procfs.thread(worker.pid, tid)
            except (Vanished, Malformed):
                self.churn = True
