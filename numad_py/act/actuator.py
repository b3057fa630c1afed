"""The doers: one that acts, and one that only says so."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Protocol

import structlog

from numad_py.act import affinity
from numad_py.act.journal import NAME, Journal, read
from numad_py.act.measure import measure
from numad_py.act.mover import Mover, Tally
from numad_py.errors import NumadError, Vanished
from numad_py.kernel import clock
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.kernel.sysfs import SysFs
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision
from numad_py.model.snapshot import FirstMasks, Thread, WorkerId
from numad_py.policy.schema import Policy

log = structlog.get_logger(__name__)


class Actuator(Protocol):
    """What the cycle needs of a doer."""

    def submit(self, decision: Decision) -> None:
        """Take a decision; returns at once."""

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what has ended since the last call."""

    def busy(self) -> int:
        """Return how many decisions are under way or waiting."""

    def progress(self) -> Mapping[WorkerId, int]:
        """Return bytes moved so far by worker, of the moves under way."""

    def first_masks(
        self, worker: WorkerId, threads: tuple[Thread, ...]
    ) -> Mapping[int, frozenset[int]]:
        """Return the masks that threads had before numad-py narrowed them."""

    def use(self, policy: Policy) -> None:
        """Go on by another policy."""

    def pause(self) -> None:
        """Stop within a chunk and drop what waits; each ends with an outcome."""

    def resume(self) -> None:
        """Take decisions again."""

    def forget_ended(self, alive: frozenset[WorkerId]) -> None:
        """Drop what is remembered of processes that have ended; these are known to live."""

    def restore_all(self) -> int:
        """Give all masks back; return for how many workers."""

    def stop(self, timeout_s: float) -> None:
        """End for good, within a chunk or the given time."""


class DryActuator:
    """Touches nothing: every decision ends as simulated."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """``now_s`` is the time since boot."""
        self._now_s = now_s
        self._outcomes: list[Outcome] = []

    def submit(self, decision: Decision) -> None:
        """Note that it would have been done."""
        self._outcomes.append(Outcome(decision, End.SIMULATED, self._now_s(), 0.0))

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what would have been done."""
        done, self._outcomes = tuple(self._outcomes), []
        return done

    def busy(self) -> int:
        """Return 0."""
        return 0

    def progress(self) -> Mapping[WorkerId, int]:
        """Return nothing."""
        return {}

    def first_masks(
        self,
        worker: WorkerId,  # noqa: ARG002
        threads: tuple[Thread, ...],  # noqa: ARG002
    ) -> Mapping[int, frozenset[int]]:
        """Return nothing: no mask is ours."""
        return {}

    def use(self, policy: Policy) -> None:
        """Need nothing of it."""

    def pause(self) -> None:
        """Have nothing to stop."""

    def resume(self) -> None:
        """Have nothing to go on with."""

    def forget_ended(self, alive: frozenset[WorkerId]) -> None:
        """Remember nothing."""

    def restore_all(self) -> int:
        """Have nothing to give back."""
        return 0

    def stop(self, timeout_s: float) -> None:
        """Have nothing to end."""


class _Mark(Enum):
    """What else may stand in the mover's queue."""

    GO_ON = "go on"
    """All decisions before it were to be stopped; those behind it are not."""
    END = "end"


class RealActuator:
    """One mover thread with a queue: threads first, then memory, then measured again."""

    def __init__(  # noqa: PLR0917 - the rooms it works with
        self,
        policy: Policy,
        procfs: ProcFs,
        sysfs: SysFs,
        syscalls: Syscalls,
        journal: Journal,
        on_outcome: Callable[[], None],
    ) -> None:
        """Start the thread; ``on_outcome`` is called on it whenever something has ended."""
        self._policy = policy
        self._procfs = procfs
        self._sysfs = sysfs
        self._syscalls = syscalls
        self._journal = journal
        self._on_outcome = on_outcome
        self._queue: queue.SimpleQueue[Decision | _Mark] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._halt = threading.Event()
        self._paused = False
        self._lock = threading.Lock()
        """Guards the journal, which the mover and the main loop both use."""
        self._pending = 0
        self._current: tuple[WorkerId, Tally] | None = None
        self._mover = Mover(procfs, syscalls, self._room, self._halt)
        self._thread = threading.Thread(target=self._run, name="mover", daemon=True)
        self._thread.start()

    def submit(self, decision: Decision) -> None:
        """Queue a decision."""
        self._pending += 1
        self._queue.put(decision)

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what has ended."""
        done: list[Outcome] = []
        while True:
            try:
                done.append(self._ended.get_nowait())
            except queue.Empty:
                break
        for outcome in done:
            if outcome.end is End.GONE:
                self._forget([outcome.decision.worker])
        self._pending -= len(done)
        return tuple(done)

    def forget_ended(self, alive: frozenset[WorkerId]) -> None:
        """Drop the journal's entries of processes that have ended.

        A process that is no worker any more may well live, and have our masks.
        """
        doubtful = [e.worker for e in self._journal.entries() if e.worker not in alive]
        # Only then the lock: the mover holds it for as long as it binds, and this is every cycle.
        if ended := [worker for worker in doubtful if self._has_ended(worker)]:
            self._forget(ended)

    def _has_ended(self, worker: WorkerId) -> bool:
        try:
            return self._procfs.stat(worker.pid).start_ticks != worker.start_ticks
        except Vanished:
            return True
        except NumadError:
            return False

    def _forget(self, workers: Iterable[WorkerId]) -> None:
        try:
            with self._lock:
                for worker in workers:
                    self._journal.forget(worker)
        except NumadError as error:
            # It has ended, so there is nothing to undo; the entry goes with the next boot.
            log.warning("journal not written", error=str(error))

    def busy(self) -> int:
        """Return what is queued, under way, or ended and not fetched yet."""
        return self._pending - self._ended.qsize()

    def progress(self) -> Mapping[WorkerId, int]:
        """Return bytes moved so far of the move under way."""
        current = self._current
        return {current[0]: current[1].moved_bytes} if current is not None else {}

    def first_masks(
        self, worker: WorkerId, threads: tuple[Thread, ...]
    ) -> Mapping[int, frozenset[int]]:
        """Return what the journal knows of the threads that have a mask of ours."""
        return affinity.first_masks(worker, self._journal.entry(worker), threads)

    def use(self, policy: Policy) -> None:
        """Go on by another policy; what the earlier one decided ends as stopped."""
        self._policy = policy
        self._halt.set()
        self._queue.put(_Mark.GO_ON)

    def pause(self) -> None:
        """Stop the move under way within a chunk; what waits ends as stopped."""
        self._paused = True
        self._halt.set()

    def resume(self) -> None:
        """Move again, once what waits has ended as stopped."""
        self._paused = False
        self._queue.put(_Mark.GO_ON)

    def restore_all(self) -> int:
        """Give every mask back."""
        with self._lock:
            return affinity.restore_all(self._journal, self._procfs, self._syscalls)

    def stop(self, timeout_s: float) -> None:
        """End the thread after its chunk; a call that lasts longer is not waited for."""
        self._paused = True
        self._halt.set()
        self._queue.put(_Mark.END)
        self._thread.join(timeout_s)

    def _room(self, node: int) -> int:
        return self._sysfs.node_state(node).room_bytes(self._policy.placement.headroom)

    def _run(self) -> None:
        while (item := self._queue.get()) is not _Mark.END:
            if item is _Mark.GO_ON:
                if not self._paused:
                    self._halt.clear()
                continue
            self._ended.put(self._carry_out(item))
            self._on_outcome()

    def _carry_out(self, decision: Decision) -> Outcome:
        """Bind, move, measure; whatever goes wrong becomes part of the outcome."""
        started_at_s, began_s = clock.boottime_s(), clock.monotonic_s()
        tally = Tally()
        bound = affinity.Bound()
        after = None
        self._current = (decision.worker, tally)
        try:
            bound = self._bind(decision, tally)
            if tally.end is End.DONE and decision.moves:
                self._mover.move(decision, self._policy.migration, tally)
            if decision.moves and not self._halt.is_set():
                after = measure(decision.worker.pid, self._procfs)
        except Vanished:
            tally.end = End.GONE
        except (NumadError, OSError) as error:
            tally.end, tally.error = End.FAILED, str(error)
        except Exception as error:  # the thread must outlive any one worker
            log.exception("carrying out a decision failed", decision=decision.id)
            tally.end, tally.error = End.FAILED, repr(error)
        finally:
            self._current = None
        return Outcome(
            decision=decision,
            end=tally.end,
            started_at_s=started_at_s,
            duration_s=clock.monotonic_s() - began_s,
            threads_bound=bound.threads,
            threads_left=bound.left,
            moved=dict(tally.moved),
            pages=dict(tally.pages),
            refused_bytes=dict(tally.refused_bytes),
            after=after,
            error=tally.error,
        )

    def _bind(self, decision: Decision, tally: Tally) -> affinity.Bound:
        with self._lock:
            # Under the lock: whoever gives masks back has said so before, and holds it meanwhile.
            if self._halt.is_set():
                tally.end = End.STOPPED
            if tally.end is not End.DONE or decision.bind_cpus is None:
                return affinity.Bound()
            return affinity.bind(
                decision, decision.bind_cpus, self._procfs, self._syscalls, self._journal
            )


def read_first_masks(folder: Path, procfs: ProcFs) -> FirstMasks:
    """Return what a journal that another process keeps knows; nothing where it cannot be read."""
    try:
        entries = read(folder / NAME, procfs.boot_id() or "unknown")
    except OSError:
        entries = {}

    def first_masks(worker: WorkerId, threads: tuple[Thread, ...]) -> Mapping[int, frozenset[int]]:
        return affinity.first_masks(worker, entries.get(worker), threads)

    return first_masks
