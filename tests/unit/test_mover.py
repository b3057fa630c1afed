"""The mover against made memory: what arrives, what will not, and how both are counted."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest

from numad_py.act.tally import Tally
from numad_py.act.walk import MOST_UNTRIED
from numad_py.model.outcome import End, PageStatus
from tests.fake_tree import PAGE
from tests.unit.fake_kernel import BASE, MIB, THP, Area, Bar, FakeKernel
from tests.unit.moving import chunked, home, move

KIB = 1024

# Memory of all sorts


def small(kernel: FakeKernel) -> None:
    """Small pages, every third at home, every fifth absent."""
    kernel.area(BASE, 8 * MIB)
    for i in range(8 * MIB // PAGE):
        if i % 5:
            kernel.fill(BASE + i * PAGE, PAGE, 0 if i % 3 == 0 else 1)


def sparse(kernel: FakeKernel) -> None:
    """A few pages far apart."""
    kernel.area(BASE, 256 * MIB)
    for i in (0, 1, 5000, 5001, 20000, 60000, 65535):
        kernel.fill(BASE + i * PAGE, PAGE, 1)


def unaligned(kernel: FakeKernel) -> None:
    """Areas that begin and end inside of blocks, and one of a single page."""
    for start, size in ((3 * PAGE, 5 * MIB), (8 * MIB - PAGE, PAGE), (9 * MIB, 3 * MIB + 7 * PAGE)):
        kernel.area(BASE + start, size)
        kernel.fill(BASE + start, size, 1)


def hugetlb(kernel: FakeKernel) -> None:
    """Huge pages that were asked for, every third at home."""
    kernel.area(BASE, 24 * MIB, page_kib=2048)
    for i in range(12):
        kernel.fill(BASE + i * THP, THP, 0 if i % 3 == 0 else 1, folio=THP)


def huge(kernel: FakeKernel) -> None:
    """Transparent huge pages, every third at home."""
    kernel.area(BASE, 24 * MIB)
    for i in range(12):
        kernel.fill(BASE + i * THP, THP, 0 if i % 3 == 0 else 1, folio=THP)


def mixed(kernel: FakeKernel) -> None:
    """Blocks that are one huge page, small pages or both nodes' small pages, in no order."""
    rng = random.Random(7)  # noqa: S311 - to be drawn again, not to be secret
    kernel.area(BASE - 5 * PAGE, 24 * MIB + 9 * PAGE)
    kernel.fill(BASE - 5 * PAGE, 5 * PAGE, 1)
    for i in range(12):
        start, node, folio = BASE + i * THP, rng.choice([0, 1, 1]), rng.choice([PAGE, THP])
        kernel.fill(start, THP, node, folio=folio)
        if folio == PAGE and rng.random() < 0.5:
            kernel.fill(start, MIB, 1 - node)


WITHOUT_THP = [small, sparse, unaligned, hugetlb]
CHUNKS = [64 * KIB, MIB - PAGE, 2 * MIB, 3 * MIB + PAGE, 16 * MIB]


def assert_all_home(kernel: FakeKernel, tally: Tally) -> None:
    """Nothing is left on node 1, and what is told is what happened."""
    assert kernel.bytes_on(1) == 0
    assert tally.moved == kernel.moved
    assert tally.end is End.DONE
    assert not tally.refused_bytes
    assert set(tally.pages) == {PageStatus.MOVED}


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("made", WITHOUT_THP)
def test_all_remote_pages_arrive_and_count_once(
    made: Callable[[FakeKernel], None], chunk: int
) -> None:
    """Whatever the chunk, all that was remote is home, and is told of by source and target."""
    kernel = FakeKernel()
    made(kernel)
    assert_all_home(kernel, home(kernel, chunked(chunk)))


@pytest.mark.parametrize("chunk", [c for c in CHUNKS if c >= THP])
@pytest.mark.parametrize("made", [huge, mixed])
def test_huge_pages_arrive_and_each_of_their_pages_counts_once(
    made: Callable[[FakeKernel], None], chunk: int
) -> None:
    """A huge page counts as 512, also where blocks of small pages lie between them."""
    kernel = FakeKernel()
    made(kernel)
    tally = home(kernel, chunked(chunk))
    assert_all_home(kernel, tally)
    assert tally.pages[PageStatus.MOVED] * PAGE == kernel.moved[1, 0]


@pytest.mark.parametrize("chunk", [c for c in CHUNKS if c < THP])
def test_a_huge_page_counts_in_whole_where_a_chunk_is_smaller(chunk: int) -> None:
    """The part of it that lies behind the chunk moves along, and is told of too."""
    kernel = FakeKernel()
    huge(kernel)
    assert_all_home(kernel, home(kernel, chunked(chunk)))


@pytest.mark.parametrize("made", WITHOUT_THP)
def test_pages_that_are_home_are_never_handed_in(made: Callable[[FakeKernel], None]) -> None:
    """Each of them would flush the kernel's batch; nor is any page handed in twice."""
    kernel = FakeKernel()
    made(kernel)
    home(kernel)
    assert sum(call.local for call in kernel.calls) == 0
    assert set(kernel.tries().values()) == {1}


def test_a_huge_page_is_handed_in_by_one_of_its_addresses() -> None:
    """The other 511 would only cost: nothing is handed in but one address for each block."""
    kernel = FakeKernel()
    huge(kernel)
    home(kernel)
    assert sum(kernel.tries().values()) == 8
    assert sum(call.local for call in kernel.calls) == 0


def test_a_few_pages_tell_whether_a_huge_page_moved() -> None:
    """To ask for each would take a third as long as the move; one in 20 is more than it takes."""
    kernel = FakeKernel()
    kernel.area(BASE, 64 * MIB)
    kernel.fill(BASE, 64 * MIB, 1, folio=THP)
    assert_all_home(kernel, home(kernel))
    assert kernel.queried < 64 * MIB // PAGE // 20


@pytest.mark.parametrize("folio", [16 * KIB, 64 * KIB, 512 * KIB, MIB])
def test_folios_between_a_page_and_a_block_arrive_and_count_once(folio: int) -> None:
    """With the first page of a block a part of it moves; that is no huge page."""
    kernel = FakeKernel()
    kernel.area(BASE, 16 * MIB)
    kernel.fill(BASE, 16 * MIB, 1, folio=folio)
    assert_all_home(kernel, home(kernel))


@pytest.mark.parametrize("folio", [8 * KIB, 64 * KIB, 256 * KIB])
def test_what_moves_beside_a_pinned_page_is_no_refusal(folio: int) -> None:
    """What came along with the first page of a block is there, whatever its folio's size."""
    kernel = FakeKernel()
    kernel.area(BASE, 2 * THP)
    kernel.fill(BASE, THP, 1)
    kernel.fill(BASE + 5 * PAGE, PAGE, 1, bar=Bar.PINNED)
    kernel.fill(BASE + THP, THP, 1, folio=folio)
    tally = home(kernel)
    assert tally.moved == kernel.moved == {(1, 0): 2 * THP - PAGE}
    assert tally.refused_bytes == {1: PAGE}


@pytest.mark.parametrize("small", [1, 2, 63, 64, 300])
def test_small_pages_before_huge_ones_that_begin_inside_of_blocks_arrive(small: int) -> None:
    """As mremap leaves them: the next block's first page takes most of a block along."""
    kernel = FakeKernel()
    kernel.area(BASE, 4 * THP)
    kernel.fill(BASE, small * PAGE, 1)
    kernel.fill(BASE + small * PAGE, 3 * THP, 1, folio=THP)
    kernel.fill(BASE + small * PAGE + 3 * THP, THP - small * PAGE, 1)
    tally = home(kernel)
    assert kernel.bytes_on(1) == 0
    assert tally.end is End.DONE
    assert not tally.refused_bytes


def test_a_page_that_comes_home_in_the_middle_costs_no_other() -> None:
    """It is told of as one that has moved, and ends the batch: what is behind it is tried, too."""
    kernel = FakeKernel()
    kernel.area(BASE, 2 * THP)
    kernel.fill(BASE, 2 * THP, 1)
    for pinned in (5, 512):
        kernel.fill(BASE + pinned * PAGE, PAGE, 1, bar=Bar.PINNED)

    def comes_home(call: int) -> None:
        if not call:
            kernel.folios[BASE + 100 * PAGE].node = 0

    kernel.on_call = comes_home
    tally = home(kernel)
    assert kernel.bytes_on(1) == 2 * PAGE
    assert tally.refused_bytes == {1: 2 * PAGE}


def test_a_hugetlb_page_is_one_page() -> None:
    """Pages are counted in the size of their area."""
    kernel = FakeKernel()
    hugetlb(kernel)
    assert home(kernel).pages == {PageStatus.MOVED: 8}
    assert sum(kernel.tries().values()) == 8


def test_areas_without_remote_pages_are_not_looked_at() -> None:
    """Nothing is handed in where numa_maps shows nothing to move."""
    kernel = FakeKernel()
    kernel.area(BASE, 4 * MIB)
    kernel.fill(BASE, 4 * MIB, 0)
    assert move(kernel, {(1, 0): 4 * MIB}).end is End.DONE
    assert kernel.calls == []
    assert kernel.queried == 0


def huge_behind_small(small_bytes: int, huge_bytes: int) -> FakeKernel:
    """Bring an area home in chunks of two blocks, small pages first; return what did it."""
    kernel = FakeKernel()
    kernel.area(BASE, small_bytes + huge_bytes)
    kernel.fill(BASE, small_bytes, 1)
    kernel.fill(BASE + small_bytes, huge_bytes, 1, folio=THP)
    assert_all_home(kernel, home(kernel, chunked(4 * MIB)))
    return kernel


def test_huge_pages_behind_small_ones_are_handed_in_by_one_address_too() -> None:
    """That the first chunk of an area held none says nothing of the others."""
    kernel = huge_behind_small(4 * MIB, 12 * MIB)
    assert sum(address >= BASE + 4 * MIB for address in kernel.tries().elements()) <= 6


def test_where_there_are_no_huge_pages_that_is_tried_ever_more_seldom() -> None:
    """Of 40 chunks 8 are asked twice; huge pages that come late all go home, counted once."""
    kernel = huge_behind_small(160 * MIB, 64 * MIB)
    early = sum(calls for address, calls in kernel.tries().items() if address < BASE + 160 * MIB)
    assert early == 160 * MIB // PAGE
    asked = [call for call in kernel.calls if max(call.addresses) < BASE + 160 * MIB]
    assert len(asked) == 40 + 8
    late = sum(calls for address, calls in kernel.tries().items() if address >= BASE + 160 * MIB)
    assert late <= (MOST_UNTRIED - 1) * 1024 * 2 + 32


@pytest.mark.parametrize(
    "kept",
    [Area(BASE, BASE + MIB, file="/models/weights"), Area(BASE, BASE + MIB, policy="bind:1")],
)
def test_shared_files_and_memory_that_its_user_bound_are_left_alone(kept: Area) -> None:
    """Pages of either are never handed in, whatever else of the worker is moved."""
    kernel = FakeKernel()
    kernel.areas.append(kept)
    kernel.fill(BASE, MIB, 1, bar=Bar.SHARED if kept.file else None)
    kernel.area(BASE + THP, MIB)
    kernel.fill(BASE + THP, MIB, 1)
    tally = home(kernel)
    assert (tally.end, tally.moved) == (End.DONE, {(1, 0): MIB})
    assert min(kernel.tries()) == BASE + THP


@pytest.mark.parametrize("folio", [PAGE, THP])
def test_two_sources_and_two_targets_follow_the_plan(folio: int) -> None:
    """Each pair gets the bytes that the plan has for it, to within one chunk."""
    kernel = FakeKernel()
    for i in range(2):
        kernel.area(BASE + i * 32 * MIB, 16 * MIB)
        for block in range(8):
            node = 2 + block % 2
            kernel.fill(BASE + i * 32 * MIB + block * THP, THP, node, folio=folio)
    plan = {(2, 0): 6 * MIB, (2, 1): 10 * MIB, (3, 1): 4 * MIB, (3, 0): 12 * MIB}
    tally = move(kernel, plan, chunked(THP))
    assert tally.moved == kernel.moved
    assert {source for source, _ in plan if kernel.bytes_on(source)} == set()
    for pair, size in plan.items():
        assert abs(tally.moved[pair] - size) <= THP, pair


def test_two_nodes_may_change_places() -> None:
    """What came to a node in this move is not taken away again by it."""
    kernel = FakeKernel()
    kernel.area(BASE, 8 * MIB)
    for i in range(8):
        kernel.fill(BASE + i * MIB, MIB, i % 2)
    tally = move(kernel, {(0, 1): 4 * MIB, (1, 0): 4 * MIB})
    assert tally.moved == kernel.moved == {(0, 1): 4 * MIB, (1, 0): 4 * MIB}
    assert sum(kernel.tries().values()) == 8 * MIB // PAGE


# What will not move

BARRED = [1, 100, 101, 700, 2047]
"""Pages of 2048 that something keeps where they are; none of them begins a block."""
REASONS = {
    Bar.SHARED: PageStatus.SHARED,
    Bar.ISOLATED: PageStatus.BUSY,
    Bar.PINNED: PageStatus.BUSY,
}


def barred(bar: Bar, kernel: FakeKernel, numbers: Iterable[int] = BARRED) -> Tally:
    """Move 2048 pages of which some will not."""
    kernel.area(BASE, 8 * MIB)
    kernel.fill(BASE, 8 * MIB, 1)
    for i in numbers:
        kernel.fill(BASE + i * PAGE, PAGE, 1, bar=bar)
    return home(kernel)


@pytest.mark.parametrize("bar", Bar)
def test_what_will_not_move_is_tried_twice_at_most(bar: Bar) -> None:
    """The others all arrive."""
    kernel = FakeKernel()
    barred(bar, kernel)
    assert kernel.bytes_on(1) == len(BARRED) * PAGE
    assert max(kernel.tries()[BASE + i * PAGE] for i in BARRED) <= 2


@pytest.mark.parametrize(
    ("pages", "left", "end"),
    [
        (2048, 20, End.DONE),
        (2048, 21, End.PARTIAL),
        (51200, 255, End.DONE),
        (51200, 256, End.PARTIAL),
        (1, 1, End.PARTIAL),
    ],
)
def test_a_move_is_done_but_for_a_trifle(pages: int, left: int, end: End) -> None:
    """Less than a hundredth of what was planned and less than 1 MiB; it is told of all the same."""
    kernel = FakeKernel()
    kernel.area(BASE, pages * PAGE)
    kernel.fill(BASE, pages * PAGE, 1)
    for i in range(left):
        kernel.fill(BASE + i * pages // left * PAGE, PAGE, 1, bar=Bar.SHARED)
    tally = home(kernel)
    assert tally.refused_bytes == {1: left * PAGE}
    assert tally.pages[PageStatus.SHARED] == left
    assert tally.end is end


@pytest.mark.parametrize("bar", Bar)
def test_what_will_not_move_is_tried_twice_also_where_a_block_begins(bar: Bar) -> None:
    """To have been handed in for its block counts: a pinned page is unmapped at each try."""
    kernel = FakeKernel()
    barred(bar, kernel, [0, 512])
    assert max(kernel.tries()[BASE + i * PAGE] for i in (0, 512)) <= 2


@pytest.mark.parametrize("bar", Bar)
def test_what_will_not_move_is_told_with_its_reason(bar: Bar) -> None:
    """It and nothing else counts as refused: also where a failed batch says nothing of its pages.

    The kernel moves all but the pinned pages of a batch and leaves the status of each unwritten.
    """
    kernel = FakeKernel()
    tally = barred(bar, kernel)
    assert tally.moved == kernel.moved
    assert tally.refused_bytes == {1: len(BARRED) * PAGE}
    assert tally.pages == {PageStatus.MOVED: 2043, REASONS[bar]: len(BARRED)}


def test_pages_behind_a_pinned_and_a_shared_one_arrive() -> None:
    """A call that ends at a failed batch is gone on with: what it did not get to is no refusal."""
    kernel = FakeKernel()
    kernel.area(BASE, 8 * MIB)
    kernel.fill(BASE, 8 * MIB, 1)
    for i, bar in ((100, Bar.PINNED), (200, Bar.SHARED), (300, Bar.PINNED), (400, Bar.ISOLATED)):
        kernel.fill(BASE + i * PAGE, PAGE, 1, bar=bar)
    tally = home(kernel)
    assert kernel.bytes_on(1) == 4 * PAGE
    assert tally.moved == kernel.moved
    assert tally.refused_bytes == {1: 4 * PAGE}


def test_a_pinned_huge_page_stays_and_its_neighbours_arrive() -> None:
    """One that will not move is no reason to take its neighbours page by page."""
    kernel = FakeKernel()
    kernel.area(BASE, 8 * MIB)
    for i in range(4):
        bar = Bar.PINNED if i == 1 else None
        kernel.fill(BASE + i * THP, THP, 1, folio=THP, bar=bar)
    tally = home(kernel)
    assert tally.moved == kernel.moved == {(1, 0): 6 * MIB}
    assert tally.refused_bytes == {1: THP}
    assert tally.end is End.PARTIAL
    assert {address // THP * THP for address in kernel.tries() if address % THP} <= {BASE + THP}
    assert kernel.folios[BASE + THP].failures <= 3


def test_pages_that_went_in_between_are_no_refusal() -> None:
    """Memory that its owner gave back is absent: counted, and nothing that will not move."""
    kernel = FakeKernel()
    kernel.area(BASE, MIB)
    kernel.fill(BASE, MIB, 1)

    def give_back(_calls: int) -> None:
        kernel.folios.pop(BASE + 8 * PAGE, None)

    kernel.on_call = give_back
    tally = home(kernel)
    assert tally.moved == kernel.moved == {(1, 0): MIB - PAGE}
    assert (tally.pages[PageStatus.ABSENT], tally.refused_bytes) == (1, {})
    assert tally.end is End.DONE
