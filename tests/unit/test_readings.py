"""What reading leaves behind: little, however many areas there are, and no odd line unsaid."""

from __future__ import annotations

import gc
import tracemalloc
from array import array
from pathlib import Path

import pytest

from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.snapshot import MemoryStatus, WorkerId
from numad_py.observe import readings as module
from numad_py.observe.observer import Observer
from numad_py.observe.readings import Readings, Subject, left_out
from numad_py.policy.load import defaults
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, anon, area

PID = 100
ONE = WorkerId(PID, 5000)
AREAS = 4_000
PAGE = 4096
STEP = 1 << 20
KEPT_BYTES = 64 << 10
"""What may be left behind of a worker whose areas tell nothing that maps does not."""
SERVER = ("/opt/llama.cpp/llama-server", "-m", "x")


def readings_of(folder: Path, numa_maps: str) -> Readings:
    """Return readings of a machine with one worker, whose pages all are on node 0."""
    machine = FakeMachine(
        folder, [FakeNode(0, (0, 1))], [FakeProcess(PID, SERVER, numa_maps)]
    ).write()
    return Readings(
        ProcFs(machine.procfs),
        CgroupFs(machine.sysfs / "fs/cgroup"),
        lambda _pid, addresses: array("i", [0]) * len(addresses),
    )


def subject(areas: int) -> Subject:
    """Return the worker, with a page in each area."""
    return Subject(ONE, MemoryStatus(anon_bytes=areas * PAGE), None)


def left_behind(readings: Readings, areas: int, *, keep_areas: bool = True) -> int:
    """Return the bytes that reading in full and sampling leave behind, each time anew."""
    for _ in range(2):
        readings.full(subject(areas), 1000.0, lambda: None, keep_areas=keep_areas)
    gc.collect()
    readings.forget_except(frozenset())
    tracemalloc.start()
    try:
        readings.full(subject(areas), 1000.0, lambda: None, keep_areas=keep_areas)
        readings.sample(subject(areas), 1000.0)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def neighbours(count: int, policy: str = "default") -> str:
    """Return anonymous areas of a page, one beside the other."""
    return "".join(
        area({0: 1}, start=0x7F0000000000 + i * PAGE, policy=policy, figures={"anon": 1})
        for i in range(count)
    )


@pytest.mark.parametrize("policy", ["default", "bind:0"])
def test_many_neighbouring_areas_are_remembered_as_one(tmp_path: Path, policy: str) -> None:
    """A process may have 65,000, and ten such processes must fit into the daemon's memory."""
    readings = readings_of(tmp_path, neighbours(AREAS, policy))
    assert left_behind(readings, AREAS) < KEPT_BYTES


def apart(count: int) -> str:
    """Return areas that lie apart, every other one bound by its user."""
    return "".join(
        area(
            {0: 1},
            start=0x7F0000000000 + i * STEP,
            policy="bind:0" if i % 2 else "default",
            figures={"anon": 1},
        )
        for i in range(count)
    )


def test_beyond_so_many_areas_they_are_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found out anew each time; that it cannot be told what may be moved is said."""
    readings = readings_of(tmp_path, apart(AREAS))
    assert left_behind(readings, AREAS) > 8 * KEPT_BYTES
    assert readings.knows_areas(ONE)
    readings.forget_except(frozenset())
    monkeypatch.setattr(module, "MOST_AREAS", AREAS // 4)
    assert left_behind(readings, AREAS) < KEPT_BYTES
    assert not readings.knows_areas(ONE)
    found = readings.sample(subject(AREAS), 1000.0).residency
    assert found is not None
    assert not found.mobility_known
    assert found.total_bytes() == AREAS * PAGE


def test_areas_that_no_sample_will_ask_for_are_not_remembered(tmp_path: Path) -> None:
    """Nor do they stay from a time when the worker was larger."""
    readings = readings_of(tmp_path, apart(100))
    readings.full(subject(100), 1000.0, lambda: None)
    assert readings.knows_areas(ONE)
    readings.full(subject(100), 1005.0, lambda: None, keep_areas=False)
    assert not readings.knows_areas(ONE)
    readings.full(subject(100), 1010.0, lambda: None)
    assert readings.knows_areas(ONE), "the same text is read again for them"


def test_lines_that_cannot_be_read_are_counted_and_said(tmp_path: Path) -> None:
    """Figures that are too low look like any others."""
    maps = anon({0: 1 << 26}) + "7f9000000000 forward N0=12 kernelpagesize_kB=4\n"
    machine = FakeMachine(
        tmp_path,
        [FakeNode(0, (0, 1))],
        [FakeProcess(PID, SERVER, maps, resident_kib=1 << 16)],
    ).write()
    observer = Observer(
        ProcFs(machine.procfs),
        SysFs(machine.sysfs),
        CgroupFs(machine.sysfs / "fs/cgroup"),
        defaults(),
    )
    seen = observer.observe()
    (worker,) = seen.workers
    assert seen.malformed == 1
    assert worker.residency is not None
    assert worker.problem == left_out(worker.residency)
    assert "1 line " in (worker.problem or "")
