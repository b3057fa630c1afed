"""Binding and giving back while threads come and go: nothing is passed over in silence."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.act import passes
from numad_py.act.affinity import bind, restore, restore_all
from numad_py.act.journal import Journal
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.outcome import End
from numad_py.model.snapshot import Thread, WorkerId
from tests.unit.test_act import child, decision, masks
from tests.unit.test_actuator import SOON_S, Bench, bench

__all__ = ["bench", "child"]

ALL = frozenset(os.sched_getaffinity(0))
HOME = frozenset({min(ALL)})

pytestmark = pytest.mark.skipif(len(ALL) < 2, reason="needs two CPUs")


class Changing(ProcFs):
    """The machine's own, but for what is called before each listing of threads, by its number."""

    def __init__(self, before: Callable[[int], set[int]]) -> None:
        """``before`` returns the threads that the listing lacks."""
        super().__init__()
        self.before = before
        self.listings = 0

    def tids(self, pid: int) -> set[int]:
        """Return what is listed."""
        self.listings += 1
        return super().tids(pid) - self.before(self.listings)


def always(mask: frozenset[int], tid: int) -> Callable[[int], set[int]]:
    """Return what gives a thread a mask before each listing, as if it were born anew."""

    def give(_number: int) -> set[int]:
        os.sched_setaffinity(tid, mask)
        return set()

    return give


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try for 0.1 s only."""
    monkeypatch.setattr(passes, "_TRYING_S", 0.1)


def test_one_clean_pass_does_not_end_giving_back(child: WorkerId, tmp_path: Path) -> None:
    """A thread that two listings lack is given its mask back by the third."""
    journal = Journal(tmp_path, "boot")
    bind(decision(child), HOME, ProcFs(), Syscalls(), journal)
    hiding = Changing(lambda number: {child.pid} if number <= 2 else set())
    assert restore_all(journal, hiding, Syscalls()) == 1
    assert masks(child) == {ALL}


@pytest.mark.usefixtures("hasty")
def test_what_could_not_be_given_back_stays_in_the_journal(
    child: WorkerId, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a worker has new threads with our mask in each pass; and it is said."""
    journal = Journal(tmp_path, "boot")
    bind(decision(child), HOME, ProcFs(), Syscalls(), journal)
    (entry,) = journal.entries()
    restless = Changing(always(HOME, child.pid))
    bound = restore(entry, restless, Syscalls())
    assert (bound.left, bound.out_of_passes, bound.undone) == (1, True, False)
    restore_all(journal, restless, Syscalls())
    assert journal.entries() == (entry,)
    assert "threads are created faster" in capsys.readouterr().out


@pytest.mark.usefixtures("hasty")
def test_binding_says_which_threads_it_did_not_get(child: WorkerId, tmp_path: Path) -> None:
    """It tries for a while, and counts those that are not bound when it ends."""
    began_s = time.monotonic()
    restless = Changing(always(ALL, child.pid))
    bound = bind(decision(child), HOME, restless, Syscalls(), Journal(tmp_path, "boot"))
    assert (bound.left, bound.out_of_passes) == (1, True)
    assert time.monotonic() - began_s >= 0.1


def test_binding_ends_at_once_where_it_is_stopped(child: WorkerId, tmp_path: Path) -> None:
    """Before the next thread; the journal has those that are bound, so they are given back."""
    journal = Journal(tmp_path, "boot")
    restless = Changing(always(ALL, child.pid))
    bound = bind(
        decision(child),
        HOME,
        restless,
        Syscalls(),
        journal,
        stopped=lambda: restless.listings >= 2,
    )
    assert bound.stopped
    assert restless.listings == 2
    restore_all(journal, ProcFs(), Syscalls())
    assert masks(child) == {ALL}


def test_giving_back_ends_at_once_where_it_is_stopped(child: WorkerId, tmp_path: Path) -> None:
    """What it did not get to is not forgotten."""
    journal = Journal(tmp_path, "boot")
    bind(decision(child), HOME, ProcFs(), Syscalls(), journal)
    bound = restore(journal.entries()[0], ProcFs(), Syscalls(), stopped=lambda: True)
    assert (bound.threads, bound.stopped, bound.undone) == (0, True, False)
    assert masks(child) == {HOME}


def test_a_pause_ends_a_binding_that_goes_on(bench: Bench) -> None:
    """Masks are given back well within a second; the decision ends as stopped."""
    restless = Changing(always(ALL, bench.worker.pid))
    bench.actuator._procfs = restless
    bench.actuator.submit(replace(bench.decision(bind_cpus=HOME), moves=()))
    deadline_s = time.monotonic() + SOON_S
    while restless.listings < 10 and time.monotonic() < deadline_s:
        time.sleep(0.001)
    began_s = time.monotonic()
    bench.actuator.pause()
    bench.actuator._procfs = ProcFs()
    bench.actuator.restore_all()
    assert time.monotonic() - began_s < 0.5
    (outcome,) = bench.outcomes(1)
    assert outcome.end is End.STOPPED
    assert bench.masks() == {ALL}
    assert bench.journal.entries() == ()


@pytest.mark.usefixtures("hasty")
def test_an_outcome_says_that_threads_were_not_bound(bench: Bench) -> None:
    """In words, and how many."""
    bench.actuator._procfs = Changing(always(ALL, bench.worker.pid))
    bench.actuator.submit(bench.decision(bind_cpus=HOME))
    (outcome,) = bench.outcomes(1)
    assert outcome.threads_left == 1
    assert outcome.error is not None
    assert "faster than they can be bound: 1 left" in outcome.error


def test_threads_born_since_need_no_record_of_their_own(child: WorkerId, tmp_path: Path) -> None:
    """Where they had the worker's own mask: the journal does not grow with what comes and goes."""
    journal = Journal(tmp_path, "boot")
    other = max(ProcFs().tids(child.pid))
    hiding = Changing(lambda _number: {other})
    bind(decision(child), HOME, hiding, Syscalls(), journal)
    size = (tmp_path / "journal.jsonl").stat().st_size
    assert bind(decision(child), HOME, ProcFs(), Syscalls(), journal).threads == 1
    assert (tmp_path / "journal.jsonl").stat().st_size == size
    restore_all(journal, ProcFs(), Syscalls())
    assert masks(child) == {ALL}


@pytest.mark.usefixtures("hasty")
def test_a_thread_that_ended_is_not_counted_as_bound(child: WorkerId, tmp_path: Path) -> None:
    """The kernel says ESRCH of it: nothing was set."""

    class Ended(Syscalls):
        @staticmethod
        def sched_setaffinity(tid: int, cpus: object) -> frozenset[int]:
            raise ProcessLookupError(tid, cpus)

    bound = bind(decision(child), HOME, ProcFs(), Ended(), Journal(tmp_path, "boot"))
    assert (bound.threads, bound.left) == (0, 4)


class Reborn(Changing):
    """Each listing has threads that were born since the one before."""

    def thread(self, pid: int, tid: int) -> Thread:
        """Return one that began with this listing."""
        thread = super().thread(pid, tid)
        return replace(thread, start_ticks=thread.start_ticks + self.listings)


class Cut(Syscalls):
    """Of each mask a cpuset leaves the home alone."""

    @staticmethod
    def sched_setaffinity(tid: int, cpus: Iterable[int]) -> frozenset[int]:
        """Set what is left."""
        return Syscalls.sched_setaffinity(tid, HOME & frozenset(cpus))


@pytest.mark.usefixtures("hasty")
def test_a_worker_is_forgotten_whose_cpuset_leaves_all_its_threads_the_same(
    child: WorkerId, tmp_path: Path
) -> None:
    """No thread can be told to have its first mask: after many passes that gave it, all have it."""
    journal = Journal(tmp_path, "boot")
    bind(decision(child), HOME, ProcFs(), Syscalls(), journal)
    reborn = Reborn(lambda _number: set())
    restore_all(journal, reborn, Cut(), lambda _worker: HOME)
    assert reborn.listings > 20
    assert journal.entries() == ()


def test_new_threads_under_a_cut_mask_do_not_keep_binding_busy(
    child: WorkerId, tmp_path: Path
) -> None:
    """What a cpuset leaves of their mask is all that they can get; two passes tell."""
    journal = Journal(tmp_path, "boot")
    bind(decision(child), HOME, ProcFs(), Syscalls(), journal)
    reborn = Reborn(lambda _number: set())
    bound = bind(decision(child), ALL, reborn, Cut(), journal)
    assert (bound.threads, bound.out_of_passes, reborn.listings) == (0, False, 3)
