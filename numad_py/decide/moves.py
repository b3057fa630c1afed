"""Which bytes go from which node to which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numad_py.decide.room import Room
from numad_py.decide.sizes import huge_by_size, ordinary_by_node
from numad_py.model.plan import Home, MemoryMove, WorkerMemory
from numad_py.model.snapshot import Worker
from numad_py.model.topology import Topology


@dataclass(frozen=True)
class Shortage:
    """What keeps a worker from coming home."""

    huge_bytes: int | None
    """Size of the huge pages that are lacking; None: ordinary memory is."""
    coming_bytes: int
    """What would come in such pages."""
    room_bytes: int
    """What its home nodes together can take of it, after what has been promised others and its own
    larger pages."""
    made: bool = False
    """Whether huge pages would be made of ordinary memory for it."""


def moves_home(
    worker: Worker, home: Home, memory: WorkerMemory, topology: Topology, room: Room
) -> tuple[MemoryMove, ...] | None:
    """Return the moves that bring a worker's memory home, nearest home node first.

    Room is taken for them. None where there is a shortage: a worker is not squeezed, and half a
    move would leave it on one node more than before.
    """
    if shortage(worker, home, memory, topology, room) is not None:
        return None
    return _share_out(remote_bytes(worker, home, memory), home, topology, room)


def shortage(
    worker: Worker, home: Home, memory: WorkerMemory, topology: Topology, room: Room
) -> Shortage | None:
    """Return what the home nodes together have too little of; None where they have enough."""
    room = room.copy()
    for huge_bytes, by_node in remote_bytes(worker, home, memory).items():
        coming = sum(by_node.values())
        have = sum(room.bytes_on(node, huge_bytes) for node in _targets(home, topology))
        if coming > have:
            return Shortage(huge_bytes, coming, have, room.makes_pages)
        # What it takes of one kind may be lacking to the next.
        _share_out({huge_bytes: by_node}, home, topology, room)
    return None


def reserve(worker: Worker, memory: WorkerMemory, topology: Topology, room: Room) -> None:
    """Take the room that a move under way may still need, as far as there is any.

    The figures may be from before the move, and what has moved is gone from the room already: then
    more is taken than needed, until the move ends.
    """
    if memory.moving and memory.home is not None:
        _share_out(remote_bytes(worker, memory.home, memory), memory.home, topology, room)


def remote_bytes(
    worker: Worker, home: Home, memory: WorkerMemory
) -> dict[int | None, dict[int, int]]:
    """Return remote bytes by node: ordinary ones under None, huge pages under their size.

    The largest pages first: memory that is to be made one of them is the hardest to find.
    """
    huge = sorted(huge_by_size(worker, memory.refused).items(), reverse=True)
    every = [*huge, (None, ordinary_by_node(worker, memory.refused))]
    return {
        huge_bytes: {node: size for node, size in by_node.items() if node not in home.nodes}
        for huge_bytes, by_node in every
    }


def _targets(home: Home, topology: Topology) -> list[int]:
    return [n for n in sorted(home.nodes) if _takes_memory(n, topology)]


def _share_out(
    remote: Mapping[int | None, Mapping[int, int]], home: Home, topology: Topology, room: Room
) -> tuple[MemoryMove, ...]:
    """Return moves by source, nearest targets first; the largest source chooses, whatever the ids.

    Targets that are equally near take in proportion to their room: one that is filled to its last
    byte is too full by the time the move gets there.
    """
    targets = _targets(home, topology)
    moved: dict[tuple[int, int], int] = {}
    for huge_bytes, by_node in remote.items():
        for source, size in sorted(by_node.items(), key=lambda item: (-item[1], item[0])):
            left = size
            for distance in sorted({topology.distance(source, n) for n in targets}):
                near = [n for n in targets if topology.distance(source, n) == distance]
                rooms = {node: room.bytes_on(node, huge_bytes) for node in near}
                for target, part in _in_proportion(left, rooms, huge_bytes or 1).items():
                    moved[source, target] = moved.get((source, target), 0) + part
                    room.take_bytes(target, part, huge_bytes)
                    left -= part
    return tuple(MemoryMove(*way, size) for way, size in sorted(moved.items()))


def _in_proportion(size: int, rooms: Mapping[int, int], unit: int) -> dict[int, int]:
    """Return what each node takes of so many bytes, as far as there is room, in whole units."""
    left, room_left = min(size, sum(rooms.values())), sum(rooms.values())
    parts: dict[int, int] = {}
    for node in sorted(rooms, key=lambda n: (-rooms[n], n)):
        part = -(-left * rooms[node] // room_left) if room_left else 0
        part = min(left, -(-part // unit) * unit)
        room_left -= rooms[node]
        left -= part
        if part:
            parts[node] = part
    return parts


def _takes_memory(node_id: int, topology: Topology) -> bool:
    node = topology.node(node_id)
    return node is not None and node.has_memory
