"""Narrowing the affinity of a worker's threads, and giving it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from numad_py.act.identity import Alive, alive
from numad_py.act.journal import Entry, Journal, ThreadMasks
from numad_py.errors import Vanished
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.plan import Decision
from numad_py.model.snapshot import Thread, WorkerId

log = structlog.get_logger(__name__)

_PASSES = 20
"""Passes over the threads at most: a worker that never stops creating threads is not waited for;
new threads inherit their creator's mask, so only those created by unbound ones are missed."""
_CLEAN_PASSES = 2


@dataclass(frozen=True)
class Bound:
    """What binding did."""

    threads: int = 0
    left: int = 0
    """Threads whose mask could not be set, or shares no CPU with the home."""


def bind(
    decision: Decision,
    cpus: frozenset[int],
    procfs: ProcFs,
    syscalls: Syscalls,
    journal: Journal,
) -> Bound:
    """Narrow every thread to these CPUs, until two passes find nothing to do.

    A thread gets what its user's mask and ``cpus`` share, and is left alone where that is nothing;
    for a thread that was bound elsewhere earlier, its user's mask is the one it had before that.

    Raises:
        Vanished: the worker ended, or its pid is another process.
        NumadError: the journal could not be written; nothing was changed.
    """
    done: set[int] = set()
    left: set[int] = set()
    clean = 0
    with alive(decision.worker, procfs, syscalls) as handle:
        for _ in range(_PASSES):
            handle.check()
            threads = procfs.threads(decision.worker.pid)
            before = first_masks(decision.worker, journal.entry(decision.worker), threads)
            left |= {t.tid for t in threads if t.affinity and not _users(t, before) & cpus}
            wanted = _wanted([t for t in threads if t.tid not in left], cpus, before)
            if not wanted:
                clean += 1
                if clean == _CLEAN_PASSES:
                    break
                continue
            clean = 0
            journal.put(_entry(decision, wanted))
            for tid, masks in wanted.items():
                handle.check()
                (done if _set(tid, masks.ours, syscalls) else left).add(tid)
    return Bound(threads=len(done), left=len(left))


def _users(thread: Thread, before: Mapping[int, frozenset[int]]) -> frozenset[int]:
    """Return the mask that its user gave a thread."""
    return before.get(thread.tid, thread.affinity or frozenset())


def _wanted(
    threads: Sequence[Thread], cpus: frozenset[int], before: Mapping[int, frozenset[int]]
) -> dict[int, ThreadMasks]:
    return {
        t.tid: ThreadMasks(t.start_ticks, _users(t, before), _users(t, before) & cpus)
        for t in threads
        if t.affinity and not t.affinity <= cpus
    }


def _entry(decision: Decision, wanted: Mapping[int, ThreadMasks]) -> Entry:
    return Entry(decision.worker, decision.label, decision.id, wanted)


def _set(tid: int, cpus: frozenset[int], syscalls: Syscalls) -> bool:
    """Set one mask and say whether it stands; EINVAL: outside its cpuset, or PF_NO_SETAFFINITY."""
    try:
        return syscalls.sched_setaffinity(tid, cpus) == cpus
    except ProcessLookupError:
        return True
    except OSError as error:
        log.debug("affinity not set", tid=tid, error=str(error))
        return False


def first_masks(
    worker: WorkerId, entry: Entry | None, threads: Sequence[Thread]
) -> dict[int, frozenset[int]]:
    """Return the masks that threads had before numad-py narrowed them, by thread id.

    Only of threads whose mask is one that numad-py has set: another one is its user's, set since. A
    thread born since has inherited such a mask, and gets the worker's first one.
    """
    if entry is None or entry.worker != worker:
        return {}
    return {
        t.tid: known.before
        if (known := entry.threads.get(t.tid)) and known.start_ticks == t.start_ticks
        else entry.first_mask
        for t in threads
        if t.affinity in entry.set_masks
    }


def restore(entry: Entry, procfs: ProcFs, syscalls: Syscalls) -> int:
    """Give a worker's threads their first masks back; return how many got them.

    A thread whose mask is no longer what numad-py set was changed by its user since, and is left.
    """
    try:
        with alive(entry.worker, procfs, syscalls) as handle:
            return _restore_threads(entry, procfs, syscalls, handle)
    except Vanished:
        return 0


def _restore_threads(entry: Entry, procfs: ProcFs, syscalls: Syscalls, handle: Alive) -> int:
    given_back = 0
    for _ in range(_PASSES):
        threads = procfs.threads(entry.worker.pid)
        before = first_masks(entry.worker, entry, threads)
        changed = 0
        for thread in threads:
            if thread.tid in before and before[thread.tid] != thread.affinity:
                handle.check()
                changed += _set(thread.tid, before[thread.tid], syscalls)
        given_back += changed
        if not changed:
            break
    return given_back


def restore_all(journal: Journal, procfs: ProcFs, syscalls: Syscalls) -> int:
    """Restore every worker of the journal and empty it; return how many workers got masks back."""
    workers = 0
    for entry in journal.entries():
        if restore(entry, procfs, syscalls):
            workers += 1
            log.info("affinity given back", worker=entry.label, pid=entry.worker.pid)
        journal.forget(entry.worker)
    return workers
