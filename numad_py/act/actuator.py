"""The doers: one that acts, and one that only says so."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from numad_py.act import affinity
from numad_py.act.journal import Journal, read
from numad_py.act.mover import Mover, Tally
from numad_py.errors import NumadError, Vanished
from numad_py.kernel import clock, numa_maps
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.kernel.sysfs import SysFs
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision
from numad_py.model.snapshot import Residency, WorkerId
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

    def ours(self, worker: WorkerId) -> Mapping[int, frozenset[int]]:
        """Return the masks of a worker's threads that numad-py set."""

    def use(self, policy: Policy) -> None:
        """Go on by another policy."""

    def pause(self) -> None:
        """Stop within a chunk and drop what waits; each ends with an outcome."""

    def resume(self) -> None:
        """Take decisions again."""

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

    def ours(self, worker: WorkerId) -> Mapping[int, frozenset[int]]:  # noqa: ARG002
        """Return nothing: no mask is ours."""
        return {}

    def use(self, policy: Policy) -> None:
        """Need nothing of it."""

    def pause(self) -> None:
        """Have nothing to stop."""

    def resume(self) -> None:
        """Have nothing to go on with."""

    def restore_all(self) -> int:
        """Have nothing to give back."""
        return 0

    def stop(self, timeout_s: float) -> None:
        """Have nothing to end."""


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
        self._queue: queue.SimpleQueue[Decision | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._halt = threading.Event()
        self._lock = threading.Lock()
        """Guards the journal, which the mover and the main loop both use."""
        self._pending = 0
        self._current: tuple[WorkerId, Tally] | None = None
        self._memory = {n.id: n.memory_bytes for n in sysfs.topology().nodes}
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
                with self._lock:
                    self._journal.forget(outcome.decision.worker)
        self._pending -= len(done)
        return tuple(done)

    def busy(self) -> int:
        """Return what is queued, under way, or ended and not fetched yet."""
        return self._pending - self._ended.qsize()

    def progress(self) -> Mapping[WorkerId, int]:
        """Return bytes moved so far of the move under way."""
        current = self._current
        return {current[0]: current[1].moved_bytes} if current is not None else {}

    def ours(self, worker: WorkerId) -> Mapping[int, frozenset[int]]:
        """Return the standing masks that the journal knows as ours."""
        entry = self._journal.entry(worker)
        if entry is None:
            return {}
        try:
            return affinity.ours(worker, entry, self._procfs.threads(worker.pid))
        except Vanished:
            return {}

    def use(self, policy: Policy) -> None:
        """Go on by another policy, from the next decision on."""
        self._policy = policy

    def pause(self) -> None:
        """Stop the move under way within a chunk; what waits ends as stopped."""
        self._halt.set()

    def resume(self) -> None:
        """Move again."""
        self._halt.clear()

    def restore_all(self) -> int:
        """Give every mask back."""
        with self._lock:
            return affinity.restore_all(self._journal, self._procfs, self._syscalls)

    def stop(self, timeout_s: float) -> None:
        """End the thread after its chunk; a call that lasts longer is not waited for."""
        self._halt.set()
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _room(self, node: int) -> int:
        for state in self._sysfs.node_states():
            if state.node == node:
                spare = self._policy.placement.headroom * self._memory.get(node, 0)
                return int(state.free_bytes + state.reclaimable_bytes / 2 - spare)
        return 0

    def _run(self) -> None:
        while (decision := self._queue.get()) is not None:
            self._ended.put(self._carry_out(decision))
            self._on_outcome()

    def _carry_out(self, decision: Decision) -> Outcome:
        """Bind, move, measure; whatever goes wrong becomes part of the outcome."""
        started_at_s, began_s = self._procfs.uptime_s(), clock.monotonic_s()
        tally = Tally()
        bound = affinity.Bound()
        after = None
        self._current = (decision.worker, tally)
        try:
            if self._halt.is_set():
                tally.end = End.STOPPED
            else:
                bound = self._bind(decision)
                if decision.moves:
                    self._mover.move(decision, self._policy.migration, tally)
                after = self._measure(decision.worker)
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
            moved_bytes=tally.moved_bytes,
            pages=dict(tally.pages),
            refused_bytes=dict(tally.refused_bytes),
            after=after,
            error=tally.error,
        )

    def _bind(self, decision: Decision) -> affinity.Bound:
        if decision.bind_cpus is None:
            return affinity.Bound()
        with self._lock:
            return affinity.bind(
                decision, decision.bind_cpus, self._procfs, self._syscalls, self._journal
            )

    def _measure(self, worker: WorkerId) -> Residency | None:
        began = clock.thread_cpu_s()
        vmas, odd = numa_maps.parse(self._procfs.numa_maps(worker.pid))
        if not vmas:
            return None
        cost_s = clock.thread_cpu_s() - began
        return numa_maps.residency(vmas, odd, read_at_s=self._procfs.uptime_s(), cost_s=cost_s)


def read_ours(folder: Path, procfs: ProcFs) -> Callable[[WorkerId], Mapping[int, frozenset[int]]]:
    """Return a reader of the masks that a journal knows as ours; none where it cannot be read."""
    try:
        entries = read(folder / "journal.jsonl", procfs.boot_id() or "unknown")
    except OSError:
        entries = {}

    def ours(worker: WorkerId) -> Mapping[int, frozenset[int]]:
        try:
            return affinity.ours(worker, entries.get(worker), procfs.threads(worker.pid))
        except Vanished:
            return {}

    return ours
