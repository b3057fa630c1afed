"""Which bytes go from which node to which."""

from __future__ import annotations

from numad_py.decide.planner import movable_by_node
from numad_py.decide.room import Room
from numad_py.model.plan import Home, MemoryMove, WorkerMemory
from numad_py.model.snapshot import Worker
from numad_py.model.topology import Topology


def moves_home(
    worker: Worker, home: Home, memory: WorkerMemory, topology: Topology, room: Room
) -> tuple[MemoryMove, ...] | None:
    """Return the moves that bring a worker's memory home, nearest home node first.

    Room is taken for them. None where the home nodes together have too little: a worker is not
    squeezed, and half a move would leave it on one node more than before.
    """
    remote = {
        node: size
        for node, size in sorted(movable_by_node(worker, memory.refused).items())
        if node not in home.nodes
    }
    targets = [n for n in sorted(home.nodes) if _takes_memory(n, topology)]
    if sum(remote.values()) > sum(room.bytes_on(node) for node in targets):
        return None
    moves: list[MemoryMove] = []
    for source, size in remote.items():
        left = size
        for target in sorted(targets, key=lambda n: (topology.distance(source, n), n)):
            part = min(left, room.bytes_on(target))
            if part:
                moves.append(MemoryMove(source, target, part))
                room.take_bytes(target, part)
                left -= part
            if not left:
                break
    return tuple(moves)


def _takes_memory(node_id: int, topology: Topology) -> bool:
    node = topology.node(node_id)
    return node is not None and node.has_memory
