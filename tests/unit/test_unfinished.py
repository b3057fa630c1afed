"""A move that was broken off is brought to its end."""

from __future__ import annotations

import pytest

from numad_py.decide.decisions import decide
from numad_py.decide.remember import remember
from numad_py.model.machine import NodeState
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import DecisionState, Reason, Verdict
from numad_py.model.residency import Kind, Mobility, Residency, ResidencyEntry
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker, WorkerId
from numad_py.model.topology import Node, Topology
from numad_py.policy.schema import Policy

GIB = 1 << 30
TOPOLOGY = Topology(
    tuple(Node(i, frozenset({2 * i, 2 * i + 1}), 8 * GIB, {i: 10, 1 - i: 20}) for i in range(2))
)


def seen(remote_bytes: int, at_s: float = 100.0) -> Snapshot:
    """Return two nodes with a worker pinned to node 0 and so much of its GiB on node 1."""
    entries = (
        ResidencyEntry(0, Kind.ANON, Mobility.MOVABLE, GIB - remote_bytes),
        ResidencyEntry(1, Kind.ANON, Mobility.MOVABLE, remote_bytes),
    )
    worker = Worker(
        id=WorkerId(7, 1),
        label="x/0",
        rule="x",
        comm="x",
        user=None,
        cgroup=None,
        threads=(Thread(7, 1, frozenset({0}), 0, 0),),
        cpuset_cpus=None,
        memory=MemoryStatus(),
        residency=Residency(entries, at_s),
        run_share={0: 1.0},
        demand_cpus=0.0,
        age_s=at_s,
    )
    states = tuple(NodeState(i, 8 * GIB, 4 * GIB, 0) for i in range(2))
    return Snapshot(1, at_s, TOPOLOGY, states, (worker,))


@pytest.mark.parametrize(
    ("end", "then"),
    [
        (End.STOPPED, Reason.REMOTE_MEMORY),
        (End.PLACED, Reason.BELOW_THRESHOLD),
        (End.DONE, Reason.BELOW_THRESHOLD),
    ],
)
def test_what_a_pause_broke_off_goes_on_below_the_threshold(end: End, then: Reason) -> None:
    """At 98 % nothing would be begun; what was begun and stopped by us is finished."""
    plan, state = decide(seen(GIB), Policy(), DecisionState())
    (decision,) = plan.decisions
    assert decision.verdict is Verdict.ACT
    state = remember(state, [Outcome(decision, end, 100.0, 1.0, moved={(1, 0): GIB})], 101.0)
    (again,) = decide(seen(GIB // 50, 1000.0), Policy(), state)[0].decisions
    assert again.reason is then


@pytest.mark.parametrize(
    ("end", "then"), [(End.STOPPED, Reason.REMOTE_MEMORY), (End.PLACED, Reason.COOLDOWN)]
)
def test_what_its_user_ended_is_not_begun_again_at_once(end: End, then: Reason) -> None:
    """It cools down as after any move, though much is remote still; then it is looked at anew."""
    plan, state = decide(seen(GIB), Policy(), DecisionState())
    half = Outcome(plan.decisions[0], end, 100.0, 1.0, moved={(1, 0): GIB // 2}, error="bound")
    state = remember(state, [half], 101.0)
    (again,) = decide(seen(GIB // 2, 106.0), Policy(), state)[0].decisions
    assert again.reason is then
    (later,) = decide(seen(GIB // 2, 10000.0), Policy(), state)[0].decisions
    assert later.reason is Reason.REMOTE_MEMORY
