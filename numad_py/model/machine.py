"""What changes on a machine from cycle to cycle, apart from its workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HugePages:
    """The pool of hugetlb pages of one size on one node."""

    page_bytes: int
    total: int
    """Pages."""
    free: int


@dataclass(frozen=True)
class NumaStat:
    """Allocations on a node since boot, in pages (numastat(8), nodeN/numastat)."""

    hit: int
    """Wanted here and got here."""
    miss: int
    """Wanted elsewhere and got here."""
    foreign: int
    """Wanted here and got elsewhere."""
    local: int
    """By a thread that ran here."""
    other: int
    """By a thread that ran on another node."""


@dataclass(frozen=True)
class NodeState:
    """What changes on a node from cycle to cycle."""

    node: int
    total_bytes: int
    """MemTotal; 0 for a memoryless node, and for one that went offline."""
    free_bytes: int
    """MemFree."""
    reclaimable_bytes: int
    """Clean file cache that reclaim can drop: Active(file) + Inactive(file) - Dirty."""
    huge_pages: tuple[HugePages, ...] = ()
    """By size of page."""
    numastat: NumaStat | None = None
    busy_cpus: float | None = None
    """CPUs kept busy since the last look, all processes together; None at the first."""

    def room_bytes(self, headroom: float) -> int:
        """Return what may still come here, above a share of its memory; negative: less than that.

        Clean file cache counts half: reclaim can drop it, but somebody may want it.
        """
        return int(self.free_bytes + self.reclaimable_bytes / 2 - headroom * self.total_bytes)


@dataclass(frozen=True)
class Pressure:
    """Share of time in which somebody waited, over the last 10 s, 0..1 (/proc/pressure)."""

    cpu_some: float | None = None
    memory_some: float | None = None
    memory_full: float | None = None
    """None where this kernel has no PSI, or it is switched off."""


@dataclass(frozen=True)
class Interference:
    """Something beside numad-py that moves pages or threads, or makes memory remote."""

    name: str
    """A value of a metric's label: ``autonuma``, ``numad``, ``irqbalance``, ``zone_reclaim`` or
    ``swap``."""
    present: bool
    level: str
    """``ok``, ``note``, ``warn`` or ``fail``, as ``doctor`` says it."""
    text: str
    """What was found, and what to do about it where something is to be done."""
