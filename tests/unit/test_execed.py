"""A worker that becomes another program by exec: its memory is new, and so is all that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.decide.watch import watch
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.plan import Home, HomeSource, WorkerMemory
from numad_py.model.snapshot import Snapshot
from numad_py.observe.observer import Observer
from numad_py.policy.load import defaults
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, anon, link, put
from tests.unit.test_stability import worker

SERVER = ("/opt/llama.cpp/llama-server", "-m", "x")
HOME = Home(frozenset({1}), HomeSource.PLANNER, "")


class Machine:
    """Two nodes with one worker, and the look at them."""

    def __init__(self, folder: Path) -> None:
        """Write it."""
        self.made = FakeMachine(folder, [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))])
        self.at_s = 1000.0
        self.runs("/bin/sh", (0, 1), 0)
        self.observer = Observer(
            ProcFs(self.made.procfs),
            SysFs(self.made.sysfs),
            CgroupFs(f"{self.made.sysfs}/fs/cgroup"),
            defaults(),
        )

    def runs(self, exe: str, cpus: tuple[int, ...], node: int) -> None:
        """Let the process run this, allowed on these CPUs, with its memory there."""
        maps = anon({node: 1 << 30})
        process = FakeProcess(
            100, SERVER, maps, comm=Path(exe).name, affinity=cpus, resident_kib=1 << 20
        )
        self.made.processes = [process]
        self.made.write()
        link(self.made.procfs / "100/exe", exe)

    def look(self, after_s: float = 5.0) -> Snapshot:
        """Let time pass, and look."""
        self.at_s += after_s
        put(self.made.procfs / "uptime", f"{self.at_s:.2f} 0.00\n")
        return self.observer.observe()


def test_masks_and_memory_of_another_program_are_read_at_once(tmp_path: Path) -> None:
    """Size and number of threads happen to be the same; all the same it is young, and new."""
    machine = Machine(tmp_path)
    machine.look()
    (before,) = machine.look().workers
    machine.runs("/usr/bin/python3", (2, 3), 1)
    (after,) = machine.look().workers
    assert (after.id, after.label) == (before.id, before.label)
    assert after.threads[0].affinity == frozenset({2, 3})
    assert after.residency is not None
    assert after.residency.by_node() == {1: 1 << 30}
    assert before.age_s == pytest.approx(960.0)
    assert (after.age_s, after.execed_at_s) == (0.0, machine.at_s)
    assert machine.look().workers[0].age_s == 5.0


def test_what_was_learnt_of_the_program_before_is_forgotten() -> None:
    """What refused to move is gone with its memory; where it is at home is not."""
    before = WorkerMemory(
        home=HOME,
        acted_at_s=900.0,
        refused={0: 1 << 30},
        refused_at_s=900.0,
        attempts=3,
        left_at_s={0: 900.0},
        largest_bytes=1 << 40,
        grown_at_s=990.0,
        demand_cpus=8.0,
        seen_at_s=995.0,
    )
    seen = worker("x/0", {0: 100}, age_s=500.0)
    assert watch(before, seen, 1000.0).refused == {0: 1 << 30}
    assert watch(before, replace(seen, execed_at_s=995.0), 1000.0).refused == {0: 1 << 30}
    after = watch(before, replace(seen, age_s=2.0, execed_at_s=998.0), 1000.0)
    assert (after.home, after.acted_at_s, after.left_at_s) == (HOME, 900.0, {0: 900.0})
    assert (after.refused, after.attempts, after.grown_at_s) == ({}, 0, None)
    assert after.largest_bytes == 100 << 20
