"""Narrowing the affinity of a worker's threads, and giving it back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from numad_py.act.identity import alive
from numad_py.act.journal import Entry, Journal, ThreadMasks
from numad_py.errors import NumadError, RightsError, Vanished
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.plan import Decision
from numad_py.model.snapshot import Thread, WorkerId

log = structlog.get_logger(__name__)

_PASSES = 20
"""Passes over the threads at most: a worker that never stops creating threads is not waited for;
new threads inherit their creator's mask, so only those created by unbound ones are missed."""
_CLEAN_PASSES = 2

Granted = Callable[[WorkerId], frozenset[int] | None]
"""Returns the CPUs that a worker's cpuset grants it now; None where that is not known."""


def granted_by(procfs: ProcFs, cgroups: CgroupFs) -> Granted:
    """Return what tells that, by the cgroup that a worker is in."""

    def granted(worker: WorkerId) -> frozenset[int] | None:
        cgroup = procfs.cgroup(worker.pid)
        return cgroups.cpuset_cpus(cgroup) if cgroup is not None else None

    return granted


def _not_known(_worker: WorkerId) -> None:
    return None


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
    *,
    granted: Granted = _not_known,
) -> Bound:
    """Bring every thread to these CPUs, until two passes find nothing to do.

    A thread gets what its user's mask and ``cpus`` share, and is left alone where that is nothing;
    for a thread that was bound earlier, elsewhere or to fewer, its user's mask is the one it had
    before that.

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
            # Before any mask is ours all are the user's, those that need no change as well: later
            # they could not be told from threads that have inherited ours.
            entry = journal.entry(decision.worker)
            as_they_are = {} if entry else _inside(threads, cpus)
            before = first_masks(decision.worker, entry, threads, granted)
            left |= {t.tid for t in threads if t.affinity and not _users(t, before) & cpus}
            wanted = _wanted([t for t in threads if t.tid not in left], cpus, before)
            if not wanted:
                clean += 1
                if clean == _CLEAN_PASSES:
                    break
                continue
            clean = 0
            masks_of = {**as_they_are, **wanted}
            journal.put(Entry(decision.worker, decision.label, decision.id, masks_of))
            cut: dict[int, ThreadMasks] = {}
            for tid, masks in wanted.items():
                handle.check()
                stands = _set(tid, masks.ours, syscalls)
                (done if stands == masks.ours else left).add(tid)
                if stands and stands != masks.ours:
                    cut[tid] = replace(masks, ours=stands)
            if cut:
                # What its cpuset has left of a mask is ours, too, and is to be given back.
                journal.put(Entry(decision.worker, decision.label, decision.id, cut))
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
        if t.affinity and t.affinity != _users(t, before) & cpus
    }


def _inside(threads: Sequence[Thread], cpus: frozenset[int]) -> dict[int, ThreadMasks]:
    return {
        t.tid: ThreadMasks(t.start_ticks, t.affinity, t.affinity)
        for t in threads
        if t.affinity and t.affinity <= cpus
    }


def _set(tid: int, cpus: frozenset[int], syscalls: Syscalls) -> frozenset[int]:
    """Set one mask and return what stands: less where its cpuset or offline CPUs cut it.

    Empty where the kernel refuses (EINVAL: outside its cpuset, or PF_NO_SETAFFINITY).

    Raises:
        RightsError: CAP_SYS_NICE is missing.
    """
    try:
        return syscalls.sched_setaffinity(tid, cpus)
    except ProcessLookupError:
        return cpus
    except PermissionError:
        msg = f"no right to set the affinity of thread {tid}: CAP_SYS_NICE is missing"
        raise RightsError(msg) from None
    except OSError as error:
        log.debug("affinity not set", tid=tid, error=str(error))
        return frozenset()


def first_masks(
    worker: WorkerId,
    entry: Entry | None,
    threads: Sequence[Thread],
    granted: Granted = _not_known,
) -> dict[int, frozenset[int]]:
    """Return the masks that threads had before numad-py narrowed them, by thread id.

    Only of threads whose mask is one that numad-py has set: another one is its user's, set since. A
    thread born since has inherited such a mask from its creator. What a cpuset that was narrowed
    since has left of our mask is ours as well (``set_cpus_allowed_ptr`` with ``user_cpus_ptr``,
    kernel/sched/core.c, Linux 6.2); before that kernel such threads get the whole of the cpuset,
    which pins them to nothing else.
    """
    if entry is None or entry.worker != worker:
        return {}
    # Once for all: a user may have pinned each of thousands to a CPU of its own.
    granted = functools.cache(granted)
    found: dict[int, frozenset[int]] = {}
    for t in threads:
        if t.affinity is not None and (ours := _ours(t.affinity, entry, granted)) is not None:
            known = entry.threads.get(t.tid)
            same = known is not None and known.start_ticks == t.start_ticks
            found[t.tid] = known.before if known and same else entry.inherited(ours)
    return found


def _ours(mask: frozenset[int], entry: Entry, granted: Granted) -> frozenset[int] | None:
    """Return the mask that numad-py has set where this is it, or what a cpuset left of it."""
    if mask in entry.set_masks:
        return mask
    wider = [ours for ours in entry.set_masks if mask < ours]
    if not wider or (cpuset := granted(entry.worker)) is None:
        return None
    return next((ours for ours in sorted(wider, key=sorted) if ours & cpuset == mask), None)


def restore(
    entry: Entry, procfs: ProcFs, syscalls: Syscalls, granted: Granted = _not_known
) -> Bound:
    """Give a worker's threads their first masks back; return how many got them and could not.

    A thread whose mask is no longer what numad-py set was changed by its user since, and is left.

    Raises:
        NumadError: it cannot be told whether the worker lives, or a right is missing.
    """
    given_back: set[int] = set()
    refused: set[int] = set()
    try:
        with alive(entry.worker, procfs, syscalls) as handle:
            for _ in range(_PASSES):
                threads = procfs.threads(entry.worker.pid)
                before = first_masks(entry.worker, entry, threads, granted)
                todo = _to_give_back(before, threads, given_back | refused)
                for tid, mask in todo.items():
                    handle.check()
                    stands = _set(tid, mask, syscalls)
                    (given_back if stands and stands <= mask else refused).add(tid)
                if not todo:
                    break
    except Vanished:
        return Bound(threads=len(given_back))
    return Bound(threads=len(given_back), left=len(refused))


def _to_give_back(
    before: Mapping[int, frozenset[int]], threads: Sequence[Thread], seen_to: set[int]
) -> dict[int, frozenset[int]]:
    return {
        t.tid: before[t.tid]
        for t in threads
        if t.tid in before and t.tid not in seen_to and before[t.tid] != t.affinity
    }


def restore_all(
    journal: Journal, procfs: ProcFs, syscalls: Syscalls, granted: Granted = _not_known
) -> int:
    """Restore every worker of the journal; return how many workers got masks back.

    A worker that could not be given all its masks stays in the journal, and it is said why; the
    others are forgotten.
    """
    workers = 0
    undone: list[WorkerId] = []
    for entry in journal.entries():
        try:
            bound = restore(entry, procfs, syscalls, granted)
        except NumadError as error:
            log.error(  # noqa: TRY400 - the message says it all
                "affinity not given back", worker=entry.label, error=str(error)
            )
            continue
        if not bound.left:
            undone.append(entry.worker)
        workers += bool(bound.threads)
        tell = log.warning if bound.left else log.info
        tell(
            "affinity given back",
            worker=entry.label,
            pid=entry.worker.pid,
            threads=bound.threads,
            refused=bound.left,
        )
    try:
        journal.forget_all(undone)
    except NumadError as error:
        log.warning("journal not written", error=str(error))
    return workers
