"""Masks of ours that a cpuset has cut since: they are still ours, and the user's is not lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from numad_py.act.affinity import Granted, bind, first_masks, restore
from numad_py.act.journal import Entry, Journal, ThreadMasks
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.snapshot import Thread, WorkerId
from tests.unit.test_act import child, decision, masks
from tests.unit.test_actuator import Bench, bench

__all__ = ["bench", "child"]

WORKER = WorkerId(10, 5)
FIRST, OURS = frozenset(range(8)), frozenset(range(4))
ENTRY = Entry(WORKER, "x/0", "1:x/0", {10: ThreadMasks(5, FIRST, OURS)})
LEFT_ALONE = Entry(
    WORKER,
    "x/0",
    "1:x/0",
    {**ENTRY.threads, 11: ThreadMasks(5, frozenset({6, 7}), frozenset())},
)


def thread(cpus: set[int], tid: int = 10) -> Thread:
    """Return one with this mask."""
    return Thread(tid=tid, start_ticks=5, affinity=frozenset(cpus), last_cpu=0, cpu_ticks=0)


def grants(cpus: set[int] | None) -> Granted:
    """Return a cpuset."""
    return lambda _worker: None if cpus is None else frozenset(cpus)


@pytest.mark.parametrize(
    ("mask", "cpuset", "ours"),
    [
        ({0, 1}, {0, 1, 6, 7}, True),
        ({0, 1}, set(range(8)), False),
        ({0}, {0, 1}, False),
        ({0, 1}, None, False),
        ({6, 7}, {6, 7}, True),
        ({6}, {6, 7}, False),
        ({6, 7}, {5, 6, 7}, False),
        ({0, 1, 2, 3}, {0, 1}, True),
    ],
    ids=[
        "cut",
        "whole",
        "more-than-cut",
        "unknown",
        "nothing-left",
        "users-own",
        "less-than-whole",
        "not-cut-yet",
    ],
)
def test_what_a_cpuset_has_left_of_our_mask_is_ours(
    mask: set[int], cpuset: set[int] | None, *, ours: bool
) -> None:
    """A thread has what its mask and its cpuset share (``set_cpus_allowed``, Linux 6.2).

    Where they share nothing it has the whole cpuset.
    """
    found = first_masks(WORKER, ENTRY, [thread(mask)], grants(cpuset))
    assert found == ({10: FIRST} if ours else {})


def test_a_thread_born_under_a_cut_mask_has_its_creators_first_mask() -> None:
    """It inherits the cut mask, and is no more pinned by its user than its creator."""
    cut = [thread({0, 1}), thread({0, 1}, tid=11)]
    assert first_masks(WORKER, ENTRY, cut, grants({0, 1}))[11] == FIRST


def test_the_cpuset_is_read_only_where_a_mask_may_be_cut() -> None:
    """In each look masks are asked for: mostly all are as they were set."""

    def granted(_worker: WorkerId) -> frozenset[int]:
        pytest.fail("it was read")

    threads = [thread(set(OURS)), thread({6, 7}, tid=11), thread(set(range(8)), tid=12)]
    assert set(first_masks(WORKER, LEFT_ALONE, threads, granted)) == {10}


def test_a_thread_that_was_left_alone_is_not_ours_when_its_cpuset_is_cut_to_its_pin() -> None:
    """It has no mask of ours that the kernel could remember; one that was bound beside it has."""
    threads = [thread({6, 7}), thread({6, 7}, tid=11)]
    assert first_masks(WORKER, LEFT_ALONE, threads, grants({6, 7})) == {10: FIRST}


def test_the_cpuset_is_read_once_for_all_threads() -> None:
    """A user may have pinned each of thousands to a CPU of its own."""
    reads = []

    def granted(worker: WorkerId) -> frozenset[int]:
        reads.append(worker)
        return FIRST

    assert first_masks(WORKER, ENTRY, [thread({i % 4}, tid=i) for i in range(100)], granted) == {}
    assert reads == [WORKER]


@pytest.fixture
def two_cpus() -> tuple[int, int]:
    """Return two that we may use."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    return cpus[0], cpus[1]


def narrowed(worker: WorkerId, cpus: frozenset[int]) -> Entry:
    """Return what the journal has of a worker whose threads all got these CPUs."""
    threads = ProcFs().threads(worker.pid)
    known = {t.tid: ThreadMasks(t.start_ticks, cpus, cpus) for t in threads}
    return Entry(worker, "x/0", "1:x/0", known)


def test_binding_anew_keeps_the_users_mask(
    child: WorkerId, tmp_path: Path, two_cpus: tuple[int, int]
) -> None:
    """Under a cut mask as well: the journal has what it was before, and that is given back."""
    journal = Journal(tmp_path, "boot")
    every, first = frozenset(two_cpus), masks(child)
    journal.put(narrowed(child, every))
    for tid in ProcFs().tids(child.pid):
        os.sched_setaffinity(tid, {two_cpus[0]})
    cut = grants({two_cpus[0]})
    bind(decision(child), frozenset({two_cpus[0]}), ProcFs(), Syscalls(), journal, granted=cut)
    (entry,) = journal.entries()
    assert {known.before for known in entry.threads.values()} == {every} == first
    restore(entry, ProcFs(), Syscalls(), cut)
    assert masks(child) == first


def test_the_doer_reads_the_cpuset_that_a_worker_is_in(
    bench: Bench, two_cpus: tuple[int, int]
) -> None:
    """From cgroupfs, by the path that the process has."""
    bench.journal.put(narrowed(bench.worker, frozenset(two_cpus)))
    for tid in bench.procfs.tids(bench.worker.pid):
        os.sched_setaffinity(tid, {two_cpus[1]})
    threads = bench.procfs.threads(bench.worker.pid)
    assert bench.actuator.first_masks(bench.worker, threads) == {}
    folder = bench.machine.sysfs / "fs/cgroup"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpuset.cpus.effective").write_text(f"{two_cpus[1]}\n")
    found = bench.actuator.first_masks(bench.worker, threads)
    assert set(found.values()) == {frozenset(two_cpus)}
