"""What keeps workers where they are, and in what order they move: loading, no way back, turns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from numad_py.decide.decisions import decide
from numad_py.decide.places import capacity_cpus, places_of
from numad_py.decide.planner import AGAIN_S
from numad_py.decide.remember import remember
from numad_py.decide.watch import DEMAND_S, watch
from numad_py.model.machine import HugePages, NodeState
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision, DecisionState, Plan, Reason, Verdict, WorkerMemory
from numad_py.model.residency import Kind, Mobility, Residency, entries_of
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker
from numad_py.model.topology import Node, Performance, Topology
from numad_py.policy.schema import PlacementPolicy, Policy, Rule
from tests.unit import seen

GIB = 1 << 30
MIB = 1 << 20
CPUS = frozenset(range(16))
START = DecisionState()


def machine(
    *workers: Worker, at_s: float = 1000.0, free: tuple[int, ...] = (4, 4, 4, 4)
) -> Snapshot:
    """Return four nodes of four CPUs and 8 GiB, with so many GiB free; workers are just read."""
    workers = tuple(
        replace(w, residency=w.residency and replace(w.residency, read_at_s=at_s)) for w in workers
    )
    nodes = tuple(
        Node(
            i,
            frozenset(range(4 * i, 4 * i + 4)),
            8 * GIB,
            {j: 10 if i == j else 20 for j in range(4)},
        )
        for i in range(4)
    )
    states = tuple(
        NodeState(i, 8 * GIB, size * GIB + 8 * GIB // 20, 0) for i, size in enumerate(free)
    )
    return seen.snapshot(*workers, topology=Topology(nodes), node_states=states, at_s=at_s)


def worker(label: str, by_node: dict[int, int], **more: Any) -> Worker:
    """Return a worker that may run anywhere, with so many MiB on each node, read in full."""
    sizes = {(node, Kind.ANON, Mobility.MOVABLE): size * MIB for node, size in by_node.items()}
    total = sum(by_node.values()) * MIB
    values = {
        "threads": (Thread(10, 5, CPUS, 0, 100),),
        "memory": MemoryStatus(anon_bytes=total),
        "demand_cpus": 1.0,
    }
    return seen.worker(label, seen.residency(sizes), **(values | more))


def decisions(plan: Plan) -> dict[str, Decision]:
    """Return decisions by label."""
    return {decision.label: decision for decision in plan.decisions}


def home(decision: Decision) -> list[int] | None:
    """Return the ids of the home nodes."""
    return sorted(decision.finding.home.nodes) if decision.finding.home else None


def calmed(state: DecisionState) -> DecisionState:
    """Return the state when all moves have ended, and nobody cools down."""
    known = {k: replace(m, moving=False, acted_at_s=None) for k, m in state.workers.items()}
    return replace(state, workers=known)


# Loading


def grown(mib: int, age_s: float = 30.0) -> Worker:
    """Return a worker that was pinned to node 0 and loads its memory onto node 1."""
    return worker("x/0", {1: mib}, threads=(Thread(10, 5, frozenset({0}), 0, 100),), age_s=age_s)


def test_a_worker_that_is_still_loading_is_left_alone() -> None:
    """One that grew since the last look waits until it has not grown for the time to settle."""
    state, reasons = START, []
    for step, mib in enumerate((100, 300, 500, 500, 500)):
        plan, state = decide(machine(grown(mib), at_s=1000.0 + 5 * step), Policy(), state)
        reasons.append(plan.decisions[0].reason)
        state = replace(
            state,
            workers={
                k: replace(m, moving=False, acted_at_s=None) for k, m in state.workers.items()
            },
        )
    # The first look says nothing of growth; the third is the last at which it has grown.
    assert reasons == [
        Reason.REMOTE_MEMORY,
        Reason.LOADING,
        Reason.LOADING,
        Reason.LOADING,
        Reason.REMOTE_MEMORY,
    ]


def test_an_old_worker_that_grows_is_not_loading() -> None:
    """What grows for ever, as a cache does, is moved all the same."""
    age_s = PlacementPolicy().loading_limit_s
    _, state = decide(machine(grown(100, age_s)), Policy(), START)
    state = replace(
        state,
        workers={k: replace(m, moving=False, acted_at_s=None) for k, m in state.workers.items()},
    )
    plan, _ = decide(machine(grown(300, age_s), at_s=1005.0), Policy(), state)
    assert plan.decisions[0].verdict is Verdict.ACT


def test_demand_is_what_lasts() -> None:
    """A look in which a worker stands still takes little off its demand; minutes take all."""
    busy = worker("x/0", {0: 10}, demand_cpus=4.0, age_s=3600.0)
    idle = replace(busy, demand_cpus=0.0)
    memory = watch(WorkerMemory(), busy, 1000.0)
    soon = watch(memory, idle, 1005.0)
    assert soon.demand_cpus == pytest.approx(4.0, rel=0.1)
    late = watch(memory, idle, 1000.0 + 10 * DEMAND_S)
    assert late.demand_cpus == pytest.approx(0.0, abs=0.01)


def test_starting_up_is_no_demand_that_lasts() -> None:
    """What a worker of five seconds has used says little of what it will keep busy."""
    young = worker("x/0", {0: 10}, demand_cpus=4.0, age_s=5.0)
    assert watch(WorkerMemory(), young, 1000.0).demand_cpus == pytest.approx(0.32, rel=0.01)


def test_who_lives_on_a_node_is_not_moved_away_for_a_little_too_much_demand() -> None:
    """Five CPUs wanted of four leave all where they are; seven move somebody away."""
    for demand, moved in ((1.25, False), (1.75, True)):
        workers = [worker(f"x/{i}", {1: 500}, demand_cpus=demand, age_s=36000.0) for i in range(4)]
        calm = (replace(w, demand_cpus=0.5) for w in workers)
        _, state = decide(machine(*calm), Policy(), START)
        known = {k: replace(m, moving=False) for k, m in state.workers.items()}
        plan, _ = decide(machine(*workers, at_s=2000.0), Policy(), replace(state, workers=known))
        assert (any(home(d) != [1] for d in plan.decisions)) == moved


def test_a_plan_that_was_not_carried_out_is_no_home() -> None:
    """Crowded for a while within the cooldown, it is at home again when that has passed."""
    workers = [worker(f"x/{i}", {1: 500}, demand_cpus=0.5, age_s=36000.0) for i in range(4)]
    _, state = decide(machine(*workers), Policy(), START)
    calm = {k: replace(m, moving=False, acted_at_s=1000.0) for k, m in state.workers.items()}
    state = replace(state, workers=calm)
    busy = (replace(w, demand_cpus=4.0) for w in workers)
    plan, state = decide(machine(*busy, at_s=1030.0), Policy(), state)
    assert {d.reason for d in plan.decisions} >= {Reason.COOLDOWN}
    assert {tuple(m.home.nodes) for m in state.workers.values() if m.home} == {(1,)}
    plan, _ = decide(machine(*workers, at_s=3000.0), Policy(), state)
    assert [home(d) for d in plan.decisions] == [[1]] * 4


def test_all_are_placed_again_where_something_happens_and_once_a_minute() -> None:
    """While the same workers are at home the last placing stands; a newcomer calls for another."""
    workers = [worker(f"x/{i}", {i: 500}) for i in range(3)]
    _, state = decide(machine(*workers), Policy(), START)
    # In the first cycle their threads were bound.
    _, again = decide(machine(*workers, at_s=1010.0), Policy(), calmed(state))
    stands = again.placing
    _, later = decide(machine(*workers, at_s=1015.0), Policy(), calmed(again))
    _, newcomer = decide(
        machine(*workers, worker("x/3", {0: 10}), at_s=1015.0), Policy(), calmed(again)
    )
    _, minute = decide(machine(*workers, at_s=1010.0 + AGAIN_S), Policy(), calmed(again))
    assert later.placing is stands
    assert newcomer.placing is not stands
    assert minute.placing is not stands


# The way back


def test_a_worker_does_not_go_back_where_it_came_from() -> None:
    """Within no_way_back the node that it left is not its home, however things have turned."""
    first, state = decide(machine(worker("x/0", {1: 1000}), free=(4, 0, 4, 4)), Policy(), START)
    # Node 1 is where all of it lies: it stays there.
    assert home(first.decisions[0]) == [1]
    memory = replace(state.workers[first.decisions[0].worker], left_at_s={1: 900.0}, home=None)
    state = replace(state, workers={first.decisions[0].worker: memory})
    plan, after = decide(machine(worker("x/0", {1: 1000}), at_s=1000.0), Policy(), state)
    (decision,) = plan.decisions
    assert home(decision) != [1]
    assert any("moved away from node 1" in said for said in decision.constraints)
    late = 900.0 + PlacementPolicy().no_way_back_s
    plan, after = decide(machine(worker("x/0", {1: 1000}), at_s=late), Policy(), state)
    assert home(plan.decisions[0]) == [1]
    assert after.of(plan.decisions[0].worker).left_at_s == {}


def test_what_a_worker_leaves_is_remembered_when_it_moves() -> None:
    """The sources of a move are the nodes that it does not go back to."""
    pinned = worker("x/0", {1: 100, 2: 50}, threads=(Thread(10, 5, frozenset({0}), 0, 100),))
    plan, state = decide(machine(pinned), Policy(), START)
    assert plan.decisions[0].verdict is Verdict.ACT
    assert state.of(pinned.id).left_at_s == {1: 1000.0, 2: 1000.0}
    outcome = Outcome(plan.decisions[0], End.DONE, 1000.0, 1.0)
    assert remember(state, [outcome], 1001.0).of(pinned.id).left_at_s == {1: 1000.0, 2: 1000.0}


def test_a_few_pages_are_no_place_that_was_left() -> None:
    """Libraries that lay on a node do not bar it."""
    pinned = worker("x/0", {1: 100, 2: 1}, threads=(Thread(10, 5, frozenset({0}), 0, 100),))
    _, state = decide(machine(pinned), Policy(), START)
    assert state.of(pinned.id).left_at_s == {1: 1000.0}


def test_a_home_is_left_only_for_a_clear_gain() -> None:
    """A tenth of its memory elsewhere is no reason to follow it, and half of it is none either."""
    for mib in (100, 500, 550):
        at_home, state = decide(machine(worker("x/0", {2: 1000})), Policy(), START)
        assert home(at_home.decisions[0]) == [2]
        plan, _ = decide(
            machine(worker("x/0", {2: 1000 - mib, 3: mib}), at_s=1005.0), Policy(), state
        )
        assert home(plan.decisions[0]) == [2]


# Turns


def remote(label: str, mib: int, **more: Any) -> Worker:
    """Return a worker pinned to node 0, all of whose memory is on node 1."""
    return worker(label, {1: mib}, threads=(Thread(10, 5, frozenset({0}), 0, 100),), **more)


def test_no_more_than_so_many_bytes_are_set_in_motion_in_one_cycle() -> None:
    """The most valuable goes first, the others wait and are told for whom."""
    policy = Policy(placement=PlacementPolicy(moved_per_cycle_bytes=600 * MIB))
    old = {"age_s": 1000.0}
    idle = remote("x/0", 500, demand_cpus=0.0, **old)
    workers = (idle, remote("x/1", 500, **old), remote("x/2", 100, **old))
    plan, _ = decide(machine(*workers), policy, START)
    found = decisions(plan)
    assert {label: d.reason for label, d in found.items()} == {
        "x/0": Reason.QUEUED,
        "x/1": Reason.REMOTE_MEMORY,
        "x/2": Reason.REMOTE_MEMORY,
    }
    assert "its turn comes after x/1, x/2" in found["x/0"].why


def test_one_worker_moves_however_large_it_is() -> None:
    """A worker of more than a cycle's bytes is not left where it is for ever."""
    policy = Policy(placement=PlacementPolicy(moved_per_cycle_bytes=MIB))
    plan, _ = decide(machine(remote("x/0", 3000)), policy, START)
    assert plan.decisions[0].verdict is Verdict.ACT


def test_who_comes_when_another_has_left_waits_for_it() -> None:
    """Two that are each on the other's node, where one at a time finds room: one waits."""
    a = worker("x/0", {1: 3000}, threads=(Thread(10, 5, frozenset({0}), 0, 100),))
    b = worker("x/1", {0: 3000}, threads=(Thread(11, 5, frozenset({4}), 4, 100),))
    plan, _ = decide(machine(a, b, free=(1, 4, 0, 0)), Policy(), START)
    found = decisions(plan)
    assert found["x/1"].verdict is Verdict.ACT
    assert (found["x/0"].verdict, found["x/0"].reason) == (Verdict.WAIT, Reason.QUEUED)
    assert "x/1" in found["x/0"].why


# Groups, sizes, limits


@pytest.mark.parametrize(("spread", "apart"), [("rule", True), ("cgroup", False), (None, False)])
def test_replicas_of_a_rule_are_kept_apart(spread: str | None, *, apart: bool) -> None:
    """With spread = true no two share a node while there are nodes; else they stay."""
    policy = Policy(rules=(Rule("x", "test", spread=spread),))
    workers = [worker(f"x/{i}", {1: 500}, cgroup=f"/unit-{i}") for i in range(4)]
    plan, _ = decide(machine(*workers), policy, START)
    homes = [home(d) for d in plan.decisions]
    if apart:
        assert sorted(h[0] for h in homes if h) == [0, 1, 2, 3]
    else:
        assert homes == [[1]] * 4


def test_a_worker_larger_than_a_node_gets_the_closest_that_hold_it() -> None:
    """10 GiB on nodes of 8 get two nodes, and it says why."""
    plan, _ = decide(machine(worker("x/0", {0: 5000, 1: 5000}), free=(2, 2, 7, 7)), Policy(), START)
    (decision,) = plan.decisions
    assert home(decision) == [0, 1]
    assert any("fit no single node" in said for said in decision.constraints)


def test_huge_pages_go_where_there_are_free_ones() -> None:
    """A node without free huge pages is no home for a worker that is to bring some."""
    sizes = {
        (1, Kind.HUGETLB, Mobility.MOVABLE, 2 * MIB): 400 * MIB,
        (0, Kind.ANON, Mobility.MOVABLE, 4096): 600 * MIB,
    }
    huge = worker("x/0", {}, demand_cpus=0.0)
    huge = replace(huge, residency=Residency(entries_of(sizes), 1000.0))
    seen_now = machine(huge)
    states = tuple(
        replace(state, huge_pages=(HugePages(2 * MIB, 400, 300 if state.node == 3 else 0),))
        for state in seen_now.node_states
    )
    plan, _ = decide(replace(seen_now, node_states=states), Policy(), START)
    (decision,) = plan.decisions
    # Node 0 holds most of it, but has no huge pages for the rest.
    assert home(decision) == [1]
    assert any("too few free huge pages" in said for said in decision.constraints)


def test_a_cores_second_thread_is_worth_a_share() -> None:
    """Two cores of two threads, one CPU reserved: one core and 1.3 make 2.3."""
    cores = (frozenset({0, 2}), frozenset({1, 3}))
    node = Node(0, frozenset(range(4)), GIB, {0: 10}, cores=cores)
    policy = PlacementPolicy(reserved_cpus=frozenset({0}), smt_share=0.3)
    assert capacity_cpus(node, policy) == pytest.approx(2.3)
    assert capacity_cpus(replace(node, cores=()), policy) == 3


def test_rated_performance_tells_slow_memory() -> None:
    """A node with half the bandwidth of the fastest counts as twice as slow; unrated as fast."""
    snapshot = machine()
    rated = {0: Performance(read_bandwidth_mib_s=200), 1: Performance(read_bandwidth_mib_s=100)}
    nodes = tuple(replace(n, performance=rated.get(n.id)) for n in snapshot.topology.nodes)
    places = places_of(replace(snapshot, topology=Topology(nodes)), PlacementPolicy())
    assert {place.id: place.slow for place in places} == {0: 1.0, 1: 2.0, 2: 1.0, 3: 1.0}
