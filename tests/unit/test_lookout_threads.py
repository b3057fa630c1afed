"""Threads that are born, pinned or gone while a move goes on: whether its user did place it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from numad_py.act.lookout import AGAIN_S, Lookout, Masks, PlacedByUser
from numad_py.act.ranges import Seen
from numad_py.model.snapshot import WorkerId

MAIN = 100
HOME, ELSEWHERE = frozenset({0, 1}), frozenset({2, 3})
Goes = Callable[[Masks, Masks], bool]


def all_at(cpus: frozenset[int], tids: Iterable[int]) -> dict[int, frozenset[int]]:
    """Return the masks of threads that may all run on the same CPUs."""
    return dict.fromkeys(tids, cpus)


@pytest.fixture
def goes_on(monkeypatch: pytest.MonkeyPatch) -> Goes:
    """Say whether a move goes on, by the masks at its beginning and those at the next look."""
    now = [1000.0]
    monkeypatch.setattr("numad_py.kernel.clock.monotonic_s", lambda: now[0])

    def goes(before: Masks, after: Masks) -> bool:
        masks = iter([before, after])
        lookout = Lookout(WorkerId(MAIN, 1), lambda: Seen((), ()), lambda: next(masks))
        lookout.begin()
        now[0] += AGAIN_S
        try:
            lookout.again(list)
        except PlacedByUser:
            return False
        return True

    return goes


def test_a_few_helpers_do_not_outweigh_a_pool_of_new_threads(goes_on: Goes) -> None:
    """All threads that are there count: those of a pool come and go, and are at home."""
    before = all_at(HOME, [MAIN, 101, 102, *range(200, 1200)])
    pool = all_at(HOME, [MAIN, *range(5000, 6000)])
    assert goes_on(before, {**pool, **all_at(ELSEWHERE, [101, 102])})


def test_threads_that_are_new_and_pinned_elsewhere_count(goes_on: Goes) -> None:
    """A new one has its creator's mask: elsewhere is where none could run in the beginning."""
    before = all_at(HOME, range(MAIN, MAIN + 4))
    assert not goes_on(before, {**before, **all_at(ELSEWHERE, range(5000, 5005))})
    assert goes_on(before, {**before, **all_at(ELSEWHERE, range(5000, 5004))})
    apart = {**before, 104: ELSEWHERE}
    assert goes_on(apart, {**apart, **all_at(ELSEWHERE, range(5000, 5009))})


@pytest.mark.parametrize(("pinned", "goes"), [([MAIN], False), ([101, 102], True)])
def test_the_main_thread_counts_for_all(goes_on: Goes, pinned: list[int], goes: bool) -> None:  # noqa: FBT001
    """Of five, two others are not most of them."""
    before = all_at(HOME, range(MAIN, MAIN + 5))
    assert goes_on(before, {**before, **all_at(ELSEWHERE, pinned)}) is goes
