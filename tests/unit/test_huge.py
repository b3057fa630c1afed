"""Huge pages in a move: what is free, what is made, and what is given back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.act.huge import HugePages
from numad_py.act.journal import Growth, Journal
from numad_py.act.mover import Mover
from numad_py.act.room import room_bytes
from numad_py.act.settings import Keeper
from numad_py.act.tally import Tally
from numad_py.errors import RightsError
from numad_py.model.machine import HugePages as Pool
from numad_py.model.machine import NodeState
from numad_py.model.outcome import End
from numad_py.model.plan import MemoryMove
from numad_py.policy.schema import HugeTlb, MigrationPolicy, Policy
from tests.fake_tree import FakeMachine, FakeNode
from tests.unit.fake_kernel import BASE, FakeKernel, MadeProcFs
from tests.unit.fake_pools import AWAY, HOME, HUGE, FakePool, FakePools, FollowingSysFs
from tests.unit.moving import UNPACED, decision, this_process

GROWN = Growth(HUGE, HOME, 0).name

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
        self.folder = folder
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
        self.huge = HugePages(self.sysfs, self.pools, self.keeper, policy, self.stop)
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
    assert journalled[0] == (
        Growth(HUGE, HOME, 3, {HOME: (1, 1), AWAY: (4, 0)}, 0, under_way=(HOME, 4)),
    )
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


# A restore, a stop or a kill in the middle, and what could not be given back


def test_a_restore_in_the_middle_of_growing_leaves_nothing_in_the_pool(
    bench: Callable[[HugeTlb, int], Bench],
) -> None:
    """It comes while the kernel looks for pages: who has them asked for gives them back."""
    made = bench(HugeTlb.RESERVE, 0)
    said: list[str] = []

    def restored() -> None:
        if not said:
            made.stop.set()
            said.extend(made.keeper.give_back())

    made.pools.before_set = restored
    assert made.move().end is End.STOPPED
    assert said == [f"{GROWN}: the move that has them gives them back as it ends"]
    assert made.pools.persistent == 4
    assert made.journal.settings() == ()


def test_a_stop_that_does_not_wait_for_the_kernel_leaves_it_to_the_next_run(
    bench: Callable[[HugeTlb, int], Bench], tmp_path: Path
) -> None:
    """The process ends before the write does: the journal still has what it brings."""
    made = bench(HugeTlb.RESERVE, 0)
    held: list[str] = []

    def killed() -> None:
        made.pools.before_set = lambda: None
        made.keeper.give_back()
        held.extend(setting.name for setting in made.journal.settings())
        made.pools.set_pool(HOME, HUGE, 1)
        made.journal.close()
        journal = Journal(tmp_path / "state", "boot")
        Keeper(made.pools, journal).take_up()
        assert journal.settings() == ()
        raise KeyboardInterrupt

    made.pools.before_set = killed
    with pytest.raises(KeyboardInterrupt):
        made.move()
    assert held == [GROWN]
    assert made.pools.persistent == 4


def test_once_stopped_no_pool_is_named_in_the_journal(
    bench: Callable[[HugeTlb, int], Bench],
) -> None:
    """Nothing is asked for any more, so there is nothing to write down."""
    made = bench(HugeTlb.RESERVE, 0)
    made.stop.set()
    path = made.folder / "state/journal.jsonl"
    before = path.read_text()
    made.move()
    assert made.pools.asked == []
    assert path.read_text() == before


def refusing(refuses: Iterable[bool]) -> Callable[[], None]:
    """Return what refuses to set a pool at these tries, and at all that come after them."""
    tries = iter(refuses)

    def refuse() -> None:
        if next(tries, True):
            msg = "somebody has taken the right away"
            raise RightsError(msg)

    return refuse


def test_what_could_not_be_given_back_is_given_back_after_the_next_move(
    bench: Callable[[HugeTlb, int], Bench],
) -> None:
    """Two growths of one pool are one in the journal, and all of it goes."""
    made = bench(HugeTlb.RESERVE, 0)
    made.pools.before_set = refusing([False])
    made.move(replace(UNPACED, chunk_bytes=HUGE))
    assert made.pools.persistent == 5
    (left,) = made.journal.settings()
    assert left == Growth(HUGE, HOME, 4, {HOME: (1, 0), AWAY: (4, 0)}, got=1)
    assert "right away" in made.keeper.told().problems[GROWN]

    # The try to give back what is left, two pages more, and no more.
    made.pools.before_set = refusing([True, False, False])
    made.move(replace(UNPACED, chunk_bytes=HUGE))
    (both,) = made.journal.settings()
    assert both == replace(left, wanted=1 + 3, pools={HOME: (3, 0), AWAY: (4, 0)}, got=3)
    assert made.pools.persistent == 7

    made.pools.before_set = lambda: None
    made.move()
    assert made.pools.persistent == 4
    assert made.journal.settings() == ()
    assert made.keeper.told().problems == {}


def test_pages_that_do_not_go_stay_in_the_journal(bench: Callable[[HugeTlb, int], Bench]) -> None:
    """The kernel took the number and kept the pages: that is no giving back."""
    made = bench(HugeTlb.RESERVE, 0)
    made.pools.keeps = True
    made.move()
    assert made.pools.persistent == 8
    assert [setting.name for setting in made.journal.settings()] == [GROWN]
    assert "4 of them cannot be taken off" in made.keeper.told().problems[GROWN]
    made.pools.keeps = False
    assert made.keeper.give_back() == (f"{GROWN}: 4 on node 1 taken off",)
    assert made.pools.persistent == 4
    assert made.journal.settings() == ()
