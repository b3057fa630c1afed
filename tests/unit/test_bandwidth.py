"""A worker's memory traffic is a rate between two looks at a group that is all its own."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.resctrl import ResctrlFs
from numad_py.model.snapshot import Bandwidth, WorkerId
from numad_py.observe.bandwidth import OTHERS_S, BandwidthMeter
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, FakeResctrlGroup

PID = 100
ONE = WorkerId(PID, 5000)
GIB = 1 << 30


class Counted(ResctrlFs):
    """Counts how often a group's threads are read."""

    reads = 0

    def holds_only(self, res: str, mon: str, tids: AbstractSet[int]) -> bool:
        """Count, and read."""
        self.reads += 1
        return super().holds_only(res, mon, tids)


class Made:
    """A worker of two threads in a monitoring group, and the meter on it."""

    def __init__(self, folder: Path) -> None:
        """Write nothing yet."""
        self._folder = folder
        self.meter: BandwidthMeter | None = None
        self.resctrl = Counted(folder / "sys/fs/resctrl")

    def look(
        self, now_s: float, traffic: tuple[int, int], *, group: str = "m", tids: tuple[int, ...]
    ) -> Bandwidth | None:
        """Let the group have counted so much, and look."""
        machine = FakeMachine(
            self._folder,
            [FakeNode(0, (0, 1))],
            [FakeProcess(PID, ("x",), "", last_cpus=(0, 1), resctrl=("/", group))],
            resctrl=[
                FakeResctrlGroup(traffic=[(0, 0)]),
                FakeResctrlGroup("", group, tids, [traffic]),
            ],
        ).write()
        if self.meter is None:
            self.meter = BandwidthMeter(ProcFs(machine.procfs), self.resctrl)
        return self.meter.look(ONE, now_s)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return the worker."""
    return Made(tmp_path)


def test_traffic_is_a_rate_between_two_looks(made: Made) -> None:
    """The first look has nothing to compare with."""
    assert made.look(10.0, (GIB, 2 * GIB), tids=(100, 101)) is None
    seen = made.look(14.0, (5 * GIB, 10 * GIB), tids=(100, 101))
    assert seen == Bandwidth(local_bytes_per_s=GIB, total_bytes_per_s=2 * GIB)


@pytest.mark.parametrize("tids", [(100,), (100, 101, 7), ()])
def test_a_group_that_is_not_just_the_workers_tells_nothing(
    made: Made, tids: tuple[int, ...]
) -> None:
    """One of its threads elsewhere, or another's in it: the figure would be somebody else's."""
    made.look(10.0, (0, 0), tids=(100, 101))
    assert made.look(14.0, (GIB, GIB), tids=tids) is None
    assert made.look(18.0, (2 * GIB, 2 * GIB), tids=(100, 101)) is None


def test_a_group_that_is_not_its_own_is_read_once_a_minute(made: Made) -> None:
    """It may hold all threads of a machine; another group of the worker's is read at once."""
    made.look(10.0, (0, 0), tids=(100, 101, 7))
    tasks = made.resctrl.reads
    for now_s in (15.0, 40.0, 10.0 + OTHERS_S - 1):
        assert made.look(now_s, (GIB, GIB), tids=(100, 101)) is None
    assert made.resctrl.reads == tasks
    made.look(10.0 + OTHERS_S, (GIB, GIB), tids=(100, 101))
    assert made.look(14.0 + OTHERS_S, (GIB, GIB), tids=(100, 101)) is not None
    made.look(100.0, (GIB, GIB), tids=(100, 101, 7))
    made.look(105.0, (GIB, GIB), group="own", tids=(100, 101))
    assert made.look(110.0, (GIB, GIB), group="own", tids=(100, 101)) is not None


def test_of_a_worker_in_no_group_nothing_is_read(made: Made) -> None:
    """The root's list of threads holds those of the whole machine."""
    for now_s in (10.0, 80.0, 150.0):
        assert made.look(now_s, (0, 0), group="", tids=(100, 101)) is None
    assert made.resctrl.reads == 0


def test_another_group_has_other_counters(made: Made) -> None:
    """The difference between two groups' counters is no traffic."""
    made.look(10.0, (0, 0), tids=(100, 101))
    assert made.look(14.0, (9 * GIB, 9 * GIB), group="other", tids=(100, 101)) is None


def test_a_counter_that_began_anew_is_no_negative_rate(made: Made) -> None:
    """A group that was made anew under its old name counts from nothing."""
    made.look(10.0, (9 * GIB, 9 * GIB), tids=(100, 101))
    seen = made.look(14.0, (GIB, GIB), tids=(100, 101))
    assert seen == Bandwidth(0.0, 0.0)


def test_without_resctrl_there_is_no_figure(tmp_path: Path) -> None:
    """None is not nothing."""
    meter = BandwidthMeter(ProcFs(tmp_path), ResctrlFs(tmp_path / "resctrl"))
    assert meter.look(ONE, 10.0) is None
