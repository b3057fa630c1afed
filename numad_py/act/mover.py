"""Moving a worker's memory in chunks that can be paced, counted and stopped."""

from __future__ import annotations

import errno
import threading
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from numad_py.act.handing import Hands
from numad_py.act.identity import Alive, alive
from numad_py.act.measure import measure
from numad_py.act.pages import THP_BYTES, Pages
from numad_py.act.ranges import Range, ranges_on
from numad_py.errors import Vanished
from numad_py.kernel import clock, numa_maps
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.outcome import End, PageStatus
from numad_py.model.plan import Decision
from numad_py.model.residency import Mobility
from numad_py.policy.schema import Method, MigrationPolicy

TRIFLE_BYTES = 1 << 20
TRIFLE_SHARE = 0.01
"""What would not move is a trifle below both: so many bytes, and this share of what was planned."""


@dataclass
class Tally:
    """What has been moved so far; grows as the mover goes along."""

    end: End = End.DONE
    moved: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Bytes by source and target."""
    pages: Counter[PageStatus] = field(default_factory=Counter)
    refused_bytes: Counter[int] = field(default_factory=Counter)
    error: str | None = None

    @property
    def moved_bytes(self) -> int:
        """Bytes moved in all."""
        return sum(self.moved.values())


@dataclass(frozen=True)
class Mover:
    """Carries out the moves of one decision at a time."""

    procfs: ProcFs
    syscalls: Syscalls
    room: Callable[[int], int]
    """Bytes that a node can still take above its headroom, read anew at each call."""
    stop: threading.Event

    def move(self, decision: Decision, policy: MigrationPolicy, tally: Tally) -> None:
        """Move, and leave in the tally what became of it; never raises for the worker's sake."""
        try:
            with alive(decision.worker, self.procfs, self.syscalls) as handle:
                resident = decision.finding.movable_bytes + decision.finding.immovable_bytes
                small = resident <= policy.migrate_pages_limit_bytes
                # migrate_pages knows no shares: all of a node goes to one.
                plain = len({move.source for move in decision.moves}) == len(decision.moves)
                try:
                    whole = policy.method is Method.MIGRATE_PAGES and small and plain
                    if whole and not self._placed_by_user(decision.worker.pid):
                        self._migrate(decision, tally)
                    else:
                        _Walk(self, decision, policy, tally, handle).run()
                finally:
                    # A zombie has no memory: its files are empty, the calls say EINVAL.
                    handle.check()
        except (Vanished, ProcessLookupError):
            tally.end = End.GONE
        refused_bytes = sum(tally.refused_bytes.values())
        trifle_bytes = min(TRIFLE_BYTES, TRIFLE_SHARE * decision.move_bytes)
        if tally.end is End.DONE and refused_bytes and refused_bytes >= trifle_bytes:
            tally.end = End.PARTIAL

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
            if self.room(move.target) < move.move_bytes:
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


class _Walk:
    """One pass over a worker's ranges."""

    def __init__(
        self, mover: Mover, decision: Decision, policy: MigrationPolicy, tally: Tally, handle: Alive
    ) -> None:
        self._mover = mover
        self._pid = decision.worker.pid
        self._policy = policy
        self._tally = tally
        self._handle = handle
        self._budget: dict[int, list[list[int]]] = {}
        """By source node: [target, bytes left] pairs in order."""
        for move in decision.moves:
            self._budget.setdefault(move.source, []).append([move.target, move.move_bytes])

    def run(self) -> None:
        sources = frozenset(self._budget)
        for found in list(ranges_on(self._pid, sources, self._mover.procfs)):
            self._range(found)
            if self._tally.end is not End.DONE:
                return

    def _range(self, found: Range) -> None:
        """Move one range, chunk by chunk, until what was seen on the sources has been met."""
        left = found.remote_bytes
        chunk_bytes = self._chunk_bytes(found)
        # Chunks end on multiples of their size, so that a huge page is not cut in two.
        start = found.start
        while start < found.end and left > 0 and not self._must_stop():
            end = min((start // chunk_bytes + 1) * chunk_bytes, found.end)
            began_s, moved_before = clock.monotonic_s(), self._tally.moved_bytes
            chunk = Pages.of_range(start, end, found.page_bytes, self._nodes_of)
            for source in self._budget:
                if remote := chunk.on(source):
                    left -= remote.total_bytes
                    self._move(source, remote, huge=found.may_be_thp)
                if self._tally.end is not End.DONE:
                    return
            self._pace(self._tally.moved_bytes - moved_before, clock.monotonic_s() - began_s)
            start = end

    def _chunk_bytes(self, found: Range) -> int:
        """Return the chunk: whole pages, and whole huge pages where the range may have some."""
        unit = THP_BYTES if found.may_be_thp else found.page_bytes
        return max(unit, self._policy.chunk_bytes // unit * unit)

    def _must_stop(self) -> bool:
        if self._mover.stop.is_set():
            self._tally.end = End.STOPPED
            return True
        self._handle.check()
        return False

    def _nodes_of(self, addresses: array[int]) -> array[int]:
        return self._mover.syscalls.move_pages_query(self._pid, addresses)

    def _target(self, source: int) -> int:
        """Return where pages of a node go now; the last target takes what exceeds its budget."""
        pairs = self._budget[source]
        while len(pairs) > 1 and pairs[0][1] <= 0:
            pairs.pop(0)
        return pairs[0][0]

    def _move(self, source: int, remote: Pages, *, huge: bool) -> None:
        """Move what a chunk has on one node, and count it."""
        target, tally = self._target(source), self._tally
        if self._mover.room(target) < remote.total_bytes:
            tally.end = End.NO_ROOM
            tally.pages[PageStatus.NO_ROOM] += len(remote)
            return
        result = Hands(self._mover.syscalls, self._pid, source, target).move(remote, huge=huge)
        moved_bytes = result.moved * remote.page_bytes
        tally.pages[PageStatus.MOVED] += result.moved
        tally.moved[source, target] += moved_bytes
        self._budget[source][0][1] -= moved_bytes
        for said, pages in Counter(result.stayed.values()).items():
            what = _page_status(said)
            tally.pages[what] += pages
            if what not in {PageStatus.ABSENT, PageStatus.NO_ROOM}:
                tally.refused_bytes[source] += pages * remote.page_bytes
        if result.no_room:
            tally.end = End.NO_ROOM

    def _pace(self, moved_bytes: int, took_s: float) -> None:
        """Sleep as long as the rate asks for; wake at once when told to stop."""
        rate = self._policy.rate_bytes_per_s
        if rate is not None:
            pause_s = moved_bytes / rate - took_s
            if pause_s > 0:
                self._mover.stop.wait(pause_s)


def _page_status(result: int) -> PageStatus:
    if result == -errno.EACCES:
        return PageStatus.SHARED
    if result in {-errno.ENOENT, -errno.EFAULT}:
        return PageStatus.ABSENT
    if result == -errno.ENOMEM:
        return PageStatus.NO_ROOM
    return PageStatus.BUSY
