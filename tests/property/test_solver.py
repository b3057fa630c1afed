"""Properties of the placement solver, against a brute force that shares nothing with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import mean

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from numad_py.decide.solver.flow import divide
from numad_py.decide.solver.problem import Item, Problem
from numad_py.decide.solver.solve import solve
from numad_py.decide.solver.tally import divisible
from tests.property.brute_force import (
    GIB,
    NOWHERE,
    ROUNDED,
    Home,
    arriving,
    brute_force,
    capacity_of,
    carried_out,
    homes_of,
    objective,
    size_of,
    staying,
)
from tests.property.crowded import crowd
from tests.property.strategies import crowds, problems

PAGE = 2 << 20


@st.composite
def demanding(draw: st.DrawFn) -> Problem:
    """Return a small machine whose workers need CPUs and huge pages as well as memory."""
    problem = draw(problems())
    ids = [place.id for place in problem.places]
    some = st.fixed_dictionaries({node: st.sampled_from([0, 0, 0, 1, 2, 4]) for node in ids})
    cpus = st.fixed_dictionaries({node: st.sampled_from([0.0, 0.5, 1.0, 2.0]) for node in ids})
    pools = draw(some)
    places = tuple(replace(p, huge_free={PAGE: pools[p.id] * GIB}) for p in problem.places)
    items = []
    for item in problem.items:
        huge = {node: size * GIB for node, size in draw(st.just({}) | some).items() if size}
        runs_on = draw(st.none() | st.sampled_from(ids))
        items.append(
            replace(
                item,
                needs_cpus=draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
                usable_cpus=draw(st.just({}) | cpus),
                run_cpus={} if runs_on is None else {runs_on: item.cpus},
                huge={PAGE: huge} if huge else {},
            )
        )
    return Problem(places, tuple(items), problem.weights)


machines = demanding() | problems()


def test_few_workers_are_placed_as_well_as_they_can_be() -> None:
    """Up to 3 nodes and 7 workers: every limit is kept that can be, and the cost is the least.

    Nearly: 1 % more on average and 5 % at worst would do, and no more than that where it is proven.
    """
    ratios = []

    @settings(
        max_examples=max(500, settings().max_examples),
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(machines)
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


@given(machines | crowds)
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


@given(machines | crowds)
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


@given(machines | crowds, st.permutations(range(60)))
def test_the_same_problem_has_the_same_solution(problem: Problem, order: list[int]) -> None:
    """Nor does the order count in which the items are told."""
    items = [problem.items[at] for at in order if at < len(problem.items)]
    assert solve(problem) == solve(problem)
    assert solve(replace(problem, items=tuple(items))) == solve(problem)


@given(machines, st.permutations(range(20)))
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


def overdrawn(problem: Problem) -> bool:
    """Say whether more came to a pool of huge pages than it had: each item is weighed alone."""
    return any(free < 0 for place in problem.places for free in place.huge_free.values())


def renamed(item: Item, name: Mapping[int, int]) -> Item:
    """Return an item on nodes of other names."""
    return replace(
        item,
        bytes_by_node={name[n]: size for n, size in item.bytes_by_node.items()},
        huge={
            page: {name[n]: size for n, size in by_node.items()}
            for page, by_node in item.huge.items()
        },
        usable_cpus={name[n]: cpus for n, cpus in item.usable_cpus.items()},
        run_cpus={name[n]: cpus for n, cpus in item.run_cpus.items()},
        fixed_by_node={name[n]: size for n, size in item.fixed_by_node.items()},
        device_nodes={name[n]: weight for n, weight in item.device_nodes.items()},
        allowed=_named(item.allowed, name) or NOWHERE,
        home=_named(item.home, name),
    )


def _named(nodes: Home | None, name: Mapping[int, int]) -> Home | None:
    return None if nodes is None else frozenset(name[node] for node in nodes)


@given(machines)
def test_what_is_carried_out_is_not_changed_again(problem: Problem) -> None:
    """Solved anew, a machine on which everything has been done keeps all homes, and moves nothing.

    But where room was lacking, or came only in the course of the moves, more may be possible now.
    """
    solution = solve(problem)
    after = carried_out(problem, solution)
    again = solve(after)
    shared_out = any(home and len(home) > 1 for home in solution.homes.values())
    if not (solution.unplaced or solution.stuck or shared_out or overdrawn(after)):
        assert again.homes == solution.homes
        assert again.order == ()


@example(crowd(252198))
@given(machines | crowds)
def test_what_is_carried_out_is_only_ever_bettered(problem: Problem) -> None:
    """Homes that change are better, the cost of the change included: so changes have an end."""
    solution = solve(problem)
    after = carried_out(problem, solution)
    again = solve(after)
    as_it_was, as_it_is = homes_of(problem, solution), homes_of(after, again)
    if as_it_is != as_it_was and not overdrawn(after):
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
