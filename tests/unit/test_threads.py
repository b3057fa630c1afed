"""Threads are read as seldom as will do, and never too seldom."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree

import pytest

from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.stat import Stat
from numad_py.kernel.sysfs import SysFs
from numad_py.model.snapshot import Thread, WorkerId
from numad_py.model.topology import Topology
from numad_py.observe.pauses import CALM_TIMES
from numad_py.observe.threads import THREADS_S, Threads
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, FakeThread

PID = 100
ONE = WorkerId(PID, 5000)


class Counted(ProcFs):
    """Counts how often threads are read."""

    def __init__(self, root: Path) -> None:
        """Start with nothing read."""
        super().__init__(root)
        self.listings = 0
        self.read: list[int] = []

    def threads(self, pid: int) -> tuple[Thread, ...]:
        """Count, and read."""
        self.listings += 1
        return super().threads(pid)

    def thread(self, pid: int, tid: int) -> Thread:
        """Note which one, and read."""
        self.read.append(tid)
        return super().thread(pid, tid)


class Made:
    """A process of two threads on two nodes, and the watch on it."""

    def __init__(self, folder: Path) -> None:
        """Write it."""
        self.machine = FakeMachine(folder, [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))])
        self.write(FakeThread(0, 100), FakeThread(2, 100))
        self.procfs = Counted(self.machine.procfs)
        self.topology: Topology = SysFs(self.machine.sysfs).topology()
        self.threads = Threads(self.procfs)

    def write(self, *threads: FakeThread) -> None:
        """Let the process have these threads."""
        self.machine.processes = [FakeProcess(PID, ("x",), "", threads=threads)]
        self.machine.write()

    def stat(self, ticks: int, threads: int = 2) -> Stat:
        """Return the process's stat with so much CPU time."""
        stat = self.procfs.stat(PID)
        return stat._replace(utime_ticks=ticks, stime_ticks=0, num_threads=threads)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return the process."""
    return Made(tmp_path)


def test_threads_are_read_now_and_then(made: Made) -> None:
    """In between they are where they were; what the process spends is known all the same."""
    first = made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    again = made.threads.look(ONE, made.stat(450), 1005.0, made.topology)
    assert made.procfs.listings == 1
    assert again.threads == first.threads
    assert again.run_share == first.run_share == {0: 0.5, 1: 0.5}
    assert again.demand_cpus == pytest.approx(250 / made.procfs.clock_ticks / 5.0)


def test_time_is_credited_to_the_node_where_it_was_spent(made: Made) -> None:
    """Since the threads were read the last time, not since the last look."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    made.threads.look(ONE, made.stat(300), 1005.0, made.topology)
    made.write(FakeThread(0, 200), FakeThread(3, 400))
    seen = made.threads.look(ONE, made.stat(600), 1000.0 + THREADS_S, made.topology)
    assert made.procfs.listings == 2
    assert seen.run_share == {0: 0.25, 1: 0.75}


def test_a_process_that_did_not_run_keeps_no_cpu_busy(made: Made) -> None:
    """Nor has it a share anywhere, once its threads were read again."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    seen = made.threads.look(ONE, made.stat(200), 1000.0 + THREADS_S, made.topology)
    assert seen.run_share == {}
    assert seen.demand_cpus == 0.0


def test_a_new_thread_is_read_at_once(made: Made) -> None:
    """The number of threads shows that it is there."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    made.write(FakeThread(0, 100), FakeThread(2, 100), FakeThread(1, 0, affinity=(1,)))
    seen = made.threads.look(ONE, made.stat(200, threads=3), 1001.0, made.topology)
    assert [t.affinity for t in seen.threads][-1] == frozenset({1})


def test_masks_are_read_again_when_they_are_old(made: Made) -> None:
    """Somebody may have called taskset, which nothing tells."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    made.write(FakeThread(0, 100, affinity=(0,)), FakeThread(2, 100, affinity=(0,)))
    seen = made.threads.look(ONE, made.stat(200), 1000.0 + THREADS_S, made.topology)
    assert {t.affinity for t in seen.threads} == {frozenset({0})}


def test_masks_that_numad_py_has_set_are_read_at_once(made: Made) -> None:
    """The next decision stands on what is in force."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    made.write(FakeThread(0, 100, affinity=(0,)), FakeThread(2, 100, affinity=(0,)))
    made.threads.masks_changed()
    seen = made.threads.look(ONE, made.stat(200), 1001.0, made.topology)
    assert {t.affinity for t in seen.threads} == {frozenset({0})}


def test_a_thread_id_used_again_is_another_thread(made: Made) -> None:
    """What it ran counts in whole: it is not the difference to the one before."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    again = FakeProcess(PID, ("x",), "", threads=(FakeThread(3, 30),), start_ticks=6000)
    made.machine.processes = [again]
    made.machine.write()
    seen = made.threads.look(ONE, made.stat(230, threads=1), 1000.0 + THREADS_S, made.topology)
    assert seen.run_share == {1: 1.0}


def test_of_more_threads_the_new_ones_alone_are_read(made: Made) -> None:
    """A server of hundreds starts one for a request: the others' masks are known."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    made.write(FakeThread(0, 100), FakeThread(2, 100), FakeThread(1, 50))
    made.procfs.read.clear()
    seen = made.threads.look(ONE, made.stat(250, threads=3), 1005.0, made.topology)
    assert made.procfs.read == [PID + 2]
    assert [t.tid for t in seen.threads] == [PID, PID + 1, PID + 2]


def test_of_fewer_threads_none_is_read(made: Made) -> None:
    """Listing them tells which one is gone."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    rmtree(made.machine.procfs / f"{PID}/task/{PID + 1}")
    made.procfs.read.clear()
    seen = made.threads.look(ONE, made.stat(200, threads=1), 1005.0, made.topology)
    assert made.procfs.read == []
    assert [t.tid for t in seen.threads] == [PID]


def test_threads_that_come_and_go_do_not_put_off_the_others(made: Made) -> None:
    """All are read as often as ever, and each counts with all that it ran since."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    made.write(FakeThread(0, 100), FakeThread(2, 100), FakeThread(3, 50))
    made.threads.look(ONE, made.stat(250, threads=3), 1000.0 + THREADS_S - 1, made.topology)
    made.write(FakeThread(0, 200), FakeThread(2, 100), FakeThread(3, 100, affinity=(3,)))
    seen = made.threads.look(ONE, made.stat(400, threads=3), 1000.0 + THREADS_S, made.topology)
    assert made.procfs.listings == 2
    assert seen.run_share == {0: 0.5, 1: 0.5}
    assert seen.threads[2].affinity == frozenset({3})


def test_after_ten_calm_minutes_a_new_mask_shows_within_one(made: Made) -> None:
    """Threads at rest are read ever more seldom, at most in CALM_TIMES the shortest pause."""
    now_s = 1000.0
    while now_s < 1600:
        made.threads.look(ONE, made.stat(200), now_s, made.topology)
        now_s += 5
    calm = made.procfs.listings
    assert calm <= 3 + 600 / (CALM_TIMES * THREADS_S)
    made.write(FakeThread(0, 100, affinity=(0,)), FakeThread(2, 100, affinity=(0,)))
    changed_s = now_s
    while True:
        seen = made.threads.look(ONE, made.stat(200), now_s, made.topology)
        if {t.affinity for t in seen.threads} == {frozenset({0})}:
            break
        now_s += 5
        assert now_s - changed_s <= CALM_TIMES * THREADS_S
    assert made.procfs.listings == calm + 1


def test_before_a_worker_is_acted_on_its_masks_are_read(made: Made) -> None:
    """Once in a look; what it spent since the last look stays as it is."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    first = made.threads.look(ONE, made.stat(300), 1005.0, made.topology)
    made.write(FakeThread(0, 150, affinity=(0,)), FakeThread(2, 150, affinity=(0,)))
    for _ in range(2):
        seen = made.threads.confirm(ONE, 1005.0, made.topology)
        assert {t.affinity for t in seen.threads} == {frozenset({0})}
        assert seen.demand_cpus == first.demand_cpus
    assert made.procfs.listings == 2
