"""Guards beside everything else: fellows, pauses, room, what is broken off, and reloads."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from numad_py.decide.decisions import decide
from numad_py.decide.remember import remember
from numad_py.model.codec import decode, encode
from numad_py.model.guard import Compared
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Plan, Reason, Verdict
from numad_py.policy.schema import Mode
from numad_py.serve.report import Took, Totals
from tests.unit.guarded import (
    GUARD,
    UNDONE_AT,
    Run,
    Server,
    acted,
    alike,
    histogram,
    judge,
    policy,
    seen_after,
    state_of,
    worse_on_0,
)
from tests.unit.test_stability import GIB, MIB, START, machine, worker


def test_one_worker_of_a_rule_is_moved_at_a_time() -> None:
    """The second one begins when the first has been judged; it is compared with what was then."""
    run = Run(Server(alike), labels=("x/0", "x/1"))
    first = run.until(Reason.REMOTE_MEMORY)
    second = next(d for d in run.cycles[-1].said if d.label == "x/1")
    assert (second.verdict, second.reason) == (Verdict.WAIT, Reason.GUARDING)
    acts = {}
    for _ in range(40):
        run.step()
        for said in run.cycles[-1].said:
            if said.verdict is Verdict.ACT:
                acts[said.label] = len(run.cycles)
    # One cycle to move, 30 s to judge, one for the turn.
    assert acts == {"x/1": first + 1 + 6 + 1}
    assert run.node_of("x/0") == run.node_of("x/1") == 0


def test_in_a_pause_nothing_is_taken_back() -> None:
    """It is said that it is to be; after resume it is, by what is known then."""
    run = Run(Server(worse_on_0))
    run.step(UNDONE_AT)
    run.simulation.state = replace(run.simulation.state, paused=True)
    assert run.step(3) == [Reason.PAUSED] * 3
    assert state_of(run).undone == 0
    run.simulation.state = replace(run.simulation.state, paused=False)
    assert run.step() == [Reason.GUARD_UNDO]
    assert state_of(run).undone == 1


def test_no_more_goes_back_than_there_is_room_for() -> None:
    """The headroom of the node that it came from holds for the way back too."""
    found = acted(3000)
    snapshot = machine(seen_after(3000), at_s=2000.0, free=(4, 1, 4, 4))
    (decision,), _ = judge(found, snapshot)
    assert decision.reason is Reason.GUARD_UNDO
    assert [(m.source, m.target) for m in decision.moves] == [(0, 1)]
    assert decision.move_bytes == pytest.approx(GIB, abs=1)
    assert f"leaving {(3000 - 1024) / 1024:.1f} GiB" in decision.why


def test_what_others_map_too_is_not_taken_back() -> None:
    """Others may be the better for it."""
    found = acted(1000, moved_shared={(1, 0): 300 * MIB})
    assert found.of(seen_after(1000).id).guard.moved == {(1, 0): 700 * MIB}


def test_a_move_that_did_nothing_is_not_judged() -> None:
    """Nothing was moved and no thread bound: there is nothing to take back."""
    found = acted(1000, moved={}, threads_bound=0)
    guard = found.of(seen_after(1000).id).guard
    assert (guard.before, guard.moved_at_s) == (None, None)


def test_threads_alone_are_judged_too() -> None:
    """Binding them may be what made it worse; then they get their masks back."""
    found = acted(1000, moved={})
    (decision,), _ = judge(found, machine(seen_after(1000), at_s=2000.0))
    assert (decision.reason, decision.moves, decision.give_back) == (Reason.GUARD_UNDO, (), True)


@pytest.mark.parametrize(
    ("end", "back", "again_s"),
    [(End.STOPPED, 400, 0.0), (End.PRESSURE, 400, 30.0), (End.DONE, 400, None)],
)
def test_taking_back_that_was_broken_off_goes_on(
    end: End, back: int, again_s: float | None
) -> None:
    """At once after a pause, a window later where memory was short; what refused is let be."""
    found = acted(1000)
    (decision,), state = judge(found, machine(seen_after(1000), at_s=2000.0))
    outcome = Outcome(decision, end, 2000.0, 1.0, moved={(0, 1): back * MIB})
    state = remember(state, [outcome], 2005.0)
    seen = worker("x/0", {0: 1000 - back, 1: back}, age_s=3600.0)
    if again_s:
        (waits,), state = judge(state, machine(seen, at_s=2005.0))
        assert (waits.verdict, waits.reason) == (Verdict.WAIT, Reason.GUARDING)
    (then,), state = judge(state, machine(seen, at_s=2005.0 + (again_s or 0.0)))
    if again_s is None:
        assert then.reason is Reason.GUARD_PAUSE
        return
    assert then.reason is Reason.GUARD_UNDO
    assert [m.move_bytes for m in then.moves] == [(1000 - back) * MIB]
    assert state.of(seen.id).guard.undone == 1


def test_a_guard_that_the_policy_drops_is_forgotten() -> None:
    """After a reload without it the worker is as any other."""
    run = Run(Server(worse_on_0))
    run.until(Reason.REMOTE_MEMORY)
    run.simulation.policy = policy(None)
    assert run.step(10) == [Reason.HOME] * 10


def test_another_metric_is_not_compared_with_the_first() -> None:
    """A reload between before and after changes what is measured."""
    found = acted(1000)
    other = policy(replace(GUARD, quantile=0.5))
    plan, _ = decide(machine(seen_after(1000), at_s=2000.0), other, found)
    (decision,) = plan.decisions
    assert decision.judgement is not None
    assert decision.judgement.result is Compared.NOT_COMPARABLE
    assert "the policy has changed" in decision.judgement.why


def test_what_only_advises_waits_and_then_says_the_same() -> None:
    """Nothing is done, so nothing is judged, and the wait is not begun anew each time."""
    seen = machine(worker("x/0", {1: 1000}, age_s=3600.0))
    advises = replace(policy(), daemon=replace(policy().daemon, mode=Mode.ADVISE))
    state, said = START, []
    for step in range(20):
        plan, state = decide(replace(seen, at_s=1000.0 + 5 * step), advises, state)
        (decision,) = plan.decisions
        said.append(decision.reason)
        assert not plan.judgements
        if decision.verdict is Verdict.ACT:
            state = remember(state, [Outcome(decision, End.SIMULATED, 0.0, 0.0)], 0.0)
    assert said == [Reason.GUARDING] * 12 + [Reason.REMOTE_MEMORY] * 8


def test_judgements_are_counted_in_the_cycle_that_found_them() -> None:
    """Later cycles carry the last one, and do not count it again."""
    found = acted(1000)
    decisions, state = judge(found, machine(seen_after(1000), at_s=2000.0))
    first = Plan(3, decisions)
    totals = counted(counted(Totals(), first), Plan(4, decisions))
    assert totals.judgements == {Compared.UNDONE: 1}
    (again,), _ = judge(state, replace(machine(seen_after(1000), at_s=2005.0), cycle=4))
    assert again.judgement == decisions[0].judgement


def test_a_decision_with_its_judgement_can_be_recorded() -> None:
    """Readings, judgement and what goes back come out of JSON as they went in."""
    found = acted(1000)
    seen = replace(seen_after(1000), guard=histogram(1.0, [1, 2, 3, 4, 5, 6]))
    snapshot = machine(seen, at_s=2000.0)
    (decision,), state = judge(found, snapshot)
    for value in (decision, snapshot, state):
        assert decode(type(value), json.loads(json.dumps(encode(value)))) == value


# Helpers


def counted(totals: Totals, plan: Plan) -> Totals:
    """Return totals with one cycle more."""
    return totals.add(plan=plan, outcomes=(), took=Took(0.0, 0.0), readings={}, reading_s={})
