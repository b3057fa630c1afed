"""The solver's order of things: the usual case first, and never longer than it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from numad_py.decide.solver.candidates import CPU_UNITS, Candidate, Choices
from numad_py.decide.solver.exact import MOST_ITEMS, Exact
from numad_py.decide.solver.order import Route, route
from numad_py.decide.solver.problem import Problem, Solution
from numad_py.decide.solver.search import at_rest, cheapest, improve, search, stayed
from numad_py.decide.solver.tally import Tally, tally_of
from numad_py.model.plan import Alternative, Cost, Limit

_REACHED_STEPS = (150, 3_000, 30_000)
"""Spent at most on the way to each of many answers; more where less has not told of all."""
ALTERNATIVES = 3
"""So many other homes are told of for each item."""


def solve(problem: Problem) -> Solution:
    """Return homes for all items; the same for the same problem."""
    choices = Choices(problem)
    tally, proven = _placed(choices)
    way = route(choices, tally.chosen())
    wanted = tally.chosen()
    if way.stuck:
        tally, proven, way = _reachable(choices, wanted, way)
        # Where work was out early: to do nothing always can be done.
        if (still := stayed(choices)).total < tally.total:
            tally, proven, way = still, False, Route((), {}, ())
    return _solution(choices, tally, way, wanted, proven=proven)


def _placed(choices: Choices) -> tuple[Tally, bool]:
    """Return the best answer found, if moves could be made all at once, and whether it is it."""
    tally = cheapest(choices)
    if tally.total == choices.least and tally.fits():
        return tally, True
    with choices.work.uncounted():
        # That has an end of its own, and the larger the machine, the more it takes.
        tally = search(choices)
    if tally.total == choices.least:
        return tally, True
    if len(choices.items) > MOST_ITEMS:
        return tally, False
    exact = Exact(choices, tally.total, lambda _: True)
    proven = exact.run()
    return (tally if exact.picks is None else tally_of(choices, exact.picks)), proven


def _reachable(choices: Choices, picks: list[Candidate], way: Route) -> tuple[Tally, bool, Route]:
    """Return a good answer to which there is a way, where there is none to the best one.

    What is stuck stays where it is, and so do those that wanted its room: where all that could
    move have moved, all fits. That is then bettered as long as there is a way to it.
    """
    frozen: set[int] = set()
    while way.stuck:
        frozen |= set(way.stuck)
        picks = list(picks)
        for item in way.stuck:
            picks[item] = at_rest(choices.candidates[item])
        # Without those that are stuck all others can be made as they were.
        way = replace(way, stuck=()) if choices.work.done else route(choices, picks)
    tally = tally_of(choices, picks)
    # From where all are now, single moves find room one after another, mostly.
    for start, still in ((tally, frozenset()), (tally, frozen), (stayed(choices), frozenset())):
        if choices.work.done:
            break
        trial = tally_of(choices, start.chosen())
        improve(trial, frozenset(still))
        if trial.total < tally.total and not (there := route(choices, trial.chosen())).stuck:
            tally, way = trial, there
    proven = False
    if len(choices.items) <= MOST_ITEMS:
        can_be_reached = _Reachable(choices)
        for steps in _REACHED_STEPS:
            can_be_reached.begin(steps)
            exact = Exact(choices, tally.total, can_be_reached, choices.work.left)
            proven = exact.run()
            if exact.picks is not None:
                tally, way = tally_of(choices, exact.picks), can_be_reached.way
            if not proven or can_be_reached.certain:
                break
        proven = proven and can_be_reached.certain
    return tally, proven, way


class _Reachable:
    """Says whether there is a way to an answer, as long as that is told soon."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._steps = 0
        self._known: dict[tuple[tuple[int, int], ...], Route] = {}
        """By where those that move go to: who stays is in the way whatever its home is called."""
        self.way = Route((), {}, ())
        """To the last answer to which there is one."""
        self.certain = True
        """Whether it is known of all that were refused that there is none."""

    def begin(self, steps: int) -> None:
        """Forget what was not found out, and spend so many steps on each from here on."""
        self._steps, self.certain = steps, True
        told = self._known.items()
        self._known = {key: way for key, way in told if way.certain or not way.stuck}

    def __call__(self, picks: Sequence[Candidate]) -> bool:
        """Answer; no also where it was not found out."""
        key = tuple((item, pick.mask) for item, pick in enumerate(picks) if pick.arriving)
        if (way := self._known.get(key)) is None:
            with self._choices.work.part(self._steps):
                way = self._known[key] = route(self._choices, picks)
        if not way.stuck:
            self.way = way
        elif not way.certain:
            self.certain = False
        return not way.stuck


def _solution(
    choices: Choices, tally: Tally, way: Route, wanted: list[Candidate], *, proven: bool
) -> Solution:
    picks = tally.chosen()
    keys = [item.key for item in choices.items]
    homes = [choices.nodes_of(pick.mask) if pick.mask else None for pick in picks]
    return Solution(
        homes=dict(zip(keys, homes, strict=True)),
        splits={key: _split(choices, i, picks[i], way) for i, key in enumerate(keys)},
        costs={key: Cost(*picks[i].parts) for i, key in enumerate(keys) if picks[i].mask},
        alternatives={key: _alternatives(tally, i) for i, key in enumerate(keys)},
        unplaced=tuple(key for key, home in zip(keys, homes, strict=True) if home is None),
        order=tuple(keys[item] for item in way.order),
        stuck={
            key: choices.nodes_of(before.mask)
            for key, before, pick in zip(keys, wanted, picks, strict=True)
            if pick is not before and before.mask
        },
        crowded_pairs=tally.pairs,
        lacking_cpus=tally.over / CPU_UNITS,
        proven=proven,
    )


def _split(choices: Choices, item: int, pick: Candidate, way: Route) -> dict[int, int]:
    if not pick.mask:
        return {node: size for node, size in choices.items[item].bytes_by_node.items() if size}
    there = {at: size for at, size in choices.present(choices.items[item]) if pick.mask >> at & 1}
    for at, size in way.arrivals.get(item, {}).items():
        there[at] = there.get(at, 0) + size
    return {choices.places[at].id: size for at, size in sorted(there.items())}


def _alternatives(tally: Tally, item: int) -> tuple[Alternative, ...]:
    """Return the cheapest other homes, the others staying as they are, and a forbidden one."""
    choices = tally.choices
    pick = tally.lift(item)
    others = [c for c in choices.candidates[item] if c is not pick and c.mask][:ALTERNATIVES]
    found = [
        Alternative(
            choices.nodes_of(c.mask),
            c.cost - (pick.cost if pick.mask else 0),
            _bar(tally, item, c, pick),
        )
        for c in others
    ]
    tally.put(item, pick)
    forbidden = _forbidden(choices, item, pick)
    if forbidden is not None:
        found.append(forbidden)
    return tuple(sorted(found, key=lambda alternative: alternative.dearer))


def _bar(tally: Tally, item: int, candidate: Candidate, pick: Candidate) -> Limit | None:
    """Return the first limit that speaks against a candidate for an item that is nowhere."""
    if not tally.admits(candidate):
        return Limit.MEMORY
    if not pick.mask:
        return Limit.ORDER
    weight = tally.choices.apart_weight
    dearer, than = tally.price(item, candidate), tally.price(item, pick)
    if dearer // weight > than // weight:
        return Limit.APART
    if dearer - candidate.cost > than - pick.cost:
        return Limit.CPUS
    return Limit.ORDER if dearer < than else None


def _forbidden(choices: Choices, item: int, pick: Candidate) -> Alternative | None:
    """Return the cheapest single node that is not allowed, where it is cheaper than the home."""
    worker = choices.items[item]
    if worker.keep or not pick.mask or not pick.cost:
        return None
    barred = [
        (choices.cost_of(worker, 1 << at).total, at)
        for at, place in enumerate(choices.places)
        if place.id not in worker.allowed and place.cpus > 0
    ]
    cost, at = min(barred, default=(pick.cost, 0))
    if cost >= pick.cost:
        return None
    home = frozenset({choices.places[at].id})
    return Alternative(home, cost - pick.cost, Limit.ALLOWED)
