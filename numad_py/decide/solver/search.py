"""A good answer fast: put in by regret, then bettered by shifts and by pushing others aside.

Only items that are not on their cheapest candidate, or have part in too little CPU or a crowded
pair, can gain anything by a change; the others are touched where they are in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numad_py.decide.solver.candidates import Candidate, Choices
from numad_py.decide.solver.tally import Tally, tally_of

_TRIALS = 16
"""So many placements are looked at in one search for each item at most, ten microseconds each."""


def cheapest(choices: Choices) -> Tally:
    """Return every item at its cheapest, whatever the limits."""
    return tally_of(choices, [candidates[0] for candidates in choices.candidates])


def search(choices: Choices) -> Tally:
    """Return a good answer that keeps every limit that can be kept.

    It is no worse than that everybody stays: what has been carried out is only ever bettered.
    """
    best = stayed(choices)
    improve(best)
    for order in (_by_regret, _by_size):
        tally = _built(choices, order)
        if tally is not None:
            improve(tally)
            best = min(best, tally, key=lambda known: known.total)
        if not _lacks_homes(best):
            break
    return best


def stayed(choices: Choices) -> Tally:
    """Return everybody where nothing comes from elsewhere, or without a home: it always fits."""
    return tally_of(choices, [at_rest(candidates) for candidates in choices.candidates])


def at_rest(candidates: Sequence[Candidate]) -> Candidate:
    """Return the cheapest candidate to which nothing comes; at worst to have no home."""
    return next(candidate for candidate in candidates if not candidate.arriving)


def improve(tally: Tally, frozen: frozenset[int] = frozenset()) -> None:
    """Better an answer until no shift and no push does, or enough has been tried."""
    trials = [_TRIALS * len(tally.choices.items)]
    while trials[0] > 0 and (_shifts(tally, trials, frozen) or _pushes(tally, trials, frozen)):
        pass


def _built(choices: Choices, order: Callable[[Choices], list[int]]) -> Tally | None:
    """Return items put one after another where they are cheapest then; None where it cannot be."""
    tally = Tally(choices)
    for item in order(choices):
        tally.put(item, _best(tally, item, None) or choices.candidates[item][-1])
    return tally if tally.fits() else None


def _by_regret(choices: Choices) -> list[int]:
    """Return items, those first that lose most where they do not get what they want."""

    def regret(item: int) -> tuple[int, int, int]:
        candidates = choices.candidates[item]
        lost = candidates[1].cost - candidates[0].cost if len(candidates) > 1 else 0
        return -lost, -choices.items[item].size_bytes, item

    return sorted(range(len(choices.items)), key=regret)


def _by_size(choices: Choices) -> list[int]:
    """Return items, largest first: small ones fill what is left."""
    return sorted(range(len(choices.items)), key=lambda i: (-choices.items[i].size_bytes, i))


def _best(tally: Tally, item: int, below: int | None) -> Candidate | None:
    """Return where an item that is nowhere costs least, and less than ``below``, if anywhere."""
    best = None
    for candidate in tally.choices.candidates[item]:
        # Sorted by cost, and a price is no less than the cost.
        if below is not None and candidate.cost >= below:
            break
        price = tally.price(item, candidate)
        if (below is None or price < below) and tally.admits(candidate):
            best, below = candidate, price
    return best


def _wanting(tally: Tally, frozen: frozenset[int]) -> list[int]:
    """Return items that a change could better."""
    penalties = _penalties(tally)
    return [
        item
        for item, candidates in enumerate(tally.choices.candidates)
        if item not in frozen
        and (tally.picks[item] is not candidates[0] or (penalties and tally.penalised(item)))
    ]


def _shifts(tally: Tally, trials: list[int], frozen: frozenset[int]) -> bool:
    """Move single items to where they are cheaper; say whether any was moved."""
    moved = False
    for item in _wanting(tally, frozen):
        trials[0] -= len(tally.choices.candidates[item])
        before = tally.lift(item)
        better = _best(tally, item, tally.price(item, before))
        tally.put(item, better or before)
        moved = moved or better is not None
        if trials[0] <= 0:
            break
    return moved


def _pushes(tally: Tally, trials: list[int], frozen: frozenset[int]) -> bool:
    """Give an item what it wants by moving one other away; say whether any was given it."""
    moved = False
    for item in _wanting(tally, frozen):
        moved = _push(tally, item, trials, frozen) or moved
        if trials[0] <= 0:
            break
    return moved


def _push(tally: Tally, item: int, trials: list[int], frozen: frozenset[int]) -> bool:
    total, penalties = tally.total, _penalties(tally)
    before = tally.lift(item)
    for wanted in tally.choices.candidates[item]:
        # What another loses by going is no less than nothing, unless it is penalised as well.
        if wanted is before or (tally.total + wanted.cost >= total and not penalties):
            continue
        others = _in_the_way(tally, item, wanted, frozen)
        if not others:
            continue
        tally.put(item, wanted)
        for other in others:
            trials[0] -= 2
            if _pushed_aside(tally, wanted, other, total):
                return True
        tally.lift(item)
    tally.put(item, before)
    return False


def _penalties(tally: Tally) -> bool:
    return tally.lacks_cpus() or tally.crowded()


def _in_the_way(tally: Tally, item: int, wanted: Candidate, frozen: frozenset[int]) -> list[int]:
    """Return items on the nodes that an item wants, each of which leaves enough room by going."""
    lacking = [(at, size - tally.room[at]) for at, size in wanted.certain]
    lacking = [(at, size) for at, size in lacking if size > 0]
    return [
        other
        for other, pick in enumerate(tally.picks)
        if pick is not None
        and other != item
        and other not in frozen
        and (pick.mask & wanted.mask or (not pick.mask and _holds_some(pick, wanted)))
        and (not lacking or _leaves(pick, lacking))
    ]


def _leaves(pick: Candidate, lacking: Sequence[tuple[int, int]]) -> bool:
    """Say whether so much is free by position once an item goes; what is divided is not counted."""
    certain = dict(pick.certain)
    return all(certain.get(at, 0) >= size for at, size in lacking)


def _holds_some(pick: Candidate, wanted: Candidate) -> bool:
    return any(wanted.mask >> at & 1 for at, _ in pick.certain)


def _pushed_aside(tally: Tally, wanted: Candidate, other: int, total: int) -> bool:
    """Put another elsewhere than where an item has been put, if all is cheaper than it was then."""
    there = tally.lift(other)
    if tally.holds(wanted):
        better = _best(tally, other, total - tally.total)
        if better is not None and better is not there:
            tally.put(other, better)
            return True
    tally.put(other, there)
    return False


def _lacks_homes(tally: Tally) -> bool:
    return any(pick is not None and not pick.mask for pick in tally.picks)
