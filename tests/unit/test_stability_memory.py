"""Memory in placing: huge pages have books of their own, and who loads has room to grow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from numad_py.decide.decisions import decide
from numad_py.decide.moves import shortage
from numad_py.decide.room import Room
from numad_py.decide.sizes import fixed_by_node, huge_by_size, ordinary_by_node
from numad_py.model.machine import HugePages, NodeState
from numad_py.model.outcome import End
from numad_py.model.plan import (
    Decision,
    DecisionState,
    Home,
    HomeSource,
    Plan,
    Reason,
    Verdict,
    WorkerMemory,
)
from numad_py.model.residency import Kind, Mobility, Residency, entries_of
from numad_py.model.snapshot import Snapshot, Thread, Worker
from numad_py.policy.schema import PlacementPolicy, Policy
from numad_py.replay.world import World, scene
from tests.unit import seen
from tests.unit.test_stability_cpus import CPUS, FIRST, SECOND, machine, nodes, threads, worker

GIB = 1 << 30
PAGE = 2 << 20
START = DecisionState()


def pools(*free: int, memory: tuple[float, ...] = (20, 20)) -> dict[str, Any]:
    """Return what two nodes of 64 GiB have free, in huge pages of 2 MiB and in others, in GiB."""
    return {
        "node_states": tuple(
            NodeState(
                node,
                64 * GIB,
                int(memory[node] * GIB),
                0,
                huge_pages=(HugePages(PAGE, 40 * GIB // PAGE, gib * GIB // PAGE),),
            )
            for node, gib in enumerate(free)
        )
    }


def huge(label: str, gib: dict[int, int], *, ordinary: dict[int, int] | None = None) -> Worker:
    """Return a free worker that has so many GiB of huge pages by node, and of others."""
    sizes = {(node, Kind.HUGETLB, Mobility.MOVABLE, PAGE): size * GIB for node, size in gib.items()}
    sizes |= {
        (node, Kind.ANON, Mobility.MOVABLE, 4096): size * GIB
        for node, size in (ordinary or {}).items()
    }
    residency = Residency(entries_of(sizes), 1000.0)
    return replace(worker(label, {0: 1}, run_share={}), residency=residency)


def pinned(found: Worker, cpus: frozenset[int]) -> Worker:
    """Return a worker that its user pinned."""
    return replace(found, threads=threads(cpus))


def decisions(plan: Plan) -> dict[str, Decision]:
    """Return decisions by label."""
    return {found.label: found for found in plan.decisions}


def only(look: Snapshot, state: DecisionState = START) -> Decision:
    """Return what is decided about the only worker."""
    (found,) = decide(look, Policy(), state)[0].decisions
    return found


# Huge pages


def test_huge_pages_need_free_ones_and_no_free_memory() -> None:
    """30 GiB of them move to a node with 30 GiB free in its pool and little ordinary memory."""
    far = pinned(huge("x/0", {0: 30}), SECOND)
    found = only(machine(far, **pools(0, 30, memory=(20, 5))))
    assert found.verdict is Verdict.ACT
    assert [(m.source, m.target, m.move_bytes) for m in found.moves] == [(0, 1, 30 * GIB)]


def test_a_given_home_whose_pool_is_empty_is_refused_and_says_so() -> None:
    """However much ordinary memory it has free: the kernel makes no huge pages for a move."""
    far = pinned(huge("x/0", {0: 20}), SECOND)
    found = only(machine(far, **pools(0, 0, memory=(50, 50))))
    assert (found.verdict, found.reason, found.moves) == (Verdict.REFUSE, Reason.NO_ROOM, ())
    assert "0 B free in its pool of 2.0 MiB huge pages" in found.why


def test_huge_pages_that_lie_on_two_nodes_may_stay_there() -> None:
    """Pools that are used up bar no home to which nothing comes, of several nodes either."""
    found = only(machine(huge("x/0", {0: 20, 1: 20}), **pools(0, 0)))
    assert nodes(found) == {0, 1}
    assert found.verdict is Verdict.REST


def test_more_huge_pages_than_a_node_has_get_the_nodes_that_have_them() -> None:
    """60 GiB from a third node come to two pools of 40."""
    look = machine(huge("x/0", {0: 35, 1: 25}), **pools(4, 14))
    assert nodes(only(look)) == {0, 1}


def test_a_worker_keeps_its_home_for_both_sorts_of_pages() -> None:
    """Ordinary memory that fits nowhere else decides as much as pools do."""
    both = huge("x/0", {0: 8}, ordinary={0: 2, 1: 6})
    assert nodes(only(machine(both, **pools(0, 10)))) == {0}
    assert nodes(only(machine(both, **pools(0, 10, memory=(4, 20))))) == {1}


def test_huge_pages_that_leave_make_no_room_for_other_memory() -> None:
    """Who waits for ordinary memory does not wait for somebody's huge pages to go."""
    leaves = pinned(huge("h/1", {0: 20}), SECOND)
    comes = worker("a/0", {1: 15}, threads=threads(FIRST))
    plan, _ = decide(machine(leaves, comes, **pools(0, 30, memory=(5, 30))), Policy(), START)
    found = decisions(plan)
    assert found["h/1"].verdict is Verdict.ACT
    assert (found["a/0"].verdict, found["a/0"].reason) == (Verdict.REFUSE, Reason.NO_ROOM)


def test_who_waits_for_huge_pages_waits_for_those_who_give_them_back() -> None:
    """The pool that one leaves takes the other's pages in the next cycle."""
    leaves = pinned(huge("h/1", {0: 20}), SECOND)
    comes = pinned(huge("a/0", {1: 20}), FIRST)
    plan, _ = decide(machine(leaves, comes, **pools(10, 20)), Policy(), START)
    found = decisions(plan)
    assert found["h/1"].verdict is Verdict.ACT
    assert found["a/0"].reason is Reason.QUEUED
    assert "h/1" in found["a/0"].why


def test_two_do_not_promise_themselves_the_same_huge_pages() -> None:
    """Of two that come to one pool with room for one, one comes."""
    two = [pinned(huge(f"x/{i}", {0: 7}), SECOND) for i in (0, 1)]
    plan, _ = decide(machine(*two, **pools(0, 10)), Policy(), START)
    assert sorted(found.verdict.value for found in plan.decisions) == ["act", "refuse"]


def test_before_it_is_known_how_large_they_are_any_free_huge_page_will_do() -> None:
    """A cheap look takes them for base pages; it must come to the full reading that tells."""
    sizes = {(0, Kind.HUGETLB, Mobility.MOVABLE, 4096): 20 * GIB}
    far = replace(huge("x/0", {}), residency=Residency(entries_of(sizes), 1000.0))
    look = machine(pinned(far, SECOND), **pools(0, 30))
    home = Home(frozenset({1}), HomeSource.PIN, "")
    room = Room(look, PlacementPolicy())
    assert shortage(far, home, WorkerMemory(), look.topology, room) is None
    free = replace(far, threads=threads(CPUS))
    assert only(machine(free, **pools(0, 30))).reason is not Reason.NO_HOME


def test_what_refused_is_taken_off_ordinary_memory_first() -> None:
    """And the sums of both sorts, and of what cannot be moved, are what is resident."""
    both = huge("x/0", {0: 8, 1: 1}, ordinary={0: 3})
    refused = {0: 4 * GIB}
    assert ordinary_by_node(both, refused) == {}
    assert huge_by_size(both, refused) == {PAGE: {0: 7 * GIB, 1: GIB}}
    assert fixed_by_node(both, refused) == {0: 4 * GIB}


def test_simulated_huge_pages_come_out_of_pools() -> None:
    """Moving them changes the nodes' pools and not their free memory, and needs free ones."""
    far = pinned(huge("x/0", {0: 10}, ordinary={0: 2}), SECOND)
    look = machine(far, **pools(5, 15))
    policy, world = Policy(), World(Policy())
    before = world.look(scene(look))
    assert before.node_states == tuple(
        replace(s, busy_cpus=s.busy_cpus or 0.0) for s in before.node_states
    )
    assert [s.huge_pages[0].free * PAGE for s in before.node_states] == [5 * GIB, 15 * GIB]
    assert [s.free_bytes for s in before.node_states] == [20 * GIB, 20 * GIB]
    plan, _ = decide(before, policy, START)
    world.submit(plan)
    later = world.look(replace(scene(look), at_s=look.at_s + 60))
    (outcome,) = world.outcomes()
    assert outcome.end is End.DONE
    assert [s.huge_pages[0].free * PAGE for s in later.node_states] == [15 * GIB, 5 * GIB]
    assert [s.free_bytes for s in later.node_states] == [22 * GIB, 18 * GIB]


# Loading


def loading_at(gib: float, growth: float) -> tuple[Worker, DecisionState]:
    """Return a young worker on node 0 that has just grown, by so many GiB a second."""
    young = worker("l/1", {0: gib}, age_s=60.0)
    memory = WorkerMemory(
        home=Home(frozenset({0}), HomeSource.PLANNER, "test"),
        largest_bytes=int((gib - 5 * growth) * GIB),
        seen_at_s=995.0,
        demand_cpus=1.0,
    )
    return young, DecisionState(workers={young.id: memory})


@pytest.mark.parametrize(("growth", "home"), [(0.1, 0), (1.0, 1)])
def test_others_keep_clear_of_the_room_of_a_worker_that_is_loading(
    growth: float, home: int
) -> None:
    """25 GiB of 27 are taken on its node, unless it would grow by 10 GiB until it has settled."""
    young, state = loading_at(20, growth)
    sizes = {
        (1, Kind.ANON, Mobility.MOVABLE): 25 * GIB,
        (0, Kind.FILE, Mobility.SHARED): 60 * GIB,
    }
    other = worker("n/0", {1: 25}, run_share={})
    other = replace(other, residency=seen.residency(sizes))
    plan, _ = decide(machine(young, other, **pools(0, 0, memory=(30, 30))), Policy(), state)
    found = decisions(plan)
    assert nodes(found["n/0"]) == {home}
    assert nodes(found["l/1"]) == {0}
    assert any("it is still loading" in said for said in found["l/1"].constraints)


def test_a_worker_that_outgrows_its_home_while_it_loads_is_placed_anew() -> None:
    """Room that there is not is kept for nobody: it gets two nodes and not none."""
    young, state = loading_at(40, 2.0)
    assert young.residency is not None
    spilled = {
        (0, Kind.ANON, Mobility.MOVABLE): 24 * GIB,
        (1, Kind.ANON, Mobility.MOVABLE): 16 * GIB,
    }
    young = replace(young, residency=seen.residency(spilled))
    found = only(machine(young, **pools(0, 0, memory=(4, 4))), state)
    assert nodes(found) == {0, 1}


def test_growth_is_known_from_the_second_look_on() -> None:
    """By what has come since the look before; no room is kept for what has settled."""
    state, said = START, []
    for step, gib in enumerate((1, 6, 6, 6, 6)):
        young = worker("l/1", {0: gib}, age_s=30.0 + 5 * step)
        young = replace(young, threads=(Thread(10, 5, CPUS, 0, 100),))
        look = machine(young, at_s=1000.0 + 5 * step)
        plan, state = decide(look, Policy(), replace(state, placing=None))
        said.append(any("still loading" in why for why in plan.decisions[0].constraints))
        state = replace(
            state,
            workers={
                k: replace(m, moving=False, acted_at_s=None) for k, m in state.workers.items()
            },
        )
    assert said == [False, True, True, False, False]
    (memory,) = state.workers.values()
    assert memory.growth_bytes_per_s == GIB
