"""Pools that grow for a move while others set them too, or a kill comes: each growth is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from numad_py.act.journal import Growth, Journal
from numad_py.act.journal_records import setting_of, setting_record
from numad_py.act.pools import growth_for
from numad_py.act.ranges import Range
from numad_py.act.settings import Keeper
from numad_py.errors import RightsError
from tests.unit.fake_kernel import BASE
from tests.unit.fake_pools import AWAY, HOME, HUGE, FakePool, FakePools

THIRD = 2


class Bench:
    """Pools of a machine, and who keeps them."""

    def __init__(self, folder: Path, **pools: FakePool) -> None:
        """Take the pools of node0, node1 and so on."""
        self.folder = folder
        self.pools = FakePools(**pools)
        self.start()

    def start(self) -> None:
        """Start with what the journal holds."""
        self.journal = Journal(self.folder, "boot")
        self.keeper = Keeper(self.pools, self.journal)

    def killed(self) -> None:
        """Be killed, and started again."""
        self.journal.close()
        self.start()

    def grow(self, pages: int, target: int = HOME) -> str:
        """Have a pool grow for so many pages that are to come from node 1; return its name."""
        area = Range(
            BASE, BASE + pages * HUGE, HUGE, {AWAY: pages * HUGE}, may_be_thp=False, hugetlb=True
        )
        growth = growth_for([area], HUGE, target, self.pools, room_bytes=1 << 40)
        assert growth is not None
        self.keeper.grow(growth, lambda: False)
        return growth.name

    def refuse(self) -> None:
        """Have no right to set pools until ``allow``."""

        def no() -> None:
            msg = "read-only"
            raise RightsError(msg)

        self.pools.before_set = no

    def allow(self) -> None:
        """Have it again."""
        self.pools.before_set = lambda: None

    def counts(self) -> dict[int, tuple[int, int]]:
        """Return persistent and surplus pages by node."""
        found = {node: self.pools.pool(node, HUGE) for node in self.pools.pools}
        return {node: (pool.persistent, pool.surplus) for node, pool in found.items() if pool}


def test_no_more_is_given_back_than_the_kernel_gave(tmp_path: Path) -> None:
    """It gave one of four; what an admin has added to another node meanwhile is the admin's."""
    bench = Bench(tmp_path, node0=FakePool(most=1), node1=FakePool(used=8))
    name = bench.grow(4)
    bench.pools.set_pool(AWAY, HUGE, 12)
    bench.keeper.end_growth(name)
    assert bench.counts() == {HOME: (0, 0), AWAY: (12, 0)}
    assert bench.journal.settings() == ()


@pytest.mark.parametrize("moved", [0, 4])
def test_what_an_admin_took_from_the_source_is_not_taken_for_ours(
    tmp_path: Path, moved: int
) -> None:
    """After a kill as well: the target's go, as surplus where the worker has them."""
    bench = Bench(tmp_path, node0=FakePool(), node1=FakePool(used=4, free=4))
    bench.grow(4)
    bench.pools.move(moved)
    bench.killed()
    bench.pools.set_pool(AWAY, HUGE, 4)
    bench.keeper.give_back()
    assert bench.counts() == {HOME: (0, moved), AWAY: (4, 0)}
    assert bench.journal.settings() == ()


def test_an_admin_who_sets_a_node_that_pages_left_has_it_so(tmp_path: Path) -> None:
    """Ours go on the target, and in sum it is what the admin has changed and no more."""
    bench = Bench(tmp_path, node0=FakePool(), node1=FakePool(used=8))
    name = bench.grow(4)
    bench.pools.move(4)
    bench.pools.set_pool(AWAY, HUGE, 12)
    bench.keeper.end_growth(name)
    assert bench.counts() == {HOME: (0, 4), AWAY: (12, 0)}


def test_an_admin_who_sets_the_target_has_it_so(tmp_path: Path) -> None:
    """What is left where pages were is given back all the same."""
    bench = Bench(tmp_path, node0=FakePool(), node1=FakePool(used=8))
    name = bench.grow(4)
    bench.pools.move(4)
    bench.pools.set_pool(HOME, HUGE, 9)
    bench.keeper.end_growth(name)
    assert bench.counts() == {HOME: (9, 0), AWAY: (4, 0)}
    assert bench.journal.settings() == ()


def test_a_pool_that_somebody_sets_while_it_grows_is_not_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next page would be asked for by a lower number than the admin's."""
    bench = Bench(tmp_path, node0=FakePool(), node1=FakePool(used=8))
    write = bench.pools.set_pool

    def set_pool(node: int, page_bytes: int, pages: int) -> None:
        write(node, page_bytes, pages)
        if bench.pools.asked == [(HOME, 1)]:
            write(HOME, HUGE, 20)

    monkeypatch.setattr(bench.pools, "set_pool", set_pool)
    bench.keeper.end_growth(bench.grow(4))
    assert bench.counts()[HOME] == (20, 0)


def test_two_growths_that_share_a_source_leave_nothing(tmp_path: Path) -> None:
    """The first could not be given back at its end; the second has its own, and takes that off."""
    bench = Bench(tmp_path, node0=FakePool(), node1=FakePool(used=8), node2=FakePool())
    first = bench.grow(4)
    bench.pools.move(4)
    bench.refuse()
    bench.keeper.end_growth(first)
    bench.keeper.take_up()
    bench.allow()
    second = bench.grow(3, THIRD)
    bench.pools.move(3, AWAY, THIRD)
    bench.keeper.end_growth(second)
    bench.keeper.take_up()
    assert bench.pools.persistent == 8
    assert bench.journal.settings() == ()


def test_a_growth_takes_nothing_from_the_pool_of_another(tmp_path: Path) -> None:
    """What the first had left on its target is given back as its own."""
    bench = Bench(tmp_path, node0=FakePool(), node1=FakePool(used=4), node2=FakePool())
    first = bench.grow(4)
    bench.pools.move(4)
    bench.refuse()
    bench.keeper.end_growth(first)
    bench.allow()
    growth = Growth(HUGE, THIRD, 2, {THIRD: (0, 0), HOME: (4, 0)})
    bench.keeper.grow(growth, lambda: False)
    bench.pools.move(2, HOME, THIRD)
    bench.keeper.end_growth(growth.name)
    bench.keeper.take_up()
    assert bench.pools.persistent == 4
    assert bench.journal.settings() == ()


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_a_kill_between_any_two_steps_is_made_good(tmp_path: Path, moved: int) -> None:
    """Before or after any write to a pool, whether it was noted what came of it or not."""
    steps = 0
    while True:
        folder = tmp_path / str(steps)
        bench = Bench(folder, node0=FakePool(free=1), node1=FakePool(used=4, free=2))
        left = [steps]

        def step(left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1

        bench.pools.before_set = bench.pools.before_look = step
        try:
            name = bench.grow(4)
            bench.pools.move(moved)
            bench.keeper.end_growth(name)
            ended = True
        except KeyboardInterrupt:
            ended = False
        bench.pools.before_set = bench.pools.before_look = lambda: None
        bench.killed()
        bench.keeper.take_up()
        assert bench.pools.persistent == 7
        assert bench.journal.settings() == ()
        bench.journal.close()
        if ended:
            assert steps > 10
            return
        steps += 1


GROWTHS = [
    Growth(HUGE, HOME, 4, {HOME: (0, 0), AWAY: (8, 1)}),
    Growth(HUGE, HOME, 4, {HOME: (0, 0), AWAY: (8, 1)}, got=0, under_way=(HOME, 4)),
    Growth(HUGE, HOME, 4, {HOME: (3, 0), AWAY: (8, 1)}, got=3),
]


@pytest.mark.parametrize("growth", GROWTHS, ids=["asked for", "under way", "got"])
def test_a_record_holds_all_of_a_growth(growth: Growth) -> None:
    """What was got, and what is being set."""
    assert setting_of(setting_record(growth, "boot")) == growth


def test_a_record_of_an_earlier_version_is_given_back_by_all_pools_together(
    tmp_path: Path,
) -> None:
    """It has what was wanted alone: here two had moved, and were taken off where they were."""
    bench = Bench(tmp_path, node0=FakePool(used=2, free=2), node1=FakePool(used=2))
    record = setting_record(Growth(HUGE, HOME, 4, {HOME: (0, 0), AWAY: (4, 0)}), "boot")
    earlier = {key: value for key, value in record.items() if key not in {"got", "under_way"}}
    growth = setting_of(earlier)
    assert isinstance(growth, Growth)
    bench.journal.put_setting(growth)
    bench.keeper.take_up()
    assert bench.counts() == {HOME: (2, 0), AWAY: (2, 0)}
    assert bench.journal.settings() == ()
