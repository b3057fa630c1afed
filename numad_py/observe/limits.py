"""What the kernel grants a worker, and how large it is: read as seldom as will do."""

from __future__ import annotations

from dataclasses import dataclass, field

from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.model.snapshot import MemoryStatus, WorkerId
from numad_py.observe.discovery import Found
from numad_py.observe.pauses import as_long_again

LIMITS_S = 15.0
"""So often they are read, ever more seldom while they stay the same."""
GREW_BYTES = 1 << 20
"""A change of RSS by so much is worth reading the worker's status for."""


@dataclass(frozen=True)
class LimitsSeen:
    """A worker's sizes, and the nodes and CPUs that it may use."""

    memory: MemoryStatus = field(default_factory=MemoryStatus)
    cpuset_cpus: frozenset[int] | None = None
    """None where there is no cpuset controller."""


@dataclass(frozen=True)
class _Known:
    at_s: float
    since_s: float
    """Since when all of it is the same."""
    cgroup: str | None
    stat_bytes: int
    """RSS as stat had it."""
    seen: LimitsSeen


class Limits:
    """Remembers each worker's limits from look to look."""

    def __init__(self, procfs: ProcFs, cgroupfs: CgroupFs) -> None:
        """Start with nothing seen."""
        self._procfs = procfs
        self._cgroupfs = cgroupfs
        self._known: dict[WorkerId, _Known] = {}

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is remembered of workers that ended."""
        self._known = {k: v for k, v in self._known.items() if k in workers}

    def look(self, found: Found, now_s: float) -> LimitsSeen:
        """Return a worker's limits.

        A cpuset that is changed shows in the masks of its threads, too, which are read apart.

        Raises:
            Vanished: it ended.
            RightsError: its status may not be read.
            Malformed: its status cannot be read.
        """
        known, size = self._known.get(found.id), found.stat.resident_bytes
        if known is not None and (
            known.cgroup != found.cgroup or abs(size - known.stat_bytes) >= GREW_BYTES
        ):
            known = None
        if known is not None:
            pause_s = as_long_again(known.at_s - known.since_s, LIMITS_S)
            if now_s - known.at_s < pause_s:
                return known.seen
        cpus = self._cgroupfs.cpuset_cpus(found.cgroup) if found.cgroup else None
        seen = LimitsSeen(self._procfs.memory(found.id.pid), cpus)
        same = known is not None and _granted(known.seen) == _granted(seen)
        since_s = known.since_s if known is not None and same else now_s
        self._known[found.id] = _Known(now_s, since_s, found.cgroup, size, seen)
        return seen


def _granted(seen: LimitsSeen) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    return seen.memory.mems_allowed, seen.cpuset_cpus
