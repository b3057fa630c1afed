"""Who moves first, and who waits for whom, by the figures that placing goes by."""

from __future__ import annotations

import pytest

from numad_py.decide.room import Room
from numad_py.decide.turns import Turn, Wish, turns
from numad_py.model.machine import NodeState
from numad_py.model.plan import DecisionState, Finding, Home, HomeSource, WorkerMemory
from numad_py.model.residency import Kind, Mobility
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.model.topology import Node, Topology
from numad_py.policy.schema import PlacementPolicy
from tests.unit import seen
from tests.unit.seen import GIB, MIB

HOME = Home(frozenset({0}), HomeSource.PIN, "told")
OFF = Home(frozenset({1}), HomeSource.PIN, "told")


def worker(
    label: str, by_node: dict[int, int], demand_cpus: float, age_s: float = 1000.0
) -> Worker:
    """Return one with so many MiB on each node, read in full."""
    sizes = {(node, Kind.ANON, Mobility.MOVABLE): size * MIB for node, size in by_node.items()}
    return seen.worker(label, seen.residency(sizes), demand_cpus=demand_cpus, age_s=age_s)


def wish(one: Worker, remote_mib: int, home: Home = HOME) -> Wish:
    """Return the wish of one to be moved home."""
    size = remote_mib * MIB
    finding = Finding(one.id, one.label, home, size, size, 0, 0.0, None)
    return Wish(one, home, finding)


def machine(*workers: Worker, free_mib: int = 4096) -> Snapshot:
    """Return two nodes, so many MiB of the first free."""
    states = (NodeState(0, 4 * GIB, free_mib * MIB, 0), NodeState(1, 4 * GIB, GIB, 0))
    return seen.snapshot(*workers, node_states=states)


def told(
    found: Snapshot, state: DecisionState, *wishes: Wish, most_mib: int = 9000
) -> dict[str, Turn]:
    """Return turns by label."""
    room = Room(found, PlacementPolicy(headroom=0.0))
    by_id = turns(wishes, found, state, room, most_mib * MIB)
    return {w.worker.label: by_id[w.worker.id] for w in wishes}


@pytest.mark.parametrize(("age_s", "lasting"), [(1000.0, 8.0), (10.0, 0.2)])
def test_who_is_busy_for_a_minute_or_young_goes_before_who_is_idle(
    age_s: float, lasting: float
) -> None:
    """What one look found of its demand decides nothing, as in placing."""
    busy = worker("x/1", {1: 500}, demand_cpus=0.0, age_s=age_s)
    other = worker("x/0", {1: 500}, demand_cpus=0.3)
    state = DecisionState(
        {busy.id: WorkerMemory(demand_cpus=lasting), other.id: WorkerMemory(demand_cpus=0.3)}
    )
    wishes = (wish(other, 500), wish(busy, 500))
    found = told(machine(busy, other), state, *wishes, most_mib=600)
    assert found["x/1"].moves is not None
    assert (found["x/0"].moves, found["x/0"].after) == (None, ("x/1",))


def test_what_refused_to_move_makes_no_room() -> None:
    """Who would wait for it would wait for ever: it is told that there is no room."""
    stuck = worker("x/0", {0: 3000}, demand_cpus=1.0)
    comes = worker("x/1", {1: 2000}, demand_cpus=1.0)
    state = DecisionState({stuck.id: WorkerMemory(refused={0: 2900 * MIB})})
    seen_now = machine(stuck, comes, free_mib=500)
    wishes = (wish(stuck, 100, OFF), wish(comes, 2000))
    turn = told(seen_now, state, *wishes)["x/1"]
    assert (turn.moves, turn.after) == (None, ())


def test_who_is_on_its_way_out_makes_room() -> None:
    """Whoever needs that room has its turn after it, and is not refused for lack of room."""
    leaves = worker("x/0", {0: 3000}, demand_cpus=1.0)
    comes = worker("x/1", {1: 2000}, demand_cpus=1.0)
    state = DecisionState({leaves.id: WorkerMemory(home=OFF, moving=True)})
    seen_now = machine(leaves, comes, free_mib=500)
    turn = told(seen_now, state, wish(comes, 2000))["x/1"]
    assert (turn.moves, turn.after) == (None, ("x/0",))


def test_two_that_want_each_others_room_do_not_wait_for_each_other() -> None:
    """Neither can be first: both are told what is lacking, and waiting would have no end."""
    one, other = worker("x/0", {0: 3000}, 1.0), worker("x/1", {1: 3000}, 1.0)
    look = seen.snapshot(
        one,
        other,
        node_states=(NodeState(0, 4 * GIB, 500 * MIB, 0), NodeState(1, 4 * GIB, 500 * MIB, 0)),
    )
    found = told(look, DecisionState(), wish(one, 3000, OFF), wish(other, 3000))
    for turn in found.values():
        assert (turn.moves, turn.after) == (None, ())
        assert turn.short is not None
        assert turn.short.room_bytes == 500 * MIB


def three_nodes(*workers: Worker, free_mib: tuple[int, int, int]) -> Snapshot:
    """Return three nodes with so many MiB free."""
    nodes = tuple(Node(n, frozenset({n}), 4 * GIB, {0: 10, 1: 10, 2: 10, n: 10}) for n in range(3))
    states = tuple(NodeState(n, 4 * GIB, mib * MIB, 0) for n, mib in enumerate(free_mib))
    return seen.snapshot(*workers, topology=Topology(nodes), node_states=states)


@pytest.mark.parametrize(("free_on_2_mib", "after"), [(3500, ("x/1",)), (100, ())])
def test_who_waits_in_a_row_waits_for_one_that_moves(
    free_on_2_mib: int, after: tuple[str, ...]
) -> None:
    """Behind the last of a row that moves all have their turns; where it cannot, none has."""
    last, middle = worker("x/0", {1: 3000}, 1.0), worker("x/1", {0: 3000}, 1.0)
    first = worker("x/2", {2: 2000}, 1.0)
    look = three_nodes(last, middle, first, free_mib=(100, 100, free_on_2_mib))
    # The last of the row leaves node 1 for node 2, the middle one node 0 for node 1.
    to_2 = Home(frozenset({2}), HomeSource.PIN, "told")
    wishes = (wish(last, 3000, to_2), wish(middle, 3000, OFF), wish(first, 2000))
    found = told(look, DecisionState(), *wishes)
    assert (found["x/0"].moves is not None) is bool(after)
    assert found["x/1"].after == (("x/0",) if after else ())
    assert (found["x/2"].moves, found["x/2"].after) == (None, after)


def test_who_has_no_room_is_not_told_to_wait_for_bytes_of_others() -> None:
    """That a cycle moves enough already is no reason where its home is full in any case."""
    moves, full = worker("x/0", {0: 500}, 2.0), worker("x/1", {1: 3000}, 1.0)
    wishes = (wish(moves, 500, OFF), wish(full, 3000))
    found = told(machine(moves, full, free_mib=100), DecisionState(), *wishes, most_mib=600)
    assert found["x/0"].moves is not None
    assert (found["x/1"].moves, found["x/1"].after) == (None, ())
