"""Kernel settings that are changed and given back: real files, a real journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from numad_py.act.journal import Change, Growth, Journal
from numad_py.act.settings import Keeper
from numad_py.errors import NumadError, RightsError
from numad_py.kernel.settings import AUTONUMA, PoolCounts, Settings
from numad_py.model.settings import SettingsTold
from tests.fake_tree import put

BALANCING = "proc/sys/kernel/numa_balancing"
GIB = 1 << 30


class Machine:
    """A machine's settings as files, a journal, and runs of a daemon that has them."""

    def __init__(self, folder: Path, balancing: int = 1) -> None:
        """Switch AutoNUMA on."""
        self.folder = folder
        self.set(balancing)
        self.settings = Settings(folder / "proc", folder / "sys")
        self.journal = self.start()

    def start(self, boot_id: str = "boot") -> Journal:
        """Open the journal, as a new run does."""
        self.journal = Journal(self.folder / "state", boot_id)
        self.keeper = Keeper(self.settings, self.journal)
        return self.journal

    def kill(self) -> None:
        """End a run without a word."""
        self.journal.close()

    def set(self, value: int) -> None:
        """Set AutoNUMA, as somebody else would."""
        put(self.folder / BALANCING, f"{value}\n")

    def value(self) -> int:
        """Return what AutoNUMA is."""
        return int((self.folder / BALANCING).read_text())

    def off(self) -> None:
        """Act by a policy that wants it off."""
        self.keeper.use(acting=True, autonuma_off=True)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine with AutoNUMA on."""
    return Machine(tmp_path)


def test_it_is_off_while_acting_and_given_back_when_that_ends(machine: Machine) -> None:
    """The journal has what it was, until it is that again."""
    machine.off()
    assert machine.value() == 0
    assert machine.journal.setting(AUTONUMA) == Change(AUTONUMA, before=1, ours=0)
    assert machine.keeper.told() == SettingsTold({AUTONUMA: "0, was 1"})
    assert machine.keeper.give_back() == ("kernel.numa_balancing is 1 again",)
    assert machine.value() == 1
    assert machine.journal.settings() == ()
    assert machine.keeper.told() == SettingsTold()


@pytest.mark.parametrize(("acting", "autonuma_off"), [(False, True), (True, False)])
def test_leaving_act_or_a_policy_that_leaves_it_gives_it_back(
    machine: Machine,
    acting: bool,  # noqa: FBT001
    autonuma_off: bool,  # noqa: FBT001
) -> None:
    """Both are wanted; coming back switches it off again."""
    machine.off()
    machine.keeper.use(acting=acting, autonuma_off=autonuma_off)
    assert machine.value() == 1
    machine.off()
    assert machine.value() == 0


@pytest.mark.parametrize(("before", "during"), [(0, 0), (1, 0), (2, 2), (3, 2)])
def test_demotion_to_slower_tiers_goes_on(tmp_path: Path, before: int, during: int) -> None:
    """Only the bit that balances is taken off, and what has none of it is left alone."""
    machine = Machine(tmp_path, before)
    machine.off()
    assert machine.value() == during
    assert bool(machine.journal.settings()) == (before != during)
    machine.keeper.give_back()
    assert machine.value() == before


def test_the_journal_is_written_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel is asked, the file on the disk has the record."""
    seen = []

    def look(_self: Settings, _value: int) -> None:
        seen.append((machine.folder / "state/journal.jsonl").read_text())

    monkeypatch.setattr(Settings, "set_autonuma", look)
    machine.off()
    assert '"before":1,"ours":0' in seen[0]


def test_nothing_is_changed_where_the_journal_cannot_be_written(machine: Machine) -> None:
    """It is said and counted, and the daemon goes on."""
    path = machine.folder / "state/journal.jsonl"
    path.unlink()
    path.mkdir()
    machine.off()
    assert machine.value() == 1
    assert "undo journal" in machine.keeper.told().problems[AUTONUMA]
    assert machine.keeper.told().failures == {"numa_balancing": 1}


def test_after_a_kill_the_next_run_takes_it_up(machine: Machine) -> None:
    """It stays off without a word to the kernel, and what it was first is what is given back."""
    machine.off()
    machine.kill()
    machine.start()
    machine.off()
    assert machine.value() == 0
    machine.keeper.give_back()
    assert machine.value() == 1


def test_after_a_kill_a_run_that_wants_none_of_it_gives_it_back(machine: Machine) -> None:
    """By another mode or another policy, at its start."""
    machine.off()
    machine.kill()
    machine.start()
    machine.keeper.use(acting=False, autonuma_off=True)
    assert machine.value() == 1
    assert machine.journal.settings() == ()


def test_a_kill_between_record_and_change_does_no_harm(machine: Machine) -> None:
    """The record says what was to be; nothing was done, and nothing is undone."""
    machine.journal.put_setting(Change(AUTONUMA, before=1, ours=0))
    machine.kill()
    machine.start()
    assert machine.keeper.give_back() == ("kernel.numa_balancing is 1 already",)
    machine.journal.put_setting(Change(AUTONUMA, before=1, ours=0))
    machine.kill()
    machine.start()
    machine.off()
    assert machine.value() == 0
    assert machine.journal.setting(AUTONUMA) == Change(AUTONUMA, before=1, ours=0)


def test_a_torn_record_is_left_out(machine: Machine) -> None:
    """Its change was not made; the run after it begins anew."""
    machine.journal.put_setting(Change(AUTONUMA, before=1, ours=0))
    machine.kill()
    path = machine.folder / "state/journal.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    machine.start()
    assert machine.journal.settings() == ()
    machine.off()
    assert machine.value() == 0


def test_a_reboot_forgets_it(machine: Machine) -> None:
    """The kernel has its own value again, and who set it then is not overruled."""
    machine.off()
    machine.kill()
    machine.start("next boot")
    assert machine.journal.settings() == ()


def test_what_somebody_else_has_set_since_is_left_and_said(tmp_path: Path) -> None:
    """It was ours no more."""
    machine = Machine(tmp_path, 3)
    machine.off()
    machine.set(0)
    (said,) = machine.keeper.give_back()
    assert "is 0, which somebody else has set" in said
    assert machine.value() == 0
    assert machine.journal.settings() == ()


def test_what_somebody_else_sets_meanwhile_is_not_fought(machine: Machine) -> None:
    """A reload of the same policy leaves it; a start is asked for anew."""
    machine.off()
    machine.set(1)
    machine.off()
    assert machine.value() == 1
    machine.kill()
    machine.start()
    machine.off()
    assert machine.value() == 0


def test_a_record_of_another_setting_is_not_believed(machine: Machine) -> None:
    """Root gives back what the service's user wrote: no other file of /proc/sys is touched."""
    path = machine.folder / "state/journal.jsonl"
    machine.kill()
    record = '{"v":1,"boot_id":"boot","setting":"kernel.core_pattern","before":1,"ours":0}\n'
    path.write_text(record)
    machine.start()
    assert machine.journal.settings() == ()
    assert (machine.folder / "state/journal.bad").read_text() == record


def test_masks_and_settings_share_the_journal_through_a_rewriting(machine: Machine) -> None:
    """Neither is lost where the file is written anew, as at each start."""
    growth = Growth(GIB, 0, 2, {0: (1, 0), 1: (2, 0)})
    machine.off()
    machine.journal.put_setting(growth)
    machine.kill()
    machine.start()
    machine.kill()
    machine.start()
    assert machine.journal.settings() == (growth, Change(AUTONUMA, before=1, ours=0))


def denied(number: int) -> Callable[..., int]:
    """Return an open that is refused for writing, as the kernel does for others than root."""
    opened = os.open

    def refuse(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_WRONLY and ("numa_balancing" in str(path) or "hugepages" in str(path)):
            raise OSError(number, os.strerror(number))
        return opened(path, flags, *more, **named)

    return refuse


@pytest.mark.parametrize(
    ("number", "why"), [(13, "takes root and CAP_SYS_ADMIN"), (30, "read-only for this service")]
)
def test_a_missing_right_is_said_once_with_what_to_do(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    """Twice asked and twice counted, it is one line in the log; nothing is left in the journal."""
    monkeypatch.setattr(os, "open", denied(number))
    with capture_logs() as lines:
        machine.off()
        machine.keeper.use(acting=True, autonuma_off=True)
        machine.keeper._switched = False
        machine.off()
    assert [line["event"] for line in lines] == ["kernel setting not changed"]
    problem = machine.keeper.told().problems[AUTONUMA]
    assert why in problem
    assert "sysctl kernel.numa_balancing=0" in problem
    assert "systemd/numad-py-settings.conf" in problem
    assert machine.keeper.told().failures == {"numa_balancing": 2}
    assert machine.journal.settings() == ()
    machine.keeper.use(acting=True, autonuma_off=False)
    assert machine.keeper.told().problems == {}


def test_what_cannot_be_given_back_stays_in_the_journal(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody took the right away meanwhile: root can restore it later."""
    machine.off()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", denied(13))
        assert machine.keeper.give_back() == ()
    assert machine.value() == 0
    assert machine.keeper.told().failures == {"numa_balancing": 1}
    assert machine.keeper.give_back() == ("kernel.numa_balancing is 1 again",)


def test_what_is_given_back_stays_in_the_journal_until_that_is_written(machine: Machine) -> None:
    """Else the next run would find it on the disk, and undo what somebody has set since."""
    machine.off()
    path = machine.folder / "state/journal.jsonl"
    kept = path.read_bytes()
    path.unlink()
    path.mkdir()
    assert machine.keeper.give_back() == ()
    assert machine.value() == 1
    assert machine.journal.setting(AUTONUMA) == Change(AUTONUMA, before=1, ours=0)
    path.rmdir()
    path.write_bytes(kept)
    assert machine.keeper.give_back() == ("kernel.numa_balancing is 1 already",)
    assert machine.journal.settings() == ()
    assert machine.keeper.told().problems == {}
    machine.kill()
    assert machine.start().settings() == ()


def test_a_kernel_without_autonuma_is_no_failure(machine: Machine) -> None:
    """There is nothing to switch off."""
    (machine.folder / BALANCING).unlink()
    machine.off()
    assert machine.keeper.told() == SettingsTold()
    assert not (machine.folder / BALANCING).exists()


def test_an_odd_value_is_said(machine: Machine) -> None:
    """What is no number is not overwritten."""
    put(machine.folder / BALANCING, "many\n")
    machine.off()
    assert "holds no number" in machine.keeper.told().problems[AUTONUMA]


def test_left_on_is_said_where_numad_py_acts(machine: Machine) -> None:
    """With the default policy somebody who reads the log learns what follows."""
    with capture_logs() as lines:
        machine.keeper.use(acting=False, autonuma_off=False)
        machine.keeper.use(acting=True, autonuma_off=False)
    # A thread of another test may have something to say just now.
    (line,) = [line for line in lines if line["event"] == "AutoNUMA is on"]
    assert 'autonuma = "off"' in line["what_follows"]
    assert machine.value() == 1


# The kernel's files


@pytest.mark.parametrize(
    ("text", "largest"),
    [
        (
            "Node 0, zone      DMA      1      0  0 0 0 0 0 0 1 1 3 \nNode 0, zone ...\n",
            4 << 20,
        ),
        ("", 0),
    ],
)
def test_the_largest_block_is_the_last_column_of_buddyinfo(
    tmp_path: Path, text: str, largest: int
) -> None:
    """Eleven orders of 4 KiB pages are 4 MiB; larger huge pages the kernel makes none of."""
    if os.sysconf("SC_PAGE_SIZE") != 4096:
        pytest.skip("needs pages of 4 KiB")
    put(tmp_path / "buddyinfo", text)
    assert Settings(tmp_path, tmp_path).largest_block_bytes() == largest


def test_a_pool_that_is_not_there_is_none_and_cannot_be_set(tmp_path: Path) -> None:
    """The node is gone, or has no pages of that size; no file is made."""
    settings = Settings(tmp_path, tmp_path)
    assert settings.pool(0, GIB) is None
    with pytest.raises(NumadError, match="is gone"):
        settings.set_pool(0, GIB, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_pool_is_read_and_set_by_its_persistent_pages(tmp_path: Path) -> None:
    """Surplus pages stand in nr_hugepages too, but writing it does not count them."""
    folder = tmp_path / "devices/system/node/node3/hugepages/hugepages-1048576kB"
    for name, number in (("nr_hugepages", 5), ("free_hugepages", 1), ("surplus_hugepages", 2)):
        put(folder / name, f"{number}\n")
    settings = Settings(tmp_path, tmp_path)
    assert settings.pool(3, GIB) == PoolCounts(total=5, free=1, surplus=2)
    assert PoolCounts(total=5, free=1, surplus=2).persistent == 3
    settings.set_pool(3, GIB, 4)
    assert (folder / "nr_hugepages").read_text() == "4\n"


def test_a_pool_that_may_not_be_set_says_how_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file by hand, or the unit's drop-in."""
    monkeypatch.setattr(os, "open", denied(13))
    with pytest.raises(RightsError, match=r"echo 4 > .*node3/hugepages.*numad-py-settings\.conf"):
        Settings(tmp_path, tmp_path).set_pool(3, GIB, 4)
