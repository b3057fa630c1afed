"""Moving a worker's memory in chunks that are paced, counted and can be stopped."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from numad_py.act.brakes import Brakes, Look, Strain
from numad_py.act.huge import HugePages
from numad_py.act.identity import Alive, alive
from numad_py.act.lookout import Lookout, PlacedByUser
from numad_py.act.measure import measure
from numad_py.act.pace import Pace
from numad_py.act.ranges import look, soonest_first
from numad_py.act.refusals import Refusals
from numad_py.act.tally import Tally
from numad_py.act.users import strangers
from numad_py.act.walk import Walk
from numad_py.errors import NumadError, Vanished
from numad_py.kernel import clock, numa_maps
from numad_py.kernel.held import HeldMemory
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.outcome import End
from numad_py.model.plan import Decision
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import WorkerId
from numad_py.policy.schema import Method, MigrationPolicy

TRIFLE_BYTES = 1 << 20
TRIFLE_SHARE = 0.01
"""What would not move is a trifle below both: so many bytes, and this share of what was planned."""


def require_same(worker: WorkerId, memory: HeldMemory | None) -> None:
    """See to it that a worker still has the memory that was held.

    Raises:
        Vanished: it has another one by now.
        NumadError: it can be had no more, since its main thread has exited.
    """
    if memory is not None and not memory.there():
        _require_main_thread(worker, ProcFs(memory.root))
        msg = f"process {worker.pid} ended, or has become another program"
        raise Vanished(msg)


class _MainThreadExitedError(NumadError):
    """The memory of a process that lives can be had no more under its pid."""


def _require_main_thread(worker: WorkerId, procfs: ProcFs) -> None:
    """Raise where the main thread has exited, and others still have the memory.

    An exiting thread lets go of it (``exit_mm``, kernel/exit.c), so that it shows under the other
    threads' ids alone, while the process lives.
    """
    with contextlib.suppress(Vanished):
        if procfs.stat(worker.pid).state not in "ZX":
            return
        for tid in procfs.tids(worker.pid) - {worker.pid}:
            with contextlib.suppress(Vanished):
                if procfs.maps(tid):
                    msg = (
                        f"process {worker.pid} lives, but its main thread has exited, and the "
                        "kernel shows its memory no more under its pid: what is left stays where "
                        "it is"
                    )
                    raise _MainThreadExitedError(msg)


@dataclass(frozen=True)
class Mover:
    """Carries out the moves of one decision at a time."""

    procfs: ProcFs
    syscalls: Syscalls
    room: Callable[[int, int], int]
    """Bytes that a node can still take, in huge pages of a size; 0: in ordinary ones. Read anew at
    each call."""
    stop: threading.Event
    refusals: Refusals = field(default_factory=Refusals)
    huge: HugePages | None = None
    """None: huge pages are taken as they are."""

    def move(
        self,
        decision: Decision,
        policy: MigrationPolicy,
        tally: Tally,
        strain: Look = Strain,
        memory: HeldMemory | None = None,
    ) -> None:
        """Move, and leave in the tally what became of it; never raises for the worker's sake.

        Args:
            decision: with its moves.
            policy: how fast.
            tally: to be filled.
            strain: returns how hard this machine and the worker's cgroup are used.
            memory: what was decided about; None: what the worker has now.
        """
        try:
            try:
                self._move(decision, policy, tally, strain, memory)
            except (Vanished, ProcessLookupError):
                _require_main_thread(decision.worker, self.procfs)
                tally.end = End.GONE
        except _MainThreadExitedError as said:
            tally.end, tally.error = End.FAILED, str(said)
        except PlacedByUser as said:
            tally.end, tally.error = End.PLACED, str(said)
        refused_bytes = sum(tally.refused_bytes.values())
        trifle_bytes = min(TRIFLE_BYTES, TRIFLE_SHARE * decision.move_bytes)
        if tally.end is End.DONE and refused_bytes and refused_bytes >= trifle_bytes:
            tally.end = End.PARTIAL

    def _move(
        self,
        decision: Decision,
        policy: MigrationPolicy,
        tally: Tally,
        strain: Look,
        memory: HeldMemory | None,
    ) -> None:
        with alive(decision.worker, self.procfs, self.syscalls, with_memory=True) as handle:
            # Once it is held here: so it is the same until the end of the move.
            require_same(decision.worker, memory)
            resident = decision.finding.movable_bytes + decision.finding.immovable_bytes
            small = resident <= policy.migrate_pages_limit_bytes
            # migrate_pages knows no shares: all of a node goes to one.
            plain = len({move.source for move in decision.moves}) == len(decision.moves)
            try:
                whole = policy.method is Method.MIGRATE_PAGES and small and plain
                # Nor does it part files from other memory, nor what is shared with whom.
                whole = whole and not (decision.leave_files or decision.carried)
                # Nor when to stop: what was at home before a move stays there after an undo.
                whole = whole and not decision.give_back
                if whole and not self._placed_by_user(decision.worker.pid):
                    self._migrate(decision, tally)
                else:
                    self._walk(decision, policy, tally, strain, handle)
            finally:
                # A zombie has no memory: its files are empty, the calls say EINVAL.
                handle.check()
                _require_main_thread(decision.worker, self.procfs)

    def _walk(
        self,
        decision: Decision,
        policy: MigrationPolicy,
        tally: Tally,
        strain: Look,
        handle: Alive,
    ) -> None:
        """Use move_pages, chunk by chunk."""
        pace = Pace(policy, self.stop.wait)
        brakes = Brakes(policy, strain, clock.monotonic_s, self.stop.wait, self.stop.is_set)
        if decision.retry_refused:
            self.refusals.forget(decision.worker)
        sources = frozenset(move.source for move in decision.moves)
        others = strangers(decision.carried, self.procfs) if decision.carried else {}
        users = {s.id: len(s.users) for s in decision.carried if s.id not in others}
        pid, files = decision.worker.pid, decision.leave_files
        lookout = Lookout(
            decision.worker,
            lambda: look(pid, sources, self.procfs, users, leave_files=files),
            lambda: {t.tid: t.affinity for t in self.procfs.threads(pid) if t.affinity},
        )
        ranges = soonest_first(lookout.begin())
        walk = Walk(
            decision,
            self.syscalls,
            handle,
            tally,
            pace,
            brakes,
            self.room,
            self.refusals,
            self.stop,
            lookout,
        )
        try:
            if self.huge is None:
                walk.run(ranges)
            else:
                with self.huge.ready(decision, ranges) as free:
                    walk.run(ranges)
                if tally.end is End.NO_ROOM:
                    tally.error = self.huge.why_full(walk.full, free) or None
        finally:
            tally.chunks, tally.longest_chunk_s = pace.chunks, pace.longest_s
            tally.waited_s = brakes.waited_s
        if others and tally.end is End.DONE:
            tally.end = End.PARTIAL
            told = (
                f"{s.path} is mapped {others[s.id]} too" for s in decision.carried if s.id in others
            )
            tally.error = f"{'; '.join(told)}: it stays where it is"

    def _migrate(self, decision: Decision, tally: Tally) -> None:
        """Use migrate_pages, once for each pair of nodes.

        What it returns is no full account (it leaves out pages that Linux 6.1 could not isolate),
        so what has moved is what the source has lost when it is measured again.
        """
        pid = decision.worker.pid
        for move in decision.moves:
            if self.stop.is_set():
                tally.end = End.STOPPED
                break
            if self.room(move.target, 0) < move.move_bytes:
                tally.end = End.NO_ROOM
                break
            before = self._movable_on(pid, move.source)
            self.syscalls.migrate_pages(pid, {move.source}, {move.target})
            left = self._movable_on(pid, move.source)
            tally.moved[move.source, move.target] += max(0, before - left)
            if left:
                tally.refused_bytes[move.source] = left

    def _placed_by_user(self, pid: int) -> bool:
        """Say whether its user bound some of it: migrate_pages would take that along."""
        vmas, _ = numa_maps.parse(self.procfs.numa_maps(pid))
        return any(v.policy not in numa_maps.DEFAULT_POLICIES and v.resident_bytes for v in vmas)

    def _movable_on(self, pid: int, node: int) -> int:
        found = measure(pid, self.procfs)
        return found.by_node(mobility=Mobility.MOVABLE).get(node, 0) if found is not None else 0
