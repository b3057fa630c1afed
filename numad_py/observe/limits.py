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

    def __init__(self, procfs: ProcFs, cgroupfs: CgroupFs, loading_limit_s: float) -> None:
        """Start with nothing seen.

        Args:
            procfs: the machine's processes.
            cgroupfs: its cpusets.
            loading_limit_s: no worker counts as loading that is older.
        """
        self._procfs = procfs
        self._cgroupfs = cgroupfs
        self.loading_limit_s = loading_limit_s
        self._known: dict[WorkerId, _Known] = {}

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is remembered of workers that ended."""
        self._known = {k: v for k, v in self._known.items() if k in workers}

    def changed(self) -> None:
        """Read all of it anew at the next look: CPUs or nodes came or went."""
        self._known.clear()

    def look(self, found: Found, now_s: float) -> LimitsSeen:
        """Return a worker's limits.

        A cpuset that is changed shows in the masks of its threads, too, which are read apart.

        Raises:
            Vanished: it ended.
            RightsError: its status may not be read.
            Malformed: its status cannot be read.
        """
        known, size = self._known.get(found.id), found.stat.resident_bytes
        if known is None:
            return self._read(found.id, found.cgroup, size, now_s)
        if (
            known.cgroup != found.cgroup
            or abs(size - known.stat_bytes) >= GREW_BYTES
            or (known.seen.memory.hugetlb_bytes and self._may_load(found.id, now_s))
        ):
            return self._read(found.id, found.cgroup, size, now_s)
        if now_s - known.at_s < as_long_again(known.at_s - known.since_s, LIMITS_S):
            return known.seen
        return self._read(found.id, found.cgroup, size, now_s)

    def confirm(self, worker: WorkerId, now_s: float) -> LimitsSeen:
        """Return the limits of a worker that was looked at, as of now: it is to be acted on.

        Raises:
            as ``look``.
        """
        known = self._known[worker]
        if known.at_s >= now_s:
            return known.seen
        return self._read(worker, known.cgroup, known.stat_bytes, now_s)

    def _may_load(self, worker: WorkerId, now_s: float) -> bool:
        """Say whether a worker is so young that it may be loading: its stat leaves hugetlb out."""
        return now_s - worker.start_ticks / self._procfs.clock_ticks < self.loading_limit_s

    def _read(self, worker: WorkerId, cgroup: str | None, size: int, now_s: float) -> LimitsSeen:
        cpus = self._cgroupfs.cpuset_cpus(cgroup) if cgroup else None
        seen = LimitsSeen(self._procfs.memory(worker.pid), cpus)
        known = self._known.get(worker)
        same = known is not None and _lasting(known.seen) == _lasting(seen)
        since_s = known.since_s if known is not None and same else now_s
        self._known[worker] = _Known(now_s, since_s, cgroup, size, seen)
        return seen


def _lasting(
    seen: LimitsSeen,
) -> tuple[frozenset[int] | None, frozenset[int] | None, int | None]:
    """Return what may change and nothing tells of it; other sizes show in stat."""
    return seen.memory.mems_allowed, seen.cpuset_cpus, seen.memory.hugetlb_bytes
