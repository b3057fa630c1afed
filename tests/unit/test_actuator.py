"""The doer with its thread: real threads are bound, made memory is moved."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from numad_py.act.actuator import DryActuator
from numad_py.act.journal import Journal
from numad_py.act.real import RealActuator
from numad_py.errors import NumadError
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision, MemoryMove
from numad_py.model.snapshot import WorkerId
from numad_py.policy.schema import MigrationPolicy, PlacementPolicy, Policy
from tests.fake_tree import FakeMachine, FakeNode
from tests.unit.fake_kernel import BASE, THP, FakeKernel, Life, MadeProcFs
from tests.unit.moving import decision

CHILD = """
import threading, time
for _ in range(3):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("ready", flush=True)
time.sleep(60)
"""
SIZE = 8 * THP
CHUNK = THP
SOON_S = 5.0
"""Nothing here takes so long unless it hangs."""


class Gate:
    """Holds the mover inside a call until it is opened."""

    def __init__(self, at_call: int) -> None:
        """Close it for one call."""
        self.at_call = at_call
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, calls: int) -> None:
        """Wait at that call."""
        if calls == self.at_call:
            self.reached.set()
            assert self.opened.wait(SOON_S)


class Bench:
    """An actuator, what it works on, and what it told."""

    def __init__(self, folder: Path, worker: WorkerId) -> None:
        """Give the worker eight hugetlb pages on node 1, to be moved one with each call."""
        self.worker = worker
        self.kernel = FakeKernel()
        self.kernel.area(BASE, SIZE, page_kib=2048)
        self.kernel.fill(BASE, SIZE, 1, folio=THP)
        self.procfs = MadeProcFs(self.kernel)
        self.journal = Journal(folder / "state", "boot")
        self.told = threading.Semaphore(0)
        pool = {2048: (SIZE // THP, SIZE // THP)}
        nodes = [FakeNode(0, [0], free_mib=900, huge_pages=pool), FakeNode(1, [1])]
        self.machine = FakeMachine(folder, nodes).write()
        self.actuator = RealActuator(
            Policy(migration=MigrationPolicy(chunk_bytes=CHUNK, rate_bytes_per_s=None, duty=1.0)),
            self.procfs,
            SysFs(self.machine.sysfs),
            CgroupFs(self.machine.sysfs / "fs/cgroup"),
            self.kernel,
            self.journal,
            self.told.release,
        )

    def decision(self, number: int = 1, bind_cpus: frozenset[int] | None = None) -> Decision:
        """Return one to bring all of it to node 0."""
        moves = [MemoryMove(1, 0, SIZE)]
        return decision(self.worker, moves, bind_cpus=bind_cpus, number=number)

    def outcomes(self, count: int, within_s: float = SOON_S) -> tuple[Outcome, ...]:
        """Wait to be told as often, and return what has ended."""
        for _ in range(count):
            assert self.told.acquire(timeout=within_s), "no outcome was told of"
        return self.actuator.outcomes()

    def masks(self) -> set[frozenset[int] | None]:
        """Return the masks that the worker's threads have."""
        return {thread.affinity for thread in self.procfs.threads(self.worker.pid)}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Run a worker of four threads and an actuator."""
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        worker = WorkerId(process.pid, MadeProcFs(FakeKernel()).stat(process.pid).start_ticks)
        made = Bench(tmp_path, worker)
        yield made
        made.actuator.stop(SOON_S)
        made.journal.close()
        process.kill()


def test_memory_does_not_go_where_no_thread_may_run(bench: Bench) -> None:
    """Its user has pinned it elsewhere since that was decided: nothing is moved after it."""
    cpu = min(os.sched_getaffinity(0))
    elsewhere = frozenset({max(os.sched_getaffinity(0)) + 1})
    bench.actuator.submit(bench.decision(bind_cpus=elsewhere))
    (outcome,) = bench.outcomes(1)
    assert (outcome.end, outcome.threads_bound, outcome.threads_left) == (End.FAILED, 0, 4)
    assert outcome.error is not None
    assert "pinned elsewhere" in outcome.error
    assert not outcome.moved
    # Where some thread is there already, memory follows it.
    os.sched_setaffinity(bench.worker.pid, {cpu})
    others = [t.tid for t in bench.procfs.threads(bench.worker.pid) if t.tid != bench.worker.pid]
    other = max(os.sched_getaffinity(0))
    if other == cpu:
        pytest.skip("one CPU")
    for tid in others:
        os.sched_setaffinity(tid, {other})
    bench.actuator.submit(bench.decision(number=2, bind_cpus=frozenset({cpu})))
    (outcome,) = bench.outcomes(1)
    assert (outcome.threads_bound, outcome.threads_left) == (0, 3)
    assert outcome.moved == {(1, 0): SIZE}


def test_a_decision_is_carried_out_told_and_measured(bench: Bench) -> None:
    """Threads are bound before memory is moved; the outcome has both, and what was found after."""
    cpu = min(os.sched_getaffinity(0))
    masks_at_call = []
    bench.kernel.on_call = lambda _calls: masks_at_call.append(bench.masks())
    bench.actuator.submit(bench.decision(bind_cpus=frozenset({cpu})))
    (outcome,) = bench.outcomes(1)
    assert outcome.decision.id == "1:x/0"
    assert (outcome.end, outcome.error) == (End.DONE, None)
    assert (outcome.threads_bound, outcome.threads_left) == (4, 0)
    assert outcome.moved == {(1, 0): SIZE}
    assert outcome.after is not None
    assert outcome.after.by_node() == {0: SIZE}
    assert masks_at_call[0] == {frozenset({cpu})}
    threads = ProcFs().threads(bench.worker.pid)
    first = bench.actuator.first_masks(bench.worker, threads)
    assert set(first) == {thread.tid for thread in threads}
    assert set(first.values()) == {frozenset(os.sched_getaffinity(0))}
    assert bench.actuator.outcomes() == ()


def test_masks_are_given_back_on_demand(bench: Bench) -> None:
    """Each thread has its first mask again, and none is ours any more."""
    before = bench.masks()
    bench.actuator.submit(bench.decision(bind_cpus=frozenset({min(os.sched_getaffinity(0))})))
    bench.outcomes(1)
    assert bench.actuator.restore_all() == 1
    assert bench.masks() == before
    threads = ProcFs().threads(bench.worker.pid)
    assert bench.actuator.first_masks(bench.worker, threads) == {}


def test_affinity_is_left_alone_where_a_decision_says_nothing_of_it(bench: Bench) -> None:
    """Memory follows the threads; the journal stays empty."""
    before = bench.masks()
    bench.actuator.submit(bench.decision())
    assert bench.outcomes(1)[0].threads_bound == 0
    assert bench.masks() == before
    assert bench.journal.entries() == ()


def test_progress_is_told_while_memory_moves(bench: Bench) -> None:
    """Bytes moved so far by worker, of the move under way; nothing before and after."""
    gate = bench.kernel.on_call = Gate(at_call=3)
    assert bench.actuator.progress() == {}
    bench.actuator.submit(bench.decision())
    assert gate.reached.wait(SOON_S)
    assert bench.actuator.progress() == {bench.worker: 3 * CHUNK}
    assert bench.actuator.busy() == 1
    gate.opened.set()
    bench.outcomes(1)
    assert bench.actuator.progress() == {}
    assert bench.actuator.busy() == 0


def test_a_pause_ends_all_that_waits_and_a_resume_goes_on(bench: Bench) -> None:
    """The move under way stops within its chunk, those behind it are not begun; later ones are."""
    gate = bench.kernel.on_call = Gate(at_call=3)
    for number in (1, 2, 3):
        bench.actuator.submit(bench.decision(number))
    assert gate.reached.wait(SOON_S)
    bench.actuator.pause()
    gate.opened.set()
    stopped = bench.outcomes(3)
    assert [o.decision.id for o in stopped] == ["1:x/0", "2:x/0", "3:x/0"]
    assert [o.end for o in stopped] == [End.STOPPED] * 3
    assert [o.moved_bytes for o in stopped] == [4 * CHUNK, 0, 0]
    assert len(bench.kernel.calls) == 4
    bench.actuator.resume()
    bench.actuator.submit(bench.decision(4))
    assert [(o.end, o.moved_bytes) for o in bench.outcomes(1)] == [(End.DONE, 4 * CHUNK)]


def test_what_is_submitted_in_a_pause_is_not_carried_out(bench: Bench) -> None:
    """Neither thread nor page is touched."""
    before = bench.masks()
    bench.actuator.pause()
    bench.actuator.submit(bench.decision(bind_cpus=frozenset({min(os.sched_getaffinity(0))})))
    (outcome,) = bench.outcomes(1)
    assert (outcome.end, outcome.moved_bytes) == (End.STOPPED, 0)
    assert bench.masks() == before
    assert bench.kernel.calls == []


def test_nothing_is_bound_once_masks_are_being_given_back(bench: Bench) -> None:
    """A decision that has just begun when somebody says restore does not bind behind its back."""
    before = bench.masks()
    with bench.actuator._lock:  # as restore_all holds it
        bench.actuator.submit(bench.decision(bind_cpus=frozenset({min(os.sched_getaffinity(0))})))
        deadline = time.monotonic() + SOON_S
        while not bench.actuator.progress() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        bench.actuator.pause()
    assert [o.end for o in bench.outcomes(1)] == [End.STOPPED]
    assert bench.masks() == before


def test_stop_waits_for_the_chunk_under_way(bench: Bench) -> None:
    """When it returns the thread has ended, and nothing more was handed in."""
    gate = bench.kernel.on_call = Gate(at_call=2)
    bench.actuator.submit(bench.decision())
    assert gate.reached.wait(SOON_S)
    threading.Timer(0.05, gate.opened.set).start()
    bench.actuator.stop(SOON_S)
    assert not bench.actuator._thread.is_alive()
    assert [o.end for o in bench.actuator.outcomes()] == [End.STOPPED]
    assert len(bench.kernel.calls) == 3


def test_stop_does_not_wait_for_a_call_that_hangs(bench: Bench) -> None:
    """A call can be neither broken off nor killed; the service is to end in time all the same."""
    gate = bench.kernel.on_call = Gate(at_call=0)
    bench.actuator.submit(bench.decision())
    assert gate.reached.wait(SOON_S)
    stopper = threading.Thread(target=bench.actuator.stop, args=(0.1,))
    stopper.start()
    stopper.join(2.0)
    assert not stopper.is_alive()
    gate.opened.set()
    bench.outcomes(1)


@pytest.mark.parametrize(
    "error", [OSError(1, "move_pages: not permitted"), NumadError("odd"), ZeroDivisionError("bug")]
)
def test_whatever_goes_wrong_is_told_and_the_next_is_carried_out(
    bench: Bench, error: Exception
) -> None:
    """The decision ends as failed with the error's words and what it moved before."""

    def on_call(calls: int) -> None:
        if calls == 2:
            bench.kernel.on_call = lambda _calls: None
            raise error

    bench.kernel.on_call = on_call
    bench.actuator.submit(bench.decision(1))
    bench.actuator.submit(bench.decision(2))
    failed, done = bench.outcomes(2)
    assert (failed.end, failed.moved_bytes) == (End.FAILED, 2 * CHUNK)
    assert str(error) in (failed.error or "")
    assert (done.end, done.moved_bytes) == (End.DONE, 6 * CHUNK)


def test_the_journal_forgets_a_worker_that_is_gone(bench: Bench) -> None:
    """Its masks ended with it; one that lives keeps its entry."""
    cpu = frozenset({min(os.sched_getaffinity(0))})
    bench.actuator.submit(bench.decision(1, bind_cpus=cpu))
    bench.outcomes(1)
    assert bench.journal.entry(bench.worker) is not None
    bench.kernel.life = Life.REAPED
    bench.actuator.submit(bench.decision(2, bind_cpus=cpu))
    assert [o.end for o in bench.outcomes(1)] == [End.GONE]
    assert bench.journal.entry(bench.worker) is None


def test_a_journal_that_cannot_be_written_keeps_no_outcome_back(
    bench: Bench, tmp_path: Path
) -> None:
    """To forget a worker that is gone can wait: the cycle gets its outcomes and goes on."""
    cpu = frozenset({min(os.sched_getaffinity(0))})
    bench.actuator.submit(bench.decision(1, bind_cpus=cpu))
    bench.outcomes(1)
    (tmp_path / "state/journal.jsonl").unlink()
    (tmp_path / "state/journal.jsonl").mkdir()
    bench.kernel.life = Life.REAPED
    bench.actuator.submit(bench.decision(2))
    assert [o.end for o in bench.outcomes(1)] == [End.GONE]
    assert bench.actuator.busy() == 0


def test_headroom_is_kept_by_the_policy_of_the_moment(bench: Bench) -> None:
    """A new policy holds from the next decision on: here it leaves no room on the target."""
    bench.kernel.areas.clear()
    bench.kernel.area(BASE, SIZE)
    bench.actuator.use(Policy(placement=PlacementPolicy(headroom=0.9)))
    bench.actuator.submit(bench.decision())
    assert [o.end for o in bench.outcomes(1)] == [End.NO_ROOM]
    assert bench.kernel.calls == []


def test_a_dry_run_touches_nothing_and_says_so() -> None:
    """Every decision ends as simulated, at once."""
    dry = DryActuator(lambda: 42.0)
    what = decision(WorkerId(1, 1), [MemoryMove(1, 0, SIZE)])
    dry.submit(what)
    assert dry.busy() == 0
    assert dry.outcomes() == (Outcome(what, End.SIMULATED, 42.0, 0.0),)
    assert dry.outcomes() == ()
    assert (dry.restore_all(), dry.first_masks(what.worker, ()), dry.progress()) == (0, {}, {})
