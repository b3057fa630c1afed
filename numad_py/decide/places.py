"""Nodes as places for workers: how much memory and how many CPUs they have for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from numad_py.decide.sizes import huge_free
from numad_py.decide.solver.problem import Place
from numad_py.model.snapshot import Snapshot, WorkerId
from numad_py.model.topology import Node
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
    pools = {state.node: huge_free(state) for state in snapshot.node_states}
    slow = _slowness(snapshot)
    places = [
        Place(
            id=node.id,
            room_bytes=max(0, rooms.get(node.id, 0) - taken.get(node.id, 0)),
            cpus=max(0.0, CROWDED * capacity_cpus(node, policy) - foreign.get(node.id, 0.0)),
            distances=node.distances,
            slow=slow[node.id],
            huge_free=pools.get(node.id, {}),
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


def usable_cpus(
    cpus: frozenset[int], snapshot: Snapshot, policy: PlacementPolicy
) -> dict[int, float]:
    """Return what CPUs are worth to whoever may use these alone, by node, nobody else there."""
    return {
        node.id: CROWDED * capacity_cpus(replace(node, cpus=node.cpus & cpus), policy)
        for node in snapshot.topology.nodes
    }


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
    """Return how slow each node's memory is beside the fastest, as the firmware rates it.

    By bandwidth where that of all rated nodes is known, else by latency where that is; the two are
    not compared.
    """
    rated = {n.id: n.performance for n in snapshot.topology.nodes if n.performance is not None}
    widths = {node: rating.read_bandwidth_mib_s for node, rating in rated.items()}
    delays = {node: rating.read_latency_ns for node, rating in rated.items()}
    slow = dict.fromkeys(snapshot.topology.node_ids, 1.0)
    if all(widths.values()):
        best = max((width for width in widths.values() if width), default=1)
        slow.update({node: best / width for node, width in widths.items() if width})
    elif all(delays.values()):
        best = min((delay for delay in delays.values() if delay), default=1)
        slow.update({node: delay / best for node, delay in delays.items() if delay})
    return slow
