"""All answers to a small placement problem, one by one: shares nothing with the solver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from math import floor
from statistics import mean

from numad_py.decide.solver.problem import Item, Problem, Solution

Home = frozenset[int]
Choice = tuple[Home, ...]
GIB = 1 << 30
NOWHERE: Home = frozenset()
ROUNDED = 64
"""Bytes by which the solver's whole numbers may differ from these."""


def sets_of(nodes: Home, least: int = 1) -> Iterator[Home]:
    """Return every set of so many of these nodes or more."""
    for count in range(least, len(nodes) + 1):
        yield from (frozenset(some) for some in combinations(sorted(nodes), count))


def size_of(item: Item) -> int:
    """Return what must find room."""
    return sum(item.bytes_by_node.values()) + item.coming_bytes


def own_of(item: Item) -> int:
    """Return what is at a home in the end: what must find room, and huge pages."""
    return size_of(item) + sum(sum(by_node.values()) for by_node in item.huge.values())


def suits(problem: Problem, item: Item, nodes: Home) -> bool:
    """Say whether nodes have the CPUs and the free huge pages for an item, nobody else there."""
    usable = item.usable_cpus
    enough = min(item.needs_cpus, sum(usable.get(node, 0.0) for node in item.allowed))
    free = {p.id: p.huge_free for p in problem.places}
    return (not usable or sum(usable.get(node, 0.0) for node in nodes) >= enough) and all(
        sum(size for node, size in by_node.items() if node not in nodes)
        <= sum(free[node].get(page, 0) for node in nodes)
        for page, by_node in item.huge.items()
    )


def capacity_of(problem: Problem) -> dict[int, int]:
    """Return what nodes hold for items, those that are there included."""
    return {
        p.id: p.room_bytes + sum(i.bytes_by_node.get(p.id, 0) for i in problem.items)
        for p in problem.places
    }


def staying(item: Item, home: Home) -> dict[int, int]:
    """Return what does not move: what lies on the home, or all where there is none."""
    return {n: size for n, size in item.bytes_by_node.items() if n in home or not home}


def arriving(item: Item, home: Home) -> int:
    """Return what comes to a home."""
    return size_of(item) - sum(staying(item, home).values()) if home else 0


def held(problem: Problem, homes: Sequence[Home]) -> bool:
    """Say whether memory is enough: no set of nodes must hold more than it can (Hall)."""
    room = capacity_of(problem)
    arrivals: list[tuple[Home, int]] = []
    for item, home in zip(problem.items, homes, strict=False):
        for node, size in staying(item, home).items():
            room[node] -= size
        arrivals.append((home, arriving(item, home)))
    return min(room.values()) >= 0 and all(
        sum(size for home, size in arrivals if home and home <= some)
        <= sum(room[node] for node in some)
        for some in sets_of(frozenset(room))
    )


def options(problem: Problem) -> list[list[Home]]:
    """Return the homes that come into question for each item, none at all last."""
    free = capacity_of(problem)
    for item in problem.items:
        if item.keep and item.home and len(item.home) == 1:
            free[min(item.home)] -= size_of(item)
        elif item.keep or not item.allowed:
            for node, size in staying(
                item, item.home if item.keep and item.home else NOWHERE
            ).items():
                free[node] -= size
    found = []
    for item in problem.items:
        if item.keep and item.home:
            found.append([item.home, NOWHERE])
            continue
        holding = [
            some
            for some in sets_of(item.allowed)
            if size_of(item) <= sum(max(0, free[node]) for node in some)
            and suits(problem, item, some)
        ]
        least = min(map(len, holding), default=0)
        now = {p.id: p.room_bytes + item.bytes_by_node.get(p.id, 0) for p in problem.places}
        smallest = [some for some in holding if len(some) == least]
        held_now = [
            some
            for some in sets_of(item.allowed)
            if size_of(item) <= sum(max(0, now[node]) for node in some)
            and suits(problem, item, some)
        ]
        more = []
        if smallest and not set(smallest) & set(held_now):
            # The smallest need others to make room: larger ones are better than no home at all.
            more = [some for some in held_now if len(some) == min(map(len, held_now))]
        earlier = [item.home] if item.home in holding and len(item.home) > least else []
        found.append(
            [
                *smallest,
                *(m for m in more if m != item.home or not earlier),
                *earlier,
                NOWHERE,
            ]
        )
    return found


def cost_of(problem: Problem, item: Item, home: Home) -> float:
    """Return what a home costs an item, as the solver's values say it."""
    places, weights = {p.id: p for p in problem.places}, problem.weights
    every = own_of(item) + sum(item.fixed_by_node.values())
    held = Counter(item.bytes_by_node)
    for by_node in item.huge.values():
        held.update(by_node)

    def hop(node: int) -> float:
        return (min(places[h].distances[node] for h in home) - 10) / 10

    def use(node: int, away: float) -> float:
        return away * places[node].slow + places[node].slow - 1

    pairs = [(places[a].distances[b] - 10, b) for a in home for b in home]
    remote = sum(size * use(node, hop(node)) for node, size in item.fixed_by_node.items())
    own = own_of(item) * mean(use(b, away / 10) for away, b in pairs)
    devices = sum(weight * hop(node) for node, weight in item.device_nodes.items())
    moved = sum(size * min(2.0, 1 + hop(node)) for node, size in held.items() if node not in home)
    switched = item.home is not None and item.home != home
    return (
        item.busy * (remote + own)
        + weights.device * every * devices
        + weights.moving * moved
        + weights.switching * (every + (1 << 20)) * switched
    )


Objective = tuple[int, int, int, int, float]


def objective(problem: Problem, homes: Sequence[Home]) -> Objective:
    """Return what is to be small, the first before the last, of the items that have homes here."""
    items = list(zip(problem.items, homes, strict=False))
    pairs = sum(
        1
        for (a, at), (b, bt) in combinations(items, 2)
        if a.apart and a.apart == b.apart and at & bt
    )
    over = 0.0
    for place in problem.places:
        wanted = sum(item.cpus / len(home) for item, home in items if place.id in home)
        wanted += sum(item.run_cpus.get(place.id, 0.0) for item, home in items if not home)
        over += max(0.0, wanted - place.cpus)
    return (
        sum(max(1, own_of(item)) for item, home in items if not home and item.keep),
        sum(max(1, own_of(item)) for item, home in items if not home),
        pairs,
        floor(over / problem.weights.cpu_step + 1e-4),
        sum(cost_of(problem, item, home) for item, home in items if home),
    )


def reachable(problem: Problem, homes: Sequence[Home]) -> bool:
    """Say whether there is an order of moves, each of which takes its room before it leaves any."""
    movers = frozenset(at for at, item in enumerate(problem.items) if arriving(item, homes[at]))

    def room_then(left: frozenset[int], came: Mapping[int, int]) -> dict[int, int]:
        room = {p.id: p.room_bytes - came.get(p.id, 0) for p in problem.places}
        for at in movers - left:
            for node, size in problem.items[at].bytes_by_node.items():
                room[node] += 0 if node in homes[at] else size
        return room

    @cache
    def on(left: frozenset[int], came: tuple[tuple[int, int], ...]) -> bool:
        if not left:
            return True
        room = room_then(left, dict(came))
        for at in left:
            for part in parts(sorted(homes[at]), arriving(problem.items[at], homes[at]), room):
                after = Counter(dict(came)) + Counter(part)
                if on(left - {at}, tuple(sorted(after.items()))):
                    return True
        return False

    return on(movers, ())


def parts(nodes: list[int], size: int, room: Mapping[int, int]) -> Iterator[dict[int, int]]:
    """Return every way to divide so much over nodes within their room, in GiB: all else is, too."""
    if len(nodes) == 1:
        if size <= room[nodes[0]]:
            yield {nodes[0]: size}
        return
    for first in range(0, min(size, room[nodes[0]]) + 1, GIB):
        for rest in parts(nodes[1:], size - first, room):
            yield {nodes[0]: first, **rest}


def brute_force(problem: Problem) -> Objective:
    """Return the least objective of all answers that fit and can be reached."""
    choices = options(problem)
    best: list[Objective] = []

    def on(homes: Choice) -> None:
        value = objective(problem, homes)
        # No level gets smaller by one item more.
        if (best and value >= best[0]) or not held(problem, homes):
            return
        if len(homes) == len(choices):
            if reachable(problem, homes):
                best[:] = [value]
            return
        for home in choices[len(homes)]:
            on((*homes, home))

    on(())
    return best[0]


def homes_of(problem: Problem, solution: Solution) -> Choice:
    """Return a solution's homes in the order of the items."""
    return tuple(solution.homes[item.key] or NOWHERE for item in problem.items)


def carried_out(problem: Problem, solution: Solution) -> Problem:
    """Return the machine with every move made."""
    change = {place.id: 0 for place in problem.places}
    pools = {place.id: dict(place.huge_free) for place in problem.places}
    items = []
    for item in problem.items:
        split, home = solution.splits[item.key], solution.homes[item.key]
        for node in change:
            change[node] += item.bytes_by_node.get(node, 0) - split.get(node, 0)
        coming = item.coming_bytes if home is None else 0
        items.append(
            replace(
                item,
                bytes_by_node=split,
                home=home or item.home,
                coming_bytes=coming,
                huge=_brought(item.huge, home, pools) if home else item.huge,
            )
        )
    places = tuple(
        replace(p, room_bytes=p.room_bytes + change[p.id], huge_free=pools[p.id])
        for p in problem.places
    )
    return Problem(places, tuple(items), problem.weights)


def _brought(
    huge: Mapping[int, Mapping[int, int]], home: Home, pools: Mapping[int, dict[int, int]]
) -> dict[int, dict[int, int]]:
    """Return huge pages as they lie at home, those that came taken from the fullest pools there.

    Pools are not shared out among items: where two come to one, it may hold less than nothing.
    """
    found = {}
    for page, by_node in huge.items():
        found[page] = {node: size for node, size in by_node.items() if node in home}
        for node, size in by_node.items():
            if node not in home:
                pools[node][page] = pools[node].get(page, 0) + size
                left = size
                for target in sorted(home, key=lambda n: (-pools[n].get(page, 0), n)):
                    free = pools[target].get(page, 0)
                    part = left if len(home) == 1 else min(left, max(0, free))
                    pools[target][page] = free - part
                    found[page][target] = found[page].get(target, 0) + part
                    left -= part
                found[page][min(home)] = found[page].get(min(home), 0) + left
    return found
