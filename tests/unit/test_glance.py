"""Cycles in which nothing has changed: no worker is looked at again, and nobody is missed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.act.actuator import DryActuator
from numad_py.daemon import Daemon
from numad_py.events import Mailbox, Wake
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.plan import Reason
from numad_py.model.snapshot import Snapshot
from numad_py.observe.glance import CALM_S
from numad_py.observe.observer import Observer
from numad_py.policy.load import defaults
from numad_py.serve.notify import Notifier
from numad_py.serve.status import status_document
from tests.fake_tree import FakeDevice, FakeMachine, FakeNode, FakeProcess, FakeThread, anon, put

SERVER = ("/opt/llama.cpp/llama-server", "-m", "x")
MIB = 1 << 20
HOME = FakeProcess(
    100, SERVER, anon({0: 256 * MIB}), affinity=(0, 1), resident_kib=256 * 1024, start_ticks=100
)

INIT = FakeProcess(1, ("/sbin/init",), "", comm="init")


class Counting(Observer):
    """Counts its whole looks."""

    wholes = 0

    def observe(self, *arguments: object, **named: object) -> Snapshot:
        """Count, and look."""
        self.wholes += 1
        return super().observe(*arguments, **named)  # type: ignore[arg-type]


class Machine:
    """Two nodes with a worker at home, and a daemon whose cycles the test runs."""

    def __init__(self, folder: Path) -> None:
        """Write it and run a first cycle."""
        self.made = FakeMachine(folder, [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))], [INIT, HOME])
        self.at_s = 1000.0
        self.made.write()
        procfs = ProcFs(self.made.procfs)
        cgroups = CgroupFs(f"{self.made.sysfs}/fs/cgroup")
        self.observer = Counting(procfs, SysFs(self.made.sysfs), cgroups, defaults())
        self.daemon = Daemon(
            defaults(),
            self.observer,
            DryActuator(procfs.uptime_s),
            load_policy=defaults,
            notifier=Notifier(None, None),
            mailbox=Mailbox(),
        )
        self.cycle(0.0)

    def have(self, *processes: FakeProcess) -> None:
        """Let there be these processes, made by forks."""
        self.made.processes = (INIT, *processes)
        self.made.forks += 1
        self.made.write()
        self.pass_time(0.0)

    def pass_time(self, seconds: float) -> None:
        """Let time go by."""
        self.at_s += seconds
        put(self.made.procfs / "uptime", f"{self.at_s:.2f} 0.00\n")

    def cycle(self, after_s: float = 5.0) -> int:
        """Let time go by, run a cycle, and return how many whole looks it took."""
        self.pass_time(after_s)
        before = self.observer.wholes
        self.daemon.cycle()
        return self.observer.wholes - before

    def reason(self) -> Reason:
        """Return what is said of the worker."""
        report = self.daemon.report
        assert report is not None
        return report.plan.decisions[0].reason


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return the machine."""
    return Machine(tmp_path)


def test_at_rest_two_of_three_cycles_are_a_glance(machine: Machine) -> None:
    """And each is a cycle all the same: counted, told, with the nodes as they are."""
    assert machine.reason() is Reason.HOME
    wholes = [machine.cycle() for _ in range(6)]
    assert wholes == [0, 0, 1, 0, 0, 1]
    assert machine.daemon.totals.cycles == 7
    assert machine.daemon.totals.decisions["rest", "home"] == 7
    machine.made.nodes = [FakeNode(0, (0, 1), free_mib=7), FakeNode(1, (2, 3))]
    machine.made.write()
    assert machine.cycle() == 0
    assert machine.daemon.report is not None
    assert machine.daemon.report.snapshot.node_states[0].free_bytes == 7 * MIB


def test_what_is_told_of_workers_grows_older_with_each_glance(machine: Machine) -> None:
    """Its time is that of the look it comes from; only the cycle is new."""
    first = machine.daemon.report
    machine.cycle()
    again = machine.daemon.report
    assert first is not None
    assert again is not None
    assert again.began_at_s == first.began_at_s
    assert again.snapshot.workers == first.snapshot.workers
    assert again.last_cycle_at > first.last_cycle_at
    later_s = again.began_at_s + 60
    assert again.aged(later_s).age_s == 60
    assert again.aged(later_s).cycle_age_s < 60


def test_the_cycle_told_is_the_one_that_is_counted(machine: Machine) -> None:
    """Whoever asks for the status sees it rise with each cycle, also where only a glance is taken.

    And a decision goes by the cycle in which it was made.
    """
    told = []
    for _ in range(6):
        machine.cycle()
        report = machine.daemon.report
        assert report is not None
        told.append((status_document(report, source="daemon")["cycle"], report.plan.cycle))
    assert [cycle for cycle, _ in told] == list(range(2, 8))
    assert [decided for _, decided in told] == [1, 1, 4, 4, 4, 7]
    assert machine.daemon.totals.cycles == 7


GROWN = replace(HOME, resident_kib=512 * 1024, numa_maps=anon({0: 512 * MIB}))
STRAY = replace(HOME, pid=200, affinity=None, numa_maps=anon({0: 200 * MIB, 1: 200 * MIB}))
THREADS = replace(HOME, threads=[FakeThread(0, 1), FakeThread(1, 1)])


@pytest.mark.parametrize(
    "processes",
    [(GROWN,), (HOME, STRAY), (THREADS,), (replace(HOME, start_ticks=2000),), ()],
    ids=["grown", "another", "threads", "its pid is another's", "ended"],
)
def test_what_changes_is_looked_at_in_the_same_cycle(
    machine: Machine, processes: tuple[FakeProcess, ...]
) -> None:
    """A glance tells: sizes, threads and who there is."""
    if not processes:
        (machine.made.procfs / "100").rename(machine.made.folder / "gone")
    machine.have(*processes)
    assert machine.cycle() == 1


def test_a_new_device_is_looked_at_in_the_same_cycle(machine: Machine) -> None:
    """An event says so, and the topology is another one."""
    machine.made.devices = [FakeDevice("0000:01:00.0", "0x030200", 1)]
    machine.made.write()
    machine.pass_time(0.0)
    machine.observer.topology_changed()
    assert machine.cycle() == 1


@pytest.mark.parametrize(
    "wake",
    [
        lambda daemon: daemon._handle(Wake("a move has ended")),
        lambda daemon: daemon.commands.reload() and daemon._handle(Wake("reloaded")),
    ],
)
def test_whatever_is_handled_calls_for_a_whole_look(
    machine: Machine, wake: Callable[[Daemon], object]
) -> None:
    """Events and commands may change what is decided."""
    wake(machine.daemon)
    assert machine.cycle() == 1


@pytest.mark.parametrize(
    "process",
    [
        replace(HOME, affinity=None, numa_maps=anon({0: 128 * MIB, 1: 128 * MIB})),
        replace(HOME, numa_maps=anon({0: 256 * MIB}, "bind:1")),
        replace(HOME, start_ticks=99_000),
    ],
    ids=["to be moved", "refused", "young"],
)
def test_while_anything_is_open_every_look_is_a_whole_one(
    machine: Machine, process: FakeProcess
) -> None:
    """Who waits or is refused may have another answer in the next cycle, who is young may load."""
    machine.have(process)
    assert machine.cycle(CALM_S) == 1
    assert [machine.cycle() for _ in range(3)] == [1, 1, 1]


def test_a_whole_look_is_due_after_a_while(machine: Machine) -> None:
    """However long the interval: what a glance does not tell is never older than CALM_S."""
    assert machine.cycle(CALM_S - 1) == 0
    assert machine.cycle(1.0) == 1
