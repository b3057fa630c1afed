"""The figures of a run."""

from __future__ import annotations

from itertools import pairwise

from numad_py.model.cycle import Cycle, Said
from numad_py.model.machine import NodeState
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import MemoryMove, Reason, Verdict
from numad_py.model.snapshot import Worker
from numad_py.policy.schema import PlacementPolicy
from numad_py.replay.compare import MOST_POINTS, Figures, Tally
from tests.unit import seen
from tests.unit.seen import GIB

POLICY = PlacementPolicy(headroom=0.0)


def said(worker: Worker, *moves: MemoryMove, home: frozenset[int] | None = None) -> Said:
    """Return what is said of a worker."""
    verdict, reason = Verdict.REST, Reason.HOME
    if moves:
        verdict, reason = Verdict.ACT, Reason.REMOTE_MEMORY
    return Said(worker.id, worker.label, verdict, reason, home, moves=moves)


def at(at_s: float, node: int, *outcomes: Outcome, runs_on: int = 0, size: int = GIB) -> Cycle:
    """Return a cycle with one worker whose home is node 0 and whose memory is on a node."""
    worker = seen.worker("x/0", seen.anon(size, node), run_share={runs_on: 1.0})
    home = frozenset({0})
    return Cycle(seen.snapshot(worker, at_s=at_s), (said(worker, home=home),), outcomes)


def moved(source: int, target: int, at_s: float, size: int = GIB) -> Outcome:
    """Return a move that ended then."""
    decision = seen.rests(seen.worker("x/0", seen.anon(GIB)))
    return Outcome(decision, End.DONE, at_s - 1, 1.0, moved={(source, target): size})


def figures(*cycles: Cycle) -> Figures:
    """Return what these come to."""
    tally = Tally("run", POLICY)
    for cycle in cycles:
        tally.add(cycle)
    return tally.figures()


def test_the_mean_is_over_time_and_not_over_cycles() -> None:
    """Remote for 30 s and home for 10 s, however often somebody looked: a quarter."""
    found = figures(at(0, 1), at(30, 0), at(35, 0), at(40, 0))
    assert (found.locality_mean, found.locality_end) == (0.25, 1.0)
    assert (found.local_after_s, found.duration_s, found.cycles) == (30.0, 40.0, 4)
    assert found.locality == ((0, 0.0), (30, 1.0), (35, 1.0), (40, 1.0))


def test_what_never_comes_home_is_never_local() -> None:
    """Not after 0 seconds, and not after all of them."""
    assert figures(at(0, 1), at(5, 1)).local_after_s is None


def test_bytes_weigh_and_not_workers() -> None:
    """A large worker that is home outweighs a small one that is not."""
    large = seen.worker("x/0", seen.anon(3 * GIB, 0))
    small = seen.worker("x/1", seen.anon(GIB, 1))
    home = frozenset({0})
    cycle = Cycle(seen.snapshot(large, small), (said(large, home=home), said(small, home=home)))
    assert figures(cycle).locality_end == 0.75


def test_being_near_does_not_hang_on_what_is_called_home() -> None:
    """Memory that lies at home, with threads elsewhere, is far from all that use it."""
    found = figures(at(0, 0, runs_on=1))
    assert (found.locality_end, found.near_end) == (1.0, 0.0)


def test_a_worker_without_home_counts_by_where_it_runs() -> None:
    """A policy that gives no homes is not the better for it."""
    worker = seen.worker("x/0", seen.anon(GIB, 1), run_share={0: 0.75, 1: 0.25})
    assert figures(Cycle(seen.snapshot(worker), (said(worker),))).locality_end == 0.25


def test_nothing_movable_has_no_locality() -> None:
    """No memory is neither near nor far."""
    found = figures(Cycle(seen.snapshot()))
    assert (found.locality_mean, found.near_mean, found.workers) == (None, None, 0)


def test_memory_that_comes_back_within_the_window_was_moved_in_vain() -> None:
    """There and back in 100 s is a ping-pong; back after 20 minutes is not, nor is going on."""
    there, back = moved(0, 1, 10), moved(1, 0, 110)
    assert figures(at(10, 1, there), at(110, 0, back)).ping_pongs == 1
    assert figures(at(10, 1, there), at(1210, 0, moved(1, 0, 1210))).ping_pongs == 0
    assert figures(at(10, 1, there), at(110, 0, moved(1, 2, 110))).ping_pongs == 0


def test_a_few_pages_are_no_move() -> None:
    """Their bytes count all the same."""
    found = figures(at(10, 1, moved(0, 1, 10)), at(20, 1, moved(1, 0, 20, 4096)))
    assert (found.moves, found.moves_most, found.ping_pongs) == (1, 1, 0)
    assert found.moved_bytes == GIB + 4096
    assert found.ends == {"done": 2}


def test_a_plan_beyond_the_room_of_a_node_is_counted() -> None:
    """By what all its moves together bring there."""
    workers = [seen.worker(f"x/{i}", seen.anon(GIB, 1)) for i in (0, 1)]
    move = MemoryMove(1, 0, GIB)
    for free, broken in ((2 * GIB, 0), (2 * GIB - 1, 1)):
        states = (NodeState(0, 4 * GIB, free, 0), NodeState(1, 4 * GIB, 0, 0))
        snapshot = seen.snapshot(*workers, node_states=states)
        found = figures(Cycle(snapshot, tuple(said(worker, move) for worker in workers)))
        assert found.headroom_broken == broken
        assert found.decisions == {"act remote-memory": 2}


def test_the_curve_of_a_long_run_is_thinned_out() -> None:
    """Evenly: its points stay few, and as far from each other; the last look is among them."""
    found = figures(*(at(float(second), 0) for second in range(1000)))
    times = [at_s for at_s, _ in found.locality]
    assert MOST_POINTS // 2 <= len(times) < MOST_POINTS
    assert {later - earlier for earlier, later in pairwise(times[:-1])} == {8.0}
    assert times[-1] == 999.0
