"""Which bytes go from which node to which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numad_py.decide.room import Room
from numad_py.decide.sizes import movable_by_node
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
    remote = _remote(worker, home, memory)
    if sum(remote.values()) > sum(room.bytes_on(node) for node in _targets(home, topology)):
        return None
    return _share_out(remote, home, topology, room)


def reserve(worker: Worker, memory: WorkerMemory, topology: Topology, room: Room) -> None:
    """Take the room that a move under way may still need, as far as there is any.

    The figures may be from before the move, and what has moved is gone from the room already: then
    more is taken than needed, until the move ends.
    """
    if memory.moving and memory.home is not None:
        _share_out(_remote(worker, memory.home, memory), memory.home, topology, room)


def _remote(worker: Worker, home: Home, memory: WorkerMemory) -> dict[int, int]:
    movable = movable_by_node(worker, memory.refused)
    return {node: size for node, size in movable.items() if node not in home.nodes}


def _targets(home: Home, topology: Topology) -> list[int]:
    return [n for n in sorted(home.nodes) if _takes_memory(n, topology)]


def _share_out(
    remote: Mapping[int, int], home: Home, topology: Topology, room: Room
) -> tuple[MemoryMove, ...]:
    """Return moves by source, nearest targets first; the largest source chooses, whatever the ids.

    Targets that are equally near take in proportion to their room: one that is filled to its last
    byte is too full by the time the move gets there.
    """
    targets = _targets(home, topology)
    moves: list[MemoryMove] = []
    for source, size in sorted(remote.items(), key=lambda item: (-item[1], item[0])):
        left = size
        for distance in sorted({topology.distance(source, n) for n in targets}):
            near = [n for n in targets if topology.distance(source, n) == distance]
            for target, part in _in_proportion(left, near, room).items():
                moves.append(MemoryMove(source, target, part))
                room.take_bytes(target, part)
                left -= part
    return tuple(sorted(moves, key=lambda move: (move.source, move.target)))


def _in_proportion(size: int, targets: Sequence[int], room: Room) -> dict[int, int]:
    """Return what each takes of so many bytes, as far as there is room."""
    rooms = {node: room.bytes_on(node) for node in targets}
    left, room_left = min(size, sum(rooms.values())), sum(rooms.values())
    parts: dict[int, int] = {}
    for node in sorted(targets, key=lambda n: (-rooms[n], n)):
        part = -(-left * rooms[node] // room_left) if room_left else 0
        room_left -= rooms[node]
        left -= part
        if part:
            parts[node] = part
    return parts


def _takes_memory(node_id: int, topology: Topology) -> bool:
    node = topology.node(node_id)
    return node is not None and node.has_memory
