"""Huge pages in a move and in deciding: what is free, what is made, and what is said."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.act.huge import HugePages
from numad_py.act.journal import Growth, Journal
from numad_py.act.mover import Mover
from numad_py.act.room import room_bytes
from numad_py.act.settings import Keeper
from numad_py.act.tally import Tally
from numad_py.decide.decisions import decide
from numad_py.errors import RightsError
from numad_py.model.machine import HugePages as Pool
from numad_py.model.machine import NodeState
from numad_py.model.outcome import End
from numad_py.model.plan import Decision, DecisionState, MemoryMove, Reason
from numad_py.model.residency import Kind, Mobility, Residency, entries_of
from numad_py.policy.schema import HugeTlb, MigrationPolicy, PlacementPolicy, Policy
from tests.fake_tree import FakeMachine, FakeNode
from tests.unit import seen
from tests.unit.fake_kernel import BASE, FakeKernel, MadeProcFs
from tests.unit.fake_pools import AWAY, HOME, HUGE, FakePool, FakePools, FollowingSysFs
from tests.unit.moving import UNPACED, decision, this_process

# Room


@pytest.mark.parametrize(
    ("made_bytes", "room"), [(0, 3 * HUGE), (HUGE // 2, 3 * HUGE), (HUGE, 3 * HUGE + 900)]
)
def test_room_for_huge_pages_is_what_is_free_and_what_may_be_made(
    made_bytes: int, room: int
) -> None:
    """Of the node's memory only where the kernel makes pages of that size; never less than free."""
    state = NodeState(0, 1000, 950, 0, (Pool(HUGE, 5, 3), Pool(HUGE * 512, 1, 1)))
    assert room_bytes(state, HUGE, 0.1, made_bytes=made_bytes) == room
    full = replace(state, free_bytes=0)
    assert room_bytes(full, HUGE, 0.1, made_bytes=made_bytes) == 3 * HUGE


# In a move


class Bench:
    """A mover over made memory, whose pools follow as pages move."""

    def __init__(self, folder: Path, hugetlb: HugeTlb, free: int, pages: int = 4) -> None:
        """Put a worker's huge pages on node 1; node 0 is home, and has so many free."""
        self.kernel = FakeKernel()
        self.kernel.area(BASE, pages * HUGE, page_kib=HUGE >> 10)
        self.kernel.fill(BASE, pages * HUGE, AWAY, folio=HUGE)
        self.pools = FakePools(node0=FakePool(free=free), node1=FakePool(used=pages))
        self.journal = Journal(folder / "state", "boot")
        self.keeper = Keeper(self.pools, self.journal)
        self.stop = threading.Event()
        nodes = [FakeNode(HOME, [0], free_mib=900), FakeNode(AWAY, [1])]
        self.sysfs = FollowingSysFs(FakeMachine(folder, nodes).write().sysfs, self.pools)
        policy = Policy(migration=replace(UNPACED, hugetlb=hugetlb))
        self.huge = HugePages(self.sysfs, self.pools, self.journal, self.keeper, policy, self.stop)
        self.pools.before_look = self.follow

    def follow(self) -> None:
        """Have the pools as the pages are by now."""
        self.pools.move(self.kernel.bytes_on(HOME) // HUGE - self.pools.pools[HOME].used)

    def move(self, policy: MigrationPolicy = UNPACED) -> Tally:
        """Bring all of it home."""
        tally = Tally()
        moves = [MemoryMove(AWAY, HOME, self.kernel.bytes_on(AWAY))]
        procfs = MadeProcFs(self.kernel)
        mover = Mover(procfs, self.kernel, self.huge.room, self.stop, huge=self.huge)
        mover.move(decision(this_process(), moves), policy, tally)
        return tally


@pytest.fixture
def bench(tmp_path: Path) -> Callable[[HugeTlb, int], Bench]:
    """Make benches."""
    return lambda hugetlb, free: Bench(tmp_path, hugetlb, free)


def test_reserve_grows_the_pool_moves_and_gives_back(
    bench: Callable[[HugeTlb, int], Bench],
) -> None:
    """All of it comes home; the journal is empty again, and no pool has a page more or less."""
    made = bench(HugeTlb.RESERVE, 1)
    journalled = []
    made.pools.before_set = lambda: journalled.append(made.journal.settings())
    tally = made.move()
    assert (tally.end, tally.error) == (End.DONE, None)
    assert made.kernel.bytes_on(HOME) == 4 * HUGE
    assert made.pools.persistent == 5
    assert journalled[0] == (Growth(HUGE, HOME, 3, {HOME: (1, 1), AWAY: (4, 0)}),)
    assert made.journal.settings() == ()


def test_free_takes_what_is_free_and_says_how_to_have_more(
    bench: Callable[[HugeTlb, int], Bench],
) -> None:
    """One page comes home; the others are told of with their number and the way to add some."""
    made = bench(HugeTlb.FREE, 1)
    tally = made.move(replace(UNPACED, chunk_bytes=HUGE))
    assert tally.end is End.NO_ROOM
    assert made.kernel.bytes_on(HOME) == HUGE
    assert made.pools.asked == []
    assert tally.error is not None
    assert "node 0 had 1 free huge page of 2048 kB" in tally.error
    assert "echo NUMBER > /sys/devices/system/node/node0/hugepages" in tally.error
    assert 'hugetlb = "reserve"' in tally.error


def test_pages_that_the_kernel_makes_take_no_right_and_no_record(
    bench: Callable[[HugeTlb, int], Bench],
) -> None:
    """They are left to it: no pool is set, whatever is free."""
    made = bench(HugeTlb.RESERVE, 0)
    made.pools.largest = 2 * HUGE
    made.pools.before_look = lambda: None  # the kernel has made what it moved to
    assert made.move().end is End.DONE
    assert made.pools.asked == []
    assert made.journal.settings() == ()


def test_without_the_right_what_is_free_is_used_and_the_right_is_named(
    bench: Callable[[HugeTlb, int], Bench],
) -> None:
    """The move goes on without; it is counted, and the outcome says what to do."""
    made = bench(HugeTlb.RESERVE, 1)

    def refuse() -> None:
        msg = "no right to set how many huge pages"
        raise RightsError(msg)

    made.pools.before_set = refuse
    tally = made.move(replace(UNPACED, chunk_bytes=HUGE))
    assert tally.end is End.NO_ROOM
    assert made.kernel.bytes_on(HOME) == HUGE
    assert tally.error is not None
    assert "no right to set how many huge pages" in tally.error
    assert made.keeper.told().failures == {"huge_pages": 1}


def test_without_a_journal_no_pool_is_set(
    bench: Callable[[HugeTlb, int], Bench], tmp_path: Path
) -> None:
    """Nothing is changed that could not be given back."""
    made = bench(HugeTlb.RESERVE, 1)
    path = tmp_path / "state/journal.jsonl"
    path.unlink()
    path.mkdir()
    made.move(replace(UNPACED, chunk_bytes=HUGE))
    assert made.pools.asked == []
    assert made.pools.persistent == 5


# Deciding


def decided(hugetlb: HugeTlb, free_pages: int, room_pages: int) -> Decision:
    """Return what is decided about 8 huge pages on node 1 whose worker is pinned to node 0.

    Node 0 has so many free, and room for so many above its headroom.
    """
    sizes = {(AWAY, Kind.HUGETLB, Mobility.MOVABLE, HUGE): 8 * HUGE}
    look = seen.snapshot(
        seen.worker("x/0", Residency(entries_of(sizes), seen.NOW_S)),
        node_states=(
            NodeState(HOME, 0, room_pages * HUGE + 5, 0, (Pool(HUGE, 8, free_pages),)),
            NodeState(AWAY, 0, 0, 0, (Pool(HUGE, 8, 0),)),
        ),
    )
    policy = Policy(
        migration=MigrationPolicy(hugetlb=hugetlb), placement=PlacementPolicy(min_remote_bytes=1)
    )
    plan, _ = decide(look, policy, DecisionState())
    return plan.decisions[0]


@pytest.mark.parametrize(
    ("hugetlb", "free_pages", "room_pages", "goes"),
    [
        (HugeTlb.FREE, 8, 0, True),
        (HugeTlb.FREE, 7, 100, False),
        (HugeTlb.RESERVE, 7, 0, False),
        (HugeTlb.RESERVE, 7, 1, True),
        (HugeTlb.RESERVE, 0, 8, True),
        (HugeTlb.RESERVE, 0, 7, False),
    ],
)
def test_a_home_takes_what_is_free_and_what_may_be_made(
    hugetlb: HugeTlb,
    free_pages: int,
    room_pages: int,
    goes: bool,  # noqa: FBT001
) -> None:
    """With "reserve" its ordinary memory counts too; who does not fit is told how to have more."""
    decision = decided(hugetlb, free_pages, room_pages)
    if goes:
        assert decision.moves == (MemoryMove(AWAY, HOME, 8 * HUGE),)
    else:
        assert decision.reason is Reason.NO_ROOM
        assert 'add to nr_hugepages of that node, or set [migration] hugetlb = "reserve"' in (
            decision.why
        )
