"""An order of moves in which each finds room, and where the bytes of each lie in the end.

A move takes its room whole before it gives up what it leaves: no more is promised of a mover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from numad_py.decide.solver.candidates import Candidate, Choices, mask_at, positions
from numad_py.decide.solver.flow import divide, divide_in_time
from numad_py.decide.solver.tally import divisible
from numad_py.decide.solver.work import Work

_STATES = 256
"""So many sets of moves made are gone on from at most; as deep goes the recursion at worst."""
_FEW_MOVES = 8
"""Up to so many moves, orders are tried for which the bytes of several nodes are divided anew."""
_MOST_STEPS = 30_000
"""Spent on one way at most, beside what it takes to try one order."""
_FIT_STEPS = 20
"""What it takes to see whether one more move finds room."""
_MOVES_A_STEP = 3
"""So many moves are looked at in one step of work."""


@dataclass(frozen=True)
class Route:
    """How an answer is reached."""

    order: tuple[int, ...]
    """Items to which bytes come, in their order."""
    arrivals: Mapping[int, Mapping[int, int]]
    """Bytes that come, by item and position."""
    stuck: tuple[int, ...]
    """Items for whose bytes there never was room; empty where the answer can be reached."""
    certain: bool = True
    """Whether it is known that the answer cannot be reached, where there are some."""


@dataclass(frozen=True)
class _Move:
    item: int
    arrivals: Mapping[int, int]
    departures: Mapping[int, int]


def route(choices: Choices, picks: Sequence[Candidate]) -> Route:
    """Return the way from where all is now to an answer that fits in the end.

    One order is tried even where no work is left, others only as long as there is some.
    """
    with choices.work.part(_MOST_STEPS):
        return _route(choices, picks)


def _route(choices: Choices, picks: Sequence[Candidate]) -> Route:
    work = choices.work
    moving = [item for item, pick in enumerate(picks) if pick.arriving]
    # Those whose move is under way have their room first.
    moving.sort(key=lambda item: not choices.items[item].keep)
    arrivals = _arrivals(choices, picks, moving)
    departures = {item: _departures(choices, item, picks[item]) for item in moving}
    moves = [_Move(item, arrivals[item], departures[item]) for item in moving]
    walk = _Walk(moves, choices.room, work)
    order = walk.run()
    stuck = [item for item in moving if item not in order]
    certain = walk.whole
    # With other parts of what is divisible there may be an order, if there is one without it.
    light = [replace(move, arrivals={}) if picks[move.item].divisible else move for move in moves]
    if stuck and light != moves:
        certain = False
        if len(moves) <= _FEW_MOVES and not work.done:
            walk = _Walk(light, choices.room, work)
            if len(walk.run()) == len(moves):
                found = _Divided(choices, picks, moving, departures).run()
                if found is not None:
                    return found
                certain = not work.done
            else:
                certain = walk.whole
    return Route(tuple(order), {item: arrivals[item] for item in order}, tuple(stuck), certain)


def _arrivals(
    choices: Choices, picks: Sequence[Candidate], moving: Sequence[int]
) -> dict[int, dict[int, int]]:
    """Return what comes by position, so that all of it fits in the end."""
    room = list(choices.capacity)
    for pick in picks:
        for at, size in pick.certain:
            room[at] -= size
    divided = [item for item in moving if picks[item].divisible]
    wanted = [(picks[item].mask, picks[item].divisible) for item in divided]
    parts = divide(wanted, room, choices.work)
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

    def __init__(self, moves: Sequence[_Move], room: Sequence[int], work: Work) -> None:
        self._moves = moves
        self._work = work
        self.whole = True
        """Whether all orders were tried, or would have been."""
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
        self._work.spend(1 + len(self._moves) // _MOVES_A_STEP)
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
                if not done >> at & 1 and self._finds_room(move):
                    if self._ends():
                        self.whole = False
                        break
                    self._step(at, 1)
                    if self._on(done | 1 << at):
                        return True
                    self._step(at, -1)
        for at in reversed(steps):
            self._step(at, -1)
        return False

    def _ends(self) -> bool:
        """Say whether enough has been tried; what is the longest yet is gone on with."""
        if len(self._seen) >= _STATES:
            return True
        return self._work.done and len(self._path) < len(self._longest)

    def _take_harmless(self, done: int) -> list[int]:
        """Make the moves that are in nobody's way now."""
        self._work.spend(1 + len(self._moves) // _MOVES_A_STEP)
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


class _Divided:
    """A search for an order with what is divisible divided to suit it."""

    def __init__(
        self,
        choices: Choices,
        picks: Sequence[Candidate],
        moving: Sequence[int],
        departures: Mapping[int, Mapping[int, int]],
    ) -> None:
        self._work = choices.work
        self._picks = picks
        self._moving = moving
        self._departures = departures
        self._start = list(choices.room)
        self._fitting: dict[tuple[int, int], bool] = {}
        self._leading: dict[int, bool] = {(1 << len(moving)) - 1: True}

    def run(self) -> Route | None:
        """Return a way; None where there is none, or no work was left to find it."""
        return self._on(0, (), [])

    def _on(self, done: int, order: tuple[int, ...], rooms: list[list[int]]) -> Route | None:
        """Go on from where these moves are done, in this order."""
        parts = self._parts(order, rooms) if order else []
        if parts is None:
            return None
        if len(order) == len(self._moving):
            return Route(order, dict(zip(order, parts, strict=True)), ())
        room = self._room(done)
        for at, item in enumerate(self._moving):
            if self._work.done:
                return None
            if done >> at & 1 or not self._fits(done, at) or not self._leads(done | 1 << at):
                continue
            found = self._on(done | 1 << at, (*order, item), [*rooms, room])
            if found is not None:
                return found
        return None

    def _leads(self, done: int) -> bool:
        """Say whether moves may lead on from here to the end, each divided anew at every step."""
        if done not in self._leading:
            self._leading[done] = any(
                not done >> at & 1 and self._fits(done, at) and self._leads(done | 1 << at)
                for at in range(len(self._moving))
            )
        return self._leading[done]

    def _fits(self, done: int, at: int) -> bool:
        """Say whether one more finds room, if what came before could be divided to suit it."""
        if self._work.done:
            return False
        key = done, at
        if key not in self._fitting:
            self._work.spend(_FIT_STEPS)
            room, pool = self._room(done), dict[int, int]()
            for there in positions(done | 1 << at):
                pick = self._picks[self._moving[there]]
                if pick.divisible:
                    pool[pick.mask] = pool.get(pick.mask, 0) + pick.arriving
                else:
                    room[positions(pick.mask)[0]] -= pick.arriving
            enough = min(room) >= 0 and divisible(pool, room, self._work)
            self._fitting[key] = enough
        return self._fitting[key]

    def _room(self, done: int) -> list[int]:
        room = list(self._start)
        for at in positions(done):
            for source, size in self._departures[self._moving[at]].items():
                room[source] += size
        return room

    def _parts(
        self, order: Sequence[int], rooms: Sequence[Sequence[int]]
    ) -> list[dict[int, int]] | None:
        wanted = [(self._picks[item].mask, self._picks[item].arriving) for item in order]
        return divide_in_time(wanted, rooms, self._work)
