"""Who moves in this cycle: the most valuable first, as far as room and the cycle's bytes go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from numad_py.decide.moves import moves_home
from numad_py.decide.planner import LEAST_BUSY
from numad_py.decide.room import Room
from numad_py.decide.sizes import movable_by_node
from numad_py.model.plan import DecisionState, Finding, Home, MemoryMove, WorkerMemory
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.model.topology import LOCAL_DISTANCE, Topology

LONGEST_WAIT_S = 300.0
"""Who has waited for its turn for so long goes before all others, however little it brings."""


@dataclass(frozen=True)
class Turn:
    """What a worker that wants to move may do."""

    moves: tuple[MemoryMove, ...] | None
    """None: nothing in this cycle."""
    after: tuple[str, ...] = ()
    """Labels of those that come first; empty where it is for lack of room alone."""


@dataclass(frozen=True)
class Wish:
    """A worker that is to be moved home."""

    worker: Worker
    home: Home
    finding: Finding


def turns(
    wishes: Iterable[Wish], snapshot: Snapshot, state: DecisionState, room: Room, most_bytes: int
) -> dict[WorkerId, Turn]:
    """Return what each may do.

    One is always set in motion, however large, so that none is too large for ever. Where the home
    has too little room, it may be that others are still to leave it.

    Args:
        wishes: who is to move.
        snapshot: distances.
        state: what refused to move.
        room: is taken from.
        most_bytes: that may be set in motion in this cycle.
    """
    topology = snapshot.topology
    ranked = sorted(
        wishes,
        key=lambda wish: (
            _overdue(state.of(wish.worker.id), snapshot.at_s),
            -value(wish, topology),
            wish.worker.label,
        ),
    )
    found: dict[WorkerId, Turn] = {}
    begun: list[str] = []
    in_motion = 0
    for wish in ranked:
        label = wish.worker.label
        if begun and in_motion + wish.finding.remote_bytes > most_bytes:
            found[wish.worker.id] = Turn(None, tuple(begun))
            continue
        memory = state.of(wish.worker.id)
        moves = moves_home(wish.worker, wish.home, memory, topology, room)
        if moves is None:
            found[wish.worker.id] = Turn(None, _makers_of_room(wish, ranked, room))
            continue
        begun.append(label)
        in_motion += wish.finding.remote_bytes
        found[wish.worker.id] = Turn(moves)
    return found


def _overdue(memory: WorkerMemory, now_s: float) -> float:
    """Return since when a worker has waited for longer than it is to; infinity: it has not."""
    since_s = memory.queued_at_s
    return since_s if since_s is not None and now_s - since_s >= LONGEST_WAIT_S else math.inf


def _makers_of_room(wish: Wish, all_wishes: Sequence[Wish], room: Room) -> tuple[str, ...]:
    """Return who is to leave a worker's home, where it has room enough once they have."""
    lacking = wish.finding.remote_bytes - sum(room.bytes_on(node) for node in wish.home.nodes)
    makers = []
    for other in all_wishes:
        away = _away(other)
        leaving = sum(away.get(node, 0) for node in wish.home.nodes)
        if other is not wish and leaving:
            makers.append(other.worker.label)
            lacking -= leaving
    return tuple(sorted(makers)) if lacking <= 0 else ()


def value(wish: Wish, topology: Topology) -> float:
    """Return what moving a byte of a worker brings: how busy it is, times how far its memory is."""
    busy = max(LEAST_BUSY, min(1.0, wish.worker.demand_cpus))
    away = _away(wish)
    total = sum(away.values())
    if not total:
        return 0.0
    far = sum(
        size * (min(topology.distance(home, node) for home in wish.home.nodes) - LOCAL_DISTANCE)
        for node, size in away.items()
    )
    return busy * far / total


def _away(wish: Wish) -> dict[int, int]:
    movable = movable_by_node(wish.worker, {})
    return {node: size for node, size in movable.items() if node not in wish.home.nodes}
