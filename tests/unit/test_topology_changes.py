"""CPUs, memory and nodes that come and go: seen without events, and no storm of looks with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from numad_py.act.actuator import DryActuator
from numad_py.daemon import TOPOLOGY_EVERY_S, Daemon
from numad_py.events import Mailbox, Stop, Wake
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.snapshot import Snapshot
from numad_py.model.topology import Topology
from numad_py.observe.glance import Glance
from numad_py.observe.observer import Observer
from numad_py.policy.load import defaults
from numad_py.serve.notify import Notifier
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, anon, put

SERVER = ("/opt/llama.cpp/llama-server", "-m", "x")
BLOCKS = 8192
"""Memory blocks of 128 MiB of a TiB: each that comes online is an event."""


class CountedSysFs(SysFs):
    """Counts how often the topology is read."""

    readings = 0

    def topology(self) -> Topology:
        """Count, and read."""
        self.readings += 1
        return super().topology()


class Machine:
    """Two nodes with one worker, and the look at them."""

    def __init__(self, folder: Path) -> None:
        """Write it."""
        self.made = FakeMachine(folder, [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))])
        self.sysfs = CountedSysFs(self.made.sysfs)
        self.at_s = 1000.0
        self.write((0, 1, 2, 3))
        self.procfs = ProcFs(self.made.procfs)
        self.observer = Observer(
            self.procfs, self.sysfs, CgroupFs(f"{self.made.sysfs}/fs/cgroup"), defaults()
        )

    def write(self, cpus: tuple[int, ...]) -> None:
        """Let these CPUs be online, and the worker's threads and memory be allowed on them."""
        nodes = [FakeNode(i, [c for c in cpus if c // 2 == i]) for i in (0, 1)]
        self.made.nodes = nodes
        self.made.busy_ticks = dict.fromkeys(cpus, 100)
        mems = sorted({cpu // 2 for cpu in cpus})
        self.made.processes = [
            FakeProcess(100, SERVER, anon({0: 1 << 26}), affinity=cpus, mems=mems)
        ]
        self.made.write()

    def look(self, after_s: float = 5.0) -> Snapshot:
        """Let time pass, and look."""
        self.at_s += after_s
        put(self.made.procfs / "uptime", f"{self.at_s:.2f} 0.00\n")
        return self.observer.observe()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return the machine."""
    return Machine(tmp_path)


def allowed(snapshot: Snapshot) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    """Return the CPUs and nodes that the worker's one thread may use."""
    (worker,) = snapshot.workers
    return worker.threads[0].affinity, worker.memory.mems_allowed


def test_a_cpu_that_goes_offline_is_seen_without_an_event(machine: Machine) -> None:
    """/proc/stat, which is read in any case, has no line for it; masks are new as well then."""
    machine.look()
    machine.write((0, 1, 2))
    seen = machine.look()
    assert seen.topology.cpus_of([1]) == {2}
    assert allowed(seen) == (frozenset({0, 1, 2}), frozenset({0, 1}))
    assert machine.sysfs.readings == 2


def test_while_the_same_cpus_are_online_the_topology_is_not_read(machine: Machine) -> None:
    """Once is enough for a week."""
    for _ in range(5):
        machine.look()
    assert machine.sysfs.readings == 1


def test_after_an_event_masks_and_limits_are_read(machine: Machine) -> None:
    """A mask that was left without a CPU is another one now, and memory may have become barred."""
    machine.look()
    machine.look()
    machine.write((0, 1))
    assert machine.observer.topology_changed()
    assert allowed(machine.look()) == (frozenset({0, 1}), frozenset({0}))


class CountedObserver:
    """Counts the looks of an observer, each of which takes a while."""

    def __init__(self, observer: Observer) -> None:
        """Count from now on."""
        self.looks: list[float] = []
        self._glance = observer.glance
        observer.glance = self._look  # type: ignore[method-assign]

    def _look(self, between: Callable[[], None] = lambda: None) -> Glance:
        self.looks.append(time.monotonic())
        return self._glance(between)


def test_a_storm_of_events_is_one_look_a_second(machine: Machine) -> None:
    """A TiB of memory that is plugged in brings thousands of them."""
    mailbox = Mailbox()
    counted = CountedObserver(machine.observer)
    daemon = Daemon(
        defaults(),
        machine.observer,
        DryActuator(machine.procfs.uptime_s),
        load_policy=defaults,
        notifier=Notifier.from_environ(),
        mailbox=mailbox,
    )

    def storm() -> None:
        for i in range(BLOCKS):
            mailbox.put(Wake(f"online memory{i}", topology=True))
            if not i % 8:
                time.sleep(0.001)
        time.sleep(TOPOLOGY_EVERY_S)
        mailbox.put(Stop("enough"))

    thread = threading.Thread(target=storm)
    began_s = time.monotonic()
    thread.start()
    daemon.run()
    thread.join()
    lasted_s = time.monotonic() - began_s
    assert 2 <= len(counted.looks) <= 2 + lasted_s / TOPOLOGY_EVERY_S
    assert machine.sysfs.readings == len(counted.looks)
    gaps = [b - a for a, b in zip(counted.looks, counted.looks[1:], strict=False)]
    assert min(gaps) >= 0.9 * TOPOLOGY_EVERY_S
