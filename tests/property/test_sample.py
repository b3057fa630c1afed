"""Properties of a sample of pages: whatever the layout, what it states holds as often as stated."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numad_py.model.residency import BASE_PAGE_BYTES, Kind, Mobility, Residency, Source, wilson
from numad_py.model.snapshot import MemoryStatus
from numad_py.observe.sample import (
    DRAWS,
    FIRST_DRAWS,
    LEAST_DRAWS,
    Area,
    Sample,
    disagrees,
    residency,
    sample,
)
from tests.layouts import ABSENT, FAMILIES, UNMAPPED, Layout, layout
from tests.property.strategies import layouts, sizes_of_kinds

SEEDS = 20
"""Layouts of each family."""
REPEATS = 2
"""Samples of each layout."""
STATED = 0.95
POINTS = 0.02
SURE = 3.0
"""Standard errors by which chance alone hardly ever misses."""
EXACT = 1e-6

seeds = st.integers(0, 1 << 32)


def drawn(of: Layout, seed: int, draws: int = DRAWS) -> Sample:
    """Return a sample of a layout."""
    return sample(of.areas, of.nodes_of, random.Random(seed), draws=draws)  # noqa: S311


def scaled(of: Sample, memory: MemoryStatus) -> Residency:
    """Return what comes of a sample."""
    return residency(of, memory, read_at_s=1.0, cost_s=0.001)


def a_third_hidden(of: Layout) -> Callable[[array[int]], array[int]]:
    """Return answers in which every third page, by and large, is marked PROT_NONE."""

    def nodes_of(addresses: array[int]) -> array[int]:
        hidden = (((a >> 12) * 2654435761 >> 8) % 3 == 0 for a in addresses)
        answers = of.nodes_of(addresses)
        return array("i", [ABSENT if h else a for h, a in zip(hidden, answers, strict=True)])

    return nodes_of


@dataclass(frozen=True)
class Case:
    """One node of one sample of one layout."""

    family: str
    truth: float
    """Its share, 0..1."""
    stated: float
    low: float
    high: float
    error_share: float

    @property
    def holds(self) -> bool:
        """Whether the truth is within the interval."""
        return self.low - EXACT <= self.truth <= self.high + EXACT

    @property
    def error(self) -> float:
        """By how much it is off."""
        return abs(self.truth - self.stated)


@dataclass(frozen=True)
class Look:
    """One sample of one layout, with what came of it."""

    layout: Layout
    sample: Sample
    residency: Residency
    doubt: str | None
    hidden_doubt: str | None
    """Of a sample to which a third of the pages answered -ENOENT."""

    def cases(self) -> Iterator[Case]:
        """Return its nodes: those that have pages, and those that are said to."""
        found, truth = self.residency, self.layout.shares()
        total, by_node = found.total_bytes(), found.by_node()
        for node in set(truth) | set(by_node):
            share = by_node.get(node, 0) / total
            low = high = share
            if found.sampled_pages is not None:
                low, high = wilson(share, found.sampled_pages)
            error = found.error_share
            yield Case(self.layout.family, truth.get(node, 0.0), share, low, high, error)


@pytest.fixture(scope="module")
def looks() -> list[Look]:
    """Return samples of seeded layouts of every family."""
    taken = []
    for family in FAMILIES:
        for seed in range(SEEDS):
            of = layout(family, seed)
            for repeat in range(REPEATS):
                found = drawn(of, seed * REPEATS + repeat)
                rng = random.Random(seed)  # noqa: S311
                hidden = sample(of.areas, a_third_hidden(of), rng) if not repeat else None
                taken.append(
                    Look(
                        layout=of,
                        sample=found,
                        residency=scaled(found, of.memory),
                        doubt=disagrees(found, of.memory),
                        hidden_doubt=disagrees(hidden, of.memory) if hidden else None,
                    )
                )
    return taken


def at_least(share: float, looks: int) -> float:
    """Return a share that is met where the true one is ``share``, but for chance.

    The nodes of one sample are not independent of each other; only samples are counted.
    """
    return share - SURE * math.sqrt(share * (1 - share) / looks)


def test_intervals_hold_as_often_as_stated(looks: list[Look]) -> None:
    """Over all layouts a node's true share is within its interval 95 times in 100 or oftener."""
    cases = [case for look in looks for case in look.cases()]
    assert sum(c.holds for c in cases) / len(cases) >= STATED


@pytest.mark.parametrize("family", FAMILIES)
def test_intervals_hold_for_every_pattern(looks: list[Look], family: str) -> None:
    """No pattern is worse than 95 in 100, but for chance: the average hides no bad one."""
    mine = [look for look in looks if look.layout.family == family]
    cases = [case for look in mine for case in look.cases()]
    assert sum(c.holds for c in cases) / len(cases) >= at_least(STATED, len(mine))


def test_shares_are_within_two_points(looks: list[Look]) -> None:
    """95 nodes in 100 are off by 2 points at most, and all together by half a point."""
    errors = [case.error for look in looks for case in look.cases()]
    assert sum(error <= POINTS for error in errors) / len(errors) >= STATED
    assert sum(errors) / len(errors) <= 0.005


def test_two_points_are_stated_unless_memory_is_sparse(looks: list[Look]) -> None:
    """Draws go on until the widest interval is 2 points to each side, or as many are used up."""
    for look in looks:
        spent = look.sample.drawn > 0.9 * DRAWS
        assert look.residency.error_share <= 1.05 * POINTS or spent, look.layout.family
    wide = {k.layout.family for k in looks if k.residency.error_share > 1.05 * POINTS}
    assert wide <= {"mixed", "sparse", "stacks", "scattered holes"}


def test_a_worker_nearly_at_home_costs_the_first_draws_only(looks: list[Look]) -> None:
    """With 1 % or less elsewhere FIRST_DRAWS addresses are enough, the pilot's among them."""
    families = {"local", "few at one end", "few pages", "few blocks"}
    near = [look for look in looks if look.layout.family in families]
    assert len(near) == len(families) * SEEDS * REPEATS
    assert max(look.sample.drawn for look in near) <= FIRST_DRAWS
    assert max(look.residency.error_share for look in near) <= 0.7 * POINTS


def test_samples_agree_with_the_kernel(looks: list[Look]) -> None:
    """No sound sample is doubted, in whatever holes the pages lie."""
    assert [look.doubt for look in looks if look.doubt] == []


def test_a_third_that_does_not_answer_is_noticed(looks: list[Look]) -> None:
    """Every sample is doubted in which a third of the pages answers -ENOENT."""
    hidden = looks[::REPEATS]
    assert len(hidden) == SEEDS * len(FAMILIES)
    assert [k.layout.family for k in hidden if k.hidden_doubt is None] == []


@pytest.mark.parametrize("family", ["sparse", "stacks", "scattered holes", "mixed"])
def test_sparse_memory_is_not_misjudged(family: str) -> None:
    """Over many samples of one layout totals and shares come out right: nothing pulls them."""
    repeats = 60
    of = layout(family, 5)
    taken = [drawn(of, seed) for seed in range(repeats)]
    truth = of.shares()
    series = {node: [s.shares.get(node, 0.0) for s in taken] for node in truth}
    means = {node: sum(shares) / repeats for node, shares in series.items()}
    for node, shares in series.items():
        spread = math.sqrt(sum((s - means[node]) ** 2 for s in shares) / (repeats - 1))
        assert means[node] == pytest.approx(truth[node], abs=4 * spread / math.sqrt(repeats) + 2e-4)
    totals = [s.resident_bytes / of.resident_bytes for s in taken]
    mean = sum(totals) / repeats
    spread = math.sqrt(sum((t - mean) ** 2 for t in totals) / (repeats - 1))
    assert mean == pytest.approx(1.0, abs=4 * spread / math.sqrt(repeats) + 2e-4)
    errors = [s.error_bytes / of.resident_bytes for s in taken]
    assert spread <= 1.3 * sum(errors) / repeats, "the stated error of the total is too small"


@given(layouts, seeds, st.integers(LEAST_DRAWS, DRAWS))
def test_no_more_is_asked_than_allowed(of: Layout, seed: int, draws: int) -> None:
    """What is asked for is counted in full, and never more than was granted."""
    found = drawn(of, seed, draws)
    assert found.drawn == of.asked <= draws
    assert 0 <= found.resident <= found.drawn


@given(layouts, seeds)
def test_the_same_draws_give_the_same_sample(of: Layout, seed: int) -> None:
    """A sample hangs on nothing but the areas, the answers and the generator."""
    assert drawn(of, seed) == drawn(of, seed)


@given(
    layouts,
    st.builds(
        MemoryStatus,
        anon_bytes=sizes_of_kinds,
        file_bytes=sizes_of_kinds,
        shmem_bytes=sizes_of_kinds,
        hugetlb_bytes=sizes_of_kinds,
    ),
)
def test_kinds_sum_to_what_the_kernel_counts(of: Layout, memory: MemoryStatus) -> None:
    """Each kind of which the kernel gives a figure has exactly that, others what was found."""
    found = drawn(of, 1)
    result = scaled(found, memory)
    assert result.source is Source.SAMPLE
    assert all(entry.resident_bytes > 0 for entry in result.entries)
    for kind, size in (
        (Kind.ANON, memory.anon_bytes),
        (Kind.FILE, memory.file_bytes),
        (Kind.SHMEM, memory.shmem_bytes),
        (Kind.HUGETLB, memory.hugetlb_bytes),
    ):
        known = sum(e.resident_bytes for e in found.entries if e.kind is kind)
        assert sum(result.by_node(kind=kind).values()) == (known if size is None else size)


@given(st.floats(0.0, 1.0) | st.sampled_from([0.0, 1.0]), st.floats(0.1, 1e6))
def test_an_interval_holds_what_was_drawn(share: float, draws: float) -> None:
    """To the last digit: a worker that is all at home is not said to be short of it by rounding."""
    low, high = wilson(share, draws)
    assert 0.0 <= low <= share <= high <= 1.0


_places = st.lists(
    st.tuples(
        st.integers(0, 3 << 30),
        st.integers(0, 1 << 24),
        st.sampled_from(Kind),
        st.sampled_from(Mobility),
        st.sampled_from([BASE_PAGE_BYTES, 2 << 20, 1 << 30]),
    ),
    max_size=40,
)
"""Sizes of areas, gaps behind them, and the class."""


@given(
    _places,
    st.lists(st.sampled_from([ABSENT, UNMAPPED, 0, 1, 5]), min_size=1, max_size=5),
    seeds,
    st.builds(MemoryStatus, anon_bytes=sizes_of_kinds, file_bytes=sizes_of_kinds),
)
def test_any_areas_and_answers_make_a_sample(
    places: list[tuple[int, int, Kind, Mobility, int]],
    cycle: list[int],
    seed: int,
    memory: MemoryStatus,
) -> None:
    """Nothing is asked for outside the areas; no size, odd, empty or none, is an error."""
    areas, at = [], 0x7000_0000_0000
    for size, gap, kind, mobility, page_bytes in places:
        areas.append(Area(at, at + size, page_bytes, kind, mobility))
        at += size + gap
    asked: list[int] = []

    def nodes_of(addresses: array[int]) -> array[int]:
        asked.extend(addresses)
        return array("i", [cycle[a * 31 % 1021 % len(cycle)] for a in addresses])

    found = sample(areas, nodes_of, random.Random(seed))  # noqa: S311
    at_home = sorted(asked)
    inside = iter(sorted(areas, key=lambda area: area.start))
    area = next(inside, None)
    for address in at_home:
        while area is not None and address >= area.end:
            area = next(inside, None)
        assert area is not None
        assert address >= area.start
    assert found.drawn == len(asked) <= DRAWS
    result = scaled(found, memory)
    assert found.resident or not result.entries
    assert 0.0 <= result.error_share <= 1.0
    disagrees(found, memory)
