"""Pools of huge pages that grow for a move, and are as large together as before after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.act.journal import Growth, Journal
from numad_py.act.pools import give_back_pages, grow, growth_for
from numad_py.act.ranges import Range
from numad_py.act.settings import Keeper
from numad_py.errors import NumadError
from tests.unit.fake_kernel import BASE
from tests.unit.fake_pools import AWAY, HOME, HUGE, FakePool, FakePools


def areas(pages: int, node: int = AWAY) -> list[Range]:
    """Return one area of so many huge pages on a node."""
    remote = {node: pages * HUGE}
    return [Range(BASE, BASE + pages * HUGE, HUGE, remote, may_be_thp=False, hugetlb=True)]


def grown(pools: FakePools, pages: int) -> Growth:
    """Have the target grow by what so many pages lack there."""
    growth = growth_for(areas(pages), HUGE, HOME, pools, room_bytes=1 << 40)
    assert growth is not None
    grow(growth, pools, lambda: False)
    return growth


def test_what_is_missing_is_added_and_taken_off_where_pages_were_left() -> None:
    """Of six pages two find room; four are added, and four go from the node that the six left."""
    pools = FakePools(node0=FakePool(used=1, free=2), node1=FakePool(used=6, free=1))
    growth = grown(pools, 6)
    assert growth == Growth(HUGE, HOME, 4, {HOME: (3, 2), AWAY: (7, 1)})
    assert pools.pools[HOME].free == 6
    pools.move(6)
    assert give_back_pages(growth, pools) == "4 on node 1 taken off"
    assert pools.persistent == 10
    assert pools.pools[AWAY] == FakePool(used=0, free=3)
    assert pools.pools[HOME] == FakePool(used=7, free=0)


@pytest.mark.parametrize("moved", range(7))
def test_pools_are_as_large_as_before_however_far_the_move_came(moved: int) -> None:
    """What was not used goes from the target, what was used from the source."""
    pools = FakePools(node0=FakePool(), node1=FakePool(used=6))
    growth = grown(pools, 6)
    pools.move(moved)
    give_back_pages(growth, pools)
    assert pools.persistent == 6
    assert (pools.pools[AWAY].free, pools.pools[HOME].free) == (0, 0)
    assert all(pool.surplus == 0 for pool in pools.pools.values())


def test_where_others_took_what_was_left_the_target_gives_it_back_once_it_is_free() -> None:
    """A page in use cannot be taken off: it becomes surplus, and goes when its user ends."""
    pools = FakePools(node0=FakePool(), node1=FakePool(used=2))
    growth = grown(pools, 2)
    pools.move(2)
    pools.pools[AWAY] = FakePool(used=2)
    assert give_back_pages(growth, pools) == "2 on node 0 taken off"
    assert pools.pools[HOME] == FakePool(used=2, surplus=2)
    assert pools.persistent == 2


def test_no_more_are_added_than_the_target_has_room_for() -> None:
    """Its headroom is kept; with none at all nothing is asked for."""
    pools = FakePools(node0=FakePool(free=1), node1=FakePool(used=6))
    growth = growth_for(areas(6), HUGE, HOME, pools, room_bytes=3 * HUGE + 5)
    assert growth is not None
    assert growth.wanted == 3
    assert growth_for(areas(6), HUGE, HOME, pools, room_bytes=-HUGE) is None
    assert growth_for(areas(1), HUGE, HOME, pools, room_bytes=1 << 40) is None
    assert growth_for(areas(6), HUGE, 7, pools, room_bytes=1 << 40) is None


def test_where_the_kernel_finds_fewer_the_rest_is_not_asked_for_again() -> None:
    """Clearing 1 GiB takes long: one try in vain is enough; what came is taken off again."""
    pools = FakePools(node0=FakePool(most=2), node1=FakePool(used=6))
    growth = grown(pools, 6)
    assert pools.asked == [(HOME, 1), (HOME, 2), (HOME, 3)]
    assert pools.pools[HOME].free == 2
    give_back_pages(growth, pools)
    assert pools.persistent == 6


def test_growing_ends_when_a_stop_is_asked_for() -> None:
    """Between two pages."""
    pools = FakePools(node0=FakePool(), node1=FakePool(used=6))
    growth = growth_for(areas(6), HUGE, HOME, pools, room_bytes=1 << 40)
    assert growth is not None
    grow(growth, pools, lambda: len(pools.asked) == 2)
    assert pools.pools[HOME].free == 2


@pytest.mark.parametrize("sets", range(8))
@pytest.mark.parametrize("moved", [0, 1, 3])
def test_a_kill_at_any_point_is_made_good_by_doing_it_again(sets: int, moved: int) -> None:
    """Before the first change, in the middle of growing or of giving back, or after all of it."""
    pools = FakePools(node0=FakePool(free=1), node1=FakePool(used=4, free=2))
    growth = growth_for(areas(4), HUGE, HOME, pools, room_bytes=1 << 40)
    assert growth is not None

    def killed() -> None:
        if len(pools.asked) >= sets:
            raise KeyboardInterrupt

    pools.before_set = killed
    try:
        grow(growth, pools, lambda: False)
        pools.move(moved)
        give_back_pages(growth, pools)
    except KeyboardInterrupt:
        pass
    pools.before_set = lambda: None
    give_back_pages(growth, pools)
    assert pools.persistent == 7
    assert "none to give back" in give_back_pages(growth, pools)
    assert pools.persistent == 7


def test_a_pool_that_somebody_else_has_set_since_is_left() -> None:
    """More than was ever asked for, or less than there was: neither is ours."""
    for pages in (9, 0):
        pools = FakePools(node0=FakePool(free=1), node1=FakePool(used=4))
        growth = grown(pools, 4)
        pools.set_pool(HOME, HUGE, pages)
        assert give_back_pages(growth, pools) == f"somebody else has set it to {pages}: it is left"
        assert pools.pools[HOME].free == pages


def test_a_node_that_went_offline_ends_it() -> None:
    """Its pool went with it."""
    pools = FakePools(node0=FakePool(), node1=FakePool(used=4))
    growth = grown(pools, 4)
    del pools.pools[HOME]
    assert "a node is gone" in give_back_pages(growth, pools)


def test_a_pool_is_given_back_by_the_next_run(tmp_path: Path) -> None:
    """What a killed one has added goes, wherever it was in its move."""
    pools = FakePools(node0=FakePool(), node1=FakePool(used=4))
    journal = Journal(tmp_path, "boot")
    growth = growth_for(areas(4), HUGE, HOME, pools, room_bytes=1 << 40)
    assert growth is not None
    journal.put_setting(growth)
    grow(growth, pools, lambda: False)
    pools.move(1)
    journal.close()
    journal = Journal(tmp_path, "boot")
    keeper = Keeper(pools, journal)
    keeper.take_up()
    assert pools.persistent == 4
    assert pools.pools[HOME] == FakePool(used=1)
    assert journal.settings() == ()


def test_a_failure_to_give_back_is_kept_and_counted(tmp_path: Path) -> None:
    """It is tried again by the next who gives back."""
    pools = FakePools(node0=FakePool(), node1=FakePool(used=4))
    journal = Journal(tmp_path, "boot")
    keeper = Keeper(pools, journal)
    growth = growth_for(areas(4), HUGE, HOME, pools, room_bytes=1 << 40)
    assert growth is not None
    journal.put_setting(growth)
    grow(growth, pools, lambda: False)

    def refuse() -> None:
        msg = "no"
        raise NumadError(msg)

    pools.before_set = refuse
    assert keeper.give_back() == ()
    assert journal.settings() == (replace(growth, got=4, pools={HOME: (4, 0), AWAY: (4, 0)}),)
    assert keeper.told().failures == {"huge_pages": 1}
    pools.before_set = lambda: None
    (said,) = keeper.give_back()
    assert said == "huge pages of 2048 kB on node 0: 4 on node 0 taken off"
    assert pools.persistent == 4
