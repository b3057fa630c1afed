"""Which pages of a process to ask for: enough to tell its nodes' shares, whatever its size.

Pages are drawn at random in phases. The first finds out where pages are resident at all; the second
looks there; more are drawn only where the nodes' shares are such that they are needed.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise, repeat
from math import sqrt
from operator import add, mod, sub

from numad_py.model.residency import INTERVAL_Z, Kind, Mobility, SegmentId, wilson
from numad_py.observe.estimate import (
    Cell,
    PageClass,
    Sample,
    cell_of,
    disagrees,
    estimate,
    residency,
    together,
)

__all__ = [
    "DRAWS",
    "LIGHT_DRAWS",
    "Area",
    "NodesOf",
    "Sample",
    "disagrees",
    "residency",
    "sample",
    "together",
]

DRAWS = 4_000
"""Asked for at most. 2,401 resident draws are enough for 2 points; in sparse areas some miss."""
FIRST_DRAWS = 768
"""Asked for at least, pilot and all; enough for a worker that is nearly at home."""
LIGHT_DRAWS = 256
"""The same where it is to confirm what is known: enough for a change of 2 points to show."""
PILOT_DRAWS = 160
LEAST_DRAWS = 2 * FIRST_DRAWS
"""So many must be allowed: what is counted, the pilot and one look after it; each has a stratum for
every class and magnitude of area, at worst."""
LEAST_STEP = 128
"""Fewer more are not worth another call."""
WANTED_SHARE = 0.02
"""Half the width of the widest interval at which no more is drawn."""
UNITS = 20
"""Into so many parts the pilot divides the address space, and a few more."""
SMALL_SHARE = 4096
"""Areas smaller than this part of all are drawn from together, whatever their sizes."""
EMPTY_SHARE = 1 / 4
"""Draws where the pilot has hit nothing, for each where it has."""

NodesOf = Callable[["array[int]"], "array[int]"]
"""Asks for the node or negative errno of the page at each address."""


@dataclass(frozen=True, slots=True)
class Area:
    """A stretch of the address space that may hold pages of one class."""

    start: int
    end: int
    page_bytes: int
    kind: Kind
    mobility: Mobility
    segment: SegmentId | None = None
    """Of a large file or shared segment, which: it is estimated by itself, too."""

    def joins(self, other: Area) -> bool:
        """Say whether another area of the same class begins where this one ends."""
        return (
            self.end == other.start
            and self.kind is other.kind
            and self.mobility is other.mobility
            and self.page_bytes == other.page_bytes
            and self.segment == other.segment
        )


@dataclass
class _Stratum:
    """Stretches of the frame from which is drawn as if they were one."""

    of: PageClass
    spans: list[tuple[int, int]]
    """[low, high) in bytes of the frame."""
    size_bytes: int
    density: float = 1.0
    """Share that is resident, as drawn before."""


class _Frame:
    """All areas one behind the other, those of one class and about one size together."""

    def __init__(self, areas: Iterable[Area], nodes_of: NodesOf, rng: random.Random) -> None:
        """Lay out what is to be drawn from; classes of few pages are to be counted instead."""
        self._nodes_of = nodes_of
        self._rng = rng
        sized = [(area, area.end - area.start) for area in areas if area.end > area.start]
        total = sum(size for _, size in sized)
        groups: dict[tuple[PageClass, int], list[Area]] = {}
        least = (total // SMALL_SHARE).bit_length()
        for area, size in sized:
            of = PageClass(area.kind, area.mobility, area.page_bytes, area.segment)
            groups.setdefault((of, max(least, size.bit_length())), []).append(area)
        sizes = {key: sum(area.end - area.start for area in of) for key, of in groups.items()}
        few = _few(sizes)
        self._counted: list[tuple[PageClass, list[Area]]] = []
        self._groups: list[_Stratum] = []
        starts: list[int] = []
        self._ends: list[int] = []
        """Of each area, in bytes of the frame."""
        for key, members in groups.items():
            of = key[0]
            if of.page_bytes in few:
                self._counted.append((of, members))
                continue
            low = self._ends[-1] if self._ends else 0
            starts += [area.start for area in members]
            ends = accumulate((area.end - area.start for area in members), initial=low)
            self._ends += list(ends)[1:]
            self._groups.append(_Stratum(of, [(low, low + sizes[key])], sizes[key]))
        self._shifts = list(map(sub, starts, [0, *self._ends]))

    def units(self) -> list[_Stratum]:
        """Return strata for the pilot: groups of areas, the larger ones in several parts."""
        roots = [sqrt(group.size_bytes) for group in self._groups]
        units = []
        for group, root in zip(self._groups, roots, strict=True):
            ((low, high),) = group.spans
            parts = max(1, round(UNITS * root / sum(roots)))
            cuts = [low + (high - low) * i // parts for i in range(parts + 1)]
            units += [_Stratum(group.of, [(a, b)], b - a) for a, b in pairwise(cuts)]
        return units

    def count(self) -> list[Cell]:
        """Ask for every page of the classes that are counted."""
        cells = []
        for of, areas in self._counted:
            pages = (range(area.start, area.end, of.page_bytes) for area in areas)
            answers = self._nodes_of(array("Q", chain.from_iterable(pages)))
            cells.append(cell_of(of, len(answers) * of.page_bytes, answers))
        return cells

    def ask(self, strata: Sequence[_Stratum], weights: Sequence[float], draws: int) -> list[Cell]:
        """Draw in proportion to the weights, once in each stratum at least."""
        spare = max(0, draws - len(strata)) / (sum(weights) or 1.0)
        shares = (1 + int(spare * weight) for weight in weights)
        numbers = [min(n, s.size_bytes) for n, s in zip(shares, strata, strict=True)]
        addresses = array("Q")
        for stratum, number in zip(strata, numbers, strict=True):
            addresses.extend(self._draw(stratum, number))
        answers = self._nodes_of(addresses)
        ends = accumulate(numbers, initial=0)
        return [
            cell_of(stratum.of, stratum.size_bytes, answers[begin:end])
            for stratum, (begin, end) in zip(strata, pairwise(ends), strict=True)
        ]

    def _draw(self, stratum: _Stratum, draws: int) -> Iterable[int]:
        """Return addresses, one at a random place in each of as many equal parts.

        Not at equal distances: these could keep step with pages that are interleaved.
        """
        step = max(1, stratum.size_bytes // draws)
        jitter = map(mod, array("Q", self._rng.randbytes(8 * draws)), repeat(step))
        places = list(map(add, range(0, draws * step, step), jitter))
        pieces = []
        first, begin = 0, 0
        for low, high in stratum.spans:
            after = begin + high - low
            last = len(places) if after >= stratum.size_bytes else bisect_right(places, after - 1)
            pieces.append(self._addresses(places[first:last], low - begin, low, high))
            first, begin = last, after
        return chain.from_iterable(pieces)

    def _addresses(self, places: list[int], shift: int, low: int, high: int) -> Iterable[int]:
        area = bisect_right(self._ends, low)
        if high <= self._ends[area]:
            return map(add, places, repeat(shift + self._shifts[area]))
        inside = list(map(add, places, repeat(shift)))
        areas = map(bisect_right, repeat(self._ends), inside)
        return map(add, inside, map(self._shifts.__getitem__, areas))


def _few(sizes: Mapping[tuple[PageClass, int], int]) -> set[int]:
    """Return the sizes of pages of which there are no more than would be drawn: all are counted."""
    few: set[int] = set()
    draws, left = FIRST_DRAWS, sum(sizes.values())
    for page_bytes in sorted({of.page_bytes for of, _ in sizes}, reverse=True):
        if page_bytes * max(draws, PILOT_DRAWS) < left:
            break
        few.add(page_bytes)
        size = sum(size for (of, _), size in sizes.items() if of.page_bytes == page_bytes)
        draws, left = draws - size // page_bytes, left - size
    return few


def sample(
    areas: Sequence[Area],
    nodes_of: NodesOf,
    rng: random.Random,
    *,
    draws: int = DRAWS,
    first_draws: int = FIRST_DRAWS,
) -> Sample:
    """Return where a process's resident pages lie, estimated from some of them.

    Args:
        areas: what may hold pages; they do not overlap.
        nodes_of: asks the kernel.
        rng: where draws come from; the same state and answers give the same sample.
        draws: how many addresses may be asked for, LEAST_DRAWS at least.
        first_draws: how many are asked for before it is looked whether they are enough.

    Raises:
        ValueError: ``draws`` is too small.
        OSError: from ``nodes_of``.
    """
    if draws < LEAST_DRAWS:
        msg = f"{draws} draws are too few: {LEAST_DRAWS} at least"
        raise ValueError(msg)
    frame = _Frame(areas, nodes_of, rng)
    counted = frame.count()
    units = frame.units()
    if not units:
        return estimate([], counted)
    pilot = frame.ask(units, [sqrt(unit.size_bytes) for unit in units], PILOT_DRAWS)
    phases = [pilot]
    strata = _strata(units, pilot)
    more = max(len(strata), first_draws - sum(cell.drawn for cell in chain(counted, pilot)))
    while more >= len(strata):
        phase = frame.ask(strata, _weights(strata), more)
        phases.append(phase)
        for stratum, cell in zip(strata, phase, strict=True):
            stratum.density = sum(cell.hits.values()) / cell.drawn
        found = estimate(phases, counted)
        more = min(_wanted(found), draws - found.drawn)
    return found


def _strata(units: Iterable[_Stratum], pilot: Iterable[Cell]) -> list[_Stratum]:
    """Return the units anew, those of one class and about one density together."""
    strata: dict[tuple[PageClass, int], _Stratum] = {}
    for unit, cell in zip(units, pilot, strict=True):
        hits = sum(cell.hits.values())
        tier = 0 if hits == cell.drawn else (cell.drawn // hits).bit_length() if hits else -1
        stratum = strata.setdefault((unit.of, tier), _Stratum(unit.of, [], 0, 0.0))
        ((low, high),) = unit.spans
        if stratum.spans and stratum.spans[-1][1] == low:
            low = stratum.spans.pop()[0]
        stratum.spans.append((low, high))
        resident = stratum.density * stratum.size_bytes + unit.size_bytes * hits / cell.drawn
        stratum.size_bytes += unit.size_bytes
        stratum.density = resident / stratum.size_bytes
    return list(strata.values())


def _weights(strata: Iterable[_Stratum]) -> list[float]:
    """Return the allocation by Neyman (1934): size by standard deviation of the hits' weights.

    Where nothing was hit there may be something all the same: a part of the draws goes there.
    """
    weights = [s.size_bytes * sqrt(s.density) for s in strata]
    empty = [0.0 if s.density else float(s.size_bytes) for s in strata]
    scale = min(1.0, EMPTY_SHARE * sum(weights) / (sum(empty) or 1.0)) if any(weights) else 1.0
    return [weight + scale * size for weight, size in zip(weights, empty, strict=True)]


def _wanted(found: Sample) -> int:
    """Return how many more draws make the widest interval narrow enough; 0: it is."""
    most = 0.0
    for share in found.shares.values():
        low, high = wilson(share, found.effective)
        if max(high - share, share - low) > WANTED_SHARE:
            worst = min(max(0.5, low), high)
            most = max(most, worst * (1 - worst) * (INTERVAL_Z / WANTED_SHARE) ** 2)
    if not most:
        return 0
    return max(LEAST_STEP, int(found.drawn * (most / max(found.effective, 1.0) - 1)) + 1)
