"""Home nodes for the workers that nobody has placed: all of them together.

A greedy round, largest first, over the room that is left. The cost of a candidate is what would
have to be moved there, weighted by distance; crowded CPUs weigh as much as memory, since a worker
that waits for a CPU gains nothing from near memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from numad_py.decide.room import Room
from numad_py.model.cpulist import format_list
from numad_py.model.plan import DecisionState, Home, HomeSource
from numad_py.model.quantity import format_bytes
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.model.topology import LOCAL_DISTANCE, Topology

CLEAR_GAIN = 0.25
"""A planned home is left only for one that costs less by this share of the worker's bytes."""
THREAD_BYTES = 1 << 20
"""What a thread that runs elsewhere weighs: threads are cheap to move, memory is dear."""
_LARGEST_EXHAUSTIVE = 10
"""Up to so many nodes every set is looked at; beyond, sets grow around each node."""


def movable_by_node(worker: Worker, refused: Mapping[int, int]) -> dict[int, int]:
    """Return bytes by node that may be moved, less what refused to earlier."""
    if worker.residency is None:
        return {}
    movable = worker.residency.by_node(mobility=Mobility.MOVABLE)
    left = {node: max(0, size - refused.get(node, 0)) for node, size in movable.items()}
    return {node: size for node, size in left.items() if size}


def place(
    workers: Sequence[Worker], snapshot: Snapshot, room: Room, state: DecisionState
) -> dict[WorkerId, Home]:
    """Return a home for each worker that can have one; room is taken for what moves.

    Workers come largest first, so that small ones fill what is left; ties go by label, so that the
    same input gives the same plan.
    """
    homes: dict[WorkerId, Home] = {}
    # What is planned here is taken from the real room when the moves are made.
    room = copy.deepcopy(room)
    for worker in sorted(workers, key=lambda w: (-_size(w, state), w.label)):
        known = state.of(worker.id)
        bytes_by_node = movable_by_node(worker, known.refused)
        # A move under way has its target; its room is reserved.
        home = known.home if known.moving else None
        home = home or _home(worker, bytes_by_node, snapshot.topology, room, known.home)
        if home is None:
            continue
        homes[worker.id] = home
        share = worker.demand_cpus / len(home.nodes)
        coming = sum(size for node, size in bytes_by_node.items() if node not in home.nodes)
        for node in sorted(home.nodes, key=room.bytes_on, reverse=True):
            room.take_cpus(node, share)
            part = min(coming, room.bytes_on(node))
            room.take_bytes(node, part)
            coming -= part
    return homes


def _size(worker: Worker, state: DecisionState) -> int:
    return sum(movable_by_node(worker, state.of(worker.id).refused).values())


def _home(
    worker: Worker,
    bytes_by_node: Mapping[int, int],
    topology: Topology,
    room: Room,
    before: Home | None,
) -> Home | None:
    """Return the cheapest feasible set of nodes: the smallest that holds it."""
    usable = [
        node.id
        for node in topology.nodes
        if node.has_cpu
        and node.has_memory
        and (worker.memory.mems_allowed is None or node.id in worker.memory.mems_allowed)
    ]
    # Where numad-py has bound its threads it stays if it can: it was placed there once already.
    masks = [t.affinity for t in worker.threads if t.tid in worker.first_masks and t.affinity]
    bound = topology.nodes_of(frozenset().union(*masks))
    staying = [node for node in usable if node in bound]
    return _cheapest(staying, worker, bytes_by_node, topology, room, before) or _cheapest(
        usable, worker, bytes_by_node, topology, room, before
    )


def _cheapest(  # noqa: PLR0917 - what a choice depends on
    usable: Sequence[int],
    worker: Worker,
    bytes_by_node: Mapping[int, int],
    topology: Topology,
    room: Room,
    before: Home | None,
) -> Home | None:
    """Return the cheapest of the smallest sets of these nodes that hold it, if any does."""
    for size in range(1, len(usable) + 1):
        feasible = [
            nodes for nodes in _sets(usable, size, topology) if _fits(nodes, bytes_by_node, room)
        ]
        if not feasible:
            continue
        costs = {nodes: _cost(nodes, worker, bytes_by_node, topology, room) for nodes in feasible}
        best = min(
            feasible,
            key=lambda nodes: (costs[nodes], -sum(room.bytes_on(n) for n in nodes), sorted(nodes)),
        )
        if before is not None and _would_do(before, usable, bytes_by_node, room):
            gain = _cost(before.nodes, worker, bytes_by_node, topology, room) - costs[best]
            if gain <= CLEAR_GAIN * sum(bytes_by_node.values()):
                return before
        return Home(best, HomeSource.PLANNER, _why(best, bytes_by_node, len(feasible)))
    return None


def _sets(usable: Sequence[int], size: int, topology: Topology) -> Iterable[frozenset[int]]:
    """Return candidate sets of nodes; close ones only where there are too many to try them all."""
    if len(usable) <= _LARGEST_EXHAUSTIVE:
        return [frozenset(nodes) for nodes in combinations(usable, size)]
    return {
        frozenset(sorted(usable, key=lambda n: (topology.distance(start, n), n))[:size])
        for start in usable
    }


def _would_do(
    before: Home, usable: Sequence[int], bytes_by_node: Mapping[int, int], room: Room
) -> bool:
    """Say whether an earlier home is still possible, also where fewer nodes would do by now."""
    ours = before.source is HomeSource.PLANNER and before.nodes <= set(usable)
    return ours and _fits(before.nodes, bytes_by_node, room)


def _fits(nodes: frozenset[int], bytes_by_node: Mapping[int, int], room: Room) -> bool:
    coming = sum(size for node, size in bytes_by_node.items() if node not in nodes)
    return coming <= sum(room.bytes_on(node) for node in nodes)


def _cost(
    nodes: frozenset[int],
    worker: Worker,
    bytes_by_node: Mapping[int, int],
    topology: Topology,
    room: Room,
) -> float:
    """Return what a home costs, in bytes moved over one local distance."""
    moved = sum(
        size * min(topology.distance(node, home) for home in nodes) / LOCAL_DISTANCE
        for node, size in bytes_by_node.items()
        if node not in nodes
    )
    away = sum(share for node, share in worker.run_share.items() if node not in nodes)
    threads = away * len(worker.threads) * THREAD_BYTES
    spread = sum(topology.distance(a, b) - LOCAL_DISTANCE for a in nodes for b in nodes if a != b)
    lacking = max(0.0, worker.demand_cpus - sum(max(0.0, room.cpus_on(n)) for n in nodes))
    crowding = lacking / worker.demand_cpus if worker.demand_cpus > 0 else 0.0
    total = sum(bytes_by_node.values())
    return moved + threads + crowding * 2 * total + spread * THREAD_BYTES


def _why(nodes: frozenset[int], bytes_by_node: Mapping[int, int], feasible: int) -> str:
    there = sum(size for node, size in bytes_by_node.items() if node in nodes)
    total = sum(bytes_by_node.values())
    return (
        f"cheapest of {feasible} choices: {format_bytes(there)} of its {format_bytes(total)} "
        f"lies on node {format_list(nodes)} already"
    )
