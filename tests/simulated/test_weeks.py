"""Hours of a busy machine, under our rule and under one like numad's, on the same trace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulated.run import Came, Runs, longest_wait_s
from tests.simulated.weeks import IDS, LOADING_LOOKS, MOST_FULL, Weeks

SHORT = Weeks(seed=1, cycles=300, crowd=48, stay_s=3600.0)
"""Five hours, a look a minute."""
CLOSE = Weeks(seed=4, cycles=300, crowd=48, interval_s=5.0, stay_s=1200.0)
"""25 minutes, as closely as the daemon looks."""

LEAST = 0.6


@pytest.fixture(scope="module", params=[SHORT, CLOSE], ids=["hours", "minutes"])
def came(request: pytest.FixtureRequest) -> tuple[Weeks, Came, Came, Came]:
    """Return the weeks, and what ours, the greedy rule and doing nothing came to."""
    runs = Runs(replace(request.param))
    for _ in runs:
        pass
    return runs.weeks, *runs.came()


All = tuple[Weeks, Came, Came, Came]


def test_the_machine_is_as_busy_as_it_should_be(came: All) -> None:
    """Mostly 60 to 85 % of memory are taken, workers come and go, and some exceed a node."""
    weeks, ours, *_ = came
    held = [LEAST <= share <= MOST_FULL for share in weeks.full[LOADING_LOOKS:]]
    assert sum(held) >= 0.85 * len(held)
    assert max(weeks.full) <= MOST_FULL
    assert ours.figures.workers > 1.3 * weeks.crowd
    assert weeks.largest_bytes > weeks.node_bytes


def test_the_same_seed_makes_the_same_weeks() -> None:
    """And another one others."""
    few = Weeks(seed=3, cycles=20, crowd=16)
    assert list(few.scenes()) == list(replace(few).scenes())
    assert list(few.scenes()) != list(replace(few, seed=4).scenes())
    assert {node.id for node in few.topology.nodes} == set(IDS)


def test_nothing_goes_back_where_it_came_from(came: All) -> None:
    """No worker's memory returns to a node within ten minutes of having left it."""
    _, ours, *_ = came
    assert ours.figures.moves > 50
    assert ours.figures.ping_pongs == 0


def test_nobody_starves(came: All) -> None:
    """Nobody is remote, while there is room at home, for longer than the queue explains."""
    weeks, ours, *_ = came
    assert ours.watch.longest is not None
    assert ours.watch.longest.for_s <= longest_wait_s(weeks), ours.watch.longest


def test_the_headroom_holds(came: All) -> None:
    """No plan brings more to a node than it has above its headroom, moves under way counted."""
    _, ours, *_ = came
    assert ours.watch.promised_too_much == []
    assert ours.figures.headroom_broken == 0


def test_masks_of_users_hold(came: All) -> None:
    """Ours binds nobody beyond its user's mask; on the same trace the greedy rule does."""
    _, ours, greedy, _ = came
    assert ours.watch.pins_overwritten == set()
    assert greedy.watch.pins_overwritten


def test_more_is_near_for_fewer_bytes_moved(came: All) -> None:
    """Ours brings more memory near than the greedy rule, and moves less for each byte gained."""
    _, ours, greedy, untouched = came
    assert ours.near_bytes > greedy.near_bytes > untouched.near_bytes
    least, theirs = ours.moved_per_gained(untouched), greedy.moved_per_gained(untouched)
    assert least is not None
    assert theirs is not None
    assert least < theirs


def test_replicas_are_kept_apart(came: All) -> None:
    """No more pairs of replicas share a node than under the rule that knows nothing of them."""
    _, ours, greedy, _ = came
    assert sum(ours.watch.crowded) <= sum(greedy.watch.crowded)
