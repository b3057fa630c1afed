"""The simulated machine: what a policy's decisions make of it, and how long that takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import tomli

from numad_py.decide.decisions import decide
from numad_py.model.cycle import Cycle
from numad_py.model.machine import NodeState
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import DecisionState, Reason, Verdict
from numad_py.model.residency import Kind, Mobility
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import MigrationPolicy, Policy, Rule
from numad_py.replay.described import machine_of
from numad_py.replay.simulate import Simulation
from numad_py.replay.world import World, scene
from tests.unit import seen
from tests.unit.seen import GIB, MIB

NODES = """
duration = "60s"
[[node]]
id = 0
cpus = "0-3"
memory = "16GiB"
[[node]]
id = 1
cpus = "4-7"
memory = "16GiB"
"""
REMOTE = NODES + '[[worker]]\nname = "far"\nsize = "4GiB"\nnodes = [1]\nrun = [0]\npin = "0-3"\n'
"""Pinned to node 0, with its memory on node 1."""


def scenes(text: str) -> Iterator[Snapshot]:
    """Return what a description makes."""
    return machine_of(tomli.loads(text), text, "m.toml").scenes()


def run(text: str, policy: Policy | None = None, *, acts: bool = True) -> list[Cycle]:
    """Run a described machine."""
    simulation = Simulation(policy or Policy(), acts=acts)
    return [simulation.step(each) for each in scenes(text)]


def rate(size: int | None) -> Policy:
    """Return a policy that moves so many bytes a second."""
    return Policy(migration=MigrationPolicy(rate_bytes_per_s=size))


def by_node(worker: Worker) -> dict[int, int]:
    """Return its bytes by node, as far as there are any."""
    assert worker.residency is not None
    return {node: size for node, size in worker.residency.by_node().items() if size}


def outcomes(cycles: list[Cycle]) -> list[Outcome]:
    """Return all of a run."""
    return [outcome for cycle in cycles for outcome in cycle.outcomes]


def test_a_remote_worker_comes_home() -> None:
    """Its memory follows the pin, the nodes' free memory follows its memory, then it rests."""
    cycles = run(REMOTE)
    first, last = cycles[0], cycles[-1]
    assert (first.said[0].verdict, by_node(first.snapshot.workers[0])) == (
        Verdict.ACT,
        {1: 4 * GIB},
    )
    assert (last.said[0].reason, by_node(last.snapshot.workers[0])) == (Reason.HOME, {0: 4 * GIB})
    assert [s.free_bytes for s in last.snapshot.node_states] == [12 * GIB, 16 * GIB]
    (outcome,) = outcomes(cycles)
    assert (outcome.end, outcome.moved) == (End.DONE, {(1, 0): 4 * GIB})


def test_nothing_is_touched_where_the_world_does_not_act() -> None:
    """Every decision ends as simulated and comes again."""
    cycles = run(REMOTE, acts=False)
    assert {outcome.end for outcome in outcomes(cycles)} == {End.SIMULATED}
    assert by_node(cycles[-1].snapshot.workers[0]) == {1: 4 * GIB}
    assert {cycle.said[0].verdict for cycle in cycles} == {Verdict.ACT}


def test_a_paced_move_takes_as_long_as_its_bytes_at_the_rate() -> None:
    """4 GiB at 256 MiB/s: 16 s, and after 5 s of them five sixteenths have moved."""
    cycles = run(REMOTE, rate(256 * MIB))
    assert by_node(cycles[1].snapshot.workers[0]) == {1: 4 * GIB - 1280 * MIB, 0: 1280 * MIB}
    assert cycles[1].said[0].reason is Reason.MOVING
    (outcome,) = outcomes(cycles)
    assert outcome.duration_s == pytest.approx(16.0)
    assert [bool(cycle.outcomes) for cycle in cycles[:6]] == [False] * 4 + [True, False]


def test_a_move_in_steps_moves_what_one_move_does() -> None:
    """No byte is lost or made between two looks, at an odd rate either."""
    for cycle in run(REMOTE, rate(123_456_789)):
        assert sum(by_node(cycle.snapshot.workers[0]).values()) == 4 * GIB
        assert sum(s.free_bytes for s in cycle.snapshot.node_states) == 28 * GIB


def test_moves_wait_for_each_other() -> None:
    """There is one mover: the second one begins when the first has ended."""
    two = REMOTE + "count = 2\n"
    first, second = outcomes(run(two, rate(GIB)))
    assert second.started_at_s == pytest.approx(first.started_at_s + first.duration_s)


def test_a_worker_that_leaves_gives_its_memory_back() -> None:
    """A move that is under way ends with it."""
    cycles = run(REMOTE + 'stay = "7s"\n', rate(256 * MIB))
    (outcome,) = outcomes(cycles)
    assert outcome.end is End.GONE
    assert sum(outcome.moved.values()) == 10 * 256 * MIB
    assert [s.free_bytes for s in cycles[-1].snapshot.node_states] == [16 * GIB, 16 * GIB]
    assert not cycles[-1].snapshot.workers


def full_node() -> Snapshot:
    """Return a scene whose node 0 has no room, though its figures of a moment ago said so."""
    (first, *_) = scenes(REMOTE)
    states = tuple(replace(s, free_bytes=2 * GIB) if s.node == 0 else s for s in first.node_states)
    return replace(first, node_states=states)


@pytest.mark.parametrize(("minds", "left_free"), [(True, 0.8), (False, 0.0)])
def test_a_move_ends_where_its_target_is_full(*, minds: bool, left_free: float) -> None:
    """At the headroom as the real mover does, or at the last byte where told to go on."""
    (roomy, *_) = scenes(REMOTE)
    world = World(Policy(), minds_headroom=minds)
    plan, _ = decide(world.look(roomy), Policy(), DecisionState())
    # Somebody has taken the room between the plan and the move.
    world.look(full_node())
    world.submit(plan)
    after = world.look(replace(full_node(), at_s=roomy.at_s + 60))
    (outcome,) = world.outcomes()
    assert outcome.end is End.NO_ROOM
    assert after.node_states[0].free_bytes == pytest.approx(left_free * GIB, abs=1)
    assert outcome.moved[1, 0] == pytest.approx((2 - left_free) * GIB, abs=1)


def test_a_full_node_gets_nothing_planned() -> None:
    """The policy sees what the simulated nodes have."""
    cycle = Simulation(Policy()).step(full_node())
    assert (cycle.said[0].verdict, cycle.said[0].reason) == (Verdict.REFUSE, Reason.NO_ROOM)


def test_what_grows_is_first_touched_where_its_threads_run() -> None:
    """Growth of a remote worker lands near its threads, though nothing is moved."""
    growing = REMOTE + 'grow = "100MiB/s"\ngrow_to = "5GiB"\n'
    cycles = run(growing, acts=False)
    assert by_node(cycles[2].snapshot.workers[0]) == {1: 4 * GIB, 0: 1000 * MIB}
    assert by_node(cycles[-1].snapshot.workers[0]) == {1: 4 * GIB, 0: GIB}


def test_what_finds_no_room_lands_on_the_nearest_node() -> None:
    """As the kernel falls back along its zonelist."""
    far = NODES + (
        '[[node]]\nid = 2\ncpus = "8-11"\nmemory = "16GiB"\n'
        '[[worker]]\nname = "big"\nsize = "20GiB"\nnodes = [1]\n'
    )
    far = far.replace('cpus = "4-7"', 'cpus = "4-7"\ndistances = [30, 10, 20]')
    (first, *_) = scenes(far)
    assert by_node(World(Policy()).look(first).workers[0]) == {1: 16 * GIB, 2: 4 * GIB}


def test_a_bound_worker_runs_within_its_mask() -> None:
    """The user's own masks are kept as first masks, and run share follows the new ones."""
    free = REMOTE.replace('pin = "0-3"\n', "")
    policy = Policy(rules=(Rule("far", "here", nodes=frozenset({1})),))
    worker = run(free, policy)[-1].snapshot.workers[0]
    assert {t.affinity for t in worker.threads} == {frozenset(range(4, 8))}
    assert set(worker.first_masks.values()) == {frozenset(range(8))}
    assert worker.run_share == {1: 1.0}


def recorded(*workers: Worker, at_s: float = 1000.0, free: int = 2 * GIB) -> Snapshot:
    """Return a look at two nodes of 4 GiB."""
    states = tuple(NodeState(node, 4 * GIB, free, 0) for node in (0, 1))
    return seen.snapshot(*workers, at_s=at_s, node_states=states)


def test_a_recording_is_undone_before_another_policy_does_its_own() -> None:
    """What was moved in it lies where it was first; free memory is what it would have been."""
    before = recorded(seen.worker("x/0", seen.anon(GIB, 1)))
    after = recorded(seen.worker("x/0", seen.anon(GIB, 0)), at_s=1005.0)
    world = World(Policy())
    world.look(scene(before))
    look = world.look(scene(after))
    assert by_node(look.workers[0]) == {1: GIB}
    # As recorded, node 0 has 2 GiB free with the worker on it.
    assert [s.free_bytes for s in look.node_states] == [3 * GIB, GIB]


def test_what_cannot_be_moved_stays_as_it_was_recorded() -> None:
    """Shared memory is no matter of the simulation, and counts in no node's free bytes."""
    sizes = {(0, Kind.ANON, Mobility.MOVABLE): GIB, (1, Kind.FILE, Mobility.SHARED): 512 * MIB}
    look = World(Policy()).look(scene(recorded(seen.worker("x/0", seen.residency(sizes)))))
    assert by_node(look.workers[0]) == {0: GIB, 1: 512 * MIB}
    assert [s.free_bytes for s in look.node_states] == [2 * GIB, 2 * GIB]


def test_masks_that_were_narrowed_in_the_recording_are_the_users_here() -> None:
    """Unless they were narrowed before it began: then that is how the machine was found."""
    own, ours = frozenset({0, 1}), frozenset({0})
    thread = replace(seen.worker().threads[0], affinity=own)
    free = seen.worker("x/0", seen.anon(GIB), threads=(thread,))
    bound = replace(free, threads=(replace(thread, affinity=ours),), first_masks={thread.tid: own})
    world = World(Policy())
    world.look(scene(recorded(free)))
    assert world.look(scene(recorded(bound, at_s=1005.0))).workers[0].threads[0].affinity == own
    assert World(Policy()).look(scene(recorded(bound))).workers[0].threads[0].affinity == ours


def test_a_worker_shrinks_on_every_node_alike() -> None:
    """What it gives back is not told by node."""
    halves = {(0, Kind.ANON, Mobility.MOVABLE): GIB, (1, Kind.ANON, Mobility.MOVABLE): GIB}
    world = World(Policy())
    world.look(scene(recorded(seen.worker("x/0", seen.residency(halves)))))
    look = world.look(scene(recorded(seen.worker("x/0", seen.anon(GIB)), at_s=1005.0)))
    assert by_node(look.workers[0]) == {0: 512 * MIB, 1: 512 * MIB}


def test_a_worker_that_cannot_be_read_keeps_what_it_had() -> None:
    """And one that never could be read has no figures."""
    world = World(Policy())
    known, unknown = seen.worker("x/0", seen.anon(GIB)), seen.worker("x/1", None, problem="no")
    world.look(scene(recorded(known, unknown)))
    look = world.look(scene(recorded(replace(known, residency=None), unknown, at_s=1005.0)))
    assert look.workers[1].residency is None
    assert [s.free_bytes for s in look.node_states] == [GIB, 2 * GIB]


def test_other_processes_keep_their_cpus_busy() -> None:
    """What was recorded beside the workers stays; the workers' part goes where they run."""
    base = recorded(seen.worker("x/0", seen.anon(GIB), demand_cpus=1.5))
    states = tuple(replace(s, busy_cpus=2.0) for s in base.node_states)
    look = World(Policy()).look(scene(replace(base, node_states=states)))
    assert [s.busy_cpus for s in look.node_states] == [2.0, 2.0]
    assert [s.busy_cpus for s in scene(replace(base, node_states=states)).node_states] == [0.5, 2.0]


def test_the_same_scenes_give_the_same_run() -> None:
    """Figures of two runs can be compared because nothing in them is left to chance."""
    text = REMOTE + 'count = 5\nevery = "3s"\nstay = "20s"\ngrow = "50MiB/s"\n'
    assert run(text, rate(300 * MIB)) == run(text, rate(300 * MIB))
