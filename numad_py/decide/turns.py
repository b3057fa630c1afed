"""Who moves in this cycle: the most valuable first, as far as room and the cycle's bytes go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from numad_py.decide.moves import Shortage, moves_home, remote_bytes, shortage
from numad_py.decide.planner import busyness
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
    short: Shortage | None = None
    """What its home has too little of, if that is why."""


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
    has too little room, it may be that others are still to leave it: those that move now, and those
    whose turn comes after such. Nobody waits for who cannot move, and no two for each other.

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
            -value(wish, state.of(wish.worker.id), topology),
            wish.worker.label,
        ),
    )
    leaving = _leaving(snapshot, state)
    lacking: list[_Lacking] = []
    found: dict[WorkerId, Turn] = {}
    begun: list[str] = []
    in_motion = 0
    for wish in ranked:
        label, memory = wish.worker.label, state.of(wish.worker.id)
        away = remote_bytes(wish.worker, wish.home, memory)
        if (short := shortage(wish.worker, wish.home, memory, topology, room)) is not None:
            found[wish.worker.id] = Turn(None, (), short)
            lacking.append(_Lacking(wish, away, short))
            continue
        leaving[label] = away
        if begun and in_motion + wish.finding.remote_bytes > most_bytes:
            found[wish.worker.id] = Turn(None, tuple(begun))
            continue
        begun.append(label)
        in_motion += wish.finding.remote_bytes
        found[wish.worker.id] = Turn(moves_home(wish.worker, wish.home, memory, topology, room))
    for one in _queued(lacking, leaving):
        found[one.wish.worker.id] = Turn(None, tuple(sorted(one.makers)), one.short)
    return found


def _overdue(memory: WorkerMemory, now_s: float) -> float:
    """Return since when a worker has waited for longer than it is to; infinity: it has not."""
    since_s = memory.queued_at_s
    return since_s if since_s is not None and now_s - since_s >= LONGEST_WAIT_S else math.inf


Leaving = Mapping[int | None, Mapping[int, int]]
"""Bytes by node, ordinary ones under None and huge pages under their size."""


def _leaving(snapshot: Snapshot, state: DecisionState) -> dict[str, Leaving]:
    """Return what those that are being moved have yet to take off each node, by label.

    The figures may be from before the move, and what has moved is gone from the room already.
    """
    moving = ((worker, state.of(worker.id)) for worker in snapshot.workers)
    return {
        worker.label: remote_bytes(worker, memory.home, memory)
        for worker, memory in moving
        if memory.moving and memory.home is not None
    }


@dataclass
class _Lacking:
    """A wish whose home has too little room, and who is known to leave it."""

    wish: Wish
    away: Leaving
    short: Shortage
    makers: list[str] = field(default_factory=list)
    left_bytes: int = 0
    """What those leave on its home, of what it has too little of."""

    def count(self, label: str, away: Leaving) -> None:
        """Count one that leaves nodes."""
        short = self.short
        # Huge pages that are made are made of whatever leaves.
        made = short.made and short.huge_bytes is not None
        leaving_it = away.values() if made else [away.get(short.huge_bytes, {})]
        nodes = self.wish.home.nodes
        leaves = sum(by_node.get(node, 0) for by_node in leaving_it for node in nodes)
        if leaves:
            self.makers.append(label)
            self.left_bytes += leaves

    @property
    def has_room(self) -> bool:
        """Whether there is room enough once they have left."""
        return self.left_bytes >= self.short.coming_bytes - self.short.room_bytes


def _queued(lacking: Iterable[_Lacking], leaving: Mapping[str, Leaving]) -> Iterator[_Lacking]:
    """Yield those that will have room once others have left, who make room for others in turn.

    Args:
        lacking: all that have too little room now.
        leaving: who leaves without having to wait for room, by label.
    """
    waiting = list(lacking)
    while waiting and leaving:
        for one in waiting:
            for label, away in leaving.items():
                one.count(label, away)
        queued = [one for one in waiting if one.has_room]
        yield from queued
        waiting = [one for one in waiting if not one.has_room]
        leaving = {one.wish.worker.label: one.away for one in queued}


def value(wish: Wish, memory: WorkerMemory, topology: Topology) -> float:
    """Return what moving a byte of a worker brings: how busy it is, times how far its memory is.

    Both as the planner counts them: by demand that lasts, less what refused to move.
    """
    lasting = memory.demand_cpus
    busy = busyness(wish.worker, wish.worker.demand_cpus if lasting is None else lasting)
    away = _away(wish.worker, wish.home, memory)
    total = sum(away.values())
    if not total:
        return 0.0
    far = sum(
        size * (min(topology.distance(home, node) for home in wish.home.nodes) - LOCAL_DISTANCE)
        for node, size in away.items()
    )
    return busy * far / total


def _away(worker: Worker, home: Home, memory: WorkerMemory) -> dict[int, int]:
    movable = movable_by_node(worker, memory.refused)
    return {node: size for node, size in movable.items() if node not in home.nodes}
