"""What the kernel grants a worker: read as seldom as will do, and never too seldom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.model.snapshot import MemoryStatus, WorkerId
from numad_py.observe.judged import Found
from numad_py.observe.limits import LIMITS_S, Limits, LimitsSeen
from numad_py.observe.pauses import CALM_TIMES
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, put

PID = 100
CGROUP = "/system.slice/server.service"
HUGE = 2 << 20
YOUNG_S = 600.0


class Counted(ProcFs):
    """Counts how often a status is read, and adds hugetlb pages to it."""

    reads = 0
    huge_pages = 0

    def memory(self, pid: int) -> MemoryStatus:
        """Count, and read."""
        self.reads += 1
        return replace(super().memory(pid), hugetlb_bytes=self.huge_pages * HUGE)


class Made:
    """One worker of a cpuset, and the watch on it."""

    def __init__(self, folder: Path, age_s: float) -> None:
        """Write it."""
        self.machine = FakeMachine(folder, [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))])
        self.write((0, 1, 2, 3), (0, 1))
        self.procfs = Counted(self.machine.procfs)
        self.limits = Limits(self.procfs, CgroupFs(self.machine.sysfs / "fs/cgroup"), YOUNG_S)
        self.now_s = 10_000.0
        start = round((self.now_s - age_s) * self.procfs.clock_ticks)
        stat = self.procfs.stat(PID)
        self.found = Found(WorkerId(PID, start), "x/0", "x", "x", None, CGROUP, stat)

    def write(self, cpus: tuple[int, ...], mems: tuple[int, ...]) -> None:
        """Let the worker be allowed these CPUs and nodes."""
        self.machine.processes = [FakeProcess(PID, ("x",), "", mems=mems, resident_kib=1 << 20)]
        self.machine.cpusets = {CGROUP: cpus}
        self.machine.write()

    def look(self, after_s: float = 5.0) -> LimitsSeen:
        """Let time pass, and look."""
        self.now_s += after_s
        return self.limits.look(self.found, self.now_s)

    def rest(self) -> None:
        """Let ten minutes pass in which nothing changes."""
        until_s = self.now_s + 600
        while self.now_s < until_s:
            self.look()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return an old worker."""
    return Made(tmp_path, 2 * YOUNG_S)


def test_at_rest_they_are_read_once_a_minute(made: Made) -> None:
    """Ever more seldom, at most in CALM_TIMES the shortest pause."""
    made.rest()
    assert made.procfs.reads <= 3 + 600 / (CALM_TIMES * LIMITS_S)


@pytest.mark.parametrize("what", ["cpuset", "nodes", "hugetlb"])
def test_after_ten_calm_minutes_a_change_shows_within_one(made: Made, what: str) -> None:
    """And from then on they are read every LIMITS_S again: who changes one changes more."""
    made.rest()
    before = made.look()
    changed_s = made.now_s
    if what == "hugetlb":
        made.procfs.huge_pages = 500
    else:
        cpus = (0, 1) if what == "cpuset" else (0, 1, 2, 3)
        made.write(cpus, (0,) if what == "nodes" else (0, 1))
    while (seen := made.look()) == before:
        assert made.now_s - changed_s <= CALM_TIMES * LIMITS_S
    reads = made.procfs.reads
    made.look(LIMITS_S)
    assert made.procfs.reads == reads + 1
    assert seen != before


def test_growth_shows_at_once(made: Made) -> None:
    """Its stat, which is read in any case, tells of it."""
    made.look()
    stat = made.found.stat._replace(resident_bytes=made.found.stat.resident_bytes + (64 << 20))
    made.found = made.found.now(stat)
    made.look(1.0)
    assert made.procfs.reads == 2


@pytest.mark.parametrize(("age_s", "each_look"), [(60.0, True), (2 * YOUNG_S, False)])
def test_hugetlb_of_one_that_may_be_loading_is_read_in_each_look(
    tmp_path: Path, age_s: float, *, each_look: bool
) -> None:
    """RSS leaves it out: a server that fills huge pages would look as if it had loaded."""
    made = Made(tmp_path, age_s)
    made.procfs.huge_pages = 10
    made.look()
    made.procfs.huge_pages = 500
    assert (made.look(1.0).memory.hugetlb_bytes == 500 * HUGE) is each_look


def test_before_a_worker_is_acted_on_they_are_read(made: Made) -> None:
    """Once in a look."""
    made.rest()
    made.write((0, 1), (0,))
    for _ in range(2):
        seen = made.limits.confirm(made.found.id, made.now_s + 1)
        assert seen.cpuset_cpus == frozenset({0, 1})
        assert seen.memory.mems_allowed == frozenset({0})
        reads = made.procfs.reads
    assert made.procfs.reads == reads


def test_after_a_change_of_the_topology_they_are_read(made: Made) -> None:
    """What is online is what a cpuset grants."""
    made.look()
    put(made.machine.sysfs / f"fs/cgroup{CGROUP}/cpuset.cpus.effective", "0\n")
    made.limits.changed()
    assert made.look(1.0).cpuset_cpus == frozenset({0})
