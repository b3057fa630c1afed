"""Nodes as places for workers: how much memory and how many CPUs they have for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from numad_py.decide.problem import Place
from numad_py.model.snapshot import Snapshot, WorkerId
from numad_py.model.topology import Node, Performance
from numad_py.policy.schema import PlacementPolicy

CROWDED = 1.1
"""CPUs count as crowded where more than this share of them is wanted: demand wavers, and what is
moved for a moment's sake is moved back."""


def places_of(
    snapshot: Snapshot,
    policy: PlacementPolicy,
    *,
    taken_bytes: Mapping[int, int] | None = None,
    foreign_cpus: Mapping[int, float] | None = None,
) -> tuple[Place, ...]:
    """Return all online nodes, the roomiest first, so that it is chosen where all else is equal.

    Args:
        snapshot: the machine.
        policy: headroom, reserved CPUs, what an SMT sibling is worth.
        taken_bytes: by node, what is promised already: to moves under way, to reservations.
        foreign_cpus: by node, CPUs kept busy by others than the workers to be placed.
    """
    taken, foreign = taken_bytes or {}, foreign_cpus or {}
    rooms = {state.node: state.room_bytes(policy.headroom) for state in snapshot.node_states}
    slow = _slowness(snapshot)
    places = [
        Place(
            id=node.id,
            room_bytes=max(0, rooms.get(node.id, 0) - taken.get(node.id, 0)),
            cpus=max(0.0, CROWDED * capacity_cpus(node, policy) - foreign.get(node.id, 0.0)),
            distances=node.distances,
            slow=slow[node.id],
        )
        for node in snapshot.topology.nodes
    ]
    return tuple(sorted(places, key=lambda place: (-place.room_bytes, place.id)))


def capacity_cpus(node: Node, policy: PlacementPolicy) -> float:
    """Return what a node's CPUs are worth, in whole cores: reserved ones are worth nothing.

    The second thread of a core adds a part of it only (``[placement] smt_share``).
    """
    cpus = node.cpus - policy.reserved_cpus
    cores = [len(core & cpus) for core in node.cores if core & cpus]
    told = sum(cores)
    worth = sum(1 + policy.smt_share * (threads - 1) for threads in cores)
    return worth + len(cpus) - told


def foreign_cpus(snapshot: Snapshot, placed: Collection[WorkerId]) -> dict[int, float]:
    """Return the CPUs that others than these keep busy, by node, as far as that is known."""
    ours: dict[int, float] = {}
    for worker in snapshot.workers:
        for node, share in worker.run_share.items() if worker.id in placed else ():
            ours[node] = ours.get(node, 0.0) + share * worker.demand_cpus
    return {
        state.node: max(0.0, state.busy_cpus - ours.get(state.node, 0.0))
        for state in snapshot.node_states
        if state.busy_cpus is not None
    }


def _slowness(snapshot: Snapshot) -> dict[int, float]:
    """Return how slow each node's memory is beside the fastest, as the firmware rates it."""
    rated = {node.id: _pace(node.performance) for node in snapshot.topology.nodes}
    best = max((pace for pace in rated.values() if pace), default=None)
    return {node: best / pace if best and pace else 1.0 for node, pace in rated.items()}


def _pace(performance: Performance | None) -> float | None:
    """Return a figure that grows with speed: bandwidth where it is rated, else 1 / latency."""
    if performance is None:
        return None
    if performance.read_bandwidth_mib_s:
        return float(performance.read_bandwidth_mib_s)
    return 1 / performance.read_latency_ns if performance.read_latency_ns else None
