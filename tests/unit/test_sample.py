"""A sample of pages: what is asked for, what comes of the answers, and when they are doubted."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable

import pytest

from numad_py.model.residency import Kind, Mobility, Source, wilson
from numad_py.model.snapshot import MemoryStatus
from numad_py.observe.estimate import Cell, PageClass, estimate
from numad_py.observe.sample import DRAWS, FIRST_DRAWS, Area, Sample, disagrees, residency, sample
from tests.layouts import ABSENT, GIB, MIB, UNMAPPED, Layout, Run, Stretch

BASE = 0x7000_0000_0000
PAGE = 4096
NodesOf = Callable[["array[int]"], "array[int]"]


def area(
    size: int,
    *,
    start: int = BASE,
    kind: Kind = Kind.ANON,
    mobility: Mobility = Mobility.MOVABLE,
    page_bytes: int = PAGE,
) -> Area:
    """Return an area of so many bytes."""
    return Area(start, start + size, page_bytes, kind, mobility)


def drawn(nodes_of: NodesOf, *areas: Area, seed: int = 1) -> Sample:
    """Return a sample of areas."""
    return sample(areas, nodes_of, random.Random(seed))  # noqa: S311 - not to be secret


def by(rule: Callable[[int], int]) -> NodesOf:
    """Return answers by a rule on addresses."""
    return lambda addresses: array("i", map(rule, addresses))


def told(
    of: Sample,
    *,
    anon_bytes: int,
    file_bytes: int | None = None,
    hugetlb_bytes: int | None = None,
) -> dict[tuple[int, Kind, Mobility], int]:
    """Return bytes by node, kind and mobility, scaled to the kernel's figures."""
    memory = MemoryStatus(anon_bytes=anon_bytes, file_bytes=file_bytes, hugetlb_bytes=hugetlb_bytes)
    result = residency(of, memory, read_at_s=5.0, cost_s=0.001)
    return {(e.node, e.kind, e.mobility): e.resident_bytes for e in result.entries}


def test_memory_all_on_one_node_is_found_there() -> None:
    """One node answers: all is there, and few draws are enough to say so to half a point."""
    found = drawn(by(lambda _: 3), area(8 * GIB))
    result = residency(
        found, MemoryStatus(anon_bytes=8 * GIB), read_at_s=7.0, cost_s=0.002, policies=("bind:3",)
    )
    assert result.by_node() == {3: 8 * GIB}
    assert result.source is Source.SAMPLE
    assert (result.read_at_s, result.cost_s, result.policies) == (7.0, 0.002, ("bind:3",))
    assert found.drawn == found.resident == FIRST_DRAWS
    assert result.sampled_pages == int(found.effective) >= 0.9 * FIRST_DRAWS
    assert 0 < result.error_share < 0.006


def test_more_is_drawn_where_pages_are_spread() -> None:
    """Two nodes at random need 2,401 draws for 2 points; a clean cut needs the first draws only."""
    spread = Layout("", [Stretch(area(8 * GIB), (Run(2 * GIB // 1024, (0, 1), 9),))])
    found = sample(spread.areas, spread.nodes_of, random.Random(1))  # noqa: S311
    low, high = wilson(max(found.shares.values()), found.effective)
    assert 2300 <= found.drawn <= 2700
    assert high - low <= 0.04
    cut = drawn(by(lambda a: int(a >= BASE + 4 * GIB)), area(8 * GIB))
    assert cut.drawn <= 1200
    assert cut.shares[1] == pytest.approx(0.5, abs=0.002)
    assert cut.resident < cut.effective < 4 * cut.resident


@pytest.mark.parametrize("pages", [1, 2, 3, 512, FIRST_DRAWS])
def test_few_pages_are_counted(pages: int) -> None:
    """No more pages than draws: each is asked for once, and nothing is left to chance."""
    asked: list[int] = []

    def nodes_of(addresses: array[int]) -> array[int]:
        asked.extend(addresses)
        return array("i", [i % 3 if i % 5 else ABSENT for i in range(len(addresses))])

    found = drawn(nodes_of, area(pages * PAGE))
    result = residency(found, MemoryStatus(), read_at_s=0.0, cost_s=0.0)
    there = [i % 3 for i in range(pages) if i % 5]
    assert asked == [BASE + i * PAGE for i in range(pages)]
    assert result.by_node() == {n: there.count(n) * PAGE for n in set(there)}
    assert result.sampled_pages is None
    assert result.error_share == 0.0
    assert found.error_bytes == 0.0


def test_huge_pages_are_counted_beside_a_heap_that_is_sampled() -> None:
    """24 pages of 1 GiB would get more draws than they are: each is asked for, once."""
    pool = area(24 * GIB, start=BASE, kind=Kind.HUGETLB, page_bytes=GIB)
    heap = area(8 * GIB, start=BASE + 64 * GIB)
    asked: list[int] = []

    def nodes_of(addresses: array[int]) -> array[int]:
        asked.extend(a for a in addresses if a < heap.start)
        return array("i", [int(BASE + GIB <= a < heap.start) for a in addresses])

    found = drawn(nodes_of, heap, pool)
    assert asked == [BASE + i * GIB for i in range(24)]
    assert told(found, anon_bytes=8 * GIB, hugetlb_bytes=24 * GIB) == {
        (0, Kind.ANON, Mobility.MOVABLE): 8 * GIB,
        (0, Kind.HUGETLB, Mobility.MOVABLE): GIB,
        (1, Kind.HUGETLB, Mobility.MOVABLE): 23 * GIB,
    }
    assert {e.page_bytes for e in found.entries if e.kind is Kind.HUGETLB} == {GIB}


@pytest.mark.parametrize("size", [GIB, 32 * GIB, 1024 * GIB])
def test_cost_does_not_grow_with_memory(size: int) -> None:
    """From 1 GiB to 1 TiB as many addresses are asked for, in as many calls."""
    calls: list[int] = []

    def nodes_of(addresses: array[int]) -> array[int]:
        calls.append(len(addresses))
        return array("i", [0]) * len(addresses)

    drawn(nodes_of, area(size))
    assert sum(calls) == FIRST_DRAWS
    assert len(calls) == 2


@pytest.mark.parametrize("draws", [1024, 768, 512, 384, 256, 2048, 1536])
@pytest.mark.parametrize("phase", [0.0, 0.25])
def test_stripes_that_keep_step_with_the_draws_are_seen(draws: int, phase: float) -> None:
    """Stripes as wide as the distance of draws are not missed: draws fall at random in between."""
    width = 8 * GIB // draws
    shift = int(width * phase)
    missed = 0
    for seed in range(10):
        found = drawn(
            by(lambda a: int((a - BASE + shift) % width < width // 4)), area(8 * GIB), seed=seed
        )
        low, high = wilson(found.shares.get(1, 0.0), found.effective)
        missed += not low <= 0.25 <= high
    assert missed <= 3


def test_a_reserve_with_nothing_in_it_does_not_eat_the_draws() -> None:
    """A heap in 256 GiB of address space in which nothing is resident is found all the same."""
    heap = area(4 * GIB, start=BASE + 512 * GIB)
    found = drawn(
        by(lambda a: int(a % (64 * PAGE) < 8 * PAGE) if a >= heap.start else ABSENT),
        area(256 * GIB),
        heap,
    )
    assert found.resident >= 0.6 * found.drawn
    assert found.shares[1] == pytest.approx(1 / 8, abs=0.03)


def test_a_heap_that_is_filled_from_the_front_is_looked_at_there() -> None:
    """Once the pilot has seen which part is used, most draws hit."""
    used = BASE + 3 * GIB
    found = drawn(
        by(lambda a: int(a % (8 * PAGE) < 4 * PAGE) if a < used else UNMAPPED), area(24 * GIB)
    )
    assert found.resident >= 0.6 * found.drawn
    assert found.resident_bytes == pytest.approx(3 * GIB, rel=0.1)
    assert abs(found.resident_bytes - 3 * GIB) <= 4 * found.error_bytes


def test_an_area_without_a_hit_widens_the_interval() -> None:
    """Memory all on one node is less sure beside an area in which some may lie unseen."""
    heap = area(GIB, start=BASE + 512 * GIB)
    alone = drawn(by(lambda _: 0), heap)
    beside = drawn(by(lambda a: 0 if a >= heap.start else ABSENT), area(4 * GIB), heap)
    assert beside.shares == alone.shares == {0: 1.0}
    assert beside.effective < alone.effective / 2


def test_a_node_known_by_one_heavy_hit_holds_the_number_down() -> None:
    """A hit that stands for ten times as much as others tells a tenth; at most twice is claimed."""
    of = PageClass(Kind.ANON, Mobility.MOVABLE, PAGE)
    dense = Cell(of, 1000 * MIB, 1000, {0: 500, 1: 500}, 500)
    thin = Cell(of, 100 * MIB, 10, {2: 1}, 0)
    found = estimate([[dense, thin]], [])
    assert found.resident_bytes == 1010 * MIB
    assert 100 <= found.effective <= 210
    assert 900 <= estimate([[dense]], []).effective <= 1000


def test_many_small_areas_are_drawn_from_together() -> None:
    """Two thousand areas take no more draws than one, and each node's pages are found."""
    areas = [area(64 * PAGE, start=BASE + i * MIB) for i in range(2000)]
    found = drawn(by(lambda a: int((a - BASE) // MIB % 4 == 0)), *areas)
    assert found.drawn <= 2500
    assert found.shares[1] == pytest.approx(0.25, abs=0.03)
    assert found.resident_bytes == pytest.approx(2000 * 64 * PAGE, rel=0.001)


@pytest.mark.parametrize("areas", [[], [area(0)], [area(0), area(-PAGE)]])
def test_nothing_to_draw_from_is_an_empty_sample(areas: list[Area]) -> None:
    """Without areas nothing is asked for or claimed."""
    found = drawn(by(lambda _: 0), *areas)
    assert found.entries == ()
    assert found.drawn == 0
    assert told(found, anon_bytes=GIB) == {}


def test_nothing_resident_claims_nothing() -> None:
    """Where every draw misses, no draw counts for anything."""
    found = drawn(by(lambda _: ABSENT), area(GIB))
    assert found.entries == ()
    assert found.effective == 0.0
    assert residency(found, MemoryStatus(), read_at_s=0.0, cost_s=0.0).sampled_pages == 0


def test_too_few_draws_are_refused() -> None:
    """A sample that cannot say anything is an error of the caller's."""
    with pytest.raises(ValueError, match="100 draws are too few"):
        sample([area(GIB)], by(lambda _: 0), random.Random(1), draws=100)  # noqa: S311


def test_an_error_of_the_kernel_is_passed_on() -> None:
    """A process that ended is the caller's to deal with."""

    def nodes_of(_: array[int]) -> array[int]:
        raise ProcessLookupError

    with pytest.raises(ProcessLookupError):
        drawn(nodes_of, area(GIB))


FILE = area(GIB, start=BASE + 16 * GIB, kind=Kind.FILE, mobility=Mobility.SHARED)
HEAP = area(GIB, start=BASE)


def on_two() -> Sample:
    """Return a sample of a heap on node 0 and a shared file on node 1, both wholly resident."""
    return drawn(by(lambda a: int(a >= FILE.start)), HEAP, FILE)


def test_kinds_are_scaled_to_what_the_kernel_counts() -> None:
    """What is known exactly is taken from the kernel, where it lies from the sample."""
    assert told(on_two(), anon_bytes=GIB + PAGE, file_bytes=GIB + 3 * PAGE) == {
        (0, Kind.ANON, Mobility.MOVABLE): GIB + PAGE,
        (1, Kind.FILE, Mobility.SHARED): GIB + 3 * PAGE,
    }


def test_pages_copied_on_write_are_anonymous_where_their_file_lies() -> None:
    """What a file's area holds beyond RssFile was copied: it counts in RssAnon, and is its own."""
    assert told(on_two(), anon_bytes=2 * GIB - 256 * MIB, file_bytes=256 * MIB) == pytest.approx(
        {
            (0, Kind.ANON, Mobility.MOVABLE): GIB,
            (1, Kind.ANON, Mobility.MOVABLE): GIB - 256 * MIB,
            (1, Kind.FILE, Mobility.SHARED): 256 * MIB,
        },
        rel=0.001,
    )


def test_copies_stay_under_the_policy_of_their_area() -> None:
    """An area under a mempolicy of the user's keeps it, whatever kind its pages are."""
    bound = area(GIB, kind=Kind.FILE, mobility=Mobility.POLICY)
    found = drawn(by(lambda _: 2), bound)
    assert told(found, anon_bytes=GIB, file_bytes=0) == {
        (2, Kind.ANON, Mobility.POLICY): GIB,
    }


def test_a_kind_that_was_not_hit_lies_as_the_others() -> None:
    """A few pages of libraries that no draw hit are spread as the rest, and not thought movable."""
    found = drawn(by(lambda a: int(a - BASE >= 768 * MIB)), HEAP)
    sizes = told(found, anon_bytes=GIB, file_bytes=4 * MIB, hugetlb_bytes=0)
    assert sizes[0, Kind.FILE, Mobility.SHARED] == pytest.approx(3 * MIB, rel=0.02)
    assert sizes[1, Kind.FILE, Mobility.SHARED] == pytest.approx(MIB, rel=0.05)
    assert sum(size for (_, kind, _), size in sizes.items() if kind is Kind.FILE) == 4 * MIB


def test_kinds_without_a_figure_keep_the_estimate() -> None:
    """Where the kernel does not say, what was found stands."""
    sizes = told(on_two(), anon_bytes=5 * MIB)
    assert sizes[0, Kind.ANON, Mobility.MOVABLE] == 5 * MIB
    assert sizes[1, Kind.FILE, Mobility.SHARED] == pytest.approx(GIB, rel=0.01)


def status(size: int, hugetlb: int = 0) -> MemoryStatus:
    """Return figures of a process with so many anonymous bytes."""
    return MemoryStatus(anon_bytes=size, file_bytes=0, shmem_bytes=0, hugetlb_bytes=hugetlb)


def test_a_sample_is_doubted_where_the_kernel_counts_another_total() -> None:
    """What deviates by less than 5 % is let pass; more is not, in either direction."""
    found = drawn(by(lambda _: 0), HEAP)
    assert disagrees(found, status(GIB)) is None
    assert disagrees(found, status(GIB * 104 // 100)) is None
    assert disagrees(found, status(2 * GIB)) == "1.0 GiB of pages were found, of 2.0 GiB"
    assert disagrees(found, status(GIB // 2)) is not None


def test_a_total_that_is_not_known_well_is_not_doubted() -> None:
    """Where pages lie so thin that chance explains the difference, it is no reason."""
    thin = by(lambda a: 0 if a // PAGE * 2654435761 % 1024 < 4 else ABSENT)
    found = drawn(thin, area(8 * GIB))
    assert found.resident > 0
    off = int(found.resident_bytes + 2 * found.error_bytes)
    assert off > 1.05 * found.resident_bytes
    assert disagrees(found, status(off)) is None


def test_a_sample_that_hits_nothing_is_doubted_where_there_is_much() -> None:
    """A few MiB may be missed; more cannot be."""
    found = drawn(by(lambda _: ABSENT), HEAP)
    assert disagrees(found, status(GIB)) == "none of 1.0 GiB of pages was hit"
    assert disagrees(found, status(MIB)) is None


def test_huge_pages_that_do_not_answer_are_noticed_beside_a_heap() -> None:
    """Hugetlb is compared for itself: RSS does not hold it."""
    pool = area(GIB, start=BASE + 16 * GIB, kind=Kind.HUGETLB, page_bytes=2 * MIB)
    found = drawn(by(lambda a: 0 if a < pool.start else ABSENT), HEAP, pool)
    assert disagrees(found, status(GIB, hugetlb=GIB)) == "none of 1.0 GiB of hugetlb pages was hit"
    assert disagrees(found, status(GIB)) is None


def test_nothing_is_compared_where_the_kernel_gives_no_figure() -> None:
    """A figure that could not be read is no figure of zero."""
    found = drawn(by(lambda _: 0), HEAP)
    assert disagrees(found, MemoryStatus()) is None
    assert disagrees(found, MemoryStatus(anon_bytes=4 * GIB)) is None


def test_the_whole_is_spent_only_where_pages_lie_thin() -> None:
    """Draws end at what is allowed where one page in a hundred is resident, here and there."""
    thin = by(lambda a: a // PAGE % 2 if a // PAGE * 2654435761 % 1000 < 10 else ABSENT)
    found = drawn(thin, area(8 * GIB))
    assert 0.95 * DRAWS <= found.drawn <= DRAWS
    assert found.effective <= found.resident
