"""From pages drawn at random to resident bytes by node, and how sure they are."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import ne
from typing import NamedTuple

from numad_py.kernel.stat import PAGE_BYTES
from numad_py.model.quantity import format_bytes
from numad_py.model.residency import (
    BASE_PAGE_BYTES,
    INTERVAL_Z,
    Kind,
    Mobility,
    Residency,
    ResidencyEntry,
    SegmentId,
    Source,
    entries_of,
    wilson,
)
from numad_py.model.snapshot import MemoryStatus

MANY_DRAWS = 64
"""From so many draws of a stratum on, what neighbouring draws have in common is made use of."""
MOST_GAIN = 4.0
"""By so much at most that lets a draw count for more than an independent one."""
RARE_GAIN = 2.0
"""By so much at most the effective draws exceed a node's own: its interval, with the smoothing, is
wider than it need be. The property tests hold that 95 in 100 are met nevertheless."""

SURE_ERRORS = 3.0
"""So many standard errors are no accident."""
NEGLIGIBLE_SHARE = 0.05
"""Within so much of the kernel's own figure a sample agrees: memory changes while it is drawn, and
RSS is counted per CPU and added up now and then (``percpu_counter_read``)."""
MUCH_BYTES = 16 << 20
"""A sample that hits nothing of so much has looked in the wrong place."""

Sizes = dict[tuple[int, Kind, Mobility, int], int]
"""Bytes by node, kind, mobility and size of page."""


class PageClass(NamedTuple):
    """What pages have in common that are reported together."""

    kind: Kind
    mobility: Mobility
    page_bytes: int
    segment: SegmentId | None = None
    """Of the pages of a large file or shared segment, which."""


@dataclass(frozen=True)
class Cell:
    """What was drawn from one stratum in one phase: one class, each byte equally likely."""

    of: PageClass
    size_bytes: int
    drawn: int
    hits: Mapping[int, int]
    """Resident pages that were drawn, by node."""
    changes: int
    """Draws that were answered otherwise than the one before them."""

    @property
    def weight(self) -> float:
        """Bytes for which one draw stands."""
        return self.size_bytes / self.drawn


@dataclass(frozen=True)
class Sample:
    """Where a process's resident pages lie, as far as some of them tell."""

    entries: tuple[ResidencyEntry, ...]
    """Estimated resident bytes, in order as those of a Residency."""
    drawn: int
    """Addresses that were asked for."""
    resident: int
    """Of these, how many have a page."""
    effective: float
    """Independent draws of resident pages that would tell the nodes' shares as surely; infinite
    where every page was asked for."""
    errors: Mapping[Kind, float]
    """Standard error of the estimated resident bytes of each kind."""
    segments: Mapping[SegmentId, Mapping[int, int]] = field(default_factory=dict)
    """Estimated resident bytes by node of each segment that was told apart."""

    @property
    def resident_bytes(self) -> int:
        """Estimated resident bytes in all."""
        return sum(entry.resident_bytes for entry in self.entries)

    @property
    def error_bytes(self) -> float:
        """Standard error of ``resident_bytes``."""
        return math.hypot(*self.errors.values())

    @property
    def shares(self) -> dict[int, float]:
        """Estimated share of the resident bytes by node, 0..1."""
        total = self.resident_bytes
        sizes: dict[int, int] = {}
        for entry in self.entries:
            sizes[entry.node] = sizes.get(entry.node, 0) + entry.resident_bytes
        return {node: size / total for node, size in sizes.items()}


def cell_of(of: PageClass, size_bytes: int, answers: array[int]) -> Cell:
    """Return a cell from the kernel's answers to its draws, in order of address."""
    return Cell(
        of=of,
        size_bytes=size_bytes,
        drawn=len(answers),
        hits={node: answers.count(node) for node in set(answers) if node >= 0},
        changes=sum(map(ne, answers, answers[1:])) if len(answers) >= MANY_DRAWS else 0,
    )


def estimate(phases: Sequence[Sequence[Cell]], counted: Sequence[Cell]) -> Sample:
    """Return the stratified ratio estimate.

    Each phase covers all that is sampled, in strata that hang on earlier phases only, so that each
    is an unbiased estimate by itself (pooling the draws would not be: strata in which the first
    phase happened to find much would be looked at again and corrected, the others not). Phases are
    averaged in proportion to what they tell.

    Args:
        phases: what was drawn.
        counted: cells of which each page was asked for.
    """
    weighted = [(cell, cell.weight) for cell in counted]
    parts = _parts(phases)
    for part, phase in zip(parts, phases, strict=True):
        weighted += [(cell, cell.weight * part) for cell in phase]
    sizes: dict[tuple[int, Kind, Mobility, int], float] = {}
    segments: dict[SegmentId, dict[int, int]] = {}
    for cell, weight in weighted:
        for node, hits in cell.hits.items():
            key = (node, cell.of.kind, cell.of.mobility, cell.of.page_bytes)
            sizes[key] = sizes.get(key, 0.0) + hits * weight
            if cell.of.segment is not None:
                of_segment = segments.setdefault(cell.of.segment, {})
                of_segment[node] = of_segment.get(node, 0) + round(hits * weight)
    drawn_only = weighted[len(counted) :]
    return Sample(
        entries=entries_of({key: round(size) for key, size in sizes.items()}),
        drawn=sum(cell.drawn for cell, _ in weighted),
        resident=sum(sum(cell.hits.values()) for cell, _ in weighted),
        effective=_effective(sizes, drawn_only),
        errors=_errors(drawn_only),
        segments=segments,
    )


def together(movable: Sample, others: Sample) -> Sample:
    """Return two samples of one process as one that is as sure as the first.

    What cannot be moved is drawn from by itself where there is much of it: a large file that all
    share would leave few draws for the memory on which decisions hang.
    """
    sizes: Sizes = {}
    for entry in (*movable.entries, *others.entries):
        key = (entry.node, entry.kind, entry.mobility, entry.page_bytes)
        sizes[key] = sizes.get(key, 0) + entry.resident_bytes
    errors = {
        kind: math.hypot(movable.errors.get(kind, 0.0), others.errors.get(kind, 0.0))
        for kind in {*movable.errors, *others.errors}
    }
    return Sample(
        entries=entries_of(sizes),
        drawn=movable.drawn + others.drawn,
        resident=movable.resident + others.resident,
        effective=movable.effective,
        errors=errors,
        segments={**others.segments, **movable.segments},
    )


def _parts(phases: Iterable[Iterable[Cell]]) -> list[float]:
    """Return the phases' shares in the estimate, by Kish's effective number of their hits.

    One hit of mean weight is added to each: a phase without any would else be passed over, and the
    average come out too high.
    """
    tells = []
    for phase in phases:
        cells = list(phase)
        mean = sum(c.size_bytes for c in cells) / sum(c.drawn for c in cells)
        total, squares = mean, mean * mean
        for cell in cells:
            hits = sum(cell.hits.values()) * cell.weight
            total += hits
            squares += hits * cell.weight
        tells.append(total * total / squares)
    return [tell / sum(tells) for tell in tells]


def _effective(
    sizes: Mapping[tuple[int, Kind, Mobility, int], float],
    weighted: Sequence[tuple[Cell, float]],
) -> float:
    """Return the effective number of draws.

    Each node has a number of its own, from the variance of its share: that of the linearised ratio,
    without what stratification gains. One hit of the largest weight is added to the node, as in the
    gamma interval of Fay and Feuer (1997): strata without a hit, or without one on this node, may
    hold some all the same.

    One number has to do for all nodes. With it the widest interval is as wide as the widest of the
    nodes' own, so that no node's share is off by more than is said; and it is at most RARE_GAIN
    times any node's own. Without that leeway a node with a few pages in a sparse area, of which
    little is known, would widen the intervals of all.
    """
    total = sum(sizes.values())
    if not weighted:
        return math.inf
    if not total:
        return 0.0
    by_node: dict[int, float] = {}
    for (node, *_), size in sizes.items():
        by_node[node] = by_node.get(node, 0.0) + size
    unseen = max(weight for _, weight in weighted) / total
    widest, spread, least = 0.0, 0.0, math.inf
    for node, size in by_node.items():
        share = size / total
        variance = sum(_variance(cell, weight, node, share) for cell, weight in weighted)
        smoothed = min(0.5, min(share, 1 - share) + unseen)
        own = smoothed * (1 - smoothed) / (variance / (total * total) + unseen * unseen)
        low, high = wilson(share, own)
        widest = max(widest, (high - low) / 2)
        spread = max(spread, share * (1 - share))
        least = min(least, own)
    return min(RARE_GAIN * least, _draws_for(widest, spread))


def _draws_for(half_width: float, spread: float) -> float:
    """Return of how many draws Wilson's interval has half this width; spread is p (1 - p)."""
    square = INTERVAL_Z * INTERVAL_Z
    root = math.sqrt((square * spread) ** 2 + (2 * half_width * square) ** 2 * (0.25 - spread))
    return max(0.0, (square * spread + root) / (2 * half_width * half_width) - square)


def _variance(cell: Cell, weight: float, node: int, share: float) -> float:
    """Return what a cell adds to the variance of a node's bytes, less its share of all.

    A hit on the node adds (1 - share) to that difference, a hit elsewhere takes share from it, a
    miss does nothing. Where neighbours are mostly alike the strata within the cell, one draw each,
    vary less than the cell does: half the mean square of successive differences bounds it, and no
    difference is larger than 1 (von Neumann 1941; collapsed strata: Cochran, Sampling Techniques,
    5A.12).
    """
    hits = cell.hits.get(node, 0)
    others = sum(cell.hits.values()) - hits
    plain = hits * (1 - share) ** 2 + others * share * share
    if cell.drawn >= MANY_DRAWS:
        plain = max(min(plain, cell.changes / 2 + 1), plain / MOST_GAIN)
    return weight * weight * plain


def _errors(weighted: Iterable[tuple[Cell, float]]) -> dict[Kind, float]:
    """Return standard errors of the resident bytes by kind; half a hit and half a miss added."""
    squares: dict[Kind, float] = {}
    for cell, weight in weighted:
        density = (sum(cell.hits.values()) + 0.5) / (cell.drawn + 1)
        variance = weight * weight * cell.drawn * density * (1 - density)
        squares[cell.of.kind] = squares.get(cell.of.kind, 0.0) + variance
    return {kind: math.sqrt(square) for kind, square in squares.items()}


def residency(
    sample: Sample,
    memory: MemoryStatus,
    *,
    read_at_s: float,
    cost_s: float,
    policies: tuple[str, ...] = (),
) -> Residency:
    """Return residency in which each kind sums to what the kernel counts of it.

    The kernel counts kinds exactly, the sample says where they lie: bytes of a kind are scaled to
    the kernel's figure, and left as they are where it gives none. Before that, what was found in
    areas of files beyond RssFile (of shared memory, beyond RssShmem) is taken for pages copied on
    write: these are anonymous, count in RssAnon (``mm_counter``, include/linux/mm.h) and are this
    process's own. A kind of which no page was drawn is spread as all the others are.

    Args:
        sample: as drawn.
        memory: of about the same time.
        read_at_s: time since boot.
        cost_s: CPU time that drawing took.
        policies: as ``Residency.policies``.
    """
    sizes = {(e.node, e.kind, e.mobility, e.page_bytes): e.resident_bytes for e in sample.entries}
    counted = {kind: size for kind, size in _counted(memory).items() if size is not None}
    if Kind.ANON in counted:
        for kind in (Kind.FILE, Kind.SHMEM):
            if kind in counted:
                sizes = _copied(sizes, kind, counted[kind])
    scaled = dict(sizes)
    for kind, size in counted.items():
        parts = {key: part for key, part in sizes.items() if key[1] is kind}
        scaled = {key: part for key, part in scaled.items() if key[1] is not kind}
        scaled.update(spread(size, parts or _as_others(sample, kind)))
    return Residency(
        entries=entries_of(scaled),
        read_at_s=read_at_s,
        cost_s=cost_s,
        policies=policies,
        source=Source.SAMPLE,
        sampled_pages=None if math.isinf(sample.effective) else int(sample.effective),
    )


def _counted(memory: MemoryStatus) -> dict[Kind, int | None]:
    return {
        Kind.ANON: memory.anon_bytes,
        Kind.FILE: memory.file_bytes,
        Kind.SHMEM: memory.shmem_bytes,
        Kind.HUGETLB: memory.hugetlb_bytes,
    }


def _copied(sizes: Sizes, kind: Kind, counted_bytes: int) -> Sizes:
    """Return sizes in which what a kind has beyond the kernel's figure is anonymous."""
    total = sum(size for key, size in sizes.items() if key[1] is kind)
    if total <= counted_bytes:
        return sizes
    moved: Sizes = {}
    for key, size in sizes.items():
        node, of, mobility, page_bytes = key
        copied = size - size * counted_bytes // total if of is kind else 0
        own = Mobility.POLICY if mobility is Mobility.POLICY else Mobility.MOVABLE
        for to, part in ((key, size - copied), ((node, Kind.ANON, own, page_bytes), copied)):
            moved[to] = moved.get(to, 0) + part
    return moved


def unread_page_bytes(kind: Kind) -> int:
    """Return the size of pages that no full reading has told: that of this kernel's ordinary ones.

    Of huge pages it is not known then; BASE_PAGE_BYTES stands for that.
    """
    return BASE_PAGE_BYTES if kind is Kind.HUGETLB else PAGE_BYTES


def _as_others(sample: Sample, kind: Kind) -> Sizes:
    """Return all bytes of the sample as if of one kind; pages of files are likely libraries'."""
    mobility = Mobility.SHARED if kind in {Kind.FILE, Kind.SHMEM} else Mobility.MOVABLE
    sizes: Sizes = {}
    for entry in sample.entries:
        key = (entry.node, kind, mobility, unread_page_bytes(kind))
        sizes[key] = sizes.get(key, 0) + entry.resident_bytes
    return sizes


def spread(total: int, parts: Sizes) -> Sizes:
    """Return parts scaled to sum exactly to ``total``; what rounding leaves goes to the largest."""
    whole = sum(parts.values())
    if not whole:
        return {}
    scaled = {key: part * total // whole for key, part in parts.items()}
    largest = max(parts, key=lambda key: parts[key])
    scaled[largest] += total - sum(scaled.values())
    return scaled


def disagrees(sample: Sample, memory: MemoryStatus) -> str | None:
    """Return why a sample is not to be trusted; None where it agrees with what the kernel counts.

    Linux 6.1 answers -ENOENT for pages that automatic NUMA balancing has marked PROT_NONE
    (``follow_page_pte``, mm/gup.c): what answers is then no fair part of the whole. Hugetlb, which
    RSS leaves out, is compared for itself. Where the kernel gives no figure, nothing is compared.
    """
    counted = _counted(memory)
    hugetlb = {Kind.HUGETLB: counted.pop(Kind.HUGETLB)}
    for name, kinds in (("pages", counted), ("hugetlb pages", hugetlb)):
        known = [size for size in kinds.values() if size is not None]
        if len(known) < len(kinds):
            continue
        there = sum(known)
        found = sum(e.resident_bytes for e in sample.entries if e.kind in kinds)
        if not found and there >= MUCH_BYTES:
            return f"none of {format_bytes(there)} of {name} was hit"
        error = math.hypot(*(sample.errors.get(kind, 0.0) for kind in kinds))
        away = abs(found - there)
        if found and away > SURE_ERRORS * error and away > NEGLIGIBLE_SHARE * there:
            return f"{format_bytes(found)} of {name} were found, of {format_bytes(there)}"
    return None
