"""Narrowing the affinity of a worker's threads, and giving it back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from numad_py.act.first_masks import Granted, first_masks, granted_by, not_known
from numad_py.act.identity import Alive, alive
from numad_py.act.journal import Entry, Journal, ThreadMasks
from numad_py.act.passes import Passes, never
from numad_py.errors import NumadError, RightsError, Vanished
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.plan import Decision
from numad_py.model.snapshot import Thread, WorkerId

__all__ = ["Bound", "Granted", "bind", "first_masks", "granted_by", "restore", "restore_all"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Bound:
    """What binding, or giving back, did."""

    threads: int = 0
    left: int = 0
    """Threads whose mask could not be set, or shares no CPU with the home; where it ran out of
    passes, those as well that were not seen to when it ended."""
    stopped: bool = False
    """It was broken off; the journal has all that was bound."""
    out_of_passes: bool = False
    """The worker created threads faster than they could be seen to."""

    @property
    def undone(self) -> bool:
        """Whether the worker may be forgotten once this gave its masks back."""
        return not (self.left or self.stopped or self.out_of_passes)


def bind(
    decision: Decision,
    cpus: frozenset[int],
    procfs: ProcFs,
    syscalls: Syscalls,
    journal: Journal,
    *,
    granted: Granted = not_known,
    stopped: Callable[[], bool] = never,
) -> Bound:
    """Bring every thread to these CPUs, until two passes find nothing to do.

    A thread gets what its user's mask and ``cpus`` share, and is left alone where that is nothing;
    for a thread that was bound earlier, elsewhere or to fewer, its user's mask is the one it had
    before that.

    Args:
        decision: made about the worker.
        cpus: of its home.
        procfs: the machine's processes.
        syscalls: of this machine.
        journal: is told before any mask is set.
        granted: tells the CPUs of the worker's cpuset.
        stopped: asked before each thread; once it says so, nothing more is bound.

    Raises:
        Vanished: the worker ended, or its pid is another process.
        NumadError: the journal could not be written; nothing was changed.
    """
    passes = Passes(stopped)
    with alive(decision.worker, procfs, syscalls) as handle:
        binding = _Binding(decision, cpus, handle, syscalls, journal)
        while passes.more():
            handle.check()
            found = binding.bring(passes.threads(decision.worker, procfs), granted)
            passes.ended(clean=not found)
        left = len(binding.left)
        if out := not (passes.settled or passes.halted):
            left += binding.count_unbound(procfs.threads(decision.worker.pid), granted)
            log.warning(
                "threads are created faster than they can be bound",
                worker=decision.label,
                pid=decision.worker.pid,
                left=left,
            )
    return Bound(len(binding.done), left, stopped=passes.halted, out_of_passes=out)


_Key = tuple[int, int]
"""A thread's id and start time: ids are used again."""


class _Binding:
    """Binding one worker: what was done in all passes."""

    def __init__(
        self,
        decision: Decision,
        cpus: frozenset[int],
        handle: Alive,
        syscalls: Syscalls,
        journal: Journal,
    ) -> None:
        self._decision, self._cpus = decision, cpus
        self._handle, self._syscalls, self._journal = handle, syscalls, journal
        self.done: set[_Key] = set()
        self.left: set[_Key] = set()
        self._cut: dict[frozenset[int], frozenset[int]] = {}
        """What its cpuset has left of a mask that was set."""

    def bring(self, threads: Iterable[Thread], granted: Granted) -> bool:
        """Bind those that are not; say whether there were any."""
        entry = self._journal.entry(self._decision.worker)
        granted = functools.cache(granted)
        wanted: dict[int, ThreadMasks] = {}
        theirs: dict[int, ThreadMasks] = {}
        living: set[int] = set()
        found = False
        for thread in threads:
            living.add(thread.tid)
            masks = self._masks(thread, entry, granted)
            if masks is None:
                theirs.update(self._as_it_is(thread, entry))
                continue
            found = True
            if entry is not None and entry.tells(thread.tid, masks):
                # At once: of threads that live for milliseconds few would be there still, later.
                self._set({thread.tid: masks}, living)
            else:
                wanted[thread.tid] = masks
        if wanted:
            self._put({**theirs, **wanted}, living)
            self._set(wanted, living)
        return found

    def count_unbound(self, threads: Sequence[Thread], granted: Granted) -> int:
        """Return how many are still to be bound."""
        entry = self._journal.entry(self._decision.worker)
        granted = functools.cache(granted)
        return sum(self._masks(thread, entry, granted) is not None for thread in threads)

    def _masks(self, thread: Thread, entry: Entry | None, granted: Granted) -> ThreadMasks | None:
        """Return what a thread is to get; None where it is to be left as it is."""
        key = thread.tid, thread.start_ticks
        if not thread.affinity or key in self.left:
            return None
        users = _users(thread, first_masks(self._decision.worker, entry, [thread], granted))
        ours = users & self._cpus
        if not ours or thread.affinity == self._cut.get(ours):
            self.left.add(key)
            return None
        return None if thread.affinity == ours else ThreadMasks(thread.start_ticks, users, ours)

    def _as_it_is(self, thread: Thread, entry: Entry | None) -> dict[int, ThreadMasks]:
        """Return what the journal is to have of a thread that is not bound.

        Before any mask is ours all are the user's, those that need no change as well: later they
        could not be told from threads that have inherited ours. One that is left alone has none of
        ours.
        """
        mask = thread.affinity
        if not mask:
            return {}
        if not mask & self._cpus:
            known = entry.threads.get(thread.tid) if entry is not None else None
            if known is None or known.start_ticks != thread.start_ticks:
                return {thread.tid: ThreadMasks(thread.start_ticks, mask, frozenset())}
        elif entry is None:
            return {thread.tid: ThreadMasks(thread.start_ticks, mask, mask)}
        return {}

    def _put(self, masks: Mapping[int, ThreadMasks], living: Collection[int]) -> None:
        made = self._decision
        self._journal.put(Entry(made.worker, made.label, made.id, masks), living)

    def _set(self, wanted: Mapping[int, ThreadMasks], living: Collection[int]) -> None:
        cut: dict[int, ThreadMasks] = {}
        for tid, masks in wanted.items():
            self._handle.check()
            stands = _set(tid, masks.ours, self._syscalls)
            if stands is None:
                continue
            key = tid, masks.start_ticks
            (self.done if stands == masks.ours else self.left).add(key)
            if stands and stands != masks.ours:
                cut[tid] = replace(masks, ours=stands)
                self._cut[masks.ours] = stands
        entry = self._journal.entry(self._decision.worker)
        if entry is None or not all(entry.tells(tid, masks) for tid, masks in cut.items()):
            # What its cpuset has left of a mask is ours, too, and is to be given back.
            self._put(cut, living)


def _users(thread: Thread, before: Mapping[int, frozenset[int]]) -> frozenset[int]:
    """Return the mask that its user gave a thread."""
    return before.get(thread.tid, thread.affinity or frozenset())


def _set(tid: int, cpus: frozenset[int], syscalls: Syscalls) -> frozenset[int] | None:
    """Set one mask and return what stands: less where its cpuset or offline CPUs cut it.

    Empty where the kernel refuses (EINVAL: outside its cpuset, or PF_NO_SETAFFINITY); None where
    the thread has ended.

    Raises:
        RightsError: CAP_SYS_NICE is missing.
    """
    try:
        return syscalls.sched_setaffinity(tid, cpus)
    except ProcessLookupError:
        return None
    except PermissionError:
        msg = f"no right to set the affinity of thread {tid}: CAP_SYS_NICE is missing"
        raise RightsError(msg) from None
    except OSError as error:
        log.debug("affinity not set", tid=tid, error=str(error))
        return frozenset()


def restore(
    entry: Entry,
    procfs: ProcFs,
    syscalls: Syscalls,
    granted: Granted = not_known,
    *,
    stopped: Callable[[], bool] = never,
) -> Bound:
    """Give a worker's threads their first masks back, until two passes find nothing to do.

    A thread whose mask is no longer what numad-py set was changed by its user since, and is left.

    Args:
        entry: what the journal has of it.
        procfs: the machine's processes.
        syscalls: of this machine.
        granted: tells the CPUs of the worker's cpuset.
        stopped: asked before each thread; once it says so, nothing more is given back.

    Returns:
        How many got them and could not.

    Raises:
        NumadError: it cannot be told whether the worker lives, or a right is missing.
    """
    given_back: set[_Key] = set()
    refused: set[_Key] = set()
    cut: set[_Key] = set()
    passes = Passes(stopped)
    left = 0
    out = False
    try:
        with alive(entry.worker, procfs, syscalls) as handle:
            while passes.more():
                handle.check()
                cached = functools.cache(granted)
                clean = True
                for thread in passes.threads(entry.worker, procfs):
                    key = thread.tid, thread.start_ticks
                    mask = _to_give_back(thread, entry, cached)
                    if mask is None or key in refused or key in cut:
                        continue
                    clean = False
                    handle.check()
                    stands = _set(thread.tid, mask, syscalls)
                    if stands is None:
                        continue
                    (given_back if stands and stands <= mask else refused).add(key)
                    if stands != mask:
                        # It may look like ours, still.
                        cut.add(key)
                passes.ended(clean=clean)
            if not (passes.settled or passes.halted):
                threads = procfs.threads(entry.worker.pid)
                left = _count_bound(threads, entry, functools.cache(granted), refused)
                # Where what a cpuset leaves of their first mask is what it leaves of ours, no
                # thread can be told to be done; all have been seen to, many times.
                out = bool(left) or not cut
    except Vanished:
        return Bound(threads=len(given_back))
    return Bound(len(given_back), len(refused) + left, stopped=passes.halted, out_of_passes=out)


def _to_give_back(thread: Thread, entry: Entry, granted: Granted) -> frozenset[int] | None:
    """Return the mask that a thread is to get back; None where it has it, or its user's own."""
    mask = first_masks(entry.worker, entry, [thread], granted).get(thread.tid)
    return None if mask == thread.affinity else mask


def _count_bound(
    threads: Sequence[Thread], entry: Entry, granted: Granted, refused: Collection[_Key]
) -> int:
    """Return how many threads have a mask that their first one would not give them."""
    cpuset = granted(entry.worker)
    return sum(
        mask is not None
        and (cpuset is None or mask & cpuset != thread.affinity)
        and (thread.tid, thread.start_ticks) not in refused
        for thread in threads
        for mask in [_to_give_back(thread, entry, granted)]
    )


def restore_all(
    journal: Journal, procfs: ProcFs, syscalls: Syscalls, granted: Granted = not_known
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
        if bound.undone:
            undone.append(entry.worker)
        workers += bool(bound.threads)
        if bound.undone:
            tell, what = log.info, "affinity given back"
        elif bound.out_of_passes:
            tell = log.warning
            what = (
                "affinity not given back to all: threads are created faster than they can be seen "
                "to; the journal keeps it, so restore again"
            )
        else:
            tell, what = log.warning, "affinity not given back to all"
        tell(
            what,
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
