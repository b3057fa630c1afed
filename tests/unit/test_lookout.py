"""When threads count as pinned elsewhere; and sets of stretches of an address space."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise

import pytest

from numad_py.act.lookout import AGAIN_S, Lookout, PlacedByUser
from numad_py.act.ranges import Range, Seen
from numad_py.act.spans import gaps, merged, touches
from numad_py.model.snapshot import WorkerId

HERE, THERE, BOTH = frozenset({0, 1}), frozenset({2, 3}), frozenset({1, 2})
MAIN = 10
BEFORE = {MAIN: HERE, 11: HERE, 12: HERE, 13: HERE}


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        ({**BEFORE, 11: THERE, 12: THERE}, False),
        ({**BEFORE, 11: THERE, 12: THERE, 13: THERE}, True),
        ({**BEFORE, MAIN: THERE}, True),
        (dict.fromkeys(BEFORE, BOTH), False),
        ({MAIN: HERE, **dict.fromkeys(range(20, 30), THERE)}, True),
        ({**BEFORE, **dict.fromkeys(range(20, 24), THERE)}, False),
        ({}, False),
    ],
    ids=["half", "most", "main", "overlap", "new", "some new", "gone"],
)
def test_a_worker_is_pinned_elsewhere_by_its_main_thread_or_by_most(
    now: Mapping[int, frozenset[int]], *, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To where none of the CPUs is on which they could run, or their creators could."""
    time_s = [100.0]
    monkeypatch.setattr("numad_py.kernel.clock.monotonic_s", lambda: time_s[0])
    masks = iter([BEFORE, now])
    lookout = Lookout(WorkerId(MAIN, 1), lambda: Seen((), ()), lambda: next(masks))
    lookout.begin()
    assert lookout.again(list) is None
    time_s[0] += AGAIN_S
    if not ends:
        assert lookout.again(list) == ()
        return
    with pytest.raises(PlacedByUser, match="CPUs 2-3"):
        lookout.again(list)


def test_a_part_of_an_area_is_wholly_on_a_node_only_where_that_is_sure() -> None:
    """What is remote may lie in the part that was walked over already."""
    found = Range(0, 8 * 4096, 4096, {1: 4 * 4096}, may_be_thp=True)
    assert found.part(4 * 4096, 8 * 4096, sure=True).whole_on == 1
    assert found.part(4 * 4096, 8 * 4096, sure=False).whole_on is None
    assert found.part(6 * 4096, 8 * 4096, sure=False).remote == {1: 2 * 4096}
    assert found.part(0, 8 * 4096, sure=False) is found


def test_spans_are_those_of_a_set_of_numbers() -> None:
    """What is between them, what they touch, and what becomes one."""
    rng = random.Random(3)  # noqa: S311 - to be drawn again, not to be secret
    for _ in range(300):
        spans = [(s, s + rng.randint(1, 6)) for s in rng.choices(range(40), k=rng.randint(0, 6))]
        covered = {n for start, end in spans for n in range(start, end)}
        found = merged(spans)
        assert {n for start, end in found for n in range(start, end)} == covered
        assert all(a[1] < b[0] for a, b in pairwise(found))
        start = rng.randrange(40)
        end = start + rng.randint(1, 10)
        open_parts = list(gaps(found, start, end))
        assert {n for low, high in open_parts for n in range(low, high)} == {
            *range(start, end)
        } - covered
        assert touches(found, start, end) == bool(covered & {*range(start, end)})
