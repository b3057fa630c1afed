"""What the daemon keeps for a recorder."""

from __future__ import annotations

from dataclasses import replace

import numad_py
from numad_py.model.codec import decode
from numad_py.model.cycle import Cycle
from numad_py.model.plan import Plan
from numad_py.policy.load import defaults
from numad_py.policy.schema import Policy
from numad_py.serve.recent import ASKED_WITHIN_S, KEPT, Recent
from tests.unit import seen


def add(recent: Recent, number: int, now_s: float = 2.0) -> None:
    """Have a cycle end."""
    snapshot = replace(seen.snapshot(), cycle=number)
    recent.add(snapshot, Plan(number, ()), (), now_s)


def kept(recent: Recent, after: int = 0) -> list[int]:
    """Return the numbers of the cycles that are answered."""
    answer = recent.document(after, defaults(), 3.0)
    return [decode(Cycle, cycle).snapshot.cycle for cycle in answer["cycles"]]


def test_nothing_is_kept_until_somebody_records() -> None:
    """And nothing any more when nobody has asked for a while: snapshots are large."""
    recent = Recent()
    add(recent, 1)
    assert kept(recent) == []
    add(recent, 2)
    assert kept(recent) == [2]
    add(recent, 3, now_s=3.0 + ASKED_WITHIN_S)
    assert kept(recent) == []


def test_the_first_answer_holds_the_policy() -> None:
    """Under which all that follows is recorded."""
    answer = Recent().document(None, defaults(), 1.0)
    assert answer["version"] == numad_py.__version__
    assert (answer["interval_s"], answer["cycles"]) == (5.0, [])
    assert decode(Policy, answer["policy"]) == defaults()


def test_each_daemon_has_a_token_of_its_own() -> None:
    """By which whoever records tells its cycle 3 from that of the daemon before it."""
    recent = Recent()
    first, later = (recent.document(after, defaults(), 1.0)["start"] for after in (None, 7))
    assert first == later
    assert first != Recent().document(7, defaults(), 1.0)["start"]


def test_cycles_are_answered_once() -> None:
    """Those after the last one that the asker has, as many as are kept."""
    recent = Recent()
    recent.document(None, defaults(), 1.0)
    for number in range(1, KEPT + 3):
        add(recent, number)
    assert kept(recent) == list(range(3, KEPT + 3))
    assert kept(recent, after=KEPT) == [KEPT + 1, KEPT + 2]


def test_a_glance_between_two_looks_is_no_cycle_that_was_missed() -> None:
    """Cycles are numbered with the glances, looks without: a gap in these is one that is gone."""
    recent = Recent()
    recent.document(None, defaults(), 1.0)
    for number in (1, 4, 7):
        add(recent, number)
    answer = recent.document(1, defaults(), 3.0)
    assert answer["looks"] == [2, 3]
    for number in range(10, 10 + KEPT):
        add(recent, number)
    assert recent.document(7, defaults(), 3.0)["looks"][0] == 4
    add(recent, 30)
    assert recent.document(7, defaults(), 3.0)["looks"][0] == 5
