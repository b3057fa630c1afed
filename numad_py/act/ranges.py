"""Which address ranges of a worker hold pages that are to move, and in which order they go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from numad_py.act.pages import THP_BASE_BYTES
from numad_py.kernel import numa_maps
from numad_py.kernel.maps import MappedArea, parse_maps
from numad_py.kernel.numa_maps import Vma
from numad_py.kernel.procfs import ProcFs
from numad_py.model.residency import Kind, Mobility, SegmentId


@dataclass(frozen=True)
class Range:
    """An area with pages on a source node."""

    start: int
    end: int
    page_bytes: int
    remote: Mapping[int, int]
    """Resident bytes by source node, as numa_maps had them."""
    may_be_thp: bool
    """Whether it may have transparent huge pages of THP_BYTES."""
    hugetlb: bool = False
    """Whether its pages are of a pool of huge pages: their size does not tell, since ordinary ones
    may have 64 KiB."""
    shared: bool = False
    """Whether it is moved for others who map it too."""
    sure: bool = True
    """Of a part of an area: whether what is remote lies in it, not in the other part."""

    @property
    def huge_bytes(self) -> int:
        """Size of its huge pages; 0: they are ordinary ones."""
        return self.page_bytes if self.hugetlb else 0

    @property
    def remote_bytes(self) -> int:
        """Resident bytes on source nodes."""
        return sum(self.remote.values())

    @property
    def whole_on(self) -> int | None:
        """The source on which every page of it lies; None where some are elsewhere, or absent."""
        if not self.sure or len(self.remote) != 1 or self.remote_bytes != self.end - self.start:
            return None
        return next(iter(self.remote))

    def part(self, start: int, end: int, *, sure: bool) -> Range:
        """Return a part of it, which cannot have more remote than it is large."""
        if (start, end) == (self.start, self.end):
            return self
        remote = {node: min(size, end - start) for node, size in self.remote.items()}
        return replace(self, start=start, end=end, remote=remote, sure=sure)


@dataclass(frozen=True)
class Seen:
    """One look at a worker's areas."""

    ranges: tuple[Range, ...]
    """The movable ones with pages on the sources, by address."""
    bound: tuple[tuple[int, int, str], ...]
    """Start, end and policy of those that its user has bound (mbind, set_mempolicy, numactl)."""


def look(
    pid: int,
    sources: frozenset[int],
    procfs: ProcFs,
    users: Mapping[SegmentId, int] | None = None,
    *,
    leave_files: bool = False,
) -> Seen:
    """Return a worker's areas as they are now.

    Args:
        pid: of the worker.
        sources: nodes from which pages are to go.
        procfs: the machine's processes.
        users: segments to be moved although others map them too, with how many do; an area of which
            a page has more mappings than that is left out all the same.
        leave_files: leave files out, save those segments.

    Raises:
        Vanished: the process ended.
        RightsError: no right to look.
    """
    vmas, _ = numa_maps.parse(procfs.numa_maps(pid))
    areas = {area.start: area for area in parse_maps(procfs.maps(pid))}
    bound = (
        (vma.start, areas[vma.start].end, vma.policy)
        for vma in vmas
        if vma.policy not in numa_maps.DEFAULT_POLICIES and vma.start in areas
    )
    found = _movable(vmas, areas, sources, users or {}, leave_files=leave_files)
    return Seen(tuple(found), tuple(bound))


def _movable(
    vmas: Iterable[Vma],
    areas: Mapping[int, MappedArea],
    sources: frozenset[int],
    users: Mapping[SegmentId, int],
    *,
    leave_files: bool,
) -> Iterator[Range]:
    for vma in vmas:
        remote = {n: pages * vma.page_bytes for n, pages in vma.pages.items() if n in sources}
        area = areas.get(vma.start)
        # Areas that appeared or went between the two reads have no counterpart: next time.
        if not remote or area is None:
            continue
        shared = vma.mobility is Mobility.SHARED and _known(vma, area, users)
        own = vma.mobility is Mobility.MOVABLE and not (leave_files and vma.kind is Kind.FILE)
        if not (shared or own):
            continue
        yield Range(
            start=vma.start,
            end=area.end,
            page_bytes=vma.page_bytes,
            remote=remote,
            may_be_thp=vma.page_bytes == THP_BASE_BYTES and vma.kind in {Kind.ANON, Kind.SHMEM},
            hugetlb=vma.huge,
            shared=shared,
        )


def _known(vma: Vma, area: MappedArea, users: Mapping[SegmentId, int]) -> bool:
    """Say whether all who map an area are known."""
    return area.segment is not None and vma.mapmax <= users.get(SegmentId(*area.segment), 0)


def soonest_first(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges in the order in which moving them helps the worker soonest.

    The smallest first. Stacks, heaps, an allocator's arenas and a library's data are small, and
    each request touches most of them; weights and caches are large, and of a byte of them a request
    reads once or not at all. So the first moments of a move bring most of what it brings; and a
    move that is broken off has done the better part. An area of TiBs in which little is resident
    takes long to look through, and comes last of those that hold as much. What others map too comes
    last of all: they wait for its pages as well.
    """
    return sorted(ranges, key=lambda r: (r.shared, r.remote_bytes, r.end - r.start))
