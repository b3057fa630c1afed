"""Which stretches of a process's address space can hold resident pages, and of what kind."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from operator import attrgetter

from numad_py.kernel.maps import HUGETLB_FILES, MappedArea
from numad_py.kernel.numa_maps import DEFAULT_POLICIES, Vma, file_kind
from numad_py.model.residency import (
    Kind,
    Mobility,
    SegmentId,
    SegmentPart,
)
from numad_py.observe import sample as sampling
from numad_py.observe.estimate import unread_page_bytes
from numad_py.observe.sample import Area

SAMPLED_SEGMENT_BYTES = 64 << 20
"""In a sample only those are told apart of which an area is at least so large."""
MOST_SEGMENTS = 8
"""So many of them, the largest."""
APART_SHARE = 0.1
"""Where what cannot be moved takes up more of the areas, it is drawn from by itself."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the last full reading said of neighbouring areas of one class."""

    start: int
    end: int
    inode: int
    """Of the file that was mapped there; 0: none."""
    kind: Kind
    mobility: Mobility
    page_bytes: int


@dataclass(frozen=True)
class Frame:
    """A worker's areas as the last full reading saw them; empty before there was one.

    Those alone of which maps does not tell the same: a process can have 65,000 of them.
    """

    areas: tuple[Known, ...] = ()
    """By address."""
    starts: tuple[int, ...] = field(default=())
    policies: tuple[str, ...] = ()
    """Mempolicies other than default and local, as numa_maps prints them."""

    def at(self, area: MappedArea) -> Known | None:
        """Return the area of which this one is, or is a part; another file is another area."""
        place = bisect_right(self.starts, area.start) - 1
        if place < 0:
            return None
        known = self.areas[place]
        return known if area.start < known.end and area.inode == known.inode else None


def frame_of(vmas: Iterable[Vma], mapped: Iterable[MappedArea]) -> Frame:
    """Return what a full reading tells of the areas; those that hold nothing are left out."""
    at = {area.start: area for area in mapped}
    areas: list[Known] = []
    policies = set()
    for vma in sorted(vmas, key=attrgetter("start")):
        policies.add(vma.policy)
        area = at.get(vma.start)
        if area is None or not vma.pages:
            continue
        of = (vma.kind, vma.mobility, vma.page_bytes)
        if of == _unread(area):
            continue
        start = vma.start
        if areas:
            last = areas[-1]
            alike = (last.inode, last.kind, last.mobility, last.page_bytes) == (area.inode, *of)
            if alike and last.end == start:
                start = areas.pop().start
        areas.append(Known(start, area.end, area.inode, *of))
    starts = tuple(area.start for area in areas)
    return Frame(tuple(areas), starts, tuple(sorted(policies - DEFAULT_POLICIES)))


def _unread(area: MappedArea) -> tuple[Kind, Mobility, int]:
    """Return what an area is taken for that no full reading has seen."""
    kind = _kind(area)
    return kind, Mobility.MOVABLE, unread_page_bytes(kind)


@dataclass(frozen=True)
class Layout:
    """What a worker's pages are drawn from, for as long as its maps stay the same."""

    movable: list[Area]
    others: list[Area]
    """What is shared or placed by the user, where that is much; empty: it is among the former."""
    segments: Mapping[SegmentId, tuple[str, Kind]]
    """Path and kind of the large files and shared segments among them."""


def layout_of(mapped: Sequence[MappedArea], frame: Frame) -> Layout:
    """Return what is to be drawn from."""
    areas: list[Area] = []
    segments: dict[SegmentId, tuple[str, Kind]] = {}
    for area, candidate in candidates(mapped, frame, _largest_segments(mapped)):
        if areas and areas[-1].joins(candidate):
            candidate = replace(candidate, start=areas.pop().start)  # noqa: PLW2901
        areas.append(candidate)
        if candidate.segment is not None:
            segments[candidate.segment] = (area.path, candidate.kind)
    movable = [area for area in areas if area.mobility is Mobility.MOVABLE]
    size = sum(area.end - area.start for area in areas)
    if movable and sum(a.end - a.start for a in movable) < (1 - APART_SHARE) * size:
        others = [area for area in areas if area.mobility is not Mobility.MOVABLE]
        return Layout(movable, others, segments)
    return Layout(areas, [], segments)


def _largest_segments(mapped: Iterable[MappedArea]) -> set[SegmentId]:
    """Return the segments that take up most: each that is told apart costs draws of its own."""
    sizes: dict[SegmentId, int] = {}
    for area in mapped:
        if area.may_hold_pages and (key := _large_segment(area)) is not None:
            sizes[key] = sizes.get(key, 0) + area.end - area.start
    return set(heapq.nlargest(MOST_SEGMENTS, sizes, key=sizes.__getitem__))


def _large_segment(area: MappedArea) -> SegmentId | None:
    if area.segment is None or area.end - area.start < SAMPLED_SEGMENT_BYTES:
        return None
    return SegmentId(*area.segment)


def candidates(
    mapped: Iterable[MappedArea], frame: Frame, told_apart: AbstractSet[SegmentId] = frozenset()
) -> Iterator[tuple[MappedArea, Area]]:
    """Yield the areas that may hold pages, to be drawn from.

    Kind and mobility are those of the last full reading where it saw the area; others are taken
    for movable.

    Args:
        mapped: all areas.
        frame: of the last full reading.
        told_apart: segments that are estimated by themselves, too.
    """
    for area in mapped:
        if not area.may_hold_pages:
            continue
        key = _large_segment(area)
        segment = key if key in told_apart else None
        known = frame.at(area)
        if known is not None:
            page_bytes, kind, mobility = known.page_bytes, known.kind, known.mobility
        else:
            kind, mobility, page_bytes = _unread(area)
        yield area, Area(area.start, area.end, page_bytes, kind, mobility, segment)


def _kind(area: MappedArea) -> Kind:
    if not area.path.startswith("/"):
        return Kind.ANON
    if area.path.startswith(HUGETLB_FILES):
        return Kind.HUGETLB
    return file_kind(area.path)


def sampled_segments(drawn: sampling.Sample, layout: Layout) -> tuple[SegmentPart, ...]:
    """Return the files and shared segments of a sample by id, with their paths."""
    return tuple(
        SegmentPart(key, *layout.segments[key], tuple(sorted(by_node.items())))
        for key, by_node in sorted(drawn.segments.items())
        if any(by_node.values())
    )
