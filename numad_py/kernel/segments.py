"""Files and shared segments in a process's numa_maps, told apart by its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numad_py.kernel.maps import MappedArea
from numad_py.kernel.numa_maps import Vma
from numad_py.model.residency import Kind, Mobility, SegmentId, SegmentPart

SEGMENT_BYTES = 1 << 20
"""Files and shared segments with less resident are not told apart: libraries, mostly."""


def segments(vmas: Sequence[Vma], mapped: Sequence[MappedArea]) -> tuple[SegmentPart, ...]:
    """Return the files and shared segments that hold much, by id.

    Areas of one file are added up; a part that is mapped twice counts twice, as in RSS.
    """
    by_start = {area.start: SegmentId(*area.segment) for area in mapped if area.segment}
    paths = {area.start: area.path for area in mapped if area.segment}
    sizes: dict[SegmentId, dict[int, int]] = {}
    shared: dict[SegmentId, dict[int, int]] = {}
    names: dict[SegmentId, tuple[str, Kind]] = {}
    mapmax: dict[SegmentId, int] = {}
    for vma in vmas:
        key = by_start.get(vma.start)
        backed = [part for part in vma.parts if part.kind is not Kind.ANON]
        if key is None or not backed:
            continue
        names.setdefault(key, (paths[vma.start], backed[0].kind))
        mapmax[key] = max(vma.mapmax, mapmax.get(key, 1))
        for part in backed:
            _add(sizes.setdefault(key, {}), part.pages, vma.page_bytes)
            if part.mobility is Mobility.SHARED:
                _add(shared.setdefault(key, {}), part.pages, vma.page_bytes)
    return tuple(
        SegmentPart(
            key, *names[key], _in_order(by_node), _in_order(shared.get(key, {})), mapmax[key]
        )
        for key, by_node in sorted(sizes.items())
        if sum(by_node.values()) >= SEGMENT_BYTES
    )


def _add(total: dict[int, int], pages: Mapping[int, int], page_bytes: int) -> None:
    for node, count in pages.items():
        total[node] = total.get(node, 0) + count * page_bytes


def _in_order(by_node: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(by_node.items()))
