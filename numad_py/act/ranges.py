"""Which address ranges of a worker hold pages that are to move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from numad_py.kernel import numa_maps
from numad_py.kernel.maps import parse_maps
from numad_py.kernel.procfs import ProcFs
from numad_py.model.residency import Kind, Mobility

BASE_PAGE = 4096


@dataclass(frozen=True)
class Range:
    """An area with pages on a source node."""

    start: int
    end: int
    page_bytes: int
    remote_bytes: int
    """Resident bytes on source nodes, as numa_maps had them."""
    may_be_thp: bool


def ranges_on(pid: int, sources: frozenset[int], procfs: ProcFs) -> Iterator[Range]:
    """Return the movable areas with pages on these nodes, by address.

    Raises:
        Vanished: the process ended.
        RightsError: no right to look.
    """
    vmas, _ = numa_maps.parse(procfs.numa_maps(pid))
    ends = {area.start: area.end for area in parse_maps(procfs.maps(pid))}
    for vma in vmas:
        remote = sum(pages for node, pages in vma.pages.items() if node in sources)
        end = ends.get(vma.start)
        # Areas that appeared or went between the two reads have no counterpart: next time.
        if not remote or end is None or vma.mobility is not Mobility.MOVABLE:
            continue
        yield Range(
            start=vma.start,
            end=end,
            page_bytes=vma.page_bytes,
            remote_bytes=remote * vma.page_bytes,
            may_be_thp=vma.page_bytes == BASE_PAGE and vma.kind in {Kind.ANON, Kind.SHMEM},
        )
