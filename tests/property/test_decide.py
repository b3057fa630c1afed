"""Properties of deciding, over machines of any shape."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given

from numad_py.decide.decisions import decide
from numad_py.decide.remember import remember
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import DecisionState, HomeSource, Plan, Reason, Verdict
from numad_py.model.residency import Kind, Mobility
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import Policy
from tests.property.machine import acted, carry_out, later, policy_of, remembered, snapshot_of
from tests.property.strategies import Machine, NodePart, WorkerPart, machines

EMPTY = DecisionState()


def one_worker(nodes: list[NodePart], units: dict[int, int], ids: tuple[int, ...]) -> Machine:
    """Return a machine with a free worker that has so many times 10 MiB on each node."""
    resident = {(place, Kind.ANON, Mobility.MOVABLE): count for place, count in units.items()}
    worker = WorkerPart(resident, (None,), (), 0, None, None, None, readable=True)
    return Machine(tuple(nodes), (worker,), tuple(range(11, 21)), ids=ids)


def two_busy(machine: Machine) -> Machine:
    """Return the machine with its worker twice, each of which keeps a CPU busy."""
    busy = replace(machine.workers[0], demand=1)
    return replace(machine, workers=(busy, busy))


# Of both CPU-less nodes the same node is nearest, and it has no room for all of what they hold.
TWO_SOURCES = one_worker(
    [
        *(NodePart(1, 16000, 1, 7), NodePart(0, 4000, 1, 0)),
        *(NodePart(0, 4000, 1, 0), NodePart(1, 2000, 1, 1)),
    ],
    {1: 350, 2: 251},
    (0, 2, 1, 3),
)
# It must be split over two nodes at first; once it is, the second one alone could hold it.
SPLIT_FIRST = one_worker(
    [NodePart(0, 2000, 1, 0), NodePart(1, 2000, 1, 1), NodePart(1, 2000, 1, 4)],
    {0: 26},
    (0, 1, 2),
)
# Both go where there is room for both; once they are there, the other node has room and a free CPU.
CROWDED = two_busy(
    one_worker([NodePart(1, 2000, 1, 1), NodePart(1, 2000, 1, 0)], {0: 3, 1: 4}, (0, 1))
)


def planned(machine: Machine) -> tuple[Snapshot, Policy, Plan]:
    """Return a machine with its own ids, and the plan of its first cycle."""
    snapshot, policy = snapshot_of(machine, machine.ids), policy_of(machine, machine.ids)
    return snapshot, policy, decide(snapshot, policy, EMPTY)[0]


def room_of(snapshot: Snapshot, policy: Policy) -> dict[int, int]:
    """Return what may come to each node, above its headroom."""
    return {s.node: max(0, s.room_bytes(policy.placement.headroom)) for s in snapshot.node_states}


def coming(plan: Plan) -> dict[int, int]:
    """Return what a plan brings to each node."""
    total: dict[int, int] = {}
    for decision in plan.decisions:
        for move in decision.moves:
            total[move.target] = total.get(move.target, 0) + move.move_bytes
    return total


@given(machines())
def test_the_same_input_gives_the_same_plan(machine: Machine) -> None:
    """Deciding has no hidden state: a machine made anew gets the same plan and state."""
    ids = machine.ids
    first = decide(snapshot_of(machine, ids), policy_of(machine, ids), EMPTY)
    assert decide(snapshot_of(machine, ids), policy_of(machine, ids), EMPTY) == first


@given(machines())
def test_every_worker_gets_one_decision_and_only_act_touches_it(machine: Machine) -> None:
    """Nothing is silent, and no verdict but act comes with moves or CPUs."""
    snapshot, _, plan = planned(machine)
    assert [d.worker for d in plan.decisions] == [w.id for w in snapshot.workers]
    for decision in plan.decisions:
        assert decision.why
        touches = bool(decision.moves) or decision.bind_cpus is not None
        assert touches == (decision.verdict is Verdict.ACT)


@given(machines())
def test_no_plan_exceeds_the_headroom_of_any_node(machine: Machine) -> None:
    """What all decisions together bring to a node fits above its headroom."""
    snapshot, policy, plan = planned(machine)
    room = room_of(snapshot, policy)
    for node, size in coming(plan).items():
        assert size <= room[node]


@given(machines())
def test_moves_under_way_count_against_the_headroom(machine: Machine) -> None:
    """A cycle while moves are under way promises nothing that they will take."""
    snapshot, policy = snapshot_of(machine, machine.ids), policy_of(machine, machine.ids)
    first, state = decide(replace(snapshot, workers=snapshot.workers[::2]), policy, EMPTY)
    # The others show up before any byte of the first ones has been moved.
    second, _ = decide(snapshot, policy, state)
    room = room_of(snapshot, policy)
    total = coming(first)
    for node, size in coming(second).items():
        total[node] = total.get(node, 0) + size
    for node, size in total.items():
        assert size <= room[node]


@given(machines())
def test_memory_goes_home_and_nowhere_else(machine: Machine) -> None:
    """Targets are home nodes with memory that the worker may use; sources are none of them."""
    snapshot, _, plan = planned(machine)
    for worker, decision in zip(snapshot.workers, plan.decisions, strict=True):
        home = decision.finding.home
        if not decision.moves:
            continue
        assert home is not None
        targets = {move.target for move in decision.moves}
        assert targets <= home.nodes
        assert not {move.source for move in decision.moves} & home.nodes
        assert worker.memory.mems_allowed is None or targets <= worker.memory.mems_allowed
        for target in targets:
            node = snapshot.topology.node(target)
            assert node is not None
            assert node.has_memory


@given(machines())
def test_a_plan_moves_no_more_than_may_be_moved_and_all_of_what_is_remote(
    machine: Machine,
) -> None:
    """Shared bytes and those under a user's mempolicy stay; of the others none is left behind."""
    snapshot, _, plan = planned(machine)
    for worker, decision in zip(snapshot.workers, plan.decisions, strict=True):
        if not decision.moves:
            continue
        assert worker.residency is not None
        movable = worker.residency.by_node(mobility=Mobility.MOVABLE)
        for source in {move.source for move in decision.moves}:
            moved = sum(m.move_bytes for m in decision.moves if m.source == source)
            assert moved == movable[source]
        assert decision.move_bytes == decision.finding.remote_bytes


@given(machines())
def test_threads_are_bound_to_cpus_that_exist_and_that_they_may_use(machine: Machine) -> None:
    """Bind CPUs are home CPUs of the machine within the worker's own masks; reserved ones last."""
    snapshot, policy, plan = planned(machine)
    for worker, decision in zip(snapshot.workers, plan.decisions, strict=True):
        cpus, home = decision.bind_cpus, decision.finding.home
        if cpus is None:
            continue
        assert home is not None
        assert home.source not in {HomeSource.PIN, HomeSource.CPUSET}
        home_cpus = snapshot.topology.cpus_of(home.nodes)
        assert cpus
        assert cpus <= home_cpus & worker.allowed_cpus
        assert not cpus & policy.placement.reserved_cpus or not (
            home_cpus - policy.placement.reserved_cpus
        )


@given(machines())
def test_a_worker_under_a_mempolicy_of_its_user_is_not_touched(machine: Machine) -> None:
    """Where most of the memory was bound by its user, neither memory nor threads are touched."""
    snapshot, _, plan = planned(machine)
    one_node = sum(1 for node in snapshot.topology.nodes if node.has_memory) < 2
    for worker, decision in zip(snapshot.workers, plan.decisions, strict=True):
        if worker.residency is None or one_node:
            continue
        bound = worker.residency.total_bytes(mobility=Mobility.POLICY)
        if 2 * bound > worker.residency.total_bytes():
            assert (decision.verdict, decision.reason) == (Verdict.REFUSE, Reason.MEMPOLICY)


@given(machines())
@example(TWO_SOURCES)
def test_renumbered_nodes_give_the_renumbered_plan(machine: Machine) -> None:
    """Node ids are names: other ids, and another order of them, change nothing else."""
    plain = tuple(range(len(machine.nodes)))
    name = dict(zip(plain, machine.ids, strict=True))
    first, _ = decide(snapshot_of(machine, plain), policy_of(machine, plain), EMPTY)
    _, _, second = planned(machine)
    for a, b in zip(first.decisions, second.decisions, strict=True):
        assert (a.verdict, a.reason, a.bind_cpus) == (b.verdict, b.reason, b.bind_cpus)
        if a.finding.home is None or b.finding.home is None:
            assert a.finding.home is b.finding.home
        else:
            assert {name[node] for node in a.finding.home.nodes} == b.finding.home.nodes
        renamed = sorted((name[m.source], name[m.target], m.move_bytes) for m in a.moves)
        assert renamed == sorted((m.source, m.target, m.move_bytes) for m in b.moves)


@given(machines())
def test_nothing_is_touched_while_paused(machine: Machine) -> None:
    """Pause holds for every worker, and what would be done is still said."""
    snapshot, policy, plan = planned(machine)
    paused, _ = decide(snapshot, policy, DecisionState(paused=True))
    assert not acted(paused)
    for before, after in zip(plan.decisions, paused.decisions, strict=True):
        if before.verdict is Verdict.ACT:
            assert after.reason is Reason.PAUSED


@given(machines())
def test_a_worker_that_was_acted_on_in_vain_is_left_alone_for_twice_its_cooldown(
    machine: Machine,
) -> None:
    """A try that brought nothing is made again, later; one that moved nothing after a cooldown."""
    snapshot, policy, plan = planned(machine)
    _, state = decide(snapshot, policy, EMPTY)
    tried = {d.worker: d for d in acted(plan)}
    done_s, pause_s = snapshot.at_s + 5, policy.placement.cooldown_s
    vain = [Outcome(d, End.PARTIAL, done_s, 1.0) for d in tried.values()]
    state = remember(state, vain, done_s)
    for waited, waits in ((0.99, {True, False}), (1.5, {True}), (2.01, set())):
        again, _ = decide(later(snapshot, done_s + waited * pause_s), policy, state)
        for decision in again.decisions:
            if decision.worker in tried:
                moved = bool(tried[decision.worker].moves)
                assert (decision.reason is Reason.COOLDOWN) == (moved in waits)
                assert (decision.verdict is Verdict.ACT) == (moved not in waits)


@given(machines())
@example(CROWDED)
def test_an_improved_machine_is_left_alone_and_nothing_goes_back(machine: Machine) -> None:
    """Once a plan is carried out, its workers rest through the cooldown, and no byte returns."""
    _, _, plan = planned(machine)
    first, later = then(machine)
    done = {d.worker: d for d in acted(plan)}
    for decision in first.decisions:
        assert decision.worker not in done or decision.verdict is not Verdict.ACT
    for decision in later.decisions:
        if decision.worker in done:
            ways = {(move.target, move.source) for move in done[decision.worker].moves}
            assert not ways & {(move.source, move.target) for move in decision.moves}


def then(machine: Machine) -> tuple[Plan, Plan]:
    """Carry out each plan; return the plans of the next cycle and of one after the cooldown."""
    snapshot, policy = snapshot_of(machine, machine.ids), policy_of(machine, machine.ids)
    state, plans = EMPTY, []
    for wait_s in (5.0, 2 * policy.placement.cooldown_s, 0.0):
        plan, state = decide(snapshot, policy, state)
        done_s = snapshot.at_s + wait_s
        state = remembered(state, plan, snapshot.at_s + min(5.0, wait_s))
        snapshot = carry_out(snapshot, plan, done_s)
        plans.append(plan)
    return plans[1], plans[2]


@given(machines())
@example(CROWDED)
def test_memory_does_not_leave_threads_that_are_bound(machine: Machine) -> None:
    """Whatever is remembered, as after a restart: a bound worker's home is where it is bound.

    Or the same as before: a home may have nodes none of whose CPUs are to be used.
    """
    snapshot, policy, plan = planned(machine)
    bound = {d.worker: d.bind_cpus for d in acted(plan) if d.bind_cpus is not None}
    first = {d.worker: d.finding.home.nodes for d in plan.decisions if d.finding.home is not None}
    again, _ = decide(carry_out(snapshot, plan, snapshot.at_s + 500), policy, EMPTY)
    for decision in again.decisions:
        home = decision.finding.home
        if decision.worker in bound and home is not None and home.source is HomeSource.PLANNER:
            where = snapshot.topology.nodes_of(bound[decision.worker])
            assert home.nodes <= where or home.nodes == first[decision.worker]


def test_threads_follow_when_their_rule_comes_to_name_another_node() -> None:
    """Reloaded with other nodes, a rule takes the threads along that were bound by the old one."""
    nodes = [NodePart(4, 16000, 8, 0), NodePart(4, 16000, 8, 0)]
    machine = one_worker(nodes, {0: 50}, (0, 1))
    worker = replace(machine.workers[0], rule_nodes=frozenset({0}))
    snapshot, policy, plan = planned(replace(machine, workers=(worker,)))
    assert plan.decisions[0].bind_cpus == frozenset(range(4))
    bound = carry_out(snapshot, plan, snapshot.at_s + 500)
    rules = (replace(policy.rules[0], nodes=frozenset({1})),)
    (decision,) = decide(bound, replace(policy, rules=rules), EMPTY)[0].decisions
    assert [move.target for move in decision.moves] == [1]
    assert decision.bind_cpus == frozenset(range(8, 12))


def test_a_worker_that_was_split_stays_so_when_one_node_would_do() -> None:
    """Moving it together again would cost more than its being split: the gain must be clear."""
    _, _, plan = planned(SPLIT_FIRST)
    assert {move.target for move in plan.decisions[0].moves} == {1, 2}
    first, later = then(SPLIT_FIRST)
    assert [p.decisions[0].reason for p in (first, later)] == [Reason.HOME, Reason.HOME]
