"""CPUs in placing: how wide a home is, what masks leave, who is counted where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from numad_py.decide.decisions import decide
from numad_py.decide.places import places_of
from numad_py.decide.watch import MOST_S, wanted_cpus, watch
from numad_py.model.machine import NodeState
from numad_py.model.plan import (
    Decision,
    DecisionState,
    HomeSource,
    Plan,
    Reason,
    Verdict,
    WorkerMemory,
)
from numad_py.model.residency import Kind, Mobility
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker
from numad_py.model.topology import Node, PciDevice, Performance, Topology
from numad_py.policy.schema import PlacementPolicy, Policy, Rule
from tests.unit import seen

GIB = 1 << 30
CPUS = frozenset(range(32))
FIRST, SECOND = frozenset(range(16)), frozenset(range(16, 32))
START = DecisionState()


def machine(*workers: Worker, busy: tuple[float, float] = (0.0, 0.0), **more: Any) -> Snapshot:
    """Return two nodes of 16 CPUs and 512 GiB, 300 GiB of which are free."""
    nodes = (
        Node(0, FIRST, 512 * GIB, {0: 10, 1: 20}),
        Node(1, SECOND, 512 * GIB, {0: 20, 1: 10}),
    )
    states = tuple(NodeState(n, 512 * GIB, 300 * GIB, 0, busy_cpus=busy[n]) for n in (0, 1))
    values: dict[str, Any] = {"topology": Topology(nodes), "node_states": states} | more
    return seen.snapshot(*workers, **values)


def threads(*masks: frozenset[int], ticks: int = 100) -> tuple[Thread, ...]:
    """Return threads of these masks that had the same CPU time."""
    return tuple(Thread(10 + i, 5, mask, min(mask), ticks) for i, mask in enumerate(masks))


def worker(label: str, gib: dict[int, float], cpus: float = 1.0, **more: Any) -> Worker:
    """Return an old worker of as many threads as it keeps CPUs busy, where its memory is."""
    sizes = {
        (node, Kind.ANON, Mobility.MOVABLE): int(size * GIB) for node, size in gib.items() if size
    }
    total = sum(gib.values())
    values = {
        "threads": threads(*[CPUS] * max(1, int(cpus))),
        "memory": MemoryStatus(anon_bytes=int(total * GIB)),
        "demand_cpus": cpus,
        "run_share": {node: size / total for node, size in gib.items()},
        "age_s": 36000.0,
    }
    return seen.worker(label, seen.residency(sizes), **(values | more))


def one(plan: Plan) -> Decision:
    """Return the only decision."""
    (decision,) = plan.decisions
    return decision


def nodes(decision: Decision) -> set[int] | None:
    """Return the home nodes."""
    return set(decision.finding.home.nodes) if decision.finding.home else None


def carried_out(state: DecisionState) -> DecisionState:
    """Return the state with nothing under way and nothing to cool down."""
    workers = {
        k: replace(m, moving=False, acted_at_s=None, unfinished=False)
        for k, m in state.workers.items()
    }
    return replace(state, workers=workers)


# How wide a home is


def test_a_worker_that_needs_more_cpus_than_a_node_has_is_not_squeezed_onto_one() -> None:
    """32 busy threads on two nodes of 16 CPUs keep both, however little memory they have."""
    found = one(decide(machine(worker("x/0", {0: 4, 1: 4}, cpus=32.0)), Policy(), START)[0])
    assert nodes(found) == {0, 1}
    assert found.bind_cpus is None
    assert any("32.0 CPUs busy" in said for said in found.constraints)


def test_a_worker_whose_cpus_are_enough_on_one_node_gets_one() -> None:
    """16 busy threads and a little more: demand wavers."""
    found = one(decide(machine(worker("x/0", {0: 5, 1: 4}, cpus=16.5)), Policy(), START)[0])
    assert nodes(found) == {0}


def test_a_worker_that_was_idle_when_it_was_bound_is_given_more_cpus_when_it_wants_them() -> None:
    """Bound to 16 CPUs it can keep no more busy: that it has 32 busy threads says it would."""
    policy = Policy()
    plan, state = decide(machine(worker("x/0", {0: 8}, cpus=0.5)), policy, START)
    assert one(plan).bind_cpus == FIRST
    bound = worker(
        "x/0",
        {0: 8},
        cpus=15.9,
        threads=threads(*[FIRST] * 32),
        first_masks={10 + i: CPUS for i in range(32)},
    )
    assert bound.residency is not None
    bound = replace(bound, residency=replace(bound.residency, read_at_s=2000.0))
    plan, state = decide(machine(bound, at_s=2000.0), policy, carried_out(state))
    found = one(plan)
    assert nodes(found) == {0, 1}
    assert (found.verdict, found.bind_cpus, found.moves) == (Verdict.ACT, CPUS, ())
    assert "bound to fewer CPUs than its home has" in found.why


def test_a_bound_worker_that_has_enough_cpus_stays_on_them() -> None:
    """16 threads on 16 CPUs want no more, and 32 that do not use all of them neither."""
    for count, cpus in ((16, 15.9), (32, 8.0)):
        first = {10 + i: CPUS for i in range(count)}
        bound = worker(
            "x/0", {0: 8}, cpus=cpus, threads=threads(*[FIRST] * count), first_masks=first
        )
        found = one(decide(machine(bound), Policy(), START)[0])
        assert nodes(found) == {0}
        assert found.verdict is Verdict.REST


def test_threads_that_wait_are_no_demand() -> None:
    """Of 16 CPUs all of which are used, by 20 busy threads and 200 idle ones, 20 are wanted."""
    many = threads(*[FIRST] * 20, ticks=10_000) + tuple(
        Thread(1000 + i, 5, FIRST, 0, 1) for i in range(200)
    )
    first = {t.tid: CPUS for t in many}
    bound = worker("x/0", {0: 8}, cpus=16.0, threads=many, first_masks=first)
    assert wanted_cpus(bound) == pytest.approx(20, rel=0.01)
    assert wanted_cpus(replace(bound, first_masks={})) == 16.0


def test_a_home_is_as_wide_as_what_was_wanted_within_the_last_hour() -> None:
    """A server that is idle at night is not moved together, but one that never needs it again is.

    What a minute's mean has reached is forgotten with a time constant of an hour.
    """
    busy = worker("x/0", {0: 4, 1: 4}, cpus=32.0)
    idle = replace(busy, demand_cpus=0.5)
    memory = watch(WorkerMemory(), busy, 1000.0)
    soon, late = watch(memory, idle, 1600.0), watch(memory, idle, 1000.0 + 2 * MOST_S)
    assert memory.most_cpus == pytest.approx(32.0, rel=0.01)
    assert soon.most_cpus > 17.6 > late.most_cpus
    assert soon.demand_cpus == pytest.approx(0.5, rel=0.01)


# What masks leave


def test_a_mask_with_too_few_cpus_of_a_node_makes_it_no_home() -> None:
    """16 busy threads that may use one CPU of node 0 belong on node 1, and it says why."""
    masks = threads(*[frozenset({0}) | SECOND] * 16)
    narrow = worker("x/0", {0: 5, 1: 3}, cpus=16.0, threads=masks, run_share={0: 0.06, 1: 0.94})
    found = one(decide(machine(narrow), Policy(), START)[0])
    assert nodes(found) == {1}
    assert found.bind_cpus == SECOND
    assert any("too few CPUs that it may use on node 0" in said for said in found.constraints)


def test_reserved_cpus_are_none_that_a_worker_may_use() -> None:
    """Where all but one of a node are reserved, eight busy threads go to the other."""
    policy = Policy(placement=PlacementPolicy(reserved_cpus=frozenset(range(1, 16))))
    found = one(decide(machine(worker("x/0", {0: 5, 1: 3}, cpus=8.0)), policy, START)[0])
    assert nodes(found) == {1}


def test_threads_that_are_pinned_one_by_one_over_all_nodes_are_pinned() -> None:
    """As OMP_PROC_BIND pins them: the memory of neither half is moved away from it."""
    halves = threads(*[FIRST] * 8, *[SECOND] * 8)
    found = one(
        decide(machine(worker("x/0", {0: 5, 1: 4}, cpus=16.0, threads=halves)), Policy(), START)[0]
    )
    assert nodes(found) == {0, 1}
    assert found.finding.home is not None
    assert found.finding.home.source is HomeSource.PIN
    assert (found.verdict, found.moves) == (Verdict.REST, ())


@pytest.mark.parametrize(("ticks", "source"), [(1, "pin"), (1000, "planner")])
def test_threads_that_wait_beside_pinned_ones_make_it_no_free_worker(
    ticks: int, source: str
) -> None:
    """One that may run anywhere counts by the CPU time that it had."""
    halves = threads(*[FIRST] * 8, *[SECOND] * 8)
    waiting = Thread(99, 5, CPUS, 0, ticks)
    free = worker("x/0", {0: 5, 1: 4}, cpus=16.0, threads=(*halves, waiting))
    found = one(decide(machine(free), Policy(), START)[0])
    assert found.finding.home is not None
    assert found.finding.home.source.value == source


def test_a_pin_to_a_node_without_memory_means_the_nearest_with_some() -> None:
    """Its threads stay, its memory goes there; so for a rule and a cpuset."""
    distances = {0: {0: 10, 1: 30, 2: 40}, 1: {0: 30, 1: 10, 2: 15}, 2: {0: 40, 1: 15, 2: 10}}
    cpus = {0: FIRST, 1: SECOND, 2: frozenset(range(32, 48))}
    sizes = {0: 64 * GIB, 1: 0, 2: 64 * GIB}
    topology = Topology(tuple(Node(n, cpus[n], sizes[n], distances[n]) for n in cpus))
    states = tuple(NodeState(n, sizes[n], sizes[n] // 2, 0) for n in cpus)
    every = frozenset(range(48))
    mems = MemoryStatus(mems_allowed=frozenset({0, 2}), anon_bytes=5 * GIB)
    ran: dict[str, Any] = {"run_share": {1: 1.0}, "memory": mems}
    pinned = worker("x/0", {0: 5}, threads=threads(SECOND), **ran)
    held = worker("x/1", {0: 5}, threads=threads(SECOND), cpuset_cpus=SECOND, **ran)
    ruled = worker("x/2", {0: 5}, threads=threads(every), **ran)
    for asked, rule in ((pinned, None), (held, None), (ruled, frozenset({1}))):
        policy = Policy(rules=(Rule("x", "test", nodes=rule),))
        look = machine(asked, topology=topology, node_states=states)
        found = one(decide(look, policy, START)[0])
        assert nodes(found) == {1, 2}
        assert {move.target for move in found.moves} == {2}
        assert "node 1 has no memory, the nearest with some: node 2" in found.why


# Who is counted where


def test_a_little_too_much_demand_moves_no_settled_worker_at_first_sight() -> None:
    """Two that want 18 CPUs of 17.6 stay where they are: 200 GiB for half a CPU is no trade."""
    two = (worker("x/0", {0: 200}, cpus=9.0), worker("x/1", {0: 210}, cpus=9.0))
    plan, _ = decide(machine(*two), Policy(), START)
    assert [nodes(found) for found in plan.decisions] == [{0}, {0}]
    assert not any(found.moves for found in plan.decisions)


def test_far_too_much_demand_moves_a_settled_worker_all_the_same() -> None:
    """30 CPUs of 17.6 are worth a move, of the smaller one."""
    two = (worker("x/0", {0: 200}, cpus=15.0), worker("x/1", {0: 210}, cpus=15.0))
    plan, _ = decide(machine(*two), Policy(), START)
    assert [nodes(found) for found in plan.decisions] == [{1}, {0}]


def test_who_can_have_no_home_keeps_its_cpus_busy_all_the_same() -> None:
    """A busy worker whose rule names an absent node crowds its node as any process does."""
    policy = Policy(rules=(Rule("bad", "f:1", nodes=frozenset({7})), Rule("x", "f:2")))
    bad = worker("bad/1", {0: 5}, cpus=16.0)
    free = worker("x/0", {0: 2.1, 1: 2}, cpus=8.0)
    state = DecisionState(others_at_s=0.0)
    plan, _ = decide(machine(bad, free, busy=(20.0, 4.0)), policy, state)
    assert plan.decisions[0].reason is Reason.NO_HOME
    assert nodes(plan.decisions[1]) == {1}


def test_who_finds_no_room_keeps_its_cpus_busy_all_the_same() -> None:
    """So does one that is too large for the machine."""
    large = worker("a/1", {0: 900, 1: 120}, cpus=16.0, run_share={0: 1.0})
    free = worker("x/0", {0: 2.1, 1: 2}, cpus=8.0)
    full = tuple(NodeState(n, 512 * GIB, 50 * GIB, 0, busy_cpus=0.0) for n in (0, 1))
    allowed = MemoryStatus(mems_allowed=frozenset({1}), anon_bytes=GIB)
    large = replace(large, memory=allowed)
    plan, _ = decide(machine(large, free, node_states=full), Policy(), START)
    assert plan.decisions[0].reason is Reason.NO_HOME
    assert nodes(plan.decisions[1]) == {1}


# Devices and slow memory


@pytest.mark.parametrize(("unsure", "follow"), [(True, True), (False, False)])
def test_where_devices_give_no_home_they_draw_all_the_same(*, unsure: bool, follow: bool) -> None:
    """Open on two nodes and none mapped, or not followed: their distance is weighed."""
    cpus = {n: frozenset(range(4 * n, 4 * n + 4)) for n in range(4)}
    ids = range(4)
    topology = Topology(
        tuple(Node(n, cpus[n], 64 * GIB, {m: 10 if m == n else 20 for m in ids}) for n in ids),
        (
            PciDevice("g0", "accelerator", "1", "1", 2),
            PciDevice("g1", "accelerator", "1", "1", 3),
        ),
    )
    states = tuple(NodeState(n, 64 * GIB, 50 * GIB, 0) for n in ids)
    using = worker(
        "x/0",
        {0: 2, 1: 1},
        threads=threads(frozenset(range(16))),
        devices=("g0", "g1") if unsure else ("g0",),
        devices_unsure=unsure,
    )
    policy = Policy(placement=PlacementPolicy(follow_devices=follow))
    look = machine(using, topology=topology, node_states=states)
    found = one(decide(look, policy, START)[0])
    assert found.finding.home is not None
    assert found.finding.home.source is HomeSource.PLANNER
    assert found.finding.home.nodes <= {2, 3}
    assert len(found.finding.home.nodes) == 1


@pytest.mark.parametrize(
    ("ratings", "slow"),
    [
        ([(90_000, 100), (None, 90)], {0: 100 / 90, 1: 1.0}),
        ([(90_000, 100), (45_000, None)], {0: 1.0, 1: 2.0}),
        ([(90_000, None), (None, 90)], {0: 1.0, 1: 1.0}),
    ],
)
def test_bandwidth_and_latency_are_not_compared(
    ratings: list[tuple[int | None, int | None]], slow: dict[int, float]
) -> None:
    """What all rated nodes have tells which is slow: bandwidth, else latency, else nothing."""
    look = machine()
    rated = tuple(
        replace(node, performance=Performance(read_bandwidth_mib_s=width, read_latency_ns=delay))
        for node, (width, delay) in zip(look.topology.nodes, ratings, strict=True)
    )
    places = places_of(replace(look, topology=Topology(rated)), PlacementPolicy())
    assert {place.id: place.slow for place in places} == pytest.approx(slow)
