"""Placing workers together: one fact about a small machine in each test."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from numad_py.decide.solver.problem import Item, Place, Problem, Solution, Weights
from numad_py.decide.solver.solve import solve
from numad_py.model.plan import Alternative, Limit

GIB = 1 << 30
FAR = 32


def places(
    *rooms: float, cpus: float = 8.0, slow: Mapping[int, float] | None = None
) -> list[Place]:
    """Return nodes with so many GiB of room, in pairs of two that are close to each other."""
    ids = range(len(rooms))
    distances = {
        a: {b: 10 if a == b else 12 if a // 2 == b // 2 else FAR for b in ids} for a in ids
    }
    slow = slow or {}
    return [
        Place(a, int(room * GIB), cpus, distances[a], slow.get(a, 1.0))
        for a, room in enumerate(rooms)
    ]


def item(
    key: str,
    gib_by_node: Mapping[int, float],
    *,
    allowed: set[int] | None = None,
    home: set[int] | None = None,
    fixed: Mapping[int, float] | None = None,
    cpus: float = 0.0,
    coming: float = 0.0,
    busy: float = 1.0,
    apart: str | None = None,
    devices: Mapping[int, float] | None = None,
    keep: bool = False,
) -> Item:
    """Return a worker with so many GiB by node, allowed on the first four nodes."""
    return Item(
        key=key,
        bytes_by_node={node: int(gib * GIB) for node, gib in gib_by_node.items()},
        fixed_by_node={node: int(gib * GIB) for node, gib in (fixed or {}).items()},
        coming_bytes=int(coming * GIB),
        cpus=cpus,
        busy=busy,
        allowed=frozenset({0, 1, 2, 3} if allowed is None else allowed),
        device_nodes=devices or {},
        home=None if home is None else frozenset(home),
        apart=apart,
        keep=keep,
    )


def solved(nodes: list[Place], *items: Item) -> Solution:
    """Return the solution of a machine."""
    return solve(Problem(tuple(nodes), items))


def homes(solution: Solution) -> dict[str, set[int] | None]:
    """Return the homes as plain sets."""
    return {key: None if home is None else set(home) for key, home in solution.homes.items()}


def bar(solution: Solution, key: str, *nodes: int) -> Alternative:
    """Return what is said of another home."""
    return next(a for a in solution.alternatives[key] if a.home == frozenset(nodes))


def test_who_is_at_home_stays_and_costs_nothing() -> None:
    """Nothing is moved, nothing costs, and no search is needed to know it."""
    solution = solved(places(4, 4), item("a", {0: 2}, home={0}), item("b", {1: 3}, home={1}))
    assert homes(solution) == {"a": {0}, "b": {1}}
    assert (solution.order, solution.cost, solution.proven) == ((), 0, True)
    assert solution.splits == {"a": {0: 2 * GIB}, "b": {1: 3 * GIB}}


def test_memory_goes_where_most_of_it_is() -> None:
    """Of two nodes with room, that one is the home to which fewer bytes have to be moved."""
    solution = solved(places(8, 8), item("a", {0: 1, 1: 3}))
    assert homes(solution) == {"a": {1}}
    assert solution.order == ("a",)
    assert solution.costs["a"].moving == round(0.1 * 1.2 * GIB)


def test_a_large_worker_gets_the_smallest_close_set_of_nodes() -> None:
    """What no node could hold gets two that are close, not one that is too small nor three."""
    solution = solved(places(2, 2, 2, 2), item("a", {}, coming=3))
    assert homes(solution)["a"] in ({0, 1}, {2, 3})
    assert sum(solution.splits["a"].values()) == 3 * GIB
    assert max(solution.splits["a"].values()) <= 2 * GIB


def test_two_large_workers_share_a_node_within_its_room() -> None:
    """Their bytes are divided so that both fit, also where one must leave the common node."""
    nodes = places(4, 4, 4)
    solution = solved(
        nodes, item("a", {}, coming=6, allowed={0, 1}), item("b", {}, coming=6, allowed={1, 2})
    )
    assert homes(solution) == {"a": {0, 1}, "b": {1, 2}}
    on_1 = solution.splits["a"][1] + solution.splits["b"][1]
    assert on_1 == 4 * GIB


def test_a_worker_that_nothing_holds_has_no_home_and_stays() -> None:
    """It is told as unplaced, its memory is counted where it is, and others are placed."""
    solution = solved(places(1, 1), item("a", {0: 1}, coming=9), item("b", {0: 1}, allowed={1}))
    assert homes(solution) == {"a": None, "b": {1}}
    assert solution.unplaced == ("a",)
    assert solution.splits["a"] == {0: GIB}


def test_a_worker_without_an_allowed_node_has_no_home() -> None:
    """It takes no CPU and no part in anything but the room that its memory takes."""
    solution = solved(places(4), item("a", {0: 1}, allowed=set(), cpus=99))
    assert homes(solution) == {"a": None}
    assert solution.lacking_cpus == 0


def test_replicas_are_kept_apart() -> None:
    """Memory is moved for it."""
    solution = solved(
        places(4, 4), item("a", {0: 2}, apart="server"), item("b", {0: 2}, apart="server")
    )
    assert {frozenset(home or ()) for home in homes(solution).values()} == {
        frozenset({0}),
        frozenset({1}),
    }
    assert solution.crowded_pairs == 0
    assert bar(solution, "a", *(solution.homes["b"] or ())).barred_by is Limit.APART


def test_more_replicas_than_nodes_overlap_as_little_as_can_be() -> None:
    """Three replicas on two nodes make one pair, and it is known that it cannot be fewer."""
    solution = solved(places(9, 9), *(item(key, {0: 1}, apart="server") for key in "abc"))
    assert solution.crowded_pairs == 1
    assert solution.proven


def test_cpus_are_not_overcommitted_where_others_are_idle() -> None:
    """Two workers that want more CPUs than one node has go to two, though memory is moved."""
    solution = solved(
        places(9, 9, cpus=4), item("a", {0: 1}, cpus=3.0), item("b", {0: 2}, cpus=3.0)
    )
    assert homes(solution) == {"a": {1}, "b": {0}}
    assert solution.lacking_cpus == 0
    assert bar(solution, "a", 0).barred_by is Limit.CPUS


def test_a_fraction_of_a_cpu_is_not_worth_a_move() -> None:
    """Less than a step of CPUs beyond what there is counts for nothing: the measure wavers."""
    workers = item("a", {0: 1}, cpus=2.1), item("b", {0: 2}, cpus=2.1)
    assert homes(solved(places(9, 9, cpus=4), *workers)) == {"a": {0}, "b": {0}}
    exact = Problem(tuple(places(9, 9, cpus=4)), workers, Weights(cpu_step=0.01))
    assert homes(solve(exact)) == {"a": {1}, "b": {0}}


def test_a_home_is_left_only_for_a_clear_gain() -> None:
    """Shared bytes elsewhere draw a worker away, once they are worth the move and the change."""
    little = solved(places(9, 9), item("a", {0: 4}, fixed={1: 4}, home={0}))
    assert homes(little) == {"a": {0}}
    much = solved(places(9, 9, 9), item("a", {0: 4}, fixed={2: 4}, home={0}))
    assert homes(much) == {"a": {2}}
    assert bar(much, "a", 0).dearer > 0


def test_an_idle_worker_is_not_moved_for_its_remote_bytes() -> None:
    """What is not used is not far away."""
    solution = solved(places(9, 9, 9), item("a", {0: 4}, fixed={2: 4}, home={0}, busy=0.0))
    assert homes(solution) == {"a": {0}}


def test_a_device_draws_its_worker() -> None:
    """A process that is not there yet goes to the node of its accelerator, if there is room."""
    assert homes(solved(places(9, 9, 9), item("a", {}, coming=4, devices={2: 1.0}))) == {"a": {2}}
    crowded = solved(places(9, 9, 1), item("a", {}, coming=4, devices={2: 1.0}))
    assert homes(crowded) != {"a": {2}}


def test_slow_memory_is_avoided() -> None:
    """Of two nodes the one with faster memory is taken, though more has to be moved."""
    solution = solved(places(9, 9, slow={0: 1.5}), item("a", {0: 2, 1: 1}))
    assert homes(solution) == {"a": {1}}


def test_a_kept_worker_stays_and_its_room_is_taken() -> None:
    """What is on its way counts where it goes; another finds no room there."""
    solution = solved(
        places(2, 0, 2),
        item("a", {1: 2}, home={0}, keep=True),
        item("b", {1: 2}, allowed={0, 2}, fixed={0: 9}),
    )
    assert homes(solution) == {"a": {0}, "b": {2}}
    assert solution.order[0] == "a"
    assert solution.alternatives["a"] == ()


def test_a_full_swap_is_stuck() -> None:
    """Two workers on each other's node, both full: no order of moves, so both stay and say so."""
    solution = solved(
        places(0, 0, 0),
        item("a", {0: 4}, fixed={2: 9}, home={0}, allowed={0, 2}),
        item("b", {2: 4}, fixed={0: 9}, home={2}, allowed={0, 2}),
    )
    assert homes(solution) == {"a": {0}, "b": {2}}
    assert solution.stuck == {"a": frozenset({2}), "b": frozenset({0})}
    assert solution.order == ()
    assert bar(solution, "a", 2).barred_by is Limit.MEMORY


def test_a_rotation_is_made_in_the_order_that_has_room() -> None:
    """Who goes where there is room goes first, and frees what the next one needs."""
    solution = solved(
        places(4, 0, 0),
        item("a", {2: 4}, allowed={1}),
        item("b", {1: 4}, allowed={0}),
        item("c", {0: 0, 2: 1}, allowed={2}),
    )
    assert homes(solution) == {"a": {1}, "b": {0}, "c": {2}}
    assert solution.order == ("b", "a")


def test_the_first_move_that_finds_room_is_not_always_right() -> None:
    """P would fill what Q needs to free the room of R, and R that of P: Q goes first."""
    solution = solved(
        places(5, 0, 0),
        item("p", {2: 5}, allowed={0}),
        item("q", {1: 5}, allowed={0}),
        item("r", {0: 5}, allowed={1}),
    )
    assert solution.unplaced == ()
    assert solution.order == ("q", "r", "p")


def test_one_is_pushed_aside_for_another_that_needs_the_room_more() -> None:
    """The small one leaves the node on which the large one could not else stay whole."""
    solution = solved(
        places(1, 4), item("large", {0: 6, 1: 2}, allowed={0}), item("small", {0: 3}, home={0})
    )
    assert homes(solution) == {"large": {0}, "small": {1}}
    assert solution.order == ("small", "large")
    assert bar(solution, "small", 0).barred_by is Limit.MEMORY
    assert bar(solution, "small", 0).dearer < 0


def test_a_cheaper_node_that_is_forbidden_is_told_of() -> None:
    """Where the cpuset bars the node with most of the memory, the alternatives say so."""
    solution = solved(places(4, 4), item("a", {0: 3}, allowed={1}))
    assert homes(solution) == {"a": {1}}
    assert bar(solution, "a", 0).barred_by is Limit.ALLOWED


def test_a_worker_keeps_a_home_of_more_nodes_than_it_needs_by_now() -> None:
    """It was placed there; that it shrank is no reason to move it."""
    solution = solved(places(4, 4), item("a", {0: 2, 1: 2}, home={0, 1}))
    assert homes(solution) == {"a": {0, 1}}


@pytest.mark.parametrize("count", [12, 16])
def test_sets_of_many_nodes_are_grown_around_each(count: int) -> None:
    """With more than ten nodes not every set is looked at, but the close ones."""
    nodes = places(*[2.0] * count)
    solution = solve(
        Problem(tuple(nodes), (item("a", {5: 2}, coming=3.5, allowed=set(range(count))),))
    )
    assert homes(solution) == {"a": {4, 5}}


def test_what_lies_on_a_node_that_is_no_place_can_come_from_there() -> None:
    """A node that was not told of has distance 20; its bytes are moved like all others."""
    solution = solved(places(4), item("a", {7: 1}, allowed={0, 7}))
    assert homes(solution) == {"a": {0}}
    assert solution.costs["a"].moving == round(0.2 * GIB)


def test_nothing_to_place_is_no_problem() -> None:
    """No items, or no nodes: an empty answer, or nobody placed."""
    assert solved(places(1)).homes == {}
    assert homes(solved([], item("a", {0: 1}))) == {"a": None}


def test_who_has_no_home_wants_no_cpus() -> None:
    """The search for the best answer is not cut short by CPUs of workers that cannot be placed."""
    nodes = [
        Place(0, 8 * GIB, 1.0, {0: 10, 1: 19}),
        Place(1, 0, 1.0, {0: 19, 1: 10}),
    ]
    solution = solved(
        nodes,
        item("w0", {1: 2}, coming=4, allowed={0}, cpus=1.0, apart="a"),
        item("w1", {0: 3, 1: 5}, coming=2, allowed={0, 1}, cpus=0.5, busy=0, apart="a"),
        item(
            "w2", {0: 3, 1: 3}, coming=4, allowed={0, 1}, cpus=0.5, fixed={1: 3}, busy=0, apart="b"
        ),
        item(
            "w3", {1: 3}, allowed={0, 1}, cpus=1.0, fixed={0: 1, 1: 5}, home={0}, busy=0, apart="b"
        ),
        item("w4", {1: 2}, allowed=set(), fixed={1: 1}, home={0, 1}),
    )
    assert homes(solution) == {"w0": None, "w1": None, "w2": {0}, "w3": {1}, "w4": None}
    assert solution.proven
