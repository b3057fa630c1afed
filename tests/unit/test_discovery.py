"""Who is a worker: listing, identity, labels, and what else a census tells."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.errors import NumadError
from numad_py.kernel.procfs import USERS_S, ProcFs
from numad_py.observe.discovery import (
    LARGE_SLOW_S,
    RELIST_S,
    Discovery,
)
from numad_py.observe.judged import MOST_NAMED
from numad_py.policy.match import Match, Subject, match
from numad_py.policy.schema import Policy
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess
from tests.unit.crowd import (
    BOOT_S,
    MIB,
    POLICY,
    SERVER,
    Crowd,
    Looks,
    Proc,
    labels,
    old_crowd,
    rule,
)

# Listing


def test_proc_is_not_listed_while_no_process_was_made() -> None:
    """The same count of forks: nothing can be new; once in RELIST_S what has ended is forgotten."""
    looks = Looks(old_crowd(3))
    looks.look()
    assert looks.crowd.listings == 1
    while looks.now_s < BOOT_S + looks.interval_s + RELIST_S - looks.interval_s:
        looks.look()
    assert looks.crowd.listings == 1
    del looks.crowd.procs[1001]
    assert looks.look().unmatched == 2
    assert looks.crowd.listings == 2


def test_proc_is_listed_after_a_fork_and_where_forks_are_not_known() -> None:
    """Any other count lists at once, also a lower one; None lists each time."""
    looks = Looks(old_crowd(3))
    looks.look()
    looks.look(forked=1)
    looks.look(forked=-1)
    assert looks.crowd.listings == 3
    for _ in range(4):
        looks.discovery.look(looks.now_s, None)
    assert looks.crowd.listings == 7


def test_a_look_at_nothing_new_reads_nothing() -> None:
    """Old processes are neither read nor asked for in the look after a fork that has ended."""
    looks = Looks(old_crowd(50), interval_s=0.0)
    looks.look()
    looks.crowd.pids_read()
    looks.look()
    looks.look(forked=1)
    assert looks.crowd.pids_read() == set()


def test_only_new_names_are_read() -> None:
    """A process that began since the last listing is judged; those that were there are not."""
    looks = Looks(old_crowd(50), interval_s=0.01)
    looks.look()
    looks.crowd.pids_read()
    looks.start(77, Proc(SERVER))
    assert labels(looks.look()) == {77: "server/0"}
    assert looks.crowd.pids_read() == {77}


def test_without_a_proc_there_is_no_census(tmp_path: Path) -> None:
    """What listing raises is raised."""
    with pytest.raises(NumadError, match="is this a proc file system"):
        Discovery(ProcFs(tmp_path), POLICY).look(1.0)


# Identity


def tree(folder: Path, *processes: FakeProcess) -> FakeMachine:
    """Return a made machine with these processes."""
    return FakeMachine(folder, [FakeNode(0, (0, 1))], processes).write()


def replace_process(made: FakeMachine, folder: Path, process: FakeProcess) -> None:
    """End the process of that pid and begin another there, in a folder with another inode."""
    here = made.procfs / str(process.pid)
    new = tree(folder, process).procfs / str(process.pid)
    assert new.stat().st_ino != here.stat().st_ino
    shutil.rmtree(here)
    new.rename(here)


@pytest.mark.parametrize("before", [SERVER, "sh"])
def test_a_reused_pid_is_another_process(tmp_path: Path, before: str) -> None:
    """The same pid in another folder is judged anew in the next listing, whatever it was before."""
    old = FakeProcess(50, before.split(), "", start_ticks=5000)
    made = tree(tmp_path / "a", old)
    discovery = Discovery(ProcFs(made.procfs), POLICY)
    assert bool(discovery.look(1000.0, 1).workers) == (before == SERVER)
    new = replace(old, cmdline=SERVER.split(), start_ticks=99_900)
    replace_process(made, tmp_path / "b", new)
    (found,) = discovery.look(1000.0, 2).workers
    assert (found.id.start_ticks, found.label) == (99_900, "server/0")
    replace_process(made, tmp_path / "c", replace(new, cmdline=["sh"], start_ticks=99_950))
    assert not discovery.look(1000.0, 3).workers


def test_a_worker_that_another_process_replaced_unlisted_is_seen() -> None:
    """Even where the count of forks stood still, its start time tells."""
    looks = Looks(Crowd())
    looks.crowd.add(9, Proc(SERVER))
    looks.look()
    looks.crowd.procs[9].start_s = looks.now_s
    looks.crowd.procs[9].cmdline = "sh"
    assert looks.look().workers == ()


def test_a_new_folder_of_the_same_process_changes_nothing() -> None:
    """The kernel may make one under memory pressure: its stat shows that it is the same."""
    looks = Looks(Crowd(), interval_s=0.0)
    for pid in (5, 6, 7):
        looks.crowd.add(pid, Proc(SERVER))
    first = looks.look()
    looks.crowd.pids_read()
    looks.crowd.procs[6].inode = next(looks.crowd.inodes)
    looks.crowd.reads.clear()
    assert labels(looks.look(forked=1)) == labels(first)
    assert looks.crowd.reads[6, "status"] == 0
    assert looks.crowd.reads[6, "stat"] == 2
    assert looks.crowd.reads[5, "stat"] == 1


# Workers


def test_a_worker_costs_one_stat_a_look() -> None:
    """Between two judgements its stat alone is read, once a look, and handed on."""
    looks = Looks(Crowd(), interval_s=0.05)
    looks.crowd.add(5, Proc(SERVER, resident_kib=4))
    (found,) = looks.look().workers
    assert found.stat.resident_bytes == 4096
    looks.crowd.reads.clear()
    for kib in range(8, 88, 8):
        looks.crowd.procs[5].resident_kib = kib
        (found,) = looks.look().workers
        assert found.stat.resident_bytes == kib * 1024
    assert looks.crowd.reads == {(5, "stat"): 10}


def test_a_worker_that_ended_is_gone_at_once() -> None:
    """Also in a look without a listing."""
    looks = Looks(Crowd())
    for pid in (5, 6):
        looks.crowd.add(pid, Proc(SERVER))
    looks.look()
    del looks.crowd.procs[5]
    assert labels(looks.look()) == {6: "server/1"}


def test_a_worker_with_another_command_name_is_judged_at_once() -> None:
    """An exec into a program that no rule matches ends it as a worker in the next look."""
    looks = Looks(Crowd())
    looks.crowd.add(5, Proc(SERVER, comm="server"))
    looks.look()
    looks.crowd.procs[5].exec("/bin/sleep 100")
    census = looks.look()
    assert (census.workers, census.unmatched) == ((), 1)


def test_a_worker_is_judged_in_full_every_two_minutes() -> None:
    """Its user or cgroup may change, and its command line without its name."""
    looks = Looks(Crowd())
    looks.crowd.add(5, Proc(SERVER, comm="python3"))
    looks.look()
    while looks.now_s < BOOT_S + 50:
        looks.look()
    looks.crowd.procs[5].cmdline = "/usr/bin/python3"
    changed_s = looks.now_s
    while looks.look().workers:
        assert looks.now_s - changed_s <= LARGE_SLOW_S


def test_rules_are_asked_once_about_processes_that_are_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forks of one program cost one match; by another policy all rules are asked again."""
    asked: Counter[str] = Counter()

    def counting(policy: Policy, subject: Subject) -> Match:
        asked[subject.arguments] += 1
        return match(policy, subject)

    monkeypatch.setattr("numad_py.observe.discovery.match", counting)
    looks = Looks(old_crowd(100))
    looks.crowd.add(5, Proc(SERVER))
    looks.look()
    assert asked == {"sh": 1, SERVER: 1}
    looks.discovery.use(POLICY)
    looks.look()
    assert asked == {"sh": 2, SERVER: 2}


def test_the_name_of_a_user_is_asked_for_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that has none; a name that comes later is seen after USERS_S."""
    asked: Counter[int] = Counter()
    names: dict[int, str] = {}

    def name(uid: int) -> str | None:
        asked[uid] += 1
        return names.get(uid)

    now_s = 100.0
    monkeypatch.setattr("numad_py.kernel.users.name_of", name)
    monkeypatch.setattr("numad_py.kernel.procfs.monotonic_s", lambda: now_s)
    crowd = Crowd()
    crowd.add(5, Proc(uid=77))
    assert [crowd.process(5).user for _ in range(3)] == [None] * 3
    assert asked == {77: 1}
    names[77] = "ann"
    now_s += USERS_S
    assert crowd.process(5).user == "ann"


# Labels


def test_labels_are_the_lowest_free_and_go_by_pid() -> None:
    """New workers of one look get theirs by pid; what an ended one had is free again."""
    looks = Looks(Crowd())
    for pid in (30, 10, 20):
        looks.crowd.add(pid, Proc(SERVER))
    assert labels(looks.look()) == {10: "server/0", 20: "server/1", 30: "server/2"}
    del looks.crowd.procs[20], looks.crowd.procs[10]
    looks.look(forked=1)
    for pid in (9, 8, 7):
        looks.start(pid, Proc(SERVER))
    census = looks.look()
    assert labels(census) == {7: "server/0", 8: "server/1", 30: "server/2", 9: "server/3"}
    assert [found.label for found in census.workers] == [f"server/{i}" for i in range(4)]


def test_labels_are_sorted_by_number() -> None:
    """The eleventh stands behind the tenth, not behind the second."""
    looks = Looks(Crowd())
    for pid in range(1, 13):
        looks.crowd.add(pid, Proc(SERVER))
    assert [f.label for f in looks.look().workers] == [f"server/{i}" for i in range(12)]


def test_another_policy_judges_all_and_keeps_the_labels_of_those_that_stay() -> None:
    """In one look; a worker whose rule has another name now gets another label."""
    looks = Looks(old_crowd(20))
    for pid in (5, 6, 7):
        looks.crowd.add(pid, Proc(SERVER))
    looks.crowd.add(8, Proc("/opt/other"))
    looks.look()
    del looks.crowd.procs[5]
    looks.look(forked=1)
    more = Policy(rules=(*POLICY.rules, rule("other", cmdline="/opt/other")))
    looks.discovery.use(more)
    assert labels(looks.look()) == {6: "server/1", 7: "server/2", 8: "other/0"}
    looks.discovery.use(Policy(rules=(rule("new", cmdline="/opt"),)))
    assert labels(looks.look()) == {6: "new/0", 7: "new/1", 8: "new/2"}
    looks.discovery.use(Policy())
    assert looks.look().workers == ()


# What else is told


def test_the_largest_that_are_no_workers_are_named() -> None:
    """MOST_NAMED of those that would be worth moving, largest first, with the reason."""
    policy = replace(POLICY, excludes=(rule("not-me", cmdline="editor"),))
    looks = Looks(Crowd(), policy)
    for pid in range(1, 60):
        looks.crowd.add(pid, Proc(comm=f"c{pid}", resident_kib=pid * MIB))
    looks.crowd.add(60, Proc("editor", resident_kib=900 * MIB))
    looks.crowd.add(61, Proc(SERVER, resident_kib=900 * MIB))
    passed = looks.look().passed_over
    assert [p.pid for p in passed] == [60, *range(59, 59 - MOST_NAMED + 1, -1)]
    assert [p.why for p in passed[:2]] == ["excluded by not-me (test)", "no rule matches"]
    assert (passed[1].comm, passed[1].resident_bytes) == ("c59", 59 * MIB * 1024)
    del looks.crowd.procs[59]
    assert [p.pid for p in looks.look(forked=1).passed_over[:3]] == [60, 58, 57]
    looks.start(70, Proc(resident_kib=800 * MIB))
    looks.start(71, Proc(resident_kib=31 * MIB))
    assert [p.pid for p in looks.look().passed_over[:4]] == [60, 70, 58, 57]


def test_those_that_are_named_show_how_their_command_begins() -> None:
    """Sixty characters of it, however long it is; our own process is not named at all."""
    looks = Looks(Crowd())
    looks.crowd.add(5, Proc("python3 train.py " + "x" * 100, resident_kib=900 * MIB))
    looks.crowd.add(os.getpid(), Proc("numad-py run", resident_kib=900 * MIB))
    (passed,) = looks.look().passed_over
    assert (passed.pid, passed.command) == (5, "python3 train.py " + "x" * 43)


def test_processes_are_noticed_by_name() -> None:
    """The lowest pid of each name asked for, as long as it lives, wherever it came from."""
    looks = Looks(Crowd(), named=frozenset({"numad", "irqbalance"}))
    for pid, comm in ((5, "numad"), (9, "numad"), (7, "numadx"), (8, "sh")):
        looks.crowd.add(pid, Proc(comm=comm))
    assert looks.look().named == {"numad": 5}
    looks.start(20, Proc())
    looks.look()
    looks.crowd.procs[20].exec("/usr/sbin/irqbalance")
    assert looks.look().named == {"numad": 5, "irqbalance": 20}
    del looks.crowd.procs[5]
    assert looks.look(forked=1).named == {"numad": 9, "irqbalance": 20}
    looks.crowd.procs[20].exec("sh")
    while "irqbalance" in looks.look().named:
        assert looks.now_s < BOOT_S + 10


def test_stat_tells_the_number_of_threads() -> None:
    """Field 20 of a real stat: as many as are listed, and one more once one has begun."""
    procfs, wake = ProcFs(), threading.Event()

    def listed() -> int:
        return sum(1 for _ in Path("/proc/self/task").iterdir())

    end_s = time.monotonic() + 10
    # A thread that was joined just now may still be on its way out.
    while (before := procfs.stat(os.getpid()).num_threads) != listed():
        assert time.monotonic() < end_s
    thread = threading.Thread(target=wake.wait)
    thread.start()
    during = procfs.stat(os.getpid()).num_threads
    wake.set()
    thread.join()
    assert during == before + 1
