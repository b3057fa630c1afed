"""Properties of the placement solver, against a brute force that shares nothing with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from math import floor
from statistics import mean

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numad_py.decide.problem import Item, Problem, Solution
from numad_py.decide.solver import solve
from numad_py.decide.solver_flow import divide
from numad_py.decide.solver_tally import divisible
from tests.property.strategies import crowds, problems

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
        ]
        least = min(map(len, holding), default=0)
        now = {p.id: p.room_bytes + item.bytes_by_node.get(p.id, 0) for p in problem.places}
        held_now = [h for h in holding if size_of(item) <= sum(max(0, now[n]) for n in h)]
        wider = min(map(len, held_now), default=0)
        more = [h for h in held_now if len(h) == wider > least]
        earlier = [item.home] if item.home in holding and len(item.home) > least else []
        found.append(
            [
                *(s for s in holding if len(s) == least),
                *(m for m in more if m != item.home or not earlier),
                *earlier,
                NOWHERE,
            ]
        )
    return found


def cost_of(problem: Problem, item: Item, home: Home) -> float:
    """Return what a home costs an item, as the solver's values say it."""
    places, weights = {p.id: p for p in problem.places}, problem.weights
    every = size_of(item) + sum(item.fixed_by_node.values())

    def hop(node: int) -> float:
        return (min(places[h].distances[node] for h in home) - 10) / 10

    def use(node: int, away: float) -> float:
        return away * places[node].slow + places[node].slow - 1

    pairs = [(places[a].distances[b] - 10, b) for a in home for b in home]
    remote = sum(size * use(node, hop(node)) for node, size in item.fixed_by_node.items())
    own = size_of(item) * mean(use(b, away / 10) for away, b in pairs)
    devices = sum(weight * hop(node) for node, weight in item.device_nodes.items())
    moved = sum(
        size * min(2.0, 1 + hop(node))
        for node, size in item.bytes_by_node.items()
        if node not in home
    )
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
        over += max(0.0, wanted - place.cpus)
    return (
        sum(max(1, size_of(item)) for item, home in items if not home and item.keep),
        sum(max(1, size_of(item)) for item, home in items if not home),
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
    items = []
    for item in problem.items:
        split, home = solution.splits[item.key], solution.homes[item.key]
        for node in change:
            change[node] += item.bytes_by_node.get(node, 0) - split.get(node, 0)
        coming = item.coming_bytes if home is None else 0
        items.append(
            replace(item, bytes_by_node=split, home=home or item.home, coming_bytes=coming)
        )
    places = tuple(
        replace(place, room_bytes=place.room_bytes + change[place.id]) for place in problem.places
    )
    return Problem(places, tuple(items), problem.weights)


def test_few_workers_are_placed_as_well_as_they_can_be() -> None:
    """Up to 3 nodes and 7 workers: every limit is kept that can be, and the cost is the least.

    Nearly: 1 % more on average and 5 % at worst would do, and no more than that where it is proven.
    """
    ratios = []

    @settings(
        max_examples=max(500, settings().max_examples),
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(problems())
    def one(problem: Problem) -> None:
        solution = solve(problem)
        found = objective(problem, homes_of(problem, solution))
        best = brute_force(problem)
        assert found[:-1] == best[:-1]
        assert best[-1] - ROUNDED <= found[-1] <= best[-1] * 1.05 + ROUNDED
        assert abs(found[-1] - solution.cost) <= ROUNDED
        if solution.proven:
            assert found[-1] <= best[-1] + ROUNDED
        ratios.append((found[-1] + ROUNDED) / (best[-1] + ROUNDED))

    one()
    assert len(ratios) >= 500
    assert mean(ratios) <= 1.01


@given(problems() | crowds)
def test_homes_are_allowed_and_hold_what_they_are_to_hold(problem: Problem) -> None:
    """Homes are among the allowed nodes or kept; splits lie on them, add up, and fit the nodes."""
    solution = solve(problem)
    capacity = capacity_of(problem)
    for item in problem.items:
        home, split = solution.homes[item.key], solution.splits[item.key]
        assert home is None or home <= item.allowed or (item.keep and home == item.home)
        for node, size in staying(item, home or NOWHERE).items():
            assert split.get(node, 0) >= size
        assert home is None or split.keys() <= home
        coming = item.coming_bytes if home is None else 0
        assert sum(split.values()) == size_of(item) - coming
        for node, size in split.items():
            capacity[node] -= size
    assert min(capacity.values()) >= 0
    assert set(solution.unplaced) == {k for k, home in solution.homes.items() if home is None}


@given(problems() | crowds)
def test_each_step_of_the_order_finds_room(problem: Problem) -> None:
    """Step by step, what an item brings is there before what it leaves is free, within the room."""
    solution = solve(problem)
    room = {place.id: place.room_bytes for place in problem.places}
    items = {item.key: item for item in problem.items}
    for key in solution.order:
        item, split = items[key], solution.splits[key]
        for node in room:
            room[node] -= max(0, split.get(node, 0) - item.bytes_by_node.get(node, 0))
        assert min(room.values()) >= 0
        for node in room:
            room[node] += max(0, item.bytes_by_node.get(node, 0) - split.get(node, 0))
    moved = {i.key for i in problem.items if arriving(i, solution.homes[i.key] or NOWHERE)}
    assert moved == set(solution.order)
    assert len(solution.order) == len(moved)


@given(problems() | crowds, st.permutations(range(60)))
def test_the_same_problem_has_the_same_solution(problem: Problem, order: list[int]) -> None:
    """Nor does the order count in which the items are told."""
    items = [problem.items[at] for at in order if at < len(problem.items)]
    assert solve(problem) == solve(problem)
    assert solve(replace(problem, items=tuple(items))) == solve(problem)


@given(problems(), st.permutations(range(20)))
def test_renumbered_nodes_give_the_renumbered_solution(problem: Problem, ids: list[int]) -> None:
    """Ids of nodes are names: with others the answer is the same in all else."""
    name = dict(zip([place.id for place in problem.places], ids, strict=False))
    places = tuple(
        replace(p, id=name[p.id], distances={name[n]: d for n, d in p.distances.items()})
        for p in problem.places
    )
    items = tuple(renamed(item, name) for item in problem.items)
    first, second = solve(problem), solve(Problem(places, items, problem.weights))
    assert second == replace(
        first,
        homes={key: _named(home, name) for key, home in first.homes.items()},
        splits={
            key: {name[node]: size for node, size in split.items()}
            for key, split in first.splits.items()
        },
        stuck={key: _named(home, name) for key, home in first.stuck.items()},  # type: ignore[misc]
        alternatives={
            key: tuple(replace(a, home=_named(a.home, name)) for a in others)  # type: ignore[arg-type]
            for key, others in first.alternatives.items()
        },
    )


def renamed(item: Item, name: Mapping[int, int]) -> Item:
    """Return an item on nodes of other names."""
    return replace(
        item,
        bytes_by_node={name[n]: size for n, size in item.bytes_by_node.items()},
        fixed_by_node={name[n]: size for n, size in item.fixed_by_node.items()},
        device_nodes={name[n]: weight for n, weight in item.device_nodes.items()},
        allowed=_named(item.allowed, name) or NOWHERE,
        home=_named(item.home, name),
    )


def _named(nodes: Home | None, name: Mapping[int, int]) -> Home | None:
    return None if nodes is None else frozenset(name[node] for node in nodes)


@given(problems())
def test_what_is_carried_out_is_not_changed_again(problem: Problem) -> None:
    """Solved anew, a machine on which everything has been done keeps all homes, and moves nothing.

    But where room was lacking, or came only in the course of the moves, more may be possible now.
    """
    solution = solve(problem)
    again = solve(carried_out(problem, solution))
    shared_out = any(home and len(home) > 1 for home in solution.homes.values())
    if not (solution.unplaced or solution.stuck or shared_out):
        assert again.homes == solution.homes
        assert again.order == ()


@given(problems() | crowds)
def test_what_is_carried_out_is_only_ever_bettered(problem: Problem) -> None:
    """Homes that change are better, the cost of the change included: so changes have an end."""
    solution = solve(problem)
    after = carried_out(problem, solution)
    again = solve(after)
    as_it_was, as_it_is = homes_of(problem, solution), homes_of(after, again)
    if as_it_is != as_it_was:
        assert objective(after, as_it_is) < objective(after, as_it_was)


@given(
    st.dictionaries(st.integers(1, 15), st.integers(1, 9), max_size=5),
    st.lists(st.integers(0, 12), min_size=4, max_size=4),
)
def test_bytes_can_be_divided_where_no_union_of_nodes_is_too_small(
    pool: dict[int, int], room: list[int]
) -> None:
    """Hall's theorem and a maximum flow agree, and the flow's parts add up and fit."""
    found = divide(list(pool.items()), room)
    assert (found is not None) == divisible(pool, room)
    for (mask, size), part in zip(pool.items(), found or [], strict=False):
        assert sum(part.values()) == size
        assert all(mask >> at & 1 for at in part)
    for at, there in enumerate(room):
        assert sum(part.get(at, 0) for part in found or []) <= there
