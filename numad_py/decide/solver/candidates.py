"""The homes that come into question for each item, and what each costs whatever the others do.

Nodes are positions in the given order of places from here on, sets of nodes are bit masks, CPUs are
counted in small units: whole numbers, so that sums do not hang on their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import NamedTuple

from numad_py.decide.solver.problem import Item, Place, Problem, Weights
from numad_py.decide.solver.work import Work
from numad_py.model.plan import Cost
from numad_py.model.topology import LOCAL_DISTANCE

UNKNOWN_DISTANCE = 2 * LOCAL_DISTANCE
CPU_UNITS = 2_520_000
"""Units of a CPU: a thousandth can be divided by up to ten nodes and nothing is lost."""
SWITCH_BYTES = 1 << 20
"""What a change of home is counted for beside the memory: threads leave their caches behind."""
_LARGEST_EXHAUSTIVE = 10
"""Up to so many nodes every set is looked at; beyond, sets grow around each node."""


class Candidate(NamedTuple):
    """One home for one item, or none at all."""

    mask: int
    """Positions of its nodes; 0 for no home."""
    cost: int
    """What it costs, or the price of having no home."""
    certain: tuple[tuple[int, int], ...]
    """Bytes by position that lie there in the end whatever else is done."""
    divisible: int
    """Bytes that come to some of its nodes, in whatever parts; only where it has several."""
    arriving: int
    """Bytes that come to it from elsewhere, or are new."""
    cpus: tuple[tuple[int, int], ...]
    """Units of CPU wanted by position."""
    parts: tuple[int, ...]
    """The fields of its Cost."""


class Choices:
    """A problem made ready for the search: candidates, capacities and the weights of limits.

    Unplaced bytes, crowded pairs, CPU steps and cost are one number each: a weight is greater than
    all that comes after it can add up to.
    """

    def __init__(self, problem: Problem) -> None:
        """Weigh every candidate of every item."""
        self.places = problem.places
        self.weights = problem.weights
        self.work = Work()
        """What may still be spent on the search."""
        self.items = tuple(sorted(problem.items, key=lambda item: item.key))
        self.position = {place.id: at for at, place in enumerate(self.places)}
        self.room = [max(0, place.room_bytes) for place in self.places]
        self.cpus = [_units(place.cpus) for place in self.places]
        self.cpu_step = max(1, _units(self.weights.cpu_step))
        self._nodes: dict[int, frozenset[int]] = {}
        self._present = {item.key: self._places_of(item) for item in self.items}
        self.capacity = list(self.room)
        for item in self.items:
            for at, size in self.present(item):
                self.capacity[at] += size
        names = {
            name: at for at, name in enumerate(sorted({i.apart for i in self.items if i.apart}))
        }
        self.groups = len(names)
        self.group = [None if not i.apart else names[i.apart] for i in self.items]
        self._costing = _Costing(self.places, self.weights)
        self.candidates = self._weighed()
        self.least_pairs = sum(self._least_pairs(group) for group in range(self.groups))
        """Crowded pairs that there are in any case, if all that can have homes have them."""
        self.least_steps = self._least_over() // self.cpu_step
        """Steps of CPUs that lack in any case, if all that can have homes have them."""
        self.least = (
            sum(candidates[0].cost for candidates in self.candidates)
            + self.least_pairs * self.apart_weight
            + self.least_steps * self.cpu_weight
        )
        """The objective comes to no less."""

    def present(self, item: Item) -> list[tuple[int, int]]:
        """Return what an item holds by position, as far as it is on a place at all."""
        return self._present[item.key]

    def _places_of(self, item: Item) -> list[tuple[int, int]]:
        return sorted(
            (self.position[node], size)
            for node, size in item.bytes_by_node.items()
            if size and node in self.position
        )

    def nodes_of(self, mask: int) -> frozenset[int]:
        """Return the ids of the nodes of a mask."""
        if mask not in self._nodes:
            self._nodes[mask] = frozenset(self.places[at].id for at in positions(mask))
        return self._nodes[mask]

    def cost_of(self, item: Item, mask: int) -> Cost:
        """Return what a home costs an item, whether it may have it or not."""
        return Cost(*self._costing.parts(item, positions(mask)))

    def mask_of(self, nodes: Iterable[int]) -> int:
        """Return the mask of those of the nodes that are places."""
        return sum(1 << self.position[node] for node in set(nodes) if node in self.position)

    def _weighed(self) -> list[list[Candidate]]:
        """Return the candidates of each item, cheapest first; the last is to have no home."""
        free = self._free_when_empty()
        found = [self._of(item, free) for item in self.items]
        self.cpu_weight = 1 + sum(max((c.cost for c in cs), default=0) for cs in found)
        wanted = sum(
            max(_units(item.cpus), sum(cpus for _, cpus in self._runs(item))) for item in self.items
        )
        self.apart_weight = self.cpu_weight * (wanted // self.cpu_step + 2)
        unplaced_weight = self.apart_weight * (len(found) * len(found) + 1)
        every = 1 + sum(max(1, item.own_bytes) for item in self.items)
        for item, candidates in zip(self.items, found, strict=True):
            candidates.sort(key=lambda c: c.cost)
            price = unplaced_weight * max(1, item.own_bytes) * (every if item.keep else 1)
            stays = tuple(self.present(item))
            candidates.append(Candidate(0, price, stays, 0, 0, self._runs(item), ()))
        return found

    def _runs(self, item: Item) -> tuple[tuple[int, int], ...]:
        """Return the units of CPU that an item keeps busy by position while it has no home."""
        if not item.run_cpus:
            return ()
        known = ((self.position.get(node), cpus) for node, cpus in item.run_cpus.items())
        return tuple(sorted((at, _units(cpus)) for at, cpus in known if at is not None))

    def _least_pairs(self, group: int) -> int:
        """Return how many pairs of a group overlap when it is spread evenly over its nodes."""
        members = [at for at, own in enumerate(self.group) if own == group]
        nodes = len(positions(self._reach(members)))
        placed = sum(1 for at in members if len(self.candidates[at]) > 1)
        each, more = divmod(placed, max(1, nodes))
        return nodes * each * (each - 1) // 2 + more * each

    def _least_over(self) -> int:
        """Return what the nodes lack together of the CPUs that are wanted."""
        reach = self._reach(range(len(self.items)))
        wanted = sum(least_cpus(candidates) for candidates in self.candidates)
        return max(0, wanted - sum(self.cpus[at] for at in positions(reach)))

    def _reach(self, items: Iterable[int]) -> int:
        """Return the nodes on which any of the items could be."""
        reach = 0
        for item in items:
            for candidate in self.candidates[item]:
                reach |= candidate.mask
        return reach

    def _kept(self, item: Item) -> int | None:
        """Return the home that an item must keep; 0 where it has none to keep."""
        if not item.keep:
            return None
        home = item.home or frozenset()
        return self.mask_of(home) if home <= self.position.keys() else 0

    def _free_when_empty(self) -> list[int]:
        """Return what each node could hold if all went that may go."""
        free = list(self.capacity)
        for item in self.items:
            kept = self._kept(item)
            if kept is None and self.mask_of(item.allowed):
                continue
            if kept and not kept & (kept - 1):
                free[kept.bit_length() - 1] -= item.size_bytes
                continue
            for at, size in self.present(item):
                if not kept or kept >> at & 1:
                    free[at] -= size
        return [max(0, size) for size in free]

    def _of(self, item: Item, free: Sequence[int]) -> list[Candidate]:
        kept, present = self._kept(item), self.present(item)
        if kept is not None:
            return [self._candidate(item, kept, present)] if kept else []
        allowed = positions(self.mask_of(item.allowed))
        wants = _Wants(item, self.places, allowed)
        masks = self._smallest(allowed, wants, free)
        now = list(self.room)
        for at, size in present:
            now[at] += size
        if masks and not any(wants.held_by(positions(m), now) for m in masks):
            # The smallest need others to make room: larger ones are better than no home at all.
            masks += [m for m in self._smallest(allowed, wants, now) if m not in masks]
        home = item.home or frozenset()
        if home and home <= item.allowed and home <= self.position.keys():
            before = self.mask_of(home)
            if before not in masks and wants.held_by(positions(before), free):
                masks.append(before)
        return [self._candidate(item, mask, present) for mask in masks]

    def _smallest(self, allowed: Sequence[int], wants: _Wants, free: Sequence[int]) -> list[int]:
        """Return the smallest sets of nodes that could hold an item."""
        for count in range(1, len(allowed) + 1):
            sets = self._sets(allowed, count)
            if masks := [mask_at(nodes) for nodes in sets if wants.held_by(nodes, free)]:
                return masks
        return []

    def _sets(self, allowed: Sequence[int], count: int) -> Iterable[Sequence[int]]:
        if count == 1 or len(allowed) <= _LARGEST_EXHAUSTIVE:
            return combinations(allowed, count)
        hops = self._costing.hops
        near = ([(hops[start][at], at) for at in allowed] for start in allowed)
        grown = ([at for _, at in sorted(nodes)[:count]] for nodes in near)
        return {mask_at(nodes): nodes for nodes in grown}.values()

    def _candidate(self, item: Item, mask: int, present: Sequence[tuple[int, int]]) -> Candidate:
        nodes = positions(mask)
        parts = self._costing.parts(item, nodes)
        size = item.size_bytes
        there = [(at, held) for at, held in present if mask >> at & 1]
        arriving = size - sum(held for _, held in there)
        single, each = len(nodes) == 1, _units(item.cpus) // len(nodes)
        return Candidate(
            mask=mask,
            cost=sum(parts),
            certain=((nodes[0], size),) if single else tuple(there),
            divisible=0 if single else arriving,
            arriving=arriving,
            cpus=tuple((at, each) for at in nodes),
            parts=parts,
        )


class _Wants:
    """What a home must have for an item, whoever else is there: memory, CPUs, huge pages."""

    def __init__(self, item: Item, places: Sequence[Place], allowed: Sequence[int]) -> None:
        self._size = item.size_bytes
        self._cpus: list[int] = []
        self._enough = 0
        usable = item.usable_cpus
        if usable and any(usable.get(places[at].id, 0.0) < item.needs_cpus for at in allowed):
            self._cpus = [_units(usable.get(place.id, 0.0)) for place in places]
            self._enough = min(_units(item.needs_cpus), sum(self._cpus[at] for at in allowed))
        self._pools = [
            (
                sum(by_node.values()),
                # What is there already needs no free page.
                [place.huge_free.get(page, 0) + by_node.get(place.id, 0) for place in places],
            )
            for page, by_node in item.huge.items()
        ]

    def held_by(self, nodes: Sequence[int], free: Sequence[int]) -> bool:
        """Say whether nodes with so many bytes free have all of it."""
        if self._size > sum(free[at] for at in nodes):
            return False
        if self._enough and self._enough > sum(self._cpus[at] for at in nodes):
            return False
        return all(size <= sum(pool[at] for at in nodes) for size, pool in self._pools)


class _Costing:
    """What a home costs an item."""

    def __init__(self, places: Sequence[Place], weights: Weights) -> None:
        self._places = places
        self._weights = weights
        self._slow = {place.id: place.slow for place in places}
        self.hops = [[_hop(_distance(a, b.id)) for b in places] for a in places]
        self._sets: dict[Sequence[int], _Set] = {}

    def parts(self, item: Item, nodes: Sequence[int]) -> tuple[int, ...]:
        """Return the fields of the Cost of a home, in their order."""
        weights, busy, every = self._weights, item.busy, item.all_bytes
        found = self._sets.get(nodes) or self._set(nodes)
        near = found.nearest
        remote = slow = device = moving = 0.0
        for node, size in sorted(item.fixed_by_node.items()):
            remote += size * _hop(near(node)) * self._slow.get(node, 1.0)
            slow += size * (self._slow.get(node, 1.0) - 1)
        for node, weight in sorted(item.device_nodes.items()):
            device += weight * _hop(near(node))
        for node, size in sorted(item.movable_by_node.items()):
            if node not in found.home:
                moving += size * min(UNKNOWN_DISTANCE, near(node)) / LOCAL_DISTANCE
        slow += item.own_bytes * found.slow
        switches = item.home is not None and item.home != found.home
        return (
            round(busy * remote),
            round(busy * item.own_bytes * found.apart),
            round(busy * slow),
            round(weights.device * every * device),
            round(weights.moving * moving),
            round(weights.switching * (every + SWITCH_BYTES)) if switches else 0,
        )

    def _set(self, nodes: Sequence[int]) -> _Set:
        homes = [self._places[at] for at in nodes]
        between = sum(self.hops[a][b] * self._places[b].slow for a in nodes for b in nodes)
        found = self._sets[nodes] = _Set(
            home=frozenset(place.id for place in homes),
            nearest=cache(lambda node: min(_distance(place, node) for place in homes)),
            slow=sum(place.slow for place in homes) / len(homes) - 1,
            apart=between / len(nodes) ** 2 if len(nodes) > 1 else 0.0,
        )
        return found


@dataclass(frozen=True)
class _Set:
    """What is the same for all that have these nodes as their home."""

    home: frozenset[int]
    nearest: Callable[[int], int]
    """Distance of a node from the nearest of them."""
    slow: float
    """How much slower their memory is than the fastest, on average."""
    apart: float
    """How far a byte is from a CPU of theirs, on average."""


def least_cpus(candidates: Sequence[Candidate]) -> int:
    """Return the units of CPU that an item wants wherever its home is."""
    homes = (candidate.cpus for candidate in candidates if candidate.mask)
    return min((sum(wanted for _, wanted in cpus) for cpus in homes), default=0)


@cache
def positions(mask: int) -> tuple[int, ...]:
    """Return the positions in a mask, ascending."""
    return tuple(at for at in range(mask.bit_length()) if mask >> at & 1)


def mask_at(nodes: Iterable[int]) -> int:
    """Return the mask of positions."""
    return sum(1 << at for at in nodes)


def _distance(place: Place, node: int) -> int:
    unknown = LOCAL_DISTANCE if place.id == node else UNKNOWN_DISTANCE
    return place.distances.get(node, unknown)


def _units(cpus: float) -> int:
    return round(cpus * 1000) * (CPU_UNITS // 1000)


def _hop(distance: int) -> float:
    return (distance - LOCAL_DISTANCE) / LOCAL_DISTANCE
