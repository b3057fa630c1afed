"""Binding and giving back, on real threads; the journal, on real files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from numad_py.act.affinity import bind, restore, restore_all
from numad_py.act.journal import Entry, Journal, ThreadMasks, read
from numad_py.errors import NumadError, Vanished
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.plan import Decision, Finding, Reason, Verdict
from numad_py.model.snapshot import WorkerId

CHILD = """
import threading, time
for _ in range(3):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def child() -> Iterator[WorkerId]:
    """Run a process of four threads."""
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield WorkerId(process.pid, ProcFs().stat(process.pid).start_ticks)
        process.kill()


def decision(worker: WorkerId) -> Decision:
    """Return a decision about a worker, whose reasons do not matter here."""
    finding = Finding(worker, "x/0", None, 0, 0, 0, None, None)
    return Decision("1:x/0", worker, "x/0", "x", Verdict.ACT, Reason.REMOTE_THREADS, "", finding)


def masks(worker: WorkerId) -> set[frozenset[int] | None]:
    """Return the masks that its threads have."""
    return {thread.affinity for thread in ProcFs().threads(worker.pid)}


def test_all_threads_are_bound_and_given_back(child: WorkerId, tmp_path: Path) -> None:
    """Every thread is narrowed, journalled first, and restore gives each its first mask."""
    journal = Journal(tmp_path, "boot")
    first = masks(child)
    home = frozenset({min(os.sched_getaffinity(0))})
    bound = bind(decision(child), home, ProcFs(), Syscalls(), journal)
    assert bound.threads == 4
    assert masks(child) == {home}
    assert len(read(tmp_path / "journal.jsonl", "boot")[child].threads) == 4
    assert restore_all(journal, ProcFs(), Syscalls()) == 1
    assert masks(child) == first
    assert journal.entries() == ()


def test_threads_get_more_cpus_where_their_home_has_grown(child: WorkerId, tmp_path: Path) -> None:
    """Bound to one CPU, then to all of them: each has its user's mask, and no more than that."""
    cpus = os.sched_getaffinity(0)
    journal = Journal(tmp_path, "boot")
    bind(decision(child), frozenset({min(cpus)}), ProcFs(), Syscalls(), journal)
    assert masks(child) == {frozenset({min(cpus)})}
    bind(decision(child), frozenset({*cpus, 1000}), ProcFs(), Syscalls(), journal)
    assert masks(child) == {frozenset(cpus)}
    restore_all(journal, ProcFs(), Syscalls())
    assert masks(child) == {frozenset(cpus)}


def test_a_mask_that_its_user_changed_since_is_left(child: WorkerId, tmp_path: Path) -> None:
    """Only masks that still are what numad-py set are given back."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    journal = Journal(tmp_path, "boot")
    bind(decision(child), frozenset({cpus[0]}), ProcFs(), Syscalls(), journal)
    os.sched_setaffinity(child.pid, {cpus[1]})
    (entry,) = journal.entries()
    assert restore(entry, ProcFs(), Syscalls()).threads == 3
    assert os.sched_getaffinity(child.pid) == {cpus[1]}


def test_a_reused_pid_is_not_touched(child: WorkerId, tmp_path: Path) -> None:
    """A worker is a pid with its start time; another process of that pid is none of ours."""
    other = WorkerId(child.pid, child.start_ticks - 1)
    first = masks(child)
    with pytest.raises(Vanished):
        bind(decision(other), frozenset({0}), ProcFs(), Syscalls(), Journal(tmp_path, "boot"))
    assert masks(child) == first


def entry(pid: int = 10) -> Entry:
    """Return an entry of one thread."""
    threads = {pid: ThreadMasks(5, frozenset({0, 1}), frozenset({0}))}
    return Entry(WorkerId(pid, 5), "x/0", "1:x/0", threads)


def test_the_first_mask_survives_a_second_binding(tmp_path: Path) -> None:
    """What a second look takes for the mask before is ours; the journal keeps the user's."""
    journal = Journal(tmp_path, "boot")
    journal.put(entry())
    again = {10: ThreadMasks(5, frozenset({0}), frozenset({0}))}
    journal.put(Entry(WorkerId(10, 5), "x/0", "2:x/0", again))
    assert journal.entries()[0].threads[10].before == {0, 1}


def test_a_torn_last_record_is_left_out(tmp_path: Path) -> None:
    """Its change was not made yet; the records before it hold."""
    journal = Journal(tmp_path, "boot")
    journal.put(entry(10))
    journal.put(entry(20))
    journal.close()
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    assert [e.worker.pid for e in Journal(tmp_path, "boot").entries()] == [10]


def test_entries_of_another_boot_are_dropped(tmp_path: Path) -> None:
    """Those processes are gone, and their pids belong to others."""
    journal = Journal(tmp_path, "boot")
    journal.put(entry())
    journal.close()
    assert Journal(tmp_path, "next boot").entries() == ()


def test_a_record_that_cannot_be_parsed_is_kept_aside(tmp_path: Path) -> None:
    """It may name a mask: it goes to journal.bad, and the others hold."""
    path = tmp_path / "journal.jsonl"
    path.write_text("{nonsense}\n")
    assert Journal(tmp_path, "boot").entries() == ()
    assert (tmp_path / "journal.bad").read_text() == "{nonsense}\n"


def test_a_second_daemon_is_turned_away(tmp_path: Path) -> None:
    """One journal, one holder."""
    journal = Journal(tmp_path, "boot")
    with pytest.raises(NumadError, match="another numad-py holds"):
        Journal(tmp_path, "boot")
    journal.close()


def test_nothing_is_changed_when_the_journal_cannot_be_written(
    child: WorkerId, tmp_path: Path
) -> None:
    """No journal, no change; the message says what to do."""
    journal = Journal(tmp_path, "boot")
    path = tmp_path / "journal.jsonl"
    path.unlink()
    path.mkdir()
    first = masks(child)
    with pytest.raises(NumadError, match="undo journal"):
        bind(decision(child), frozenset({0}), ProcFs(), Syscalls(), journal)
    time.sleep(0)
    assert masks(child) == first


def test_what_root_writes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    """The service, which is not root, can take up a journal that root has made by hand."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(tmp_path, 65534, 65534)
    journal = Journal(tmp_path, "boot")
    journal.close()
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {65534}
