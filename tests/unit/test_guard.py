"""What guards lead to, cycle by cycle on a simulated machine."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from numad_py.decide.decisions import decide
from numad_py.decide.guard import LONGEST_PAUSE_S
from numad_py.decide.remember import remember
from numad_py.model.codec import decode, encode
from numad_py.model.guard import Compared, GuardMemory, GuardReading
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision, DecisionState, Plan, Reason, Verdict, WorkerMemory
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import Mode
from numad_py.serve.report import Took, Totals
from tests.unit.guarded import GUARD, STEP_S, Run, Server, histogram, policy
from tests.unit.test_stability import CPUS, GIB, MIB, START, machine, worker

UNDONE_AT = 13
"""Cycles until a move is taken back: 30 s before it, one to move, 30 s after it."""


def worse_on_0(node: int) -> float:
    """Return what a request takes where the new home is the wrong one."""
    return 0.5 if node == 0 else 0.15


def better_on_0(node: int) -> float:
    """Return what it takes where all is as it should be."""
    return 0.15 if node == 0 else 0.5


def alike(_node: int) -> float:
    """Return what it takes where nodes make no difference."""
    return 0.15


def state_of(run: Run) -> GuardMemory:
    """Return what is remembered of the first worker."""
    return run.simulation.state.of(run.worker().id).guard


def judged(run: Run) -> list[tuple[int, Compared]]:
    """Return in which cycles what was found."""
    judgement = state_of(run).judgement
    return [] if judgement is None else [(judgement.cycle, judgement.result)]


# The main story


def test_a_move_that_makes_latency_worse_is_taken_back() -> None:
    """Memory is where it was, threads have the masks they had, and it is left alone."""
    run = Run(Server(worse_on_0))
    said = run.step(UNDONE_AT + 2)
    assert said == [
        *[Reason.GUARDING] * 6,
        Reason.REMOTE_MEMORY,
        *[Reason.GUARDING] * 6,
        Reason.GUARD_UNDO,
        Reason.GUARD_PAUSE,
    ]
    moved = run.cycles[8].snapshot.workers[0]
    assert moved.residency is not None
    assert moved.residency.by_node() == {0: 1000 * MIB}
    assert moved.allowed_cpus == frozenset(range(4))
    back = run.worker()
    assert back.residency is not None
    assert back.residency.by_node() == {1: 1000 * MIB}
    assert back.allowed_cpus == CPUS
    assert back.first_masks == {}
    assert run.cycles[-1].outcomes[0].threads_given_back == 1


def test_the_numbers_are_told() -> None:
    """Before and after, over how long, from how many, and how much worse."""
    run = Run(Server(worse_on_0))
    run.step(UNDONE_AT + 1)
    judgement = state_of(run).judgement
    assert judgement is not None
    assert judgement.result is Compared.UNDONE
    assert judgement.why == (
        "p95 of latency_seconds was 0.195 over 30 s (60 observations) before the move and is 0.78 "
        "over 30 s (60 observations) after it: 300% worse, where 20% worse is too much"
    )


def test_the_pause_doubles_each_time_up_to_a_day() -> None:
    """After an hour it is tried again, and taken back again; then after two, and so on."""
    run = Run(Server(worse_on_0))
    pauses = []
    for _ in range(7):
        run.until(Reason.GUARD_UNDO)
        ended_s = run.at_s
        run.step()
        until_s = state_of(run).until_s
        assert until_s is not None
        pauses.append(until_s - ended_s + STEP_S)
        run.at_s = until_s - STEP_S
        assert run.step() == [Reason.GUARD_PAUSE]
    hour = 3600.0
    expected = [hour, 2 * hour, 4 * hour, 8 * hour, 16 * hour, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert pauses == pytest.approx(expected)


def test_a_move_that_helps_stays() -> None:
    """It is at home, that is said once with the numbers, and counted once."""
    run = Run(Server(better_on_0))
    run.until(Reason.HOME)
    assert judged(run) == [(len(run.cycles), Compared.KEPT)]
    judgement = state_of(run).judgement
    assert judgement is not None
    assert "75% better" in judgement.why
    assert judgement.why.endswith("the move stays")
    found = judged(run)
    assert run.step(10) == [Reason.HOME] * 10
    assert judged(run) == found
    assert run.node_of() == 0


@pytest.mark.parametrize(
    ("after_s", "result"), [(0.15, Compared.KEPT), (0.3, Compared.UNDONE), (0.05, Compared.KEPT)]
)
def test_what_is_allowed_decides(after_s: float, result: Compared) -> None:
    """The same is not worse, nor is a little; the next bucket is."""
    run = Run(Server(lambda node: after_s if node == 0 else 0.15))
    run.step(UNDONE_AT + 1)
    assert judged(run) == [(UNDONE_AT + 1, result)]


def test_a_rule_may_allow_more() -> None:
    """100 % worse stays where as much is allowed."""
    lenient = policy(replace(GUARD, worse=1.0))
    run = Run(Server(lambda node: 0.19 if node else 0.3), policy=lenient)
    run.step(UNDONE_AT + 1)
    # From 0.195 to 0.39: twice as much, not more.
    assert judged(run) == [(UNDONE_AT + 1, Compared.KEPT)]


def test_without_a_guard_nothing_waits() -> None:
    """A rule that names none is acted on at once, and nothing of a guard is remembered."""
    run = Run(Server(worse_on_0), policy=policy(None))
    assert run.step(2) == [Reason.REMOTE_MEMORY, Reason.HOME]
    assert state_of(run) == GuardMemory()


# Where nothing can be told


@pytest.mark.parametrize(
    ("server", "result", "said"),
    [
        (Server(alike, silent=True), Compared.UNREADABLE, "cannot be read: it does not answer"),
        (Server(alike, requests=0), Compared.NOT_COMPARABLE, "without any observation over 60 s"),
        (Server(alike, requests=1), Compared.NOT_COMPARABLE, "0.195 over 60 s (12 observations)"),
    ],
    ids=["silent", "idle", "few"],
)
def test_a_move_waits_for_two_windows_at_most(server: Server, result: Compared, said: str) -> None:
    """Then it goes ahead without, says so, and is not judged afterwards."""
    run = Run(server)
    assert run.until(Reason.REMOTE_MEMORY) == 1 + 60 / STEP_S
    judgement = state_of(run).judgement
    assert judgement is not None
    assert judgement.result is result
    assert said in judgement.why
    assert run.step(2) == [Reason.HOME] * 2
    assert state_of(run).judgement == judgement


def test_few_requests_after_a_move_are_waited_for_and_then_let_be() -> None:
    """Four windows, and the move stays."""
    server = Server(worse_on_0)
    run = Run(server)
    run.until(Reason.REMOTE_MEMORY)
    server.requests = 0
    cycles = run.until(Reason.HOME)
    assert cycles == pytest.approx((4 * 30 + 2 * 5) / STEP_S, abs=1)
    judgement = state_of(run).judgement
    assert judgement is not None
    assert judgement.result is Compared.NOT_COMPARABLE
    assert "too few observations to compare; the move stays" in judgement.why
    assert run.node_of() == 0


def test_slow_traffic_after_a_move_extends_the_window() -> None:
    """Two requests in a step make 20 after 50 s; then it is judged."""
    server = Server(worse_on_0)
    run = Run(server)
    run.until(Reason.REMOTE_MEMORY)
    server.requests = 2
    assert run.until(Reason.GUARD_UNDO) == 1 + 50 / STEP_S


def test_an_endpoint_that_falls_silent_after_a_move_leaves_it() -> None:
    """Nothing can be told, and that is what is said."""
    server = Server(worse_on_0)
    run = Run(server)
    run.until(Reason.REMOTE_MEMORY)
    server.silent = True
    run.until(Reason.HOME)
    judgement = state_of(run).judgement
    assert judgement is not None
    assert judgement.result is Compared.UNREADABLE
    assert "could not be read after it: it does not answer" in judgement.why


def test_a_restart_of_the_server_begins_the_window_anew() -> None:
    """Its counters went back 10 s after the move: 30 s from then on are compared."""
    server = Server(worse_on_0)
    run = Run(server)
    run.until(Reason.REMOTE_MEMORY)
    run.step(2)
    server.counts = [0.0] * 6
    assert run.until(Reason.GUARD_UNDO) == 1 + 30 / STEP_S
    judgement = state_of(run).judgement
    assert judgement is not None
    assert judgement.after is not None
    assert (judgement.after.seconds, judgement.after.observations) == (30.0, 60)


def test_what_lies_beyond_the_buckets_is_not_compared() -> None:
    """Whether it is worse than "above 1.6" nobody knows."""
    run = Run(Server(lambda _node: 5.0))
    run.step(UNDONE_AT + 1)
    assert judged(run) == [(UNDONE_AT + 1, Compared.NOT_COMPARABLE)]


# Beside everything else


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


def seen_after(mib: int) -> Worker:
    """Return the worker after its move."""
    return worker("x/0", {0: mib}, age_s=3600.0)


def acted(
    mib: int,
    *,
    moved: dict[tuple[int, int], int] | None = None,
    moved_shared: dict[tuple[int, int], int] | None = None,
    threads_bound: int = 1,
) -> DecisionState:
    """Return the state after a move from node 1 to 0, with a window of before and of after.

    Latency is worse after it; nobody has looked at that yet.
    """
    server = Server(worse_on_0)
    *earlier, last = windows(server, 1000.0, 1)
    seen = worker("x/0", {1: mib}, age_s=3600.0, guard=last)
    known = WorkerMemory(guard=GuardMemory(readings=tuple(earlier)))
    state = replace(START, workers={seen.id: known})
    plan, state = decide(machine(seen, at_s=1030.0), policy(), state)
    (decision,) = plan.decisions
    assert decision.reason is Reason.REMOTE_MEMORY
    outcome = Outcome(
        decision,
        End.DONE,
        1030.0,
        1.0,
        threads_bound=threads_bound,
        moved={(1, 0): mib * MIB} if moved is None else moved,
        moved_shared=moved_shared or {},
    )
    state = remember(state, [outcome], 1035.0)
    memory = state.of(seen.id)
    guard = replace(memory.guard, readings=windows(server, 1035.0, 0))
    return replace(state, workers={seen.id: replace(memory, guard=guard)})


def windows(server: Server, from_s: float, node: int) -> tuple[GuardReading, ...]:
    """Return the readings of 30 s while the memory lies on a node."""
    found = (server.step(from_s + STEP_S * i, node) for i in range(7))
    return tuple(reading for reading in found if reading is not None)


def judge(state: DecisionState, snapshot: Snapshot) -> tuple[tuple[Decision, ...], DecisionState]:
    """Return what is decided now."""
    plan, state = decide(snapshot, policy(), state)
    return plan.decisions, state
