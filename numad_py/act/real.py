"""The doer that acts: one thread moves, one worker after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from numad_py.act import affinity
from numad_py.act.brakes import Strain
from numad_py.act.huge import HugePages
from numad_py.act.journal import Journal
from numad_py.act.measure import measure
from numad_py.act.mover import Mover, require_same
from numad_py.act.refusals import Refusals
from numad_py.act.settings import Keeper
from numad_py.act.tally import Tally
from numad_py.errors import NumadError, Vanished
from numad_py.kernel import clock
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.held import HeldMemory
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.settings import Settings
from numad_py.kernel.start import own_cpus
from numad_py.kernel.syscalls import Syscalls
from numad_py.kernel.sysfs import SysFs
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision
from numad_py.model.settings import SettingsTold
from numad_py.model.snapshot import Thread, WorkerId
from numad_py.policy.schema import Policy

log = structlog.get_logger(__name__)


LATELY_S = 60.0
"""A decision that has waited longer for its turn is made anew: its figures are old by then."""
MOST_HELD = 256
"""So many that wait hold their worker's memory, each by a descriptor, of which a service may have
1,024 (LimitNOFILE)."""


@dataclass(frozen=True)
class _Queued:
    """A decision that waits for its turn."""

    decision: Decision
    generation: int
    """Of the policy and the pauses by which it was made."""
    at_s: float
    """When it was submitted, by the monotonic clock."""
    memory: HeldMemory | None
    """What its worker had when it was submitted: by exec it becomes another program, with its pid
    and start time. None where it cannot be held."""


class RealActuator:
    """One mover thread with a queue: threads first, then memory, then measured again."""

    def __init__(  # noqa: PLR0917 - the rooms it works with
        self,
        policy: Policy,
        procfs: ProcFs,
        sysfs: SysFs,
        cgroups: CgroupFs,
        syscalls: Syscalls,
        journal: Journal,
        on_outcome: Callable[[], None],
    ) -> None:
        """Start the thread; ``on_outcome`` is called on it whenever something has ended."""
        self._policy = policy
        self._procfs = procfs
        self._cgroups = cgroups
        self._granted = affinity.granted_by(procfs, cgroups)
        self._syscalls = syscalls
        self._journal = journal
        self._on_outcome = on_outcome
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        """None: the end."""
        self._ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._halt = threading.Event()
        self._paused = False
        self._generation = 0
        self._lock = threading.Lock()
        """Guards the journal, which the mover and the main loop both use."""
        self._pending = 0
        self._current: tuple[WorkerId, Tally] | None = None
        self._refusals = Refusals()
        settings = Settings(procfs.root, sysfs.root)
        self.keeper = Keeper(settings, journal)
        self._huge = HugePages(sysfs, settings, self.keeper, policy, self._halt)
        self._mover = Mover(
            procfs, syscalls, self._huge.room, self._halt, self._refusals, self._huge
        )
        self._thread = threading.Thread(target=self._run, name="mover", daemon=True)
        self._thread.start()

    def submit(self, decision: Decision) -> None:
        """Queue a decision."""
        self._pending += 1
        memory = self._memory_of(decision.worker)
        self._queue.put(_Queued(decision, self._generation, clock.monotonic_s(), memory))

    def _memory_of(self, worker: WorkerId) -> HeldMemory | None:
        if self._pending > MOST_HELD:
            return None
        try:
            return HeldMemory(self._procfs.root, worker.pid)
        except NumadError:
            # It has ended, or there is no right to: whoever carries it out finds the same.
            return None

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what has ended."""
        done: list[Outcome] = []
        while True:
            try:
                done.append(self._ended.get_nowait())
            except queue.Empty:
                break
        for outcome in done:
            # Who has become another program lives, and may have masks of ours.
            if outcome.end is End.GONE and self._has_ended(outcome.decision.worker):
                self._forget([outcome.decision.worker])
        self._pending -= len(done)
        return tuple(done)

    def forget_ended(self, alive: frozenset[WorkerId]) -> None:
        """Drop the journal's entries of processes that have ended.

        A process that is no worker any more may well live, and have our masks.
        """
        self._refusals.forget_except(alive)
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

    def _forget(self, workers: Collection[WorkerId]) -> None:
        for worker in workers:
            self._refusals.forget(worker)
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
        entry = self._journal.entry(worker)
        return affinity.first_masks(worker, entry, threads, self._granted)

    def use(self, policy: Policy) -> None:
        """Go on by another policy; what the earlier one decided ends as stopped."""
        self._policy = self._huge.policy = policy
        self._generation += 1
        self._halt.set()

    def pause(self) -> None:
        """Stop the move under way within a chunk; what waits ends as stopped."""
        self._paused = True
        self._generation += 1
        self._halt.set()

    def resume(self) -> None:
        """Move again; what waits ends as stopped."""
        self._paused = False

    def restore_all(self) -> int:
        """Give every mask back."""
        with self._lock:
            return affinity.restore_all(self._journal, self._procfs, self._syscalls, self._granted)

    def restore_settings(self) -> tuple[str, ...]:
        """Give kernel settings back; return what was done, in words."""
        return self.keeper.give_back()

    def settings(self) -> SettingsTold:
        """Return what is changed of kernel settings, and what could not be."""
        return self.keeper.told()

    def stop(self, timeout_s: float) -> None:
        """End the thread after its chunk; a call that lasts longer is not waited for."""
        self._paused = True
        self._halt.set()
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            outcome = self._taken(item)
            if item.memory is not None:
                item.memory.close()
            self._ended.put(outcome)
            self._on_outcome()

    def _taken(self, item: _Queued) -> Outcome:
        """Carry out a decision whose turn has come, unless it holds no longer."""
        self._halt.clear()
        late = clock.monotonic_s() - item.at_s > LATELY_S
        if self._paused or item.generation != self._generation or late:
            # Asked only now: whoever stops from here on sets it again.
            self._halt.set()
        if late:
            return Outcome(item.decision, End.STOPPED, clock.boottime_s(), 0.0)
        return self._carry_out(item.decision, item.memory)

    def _carry_out(self, decision: Decision, memory: HeldMemory | None) -> Outcome:
        """Bind, move, measure; whatever goes wrong becomes part of the outcome."""
        started_at_s, began_s = clock.boottime_s(), clock.monotonic_s()
        tally = Tally()
        bound = given_back = affinity.Bound()
        after = None
        self._current = (decision.worker, tally)
        try:
            require_same(decision.worker, memory)
            given_back = self._give_back(decision, tally)
            bound = self._bind(decision, tally)
            self._require_home(decision, bound)
            if tally.end is End.DONE and decision.moves:
                self._move(decision, tally, memory)
            if decision.moves and tally.end is not End.GONE and not self._halt.is_set():
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
            threads_left=bound.left + given_back.left,
            threads_given_back=given_back.threads,
            moved=dict(tally.moved),
            moved_shared=dict(tally.moved_shared),
            pages=dict(tally.pages),
            refused_bytes=dict(tally.refused_bytes),
            chunks=tally.chunks,
            longest_chunk_s=tally.longest_chunk_s,
            waited_s=tally.waited_s,
            after=after,
            error=tally.error,
        )

    def _move(self, decision: Decision, tally: Tally, memory: HeldMemory | None) -> None:
        cgroup = self._procfs.cgroup(decision.worker.pid)

        def strain() -> Strain:
            waited_s = self._procfs.stalled_s()
            own_s = self._cgroups.memory_stalled_s(cgroup) if cgroup is not None else None
            if own_s is not None:
                waited_s["cgroup"] = own_s
            return Strain(waited_s, self._procfs.busy_s(own_cpus()))

        self._mover.move(decision, self._policy.migration, tally, strain, memory)

    def _require_home(self, decision: Decision, bound: affinity.Bound) -> None:
        """See to it that memory goes where a thread is: all masks may be new since the decision.

        Raises:
            NumadError: no thread could be bound, and none is there.
        """
        cpus = decision.bind_cpus
        if cpus is None or bound.threads or not bound.left or not decision.moves:
            return
        masks = (thread.affinity for thread in self._procfs.threads(decision.worker.pid))
        if not any(mask and mask <= cpus for mask in masks):
            msg = (
                "none of its threads may run on its home CPUs: they were pinned elsewhere since "
                "that was decided, so its memory is left where it is"
            )
            raise NumadError(msg)

    def _give_back(self, decision: Decision, tally: Tally) -> affinity.Bound:
        """Give a worker's threads their first masks, where the decision takes a move back."""
        if not decision.give_back:
            return affinity.Bound()
        with self._lock:
            if self._halt.is_set():
                tally.end = End.STOPPED
            entry = self._journal.entry(decision.worker)
            if tally.end is not End.DONE or entry is None:
                return affinity.Bound()
            given_back = affinity.restore(
                entry, self._procfs, self._syscalls, self._granted, stopped=self._halt.is_set
            )
        if given_back.undone:
            self._forget([decision.worker])
        if given_back.stopped:
            tally.end = End.STOPPED
        if given_back.out_of_passes:
            tally.error = (
                f"it creates threads faster than their masks can be given back: "
                f"{given_back.left} left; the journal keeps it"
            )
        return given_back

    def _bind(self, decision: Decision, tally: Tally) -> affinity.Bound:
        with self._lock:
            # Under the lock: whoever gives masks back has said so before, and holds it meanwhile.
            if self._halt.is_set():
                tally.end = End.STOPPED
            if tally.end is not End.DONE or decision.bind_cpus is None:
                return affinity.Bound()
            bound = affinity.bind(
                decision,
                decision.bind_cpus,
                self._procfs,
                self._syscalls,
                self._journal,
                granted=self._granted,
                stopped=self._halt.is_set,
            )
        if bound.stopped:
            tally.end = End.STOPPED
        if bound.out_of_passes:
            tally.error = (
                f"it creates threads faster than they can be bound: {bound.left} left; "
                "they are seen to with its next decision"
            )
        return bound
