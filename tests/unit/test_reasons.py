"""What is said of a choice is true: reasons, constraints and costs of planned homes."""

from __future__ import annotations

from dataclasses import replace

from numad_py.decide.decisions import decide
from numad_py.model.machine import HugePages, NodeState
from numad_py.model.plan import Decision, DecisionState, Home, HomeSource, Reason, WorkerMemory
from numad_py.model.residency import Kind, Mobility, Residency, entries_of
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker
from numad_py.model.topology import Node, Topology
from numad_py.policy.schema import Policy
from tests.unit import seen
from tests.unit.seen import GIB, MIB

KEPT = Home(frozenset({0, 1}), HomeSource.PLANNER, "told earlier")


def machine(*workers: Worker, far: int = 20, free_gib: float = 6) -> Snapshot:
    """Return two nodes of four CPUs and 8 GiB, so far apart."""
    nodes = tuple(
        Node(i, frozenset(range(4 * i, 4 * i + 4)), 8 * GIB, {i: 10, 1 - i: far}) for i in (0, 1)
    )
    states = tuple(NodeState(i, 8 * GIB, int(free_gib * GIB), 0) for i in (0, 1))
    return seen.snapshot(*workers, topology=Topology(nodes), node_states=states)


def worker(
    sizes: dict[tuple[int, Kind, Mobility, int], int], run_share: dict[int, float] | None = None
) -> Worker:
    """Return one that may run anywhere, with so many MiB by node, kind, mobility and page size."""
    found = Residency(entries_of({key: size * MIB for key, size in sizes.items()}), seen.NOW_S)
    return seen.worker(
        found=found,
        memory=MemoryStatus(anon_bytes=found.total_bytes()),
        threads=(Thread(10, 5, frozenset(range(8)), 0, 100),),
        run_share=run_share or {0: 1.0},
        age_s=5000.0,
    )


def anon(by_node: dict[int, int]) -> Worker:
    """Return one of movable memory in small pages."""
    return worker({(n, Kind.ANON, Mobility.MOVABLE, 4096): size for n, size in by_node.items()})


def decided(snapshot: Snapshot, memory: WorkerMemory | None = None) -> Decision:
    """Return what is decided of the only worker."""
    (only,) = snapshot.workers
    state = DecisionState({only.id: memory} if memory else {})
    (decision,) = decide(snapshot, Policy(), state)[0].decisions
    return decision


def test_a_home_that_is_kept_is_not_said_to_be_needed() -> None:
    """Either node would hold it: it stays on both since leaving them would be no clear gain."""
    memory = WorkerMemory(home=KEPT, seen_at_s=seen.NOW_S - 5, demand_cpus=2.0)
    decision = decided(machine(anon({0: 1500, 1: 1500}), far=12), memory)
    assert decision.finding.home == KEPT
    assert decision.constraints == ("it keeps the 2 nodes that it has, though fewer would hold it",)


def test_a_home_of_several_nodes_that_is_needed_says_so_each_time() -> None:
    """Also once it is there."""
    memory = WorkerMemory(home=KEPT, seen_at_s=seen.NOW_S - 5, demand_cpus=2.0)
    large = machine(anon({0: 4500, 1: 4500}), free_gib=3)
    for known in (None, memory):
        (said,) = decided(large, known).constraints
        assert "fit no single node" in said


def test_lack_of_huge_pages_is_not_said_to_be_lack_of_room() -> None:
    """Ordinary memory is free on both nodes with CPUs: what bars them stands in the reason."""
    found = machine(worker({(2, Kind.HUGETLB, Mobility.MOVABLE, 2 * MIB): 3000}))
    far = Node(2, frozenset(), 8 * GIB, {0: 20, 1: 20, 2: 10})
    states = tuple(
        NodeState(i, 8 * GIB, 6 * GIB, 0, huge_pages=(HugePages(2 * MIB, 1500, 0),))
        for i in range(3)
    )
    topology = Topology((*found.topology.nodes, far))
    decision = decided(replace(found, topology=topology, node_states=states))
    assert decision.reason is Reason.NO_HOME
    assert "too few free huge pages for it on node 0-1" in decision.why
    assert "has room" not in decision.why


def test_memory_that_lies_elsewhere_is_not_said_to_lie_where_it_could_not_stay() -> None:
    """Node 1 is allowed and has room; its shared memory on node 0 draws it there."""
    drawn = worker(
        {
            (1, Kind.ANON, Mobility.MOVABLE, 4096): 1000,
            (0, Kind.FILE, Mobility.SHARED, 4096): 4000,
        }
    )
    decision = decided(machine(drawn))
    home = decision.finding.home
    assert home is not None
    assert home.nodes == {0}
    assert home.why.endswith("; none of its 1000.0 MiB lies there yet")


def test_a_decision_tells_what_its_home_costs() -> None:
    """And what the others would: who compares them sees what has won. A given home has no cost."""
    decision = decided(machine(anon({0: 3000, 1: 1000})))
    assert decision.cost is not None
    assert decision.cost.moving == decision.cost.total > 0
    (other,) = decision.alternatives
    assert other.dearer > 0
    pinned = replace(anon({0: 3000}), threads=(Thread(10, 5, frozenset({0}), 0, 100),))
    assert decided(machine(pinned)).cost is None
