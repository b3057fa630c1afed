"""The books of a search: who is where, and what memory, CPUs and groups say to one more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from numad_py.decide.solver.candidates import Candidate, Choices, positions
from numad_py.decide.solver.flow import divide
from numad_py.decide.solver.work import Work

_FEW_MASKS = 5
"""Up to so many sets of nodes are shared out, every union of them is looked at (Hall's theorem);
beyond, a flow."""


class Tally:
    """Items that have been put somewhere; the others are nowhere, and take nothing."""

    def __init__(self, choices: Choices) -> None:
        """Open the books, with nobody anywhere."""
        self.choices = choices
        self.picks: list[Candidate | None] = [None] * len(choices.items)
        self.total = 0
        """The objective so far, all levels in one number."""
        self.room = list(choices.capacity)
        self.idle = list(choices.cpus)
        self.over = 0
        """Units of CPU wanted beyond what there is."""
        self.pairs = 0
        self._pool: dict[int, int] = {}
        self._groups: list[dict[int, int]] = [{} for _ in range(choices.groups)]

    def price(self, item: int, candidate: Candidate) -> int:
        """Return what the objective grows by if the item is put there; at least the cost."""
        choices, left = self.choices, self.idle
        price = candidate.cost
        group = choices.group[item]
        if group is not None:
            price += choices.apart_weight * self._overlapping(group, candidate.mask)
        more = 0
        for at, wanted in candidate.cpus:
            idle = left[at]
            if wanted > idle:
                more += wanted - idle if idle > 0 else wanted
        if more:
            step = choices.cpu_step
            price += choices.cpu_weight * ((self.over + more) // step - self.over // step)
        return price

    def admits(self, candidate: Candidate) -> bool:
        """Say whether there is memory for one more, the divisible bytes of all together."""
        room = self.room
        for at, size in candidate.certain:
            if size > room[at]:
                return False
        if not candidate.divisible and not (self._pool and self._shared(candidate)):
            return True
        room = list(room)
        for at, size in candidate.certain:
            room[at] -= size
        pool = self._pool
        if candidate.divisible:
            pool = {**pool, candidate.mask: pool.get(candidate.mask, 0) + candidate.divisible}
        return divisible(pool, room, self.choices.work)

    def holds(self, candidate: Candidate) -> bool:
        """Say whether there is memory for one that has been put somewhere already."""
        if any(self.room[at] < 0 for at, _ in candidate.certain):
            return False
        if not candidate.divisible and not (self._pool and self._shared(candidate)):
            return True
        return divisible(self._pool, self.room, self.choices.work)

    def put(self, item: int, candidate: Candidate) -> None:
        """Put an item somewhere, whether there is room or not; the total grows by its price."""
        self.picks[item] = candidate
        self.total += candidate.cost
        group = self.choices.group[item]
        if group is not None and candidate.mask:
            overlapping = self._overlapping(group, candidate.mask)
            self.pairs += overlapping
            self.total += self.choices.apart_weight * overlapping
            masks = self._groups[group]
            masks[candidate.mask] = masks.get(candidate.mask, 0) + 1
        for at, size in candidate.certain:
            self.room[at] -= size
        if candidate.divisible:
            _add(self._pool, candidate.mask, candidate.divisible)
        more = 0
        for at, wanted in candidate.cpus:
            idle = self.idle[at]
            if wanted > idle:
                more += wanted - idle if idle > 0 else wanted
            self.idle[at] = idle - wanted
        if more:
            self._lack(more)

    def lift(self, item: int) -> Candidate:
        """Take an item from where it is; return where that was."""
        candidate = self.picks[item]
        assert candidate is not None, "an item was lifted twice"  # noqa: S101 - a bug, not input
        self.picks[item] = None
        self.total -= candidate.cost
        group = self.choices.group[item]
        if group is not None and candidate.mask:
            _add(self._groups[group], candidate.mask, -1)
            overlapping = self._overlapping(group, candidate.mask)
            self.pairs -= overlapping
            self.total -= self.choices.apart_weight * overlapping
        for at, size in candidate.certain:
            self.room[at] += size
        if candidate.divisible:
            _add(self._pool, candidate.mask, -candidate.divisible)
        less = 0
        for at, wanted in candidate.cpus:
            idle = self.idle[at] + wanted
            if wanted > idle:
                less += wanted - idle if idle > 0 else wanted
            self.idle[at] = idle
        if less:
            self._lack(-less)
        return candidate

    def _lack(self, change: int) -> None:
        """Count CPUs that lack, in units, and what their steps cost."""
        over, step = self.over + change, self.choices.cpu_step
        self.total += self.choices.cpu_weight * (over // step - self.over // step)
        self.over = over

    def fits(self) -> bool:
        """Say whether memory is enough for all that have been put somewhere."""
        return min(self.room, default=0) >= 0 and divisible(
            self._pool, self.room, self.choices.work
        )

    def lacks_cpus(self) -> bool:
        """Say whether fewer CPUs could lack than do, as far as their sum tells."""
        return self.over // self.choices.cpu_step > self.choices.least_steps

    def crowded(self) -> bool:
        """Say whether fewer pairs could overlap than do, as far as their number tells."""
        return self.pairs > self.choices.least_pairs

    def penalised(self, item: int) -> bool:
        """Say whether an item has part in too little CPU or in a crowded pair."""
        candidate = self.picks[item]
        if candidate is None:
            return False
        if self.lacks_cpus() and any(self.idle[at] < 0 for at, _ in candidate.cpus):
            return True
        group = self.choices.group[item]
        return group is not None and self.crowded() and self._overlapping(group, candidate.mask) > 1

    def chosen(self) -> list[Candidate]:
        """Return where every item is."""
        return [pick for pick in self.picks if pick is not None]

    def _shared(self, candidate: Candidate) -> bool:
        """Say whether it takes room of nodes over which bytes are to be divided."""
        return any(mask >> at & 1 for mask in self._pool for at, _ in candidate.certain)

    def _overlapping(self, group: int, mask: int) -> int:
        return sum(count for other, count in self._groups[group].items() if other & mask)


def tally_of(choices: Choices, picks: Sequence[Candidate]) -> Tally:
    """Return the books with every item somewhere."""
    tally = Tally(choices)
    for item, candidate in enumerate(picks):
        tally.put(item, candidate)
    return tally


def divisible(pool: Mapping[int, int], room: Sequence[int], work: Work | None = None) -> bool:
    """Say whether bytes by set of nodes can be shared out within the nodes' room.

    They can where no union of sets must hold more than its nodes have room for.
    """
    if not pool:
        return True
    if len(pool) > _FEW_MASKS:
        return divide(list(pool.items()), room, work) is not None
    unions = _unions(tuple(pool))
    if work is not None:
        work.spend(len(unions))
    for members, nodes in unions:
        if sum(pool[mask] for mask in members) > sum(room[at] for at in nodes):
            return False
    return True


@lru_cache(maxsize=4096)
def _unions(masks: tuple[int, ...]) -> list[tuple[list[int], tuple[int, ...]]]:
    """Return each union of sets of nodes: the sets that lie within it, and its positions."""
    unions = {0}
    for mask in masks:
        unions |= {union | mask for union in unions}
    unions.discard(0)
    return [([m for m in masks if not m & ~union], positions(union)) for union in unions]


def _add(counts: dict[int, int], mask: int, change: int) -> None:
    left = counts.get(mask, 0) + change
    if left:
        counts[mask] = left
    else:
        del counts[mask]
