"""When the doer of a daemon switches AutoNUMA off, and when it gives it back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from numad_py.act.actuator import Actuator
from numad_py.act.by_mode import ByMode
from numad_py.act.journal import Growth, Journal
from numad_py.act.settings import Keeper
from numad_py.compose import build_actuator
from numad_py.events import Mailbox
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.settings import AUTONUMA, Settings
from numad_py.kernel.sysfs import SysFs
from numad_py.policy.schema import (
    AutoNuma,
    DaemonPolicy,
    MigrationPolicy,
    Mode,
    OnStop,
    Policy,
)
from tests.fake_tree import FakeMachine, FakeNode, put


@dataclass
class Runs:
    """A machine with AutoNUMA on, and doers that run on it one after the other."""

    machine: FakeMachine

    def policy(
        self,
        mode: Mode = Mode.ACT,
        autonuma: AutoNuma = AutoNuma.OFF,
        on_stop: OnStop = OnStop.RESTORE,
    ) -> Policy:
        """Return a policy."""
        daemon = DaemonPolicy(mode=mode, on_stop=on_stop, state_dir=str(self.state))
        return Policy(daemon=daemon, migration=MigrationPolicy(autonuma=autonuma))

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.machine.folder / "state"

    def start(self, policy: Policy) -> Actuator:
        """Build a doer, as a daemon does at its start."""
        procfs, sysfs = ProcFs(self.machine.procfs), SysFs(self.machine.sysfs)
        cgroups = CgroupFs(self.machine.sysfs / "fs/cgroup")
        return build_actuator(policy, procfs, sysfs, cgroups, Mailbox(), dry=False)

    def value(self) -> int:
        """Return what AutoNUMA is."""
        return int((self.machine.procfs / "sys/kernel/numa_balancing").read_text())


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Make the machine."""
    machine = FakeMachine(tmp_path, [FakeNode(0, [0]), FakeNode(1, [1])]).write()
    put(machine.procfs / "sys/kernel/numa_balancing", "1\n")
    return Runs(machine)


@pytest.fixture
def acting(runs: Runs) -> Iterator[Actuator]:
    """Run a doer whose policy wants it off."""
    actuator = runs.start(runs.policy())
    yield actuator
    actuator.stop(5)


def test_it_is_off_from_the_start_until_the_stop(runs: Runs, acting: Actuator) -> None:
    """A pause leaves it off: the daemon is there, and will go on."""
    assert runs.value() == 0
    assert acting.settings().changed == {AUTONUMA: "0, was 1"}
    acting.pause()
    assert runs.value() == 0
    acting.stop(5)
    assert runs.value() == 1
    assert acting.settings().changed == {}


def test_it_is_given_back_whatever_becomes_of_masks(runs: Runs) -> None:
    """on_stop = "keep" keeps masks; a setting is the whole machine's."""
    actuator = runs.start(runs.policy(on_stop=OnStop.KEEP))
    assert runs.value() == 0
    actuator.stop(5)
    assert runs.value() == 1


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ADVISE])
def test_it_follows_the_mode(runs: Runs, acting: Actuator, mode: Mode) -> None:
    """In any other than act nothing is touched."""
    acting.use(runs.policy(mode))
    assert runs.value() == 1
    acting.use(runs.policy())
    assert runs.value() == 0


def test_it_follows_the_policy(runs: Runs, acting: Actuator) -> None:
    """A reload to "leave" gives it back, one to "off" switches it off."""
    acting.use(runs.policy(autonuma=AutoNuma.LEAVE))
    assert runs.value() == 1
    acting.use(runs.policy())
    assert runs.value() == 0


def test_restore_gives_it_back_until_resume(runs: Runs, acting: Actuator) -> None:
    """As it does with masks."""
    acting.pause()
    assert acting.restore_settings() == ("kernel.numa_balancing is 1 again",)
    assert runs.value() == 1
    acting.resume()
    assert runs.value() == 0


def test_a_reload_while_paused_switches_nothing_off(runs: Runs, acting: Actuator) -> None:
    """Neither after a restore, nor by a policy that wants it only now: resume does it."""
    acting.pause()
    acting.restore_settings()
    acting.use(runs.policy())
    assert runs.value() == 1
    acting.resume()
    assert runs.value() == 0
    acting.use(runs.policy(autonuma=AutoNuma.LEAVE))
    acting.pause()
    acting.use(runs.policy())
    assert runs.value() == 1
    acting.resume()
    assert runs.value() == 0


def test_a_reload_while_paused_still_gives_back(runs: Runs, acting: Actuator) -> None:
    """A policy that wants it left alone, or another mode: both only undo."""
    acting.pause()
    acting.use(runs.policy())
    assert runs.value() == 0
    acting.use(runs.policy(autonuma=AutoNuma.LEAVE))
    assert runs.value() == 1
    acting.use(runs.policy(Mode.OBSERVE))
    acting.resume()
    assert runs.value() == 1


@pytest.mark.parametrize(
    ("mode", "autonuma", "value"),
    [
        (Mode.ACT, AutoNuma.OFF, 0),
        (Mode.ACT, AutoNuma.LEAVE, 1),
        (Mode.OBSERVE, AutoNuma.OFF, 1),
    ],
)
def test_a_start_after_a_kill_takes_up_what_was_left(
    runs: Runs, mode: Mode, autonuma: AutoNuma, value: int
) -> None:
    """It stays off where that is wanted still, and else is given back at once; so at the stop."""
    journal = Journal(runs.state, "fake-boot")
    settings = Settings(runs.machine.procfs, runs.machine.sysfs)
    Keeper(settings, journal).use(acting=True, autonuma_off=True)
    journal.close()
    assert runs.value() == 0
    actuator = runs.start(runs.policy(mode, autonuma))
    assert isinstance(actuator, ByMode)
    assert runs.value() == value
    actuator.stop(5)
    assert runs.value() == 1


def test_a_dry_run_touches_nothing(runs: Runs) -> None:
    """Not even the journal."""
    procfs, sysfs = ProcFs(runs.machine.procfs), SysFs(runs.machine.sysfs)
    cgroups = CgroupFs(runs.machine.sysfs / "fs/cgroup")
    actuator = build_actuator(runs.policy(), procfs, sysfs, cgroups, Mailbox(), dry=True)
    assert runs.value() == 1
    assert actuator.restore_settings() == ()
    assert not runs.state.exists()


def test_pools_of_a_run_that_was_killed_are_given_back_at_the_start(runs: Runs) -> None:
    """Whatever is wanted of AutoNUMA: these were for one move, and that has ended."""
    folder = runs.machine.sysfs / "devices/system/node/node0/hugepages/hugepages-1048576kB"
    for name in ("nr_hugepages", "free_hugepages"):
        put(folder / name, "3\n")
    journal = Journal(runs.state, "fake-boot")
    journal.put_setting(Growth(1 << 30, 0, 2, {0: (1, 1)}))
    journal.close()
    actuator = runs.start(runs.policy())
    assert (folder / "nr_hugepages").read_text() == "1\n"
    assert runs.value() == 0
    actuator.stop(5)
