"""An order of moves in which each finds room, and where the bytes of each lie in the end.

A move takes its room whole before it gives up what it leaves: no more is promised of a mover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from numad_py.decide.solver.candidates import Candidate, Choices, mask_at, positions
from numad_py.decide.solver.flow import divide, divide_in_time

_STATES = 256
"""So many sets of moves made are gone on from at most; as deep goes the recursion at worst."""
_FEW_MOVES = 8
"""Up to so many moves, orders are tried for which the bytes of several nodes are divided anew."""
_FLOWS = 2_000
"""So often the bytes of several nodes are divided anew at most."""


@dataclass(frozen=True)
class Route:
    """How an answer is reached."""

    order: tuple[int, ...]
    """Items to which bytes come, in their order."""
    arrivals: Mapping[int, Mapping[int, int]]
    """Bytes that come, by item and position."""
    stuck: tuple[int, ...]
    """Items for whose bytes there never was room; empty where the answer can be reached."""


@dataclass(frozen=True)
class _Move:
    item: int
    arrivals: Mapping[int, int]
    departures: Mapping[int, int]


def route(choices: Choices, picks: Sequence[Candidate]) -> Route:
    """Return the way from where all is now to an answer that fits in the end."""
    moving = [item for item, pick in enumerate(picks) if pick.arriving]
    # Those whose move is under way have their room first.
    moving.sort(key=lambda item: not choices.items[item].keep)
    arrivals = _arrivals(choices, picks, moving)
    departures = {item: _departures(choices, item, picks[item]) for item in moving}
    moves = [_Move(item, arrivals[item], departures[item]) for item in moving]
    order = _Walk(moves, choices.room).run()
    stuck = [item for item in moving if item not in order]
    # With other parts of what is divisible there may be an order, if there is one without it.
    light = [replace(move, arrivals={}) if picks[move.item].divisible else move for move in moves]
    few = len(moves) <= _FEW_MOVES
    if stuck and few and light != moves and len(_Walk(light, choices.room).run()) == len(moves):
        found = _divided_on_the_way(choices, picks, moving, departures)
        if found is not None:
            return found
    return Route(tuple(order), {item: arrivals[item] for item in order}, tuple(stuck))


def _arrivals(
    choices: Choices, picks: Sequence[Candidate], moving: Sequence[int]
) -> dict[int, dict[int, int]]:
    """Return what comes by position, so that all of it fits in the end."""
    room = list(choices.capacity)
    for pick in picks:
        for at, size in pick.certain:
            room[at] -= size
    divided = [item for item in moving if picks[item].divisible]
    parts = divide([(picks[item].mask, picks[item].divisible) for item in divided], room)
    assert parts is not None, "an answer was taken that does not fit"  # noqa: S101 - a bug
    found = dict(zip(divided, parts, strict=True))
    return {
        item: found[item]
        if item in found
        else {positions(picks[item].mask)[0]: picks[item].arriving}
        for item in moving
    }


def _departures(choices: Choices, item: int, pick: Candidate) -> dict[int, int]:
    present = choices.present(choices.items[item])
    return {at: size for at, size in present if not pick.mask >> at & 1}


class _Walk:
    """A search for an order; what is free depends only on which moves are done, not on when."""

    def __init__(self, moves: Sequence[_Move], room: Sequence[int]) -> None:
        self._moves = moves
        self._free = list(room)
        self._seen: set[int] = set()
        self._path: list[int] = []
        self._longest: list[int] = []
        self._wanted = [0] * len(room)
        for move in moves:
            for at, size in move.arrivals.items():
                self._wanted[at] += size

    def run(self) -> list[int]:
        """Return items in order: all of them, or as many as were ever done."""
        self._on(0)
        return [self._moves[at].item for at in self._longest]

    def _on(self, done: int) -> bool:
        """Go on from where these moves are done; say whether all could be."""
        # A move to where there is room for all that is to come stands in nobody's way.
        steps: list[int] = []
        while more := self._take_harmless(done):
            steps += more
            done |= mask_at(more)
        if len(self._path) > len(self._longest):
            self._longest = list(self._path)
        if len(self._path) == len(self._moves):
            return True
        if done not in self._seen:
            self._seen.add(done)
            for at, move in enumerate(self._moves):
                if len(self._seen) < _STATES and not done >> at & 1 and self._finds_room(move):
                    self._step(at, 1)
                    if self._on(done | 1 << at):
                        return True
                    self._step(at, -1)
        for at in reversed(steps):
            self._step(at, -1)
        return False

    def _take_harmless(self, done: int) -> list[int]:
        """Make the moves that are in nobody's way now."""
        taken, free, wanted = [], self._free, self._wanted
        for at, move in enumerate(self._moves):
            if done >> at & 1:
                continue
            for to in move.arrivals:
                if free[to] < wanted[to]:
                    break
            else:
                self._step(at, 1)
                taken.append(at)
        return taken

    def _finds_room(self, move: _Move) -> bool:
        return all(size <= self._free[at] for at, size in move.arrivals.items())

    def _step(self, at: int, way: int) -> None:
        move = self._moves[at]
        for to, size in move.arrivals.items():
            self._free[to] -= way * size
            self._wanted[to] -= way * size
        for source, size in move.departures.items():
            self._free[source] += way * size
        if way > 0:
            self._path.append(at)
        else:
            self._path.pop()


def _divided_on_the_way(
    choices: Choices,
    picks: Sequence[Candidate],
    moving: Sequence[int],
    departures: Mapping[int, Mapping[int, int]],
) -> Route | None:
    """Try orders, with what is divisible divided to suit each."""
    flows = [_FLOWS]

    def on(order: tuple[int, ...], rooms: list[list[int]], room: list[int]) -> Route | None:
        if len(order) == len(moving):
            parts = _parts(picks, order, rooms)
            return None if parts is None else Route(order, dict(zip(order, parts, strict=True)), ())
        for item in moving:
            if item in order or flows[0] <= 0:
                continue
            flows[0] -= 1
            if _parts(picks, (*order, item), [*rooms, room]) is None:
                continue
            after = [size + departures[item].get(at, 0) for at, size in enumerate(room)]
            found = on((*order, item), [*rooms, room], after)
            if found is not None:
                return found
        return None

    return on((), [], list(choices.room))


def _parts(
    picks: Sequence[Candidate], order: Sequence[int], rooms: Sequence[Sequence[int]]
) -> list[dict[int, int]] | None:
    return divide_in_time([(picks[i].mask, picks[i].arriving) for i in order], rooms)
