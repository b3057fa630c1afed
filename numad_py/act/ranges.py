"""Which address ranges of a worker hold pages that are to move, and in which order they go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from numad_py.kernel import numa_maps
from numad_py.kernel.maps import MappedArea, parse_maps
from numad_py.kernel.numa_maps import Vma
from numad_py.kernel.procfs import ProcFs
from numad_py.model.residency import BASE_PAGE_BYTES, Kind, Mobility, SegmentId


@dataclass(frozen=True)
class Range:
    """An area with pages on a source node."""

    start: int
    end: int
    page_bytes: int
    remote: Mapping[int, int]
    """Resident bytes by source node, as numa_maps had them."""
    may_be_thp: bool
    shared: bool = False
    """Whether it is moved for others who map it too."""

    @property
    def remote_bytes(self) -> int:
        """Resident bytes on source nodes."""
        return sum(self.remote.values())

    @property
    def whole_on(self) -> int | None:
        """The source on which every page of it lies; None where some are elsewhere, or absent."""
        if len(self.remote) != 1 or self.remote_bytes != self.end - self.start:
            return None
        return next(iter(self.remote))


def ranges_on(
    pid: int,
    sources: frozenset[int],
    procfs: ProcFs,
    users: Mapping[SegmentId, int] | None = None,
    *,
    leave_files: bool = False,
) -> Iterator[Range]:
    """Return the movable areas with pages on these nodes, by address.

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
    for vma in vmas:
        remote = {n: pages * vma.page_bytes for n, pages in vma.pages.items() if n in sources}
        area = areas.get(vma.start)
        # Areas that appeared or went between the two reads have no counterpart: next time.
        if not remote or area is None:
            continue
        shared = vma.mobility is Mobility.SHARED and _known(vma, area, users or {})
        own = vma.mobility is Mobility.MOVABLE and not (leave_files and vma.kind is Kind.FILE)
        if not (shared or own):
            continue
        yield Range(
            start=vma.start,
            end=area.end,
            page_bytes=vma.page_bytes,
            remote=remote,
            may_be_thp=vma.page_bytes == BASE_PAGE_BYTES and vma.kind in {Kind.ANON, Kind.SHMEM},
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
