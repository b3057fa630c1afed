"""What is said first is what really hinders: lack of room before a guard that measures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numad_py.decide.decisions import decide
from numad_py.model.guard import GuardMemory
from numad_py.model.plan import Decision, DecisionState, Reason, WorkerMemory
from numad_py.model.residency import Source
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import Policy, Rule
from tests.unit.guarded import STEP_S, policy
from tests.unit.test_stability import START, machine, worker

FULL = (0, 4, 4, 4)
"""GiB free above the headroom, by node: none on node 0, where rule x has its home."""
WANTS = worker("x/0", {1: 1000}, age_s=3600.0)
FELLOW = worker("x/1", {1: 1000}, age_s=3600.0)


def said(
    *workers: Worker,
    free: tuple[int, ...] = FULL,
    state: DecisionState = START,
    by: Policy | None = None,
) -> dict[str, Decision]:
    """Return what is decided, by label."""
    plan, _ = decide(machine(*workers, free=free), by or policy(), state)
    return {decision.label: decision for decision in plan.decisions}


def over_time(snapshot: Snapshot, cycles: int, state: DecisionState = START) -> list[Reason]:
    """Return what is said of the first worker in cycles of 5 s; nothing is read of its guard."""
    reasons = []
    for step in range(cycles):
        at_s = snapshot.at_s + STEP_S * step
        now = machine(*snapshot.workers, at_s=at_s)
        plan, state = decide(replace(now, node_states=snapshot.node_states), policy(), state)
        reasons.append(plan.decisions[0].reason)
    return reasons


def test_without_room_that_is_said_all_the_time() -> None:
    """A guard that measures hinders nothing then; nor does one whose wait is over."""
    assert over_time(machine(WANTS, free=FULL), 40) == [Reason.NO_ROOM] * 40
    found = said(WANTS)["x/0"]
    assert "has room for 0 B above its headroom" in found.why


def test_the_wait_for_a_window_begins_when_there_is_room() -> None:
    """Two windows from then on, as for who comes then."""
    state = START
    for step in range(20):
        plan, state = decide(
            machine(WANTS, at_s=1000.0 + STEP_S * step, free=FULL), policy(), state
        )
    assert plan.decisions[0].reason is Reason.NO_ROOM
    later = machine(WANTS, at_s=1100.0)
    assert over_time(later, 13, state) == [Reason.GUARDING] * 12 + [Reason.REMOTE_MEMORY]


def test_with_room_it_is_the_guard_that_is_waited_for() -> None:
    """As before."""
    assert said(WANTS, free=(4, 4, 4, 4))["x/0"].reason is Reason.GUARDING


def test_a_fellow_that_is_judged_does_not_hide_lack_of_room() -> None:
    """Who waits for a fellow, and would have no room after it either, says the latter."""
    judged = WorkerMemory(guard=GuardMemory(moved_at_s=999.0))
    at_home = worker("x/0", {0: 1000}, age_s=3600.0)
    state = replace(START, workers={at_home.id: judged})
    found = said(at_home, FELLOW, state=state)
    assert found["x/1"].reason is Reason.NO_ROOM
    found = said(at_home, FELLOW, free=(4, 4, 4, 4), state=state)
    assert found["x/1"].reason is Reason.GUARDING


def test_who_waits_for_others_to_leave_says_so() -> None:
    """Its home is full of one that is to leave it: that one comes first."""
    rules = (
        Rule("x", "test", nodes=frozenset({0}), guard=policy().rules[0].guard),
        Rule("y", "test", nodes=frozenset({2})),
    )
    leaves = worker("y/2", {0: 2000}, age_s=3600.0)
    found = said(WANTS, leaves, by=Policy(rules=rules))
    assert found["y/2"].reason is Reason.REMOTE_MEMORY
    assert (found["x/0"].reason, "y/2" in found["x/0"].why) == (Reason.QUEUED, True)


def test_two_that_wait_for_their_guards_share_the_room() -> None:
    """The first would get it, so that the second lacks it: as if they had no guards."""
    found = said(WANTS, FELLOW, free=(1, 4, 4, 4))
    assert {label: d.reason for label, d in found.items()} == {
        "x/0": Reason.GUARDING,
        "x/1": Reason.NO_ROOM,
    }


def test_who_waits_for_its_guard_takes_no_room_from_others() -> None:
    """Room is taken by who moves now."""
    rules = (
        Rule("x", "test", nodes=frozenset({0}), guard=policy().rules[0].guard),
        Rule("y", "test", nodes=frozenset({0})),
    )
    other = worker("y/2", {1: 500}, age_s=3600.0)
    found = said(WANTS, other, free=(1, 4, 4, 4), by=Policy(rules=rules))
    assert found["y/2"].reason is Reason.REMOTE_MEMORY


@pytest.mark.parametrize(
    ("free", "reason"), [((0, 4, 4, 4), Reason.MEASURING), ((4, 4, 4, 4), Reason.GUARDING)]
)
def test_a_sample_that_shows_no_room_is_followed_by_a_full_reading(
    free: tuple[int, ...], reason: Reason
) -> None:
    """As without a guard: what is movable for sure is to tell. With room nothing is read yet."""
    assert WANTS.residency is not None
    sampled = replace(WANTS, residency=replace(WANTS.residency, source=Source.SAMPLE))
    assert said(sampled, free=free)["x/0"].reason is reason


def test_threads_need_no_room() -> None:
    """All memory is at home already: binding threads waits for the guard alone."""
    assert said(worker("x/0", {0: 1000}, age_s=3600.0))["x/0"].reason is Reason.GUARDING


def test_a_pause_of_a_guard_is_no_matter_of_room() -> None:
    """It would not be moved with room either."""
    guard = GuardMemory(undone=1, until_s=2000.0)
    state = replace(START, workers={WANTS.id: WorkerMemory(guard=guard)})
    assert said(WANTS, state=state)["x/0"].reason is Reason.GUARD_PAUSE
