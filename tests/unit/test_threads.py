"""Threads are read as seldom as will do, and never too seldom."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.kernel.procfs import NO_MASKS, Masks, ProcFs
from numad_py.kernel.stat import Stat
from numad_py.kernel.sysfs import SysFs
from numad_py.model.snapshot import Thread, WorkerId
from numad_py.model.topology import Topology
from numad_py.observe.threads import MASKS_S, Threads
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, FakeThread

PID = 100
ONE = WorkerId(PID, 5000)


class Counted(ProcFs):
    """Counts which threads and which masks are read."""

    def __init__(self, root: Path) -> None:
        """Start with nothing read."""
        super().__init__(root)
        self.listings = 0
        self.masks: Counter[int] = Counter()

    def threads(self, pid: int, masks: Masks = NO_MASKS) -> tuple[Thread, ...]:
        """Count, and read."""
        self.listings += 1
        return super().threads(pid, masks)

    def status(self, pid: int, tid: int | None = None) -> dict[str, str]:
        """Count, and read."""
        self.masks[tid or pid] += 1
        return super().status(pid, tid)


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
        return replace(stat, utime_ticks=ticks, stime_ticks=0, num_threads=threads)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return the process."""
    return Made(tmp_path)


def test_a_process_that_did_not_run_is_not_read_again(made: Made) -> None:
    """No CPU time, as many threads: they are where they were."""
    first = made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    again = made.threads.look(ONE, made.stat(200), 1005.0, made.topology)
    assert made.procfs.listings == 1
    assert again.threads == first.threads
    assert again.run_share == {}
    assert again.demand_cpus == 0.0


def test_one_that_ran_is_read_and_its_masks_are_not(made: Made) -> None:
    """Time is credited to the node where it ran; affinity is remembered."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    read = made.procfs.masks.copy()
    made.write(FakeThread(0, 100), FakeThread(3, 400))
    seen = made.threads.look(ONE, made.stat(500), 1005.0, made.topology)
    assert seen.run_share == {1: 1.0}
    assert seen.demand_cpus == pytest.approx(300 / made.procfs.clock_ticks / 5.0)
    assert made.procfs.masks == read


def test_a_new_thread_is_read_with_its_mask(made: Made) -> None:
    """Its number shows that it is there, even where it did not run yet."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    made.write(FakeThread(0, 100), FakeThread(2, 100), FakeThread(1, 0, affinity=(1,)))
    seen = made.threads.look(ONE, made.stat(200, threads=3), 1005.0, made.topology)
    assert [t.affinity for t in seen.threads][-1] == frozenset({1})


def test_masks_are_read_again_when_they_are_old(made: Made) -> None:
    """Somebody may have called taskset, which nothing tells."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    made.write(FakeThread(0, 100, affinity=(0,)), FakeThread(2, 100, affinity=(0,)))
    seen = made.threads.look(ONE, made.stat(200), 1000.0 + MASKS_S, made.topology)
    assert {t.affinity for t in seen.threads} == {frozenset({0})}


def test_masks_that_numad_py_has_set_are_read_at_once(made: Made) -> None:
    """The next decision stands on what is in force."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    made.write(FakeThread(0, 100, affinity=(0,)), FakeThread(2, 100, affinity=(0,)))
    made.threads.masks_changed()
    seen = made.threads.look(ONE, made.stat(200), 1001.0, made.topology)
    assert {t.affinity for t in seen.threads} == {frozenset({0})}


def test_a_thread_id_used_again_is_another_thread(made: Made) -> None:
    """Neither its mask nor its time are those of the one before."""
    made.threads.look(ONE, made.stat(200), 1000.0, made.topology)
    made.machine.processes = [
        FakeProcess(PID, ("x",), "", threads=(FakeThread(0, 30, affinity=(0,)),), start_ticks=6000)
    ]
    made.machine.write()
    seen = made.threads.look(ONE, made.stat(230), 1005.0, made.topology)
    assert seen.threads[0].affinity == frozenset({0})
    assert seen.demand_cpus == pytest.approx(30 / made.procfs.clock_ticks / 5.0)
