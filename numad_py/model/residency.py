"""Where a worker's resident pages lie, how that was found out, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

BASE_PAGE_BYTES = 4096
"""Size of ordinary pages where none is told; kernels for aarch64 may have 16 or 64 KiB. Whether
pages are huge ones (hugetlb) is told by their kind, never by their size: of huge pages this one
means that theirs is not known yet."""
INTERVAL_Z = 1.96
"""Standard normal quantile of the interval that a sample states: it holds 95 times in 100."""


class Kind(str, Enum):
    """What a resident page belongs to."""

    ANON = "anon"
    FILE = "file"
    SHMEM = "shmem"
    HUGETLB = "hugetlb"


class Mobility(str, Enum):
    """Whether a page may be moved, and what stands in the way if not."""

    MOVABLE = "movable"
    SHARED = "shared"
    """Mapped by other processes too: move_pages without MPOL_MF_MOVE_ALL answers EACCES."""
    POLICY = "policy"
    """Under a mempolicy that the user set: not ours to undo."""
    LEFT = "left"
    """It could be moved, but not with this worker: its rule leaves files alone, or another of its
    users moves it for all. A look never finds this: it is decided."""


class Source(str, Enum):
    """Where figures of a worker's memory come from, dearest and surest first."""

    NUMA_MAPS = "numa_maps"
    """Every page counted; walks its page tables under its mmap_lock."""
    SAMPLE = "sample"
    """Some pages drawn at random and asked for; the same cost whatever its size."""
    NUMA_STAT = "numa_stat"
    """What its own cgroup is charged for, as memory.numa_stat counts it; no pages looked at."""


@dataclass(frozen=True)
class ResidencyEntry:
    """Resident bytes of one kind, mobility and size of page on one node."""

    node: int
    kind: Kind
    mobility: Mobility
    resident_bytes: int
    page_bytes: int = BASE_PAGE_BYTES
    """Size of the mapping's pages; a transparent huge page counts as base pages."""


@dataclass(frozen=True, order=True)
class SegmentId:
    """A file or a shared segment, the same for all who map it (proc(5), /proc/PID/maps)."""

    device: str
    """``MAJOR:MINOR`` in hexadecimal."""
    inode: int


@dataclass(frozen=True)
class SegmentPart:
    """What one worker has mapped and resident of a file or a shared segment."""

    id: SegmentId
    path: str
    kind: Kind
    bytes_by_node: tuple[tuple[int, int], ...]
    """(node, resident bytes), by node."""
    shared_by_node: tuple[tuple[int, int], ...] = ()
    """Of these, what lies in areas of which other processes map a page too. Of a sample that is
    not known: empty."""
    mapmax: int = 0
    """How many mappings the page has that has most, in all processes; 0: not known."""


@dataclass(frozen=True)
class Confirmation:
    """A later, cheaper look that found the figures unchanged, as far as it could see."""

    source: Source
    at_s: float
    """Time since boot."""
    error_share: float
    """A change of a node's share by less than this would not have shown."""


@dataclass(frozen=True)
class Residency:
    """Where a worker's resident pages lie."""

    entries: tuple[ResidencyEntry, ...]
    """Sorted by node, kind, mobility, size of page; no two alike in these."""
    read_at_s: float
    """Time since boot at which it was read."""
    cost_s: float = 0.0
    """CPU time that reading took."""
    odd_lines: int = 0
    """Lines that did not follow the grammar and are left out."""
    policies: tuple[str, ...] = ()
    """Distinct mempolicies other than default and local, as numa_maps prints them, sorted."""
    source: Source = Source.NUMA_MAPS
    sampled_pages: int | None = None
    """Of a sample: pages that were drawn, in effect, of what can be moved; None where all were
    counted."""
    segments: tuple[SegmentPart, ...] = ()
    """Files and shared segments that it maps, the larger ones, by id."""
    mobility_known: bool = True
    """False where all of it counts as movable because nobody has looked at its areas yet."""
    no_full_reading: str | None = None
    """Why it could not be read in full, though a decision hangs on it; None where nobody tried, or
    it could."""
    confirmed: Confirmation | None = None

    @property
    def full(self) -> bool:
        """Whether every page was counted."""
        return self.source is Source.NUMA_MAPS

    def by_node(
        self, *, mobility: Mobility | None = None, kind: Kind | None = None
    ) -> Mapping[int, int]:
        """Return bytes per node, of one mobility or kind only where given."""
        total = self._by_node.get((mobility, kind))
        if total is None:
            total = self._by_node[mobility, kind] = {}
            for entry in self.entries:
                if mobility is not None and entry.mobility is not mobility:
                    continue
                if kind is not None and entry.kind is not kind:
                    continue
                total[entry.node] = total.get(entry.node, 0) + entry.resident_bytes
        return total

    @cached_property
    def _by_node(self) -> dict[tuple[Mobility | None, Kind | None], dict[int, int]]:
        """Sums that were asked for: the figures of a worker at rest are asked again each cycle."""
        return {}

    def by_page_size(self) -> dict[int, int]:
        """Return bytes per size of page."""
        total: dict[int, int] = {}
        for entry in self.entries:
            total[entry.page_bytes] = total.get(entry.page_bytes, 0) + entry.resident_bytes
        return total

    def total_bytes(self, *, mobility: Mobility | None = None) -> int:
        """Return resident bytes of all nodes."""
        return sum(self.by_node(mobility=mobility).values())

    def bytes_on(self, nodes: Iterable[int], *, mobility: Mobility | None = None) -> int:
        """Return resident bytes on these nodes."""
        wanted = set(nodes)
        return sum(v for node, v in self.by_node(mobility=mobility).items() if node in wanted)

    @property
    def error_share(self) -> float:
        """By so much at most a node's share of what can be moved may be wrong, 95 times in 100.

        0.0 where all pages were counted. The farther end of the widest interval: near 0 and 1 it
        is lopsided.
        """
        if self.sampled_pages is None:
            return 0.0
        movable = self.by_node(mobility=Mobility.MOVABLE)
        total = sum(movable.values())
        shares = [size / total for size in movable.values()] if total else [0.0]
        bounds = ((share, *wilson(share, self.sampled_pages)) for share in shares)
        return max(max(high - share, share - low) for share, low, high in bounds)


def entries_of(
    sizes: Mapping[tuple[int, Kind, Mobility, int], int],
) -> tuple[ResidencyEntry, ...]:
    """Return entries from bytes by node, kind, mobility and size of page, in order."""
    return tuple(
        ResidencyEntry(node, kind, mobility, size, page_bytes)
        for (node, kind, mobility, page_bytes), size in sorted(
            sizes.items(), key=lambda i: (i[0][0], i[0][1].value, i[0][2].value, i[0][3])
        )
        if size
    )


def wilson(share: float, drawn: float, z: float = INTERVAL_Z) -> tuple[float, float]:
    """Return the interval within which a share truly lies, from a sample of independent draws.

    Wilson's score interval (1927): unlike the plain normal one it holds for shares near 0 and 1,
    where a worker that is nearly at home is.

    Args:
        share: as drawn, 0..1.
        drawn: how many were drawn; none: nothing is known.
        z: standard normal quantile.
    """
    if drawn <= 0:
        return 0.0, 1.0
    weight = z * z / drawn
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / drawn + weight / (4 * drawn))
    # What was drawn lies within it, which rounding must not change.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))
