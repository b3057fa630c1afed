"""What only shows when a machine runs for long: the way back, queues, growth, homes of large ones.

Found by the simulated weeks; each is the smallest case of it.
"""

from __future__ import annotations

from numad_py.decide.decisions import decide
from numad_py.decide.remember import remember
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Reason, Verdict
from numad_py.model.snapshot import MemoryStatus
from numad_py.policy.schema import PlacementPolicy, Policy
from tests.unit.test_stability import MIB, START, decisions, home, machine, remote, worker


def test_the_way_back_is_barred_from_the_end_of_a_move() -> None:
    """A move of minutes does not use up the time for which its source is barred."""
    pinned = remote("x/0", 1000)
    plan, state = decide(machine(pinned), Policy(), START)
    (decision,) = plan.decisions
    assert decision.verdict is Verdict.ACT
    moved = {(1, 0): 1000 * MIB}
    outcome = Outcome(decision, End.DONE, 1000.0, 400.0, moved=moved)
    state = remember(state, [outcome], 1400.0)
    # Its pin has gone by now; node 1 has left it 590 s ago.
    free = worker("x/0", {1: 1000})
    plan, _ = decide(machine(free, at_s=1990.0), Policy(), state)
    assert home(plan.decisions[0]) != [1]
    plan, _ = decide(machine(free, at_s=2001.0), Policy(), state)
    assert home(plan.decisions[0]) == [1]


def test_nobody_waits_for_its_turn_for_ever() -> None:
    """One of more than a cycle's bytes that brings little moves, though others keep coming."""
    policy = Policy(placement=PlacementPolicy(moved_per_cycle_bytes=600 * MIB))
    state, reasons = START, []
    large = remote("x/0", 1000, demand_cpus=0.0, age_s=36_000.0)
    for step in range(100):
        small = remote(f"x/{step + 1}", 100)
        plan, state = decide(machine(large, small, at_s=1000.0 + 5 * step), policy, state)
        reasons.append(decisions(plan)["x/0"].reason)
        if reasons[-1] is Reason.REMOTE_MEMORY:
            break
    assert reasons[0] is Reason.QUEUED
    assert reasons[-1] is Reason.REMOTE_MEMORY


def test_what_has_come_during_a_move_has_not_refused_to_move() -> None:
    """Only what was to be moved and was not has refused; the rest is moved later."""
    pinned = remote("x/0", 1000)
    plan, state = decide(machine(pinned), Policy(), START)
    moved = {(1, 0): 990 * MIB}
    after = worker("x/0", {0: 990, 1: 310}).residency
    outcome = Outcome(plan.decisions[0], End.DONE, 1000.0, 5.0, moved=moved, after=after)
    state = remember(state, [outcome], 1005.0)
    assert state.of(pinned.id).refused == {1: 10 * MIB}
    grown = worker("x/0", {0: 990, 1: 310}, threads=pinned.threads, age_s=900.0)
    plan, _ = decide(machine(grown, at_s=1100.0), Policy(), state)
    assert plan.decisions[0].verdict is Verdict.ACT


def test_a_large_worker_gets_more_nodes_where_the_fewest_are_taken() -> None:
    """The only node that could hold it is a confined one's: it gets the two that do hold it."""
    large = worker("x/0", {1: 4000, 2: 3500})
    confined = worker(
        "x/1", {0: 5000}, memory=MemoryStatus(anon_bytes=5000 * MIB, mems_allowed=frozenset({0}))
    )
    plan, _ = decide(machine(large, confined, free=(3, 3, 3, 0)), Policy(), START)
    found = decisions(plan)["x/0"]
    assert home(found) == [1, 2], found.why
