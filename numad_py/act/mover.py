"""Moving a worker's memory in chunks that can be paced, counted and stopped."""

from __future__ import annotations

import errno
import threading
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from numad_py.act.identity import Alive, alive
from numad_py.act.ranges import BASE_PAGE, Range, ranges_on
from numad_py.errors import Vanished
from numad_py.kernel import clock
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import UNWRITTEN, Syscalls
from numad_py.model.outcome import End, PageStatus
from numad_py.model.plan import Decision
from numad_py.policy.schema import Method, MigrationPolicy

THP_BYTES = 2 << 20
"""Size of a transparent huge page on x86-64, and on aarch64 with 4 KiB pages."""
_PAGES_PER_THP = THP_BYTES // BASE_PAGE
_TRIES = 2
"""Times a page is handed to the kernel before it counts as refusing."""


@dataclass
class Tally:
    """What has been moved so far; grows as the mover goes along."""

    end: End = End.DONE
    moved_bytes: int = 0
    pages: Counter[PageStatus] = field(default_factory=Counter)
    refused_bytes: Counter[int] = field(default_factory=Counter)
    error: str | None = None


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
                if policy.method is Method.MIGRATE_PAGES and small:
                    self._migrate(decision, tally)
                else:
                    _Walk(self, decision, policy, tally, handle).run()
        except (Vanished, ProcessLookupError):
            tally.end = End.GONE
        if tally.end is End.DONE and (tally.refused_bytes or tally.pages[PageStatus.NOT_ATTEMPTED]):
            tally.end = End.PARTIAL

    def _migrate(self, decision: Decision, tally: Tally) -> None:
        """Use migrate_pages, once for each pair of nodes; judged by measuring again."""
        for move in decision.moves:
            if self.stop.is_set():
                tally.end = End.STOPPED
                return
            self.syscalls.migrate_pages(decision.worker.pid, {move.source}, {move.target})
            tally.moved_bytes += move.move_bytes


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
        self._sources = frozenset(self._budget)

    def run(self) -> None:
        for found in list(ranges_on(self._pid, self._sources, self._mover.procfs)):
            left = found.remote_bytes
            heads = found.may_be_thp
            for start in range(found.start, found.end, self._chunk_bytes(found)):
                if self._must_stop() or left <= 0:
                    break
                end = min(start + self._chunk_bytes(found), found.end)
                seen, heads = self._chunk(found, start, end, heads=heads)
                left -= seen
            if self._tally.end is not End.DONE:
                return

    def _chunk_bytes(self, found: Range) -> int:
        """Return the chunk, whole pages of the range; THP blocks stay whole."""
        return max(
            found.page_bytes, self._policy.chunk_bytes // found.page_bytes * found.page_bytes
        )

    def _must_stop(self) -> bool:
        if self._mover.stop.is_set():
            self._tally.end = End.STOPPED
            return True
        self._handle.check()
        return False

    def _chunk(self, found: Range, start: int, end: int, *, heads: bool) -> tuple[int, bool]:
        """Move one chunk.

        Returns:
            The bytes seen on source nodes or gone from there, and whether huge pages are still
            to be expected in this range.
        """
        began_s = clock.monotonic_s()
        remote = self._remote(range(start, end, found.page_bytes))
        if not remote:
            return 0, heads
        moved_before = self._tally.moved_bytes
        seen = len(remote) * found.page_bytes
        if not self._has_room(remote, found.page_bytes):
            return seen, heads
        if heads and (blocks := _whole_blocks(remote)):
            # A huge page moves whole with any one of its addresses, and further ones only cost:
            # hand in one for each block, and see whether the block came along.
            self._move({block: remote[block] for block in blocks}, found.page_bytes, count=False)
            after = self._remote(remote)
            heads = len(remote) - len(after) > len(blocks)
            self._count_moved(len(remote) - len(after), found.page_bytes, remote, after)
            remote = after
        for attempt in range(_TRIES):
            if not remote:
                break
            remote = self._move(remote, found.page_bytes, count=attempt == _TRIES - 1)
        self._pace(self._tally.moved_bytes - moved_before, clock.monotonic_s() - began_s)
        return seen, heads

    def _remote(self, addresses: range | dict[int, int]) -> dict[int, int]:
        """Return the pages that lie on source nodes, with their node."""
        asked = array("Q", addresses)
        nodes = self._mover.syscalls.move_pages_query(self._pid, asked)
        return {
            address: node
            for address, node in zip(asked, nodes, strict=True)
            if node in self._sources
        }

    def _target(self, source: int) -> int:
        """Return where pages of a node go now; the last target takes what exceeds its budget."""
        pairs = self._budget[source]
        while len(pairs) > 1 and pairs[0][1] <= 0:
            pairs.pop(0)
        return pairs[0][0]

    def _has_room(self, remote: dict[int, int], page_bytes: int) -> bool:
        needed = Counter(self._target(node) for node in remote.values())
        for target, pages in needed.items():
            if self._mover.room(target) < pages * page_bytes:
                self._tally.end = End.NO_ROOM
                self._tally.pages[PageStatus.NO_ROOM] += pages
                return False
        return True

    def _move(self, remote: dict[int, int], page_bytes: int, *, count: bool) -> dict[int, int]:
        """Hand pages to the kernel, those for one target together; return what is still remote.

        Args:
            remote: node by address.
            page_bytes: size of each page.
            count: count what stays behind, with its reason; else it will be tried again.
        """
        left: dict[int, int] = {}
        by_target = sorted((self._target(node), address) for address, node in remote.items())
        addresses = array("Q", [address for _, address in by_target])
        targets = array("i", [target for target, _ in by_target])
        _, status = self._mover.syscalls.move_pages(self._pid, addresses, targets)
        for address, target, result in zip(addresses, targets, status, strict=True):
            source = remote[address]
            if result == target:
                self._moved(source, page_bytes)
                continue
            what = _page_status(result)
            if what is not PageStatus.ABSENT:
                left[address] = source
            if count:
                self._tally.pages[what] += 1
                if what is not PageStatus.ABSENT:
                    self._tally.refused_bytes[source] += page_bytes
        return left

    def _moved(self, source: int, page_bytes: int) -> None:
        self._tally.pages[PageStatus.MOVED] += 1
        self._tally.moved_bytes += page_bytes
        self._budget[source][0][1] -= page_bytes

    def _count_moved(
        self, pages: int, page_bytes: int, before: dict[int, int], after: dict[int, int]
    ) -> None:
        """Count what came along with the heads, beyond the heads counted when they moved."""
        heads = sum(1 for a in before if a not in after and a % THP_BYTES == 0)
        for source, count in Counter(before[a] for a in before if a not in after).items():
            self._budget[source][0][1] -= count * page_bytes
        self._tally.pages[PageStatus.MOVED] += pages - heads
        self._tally.moved_bytes += (pages - heads) * page_bytes

    def _pace(self, moved_bytes: int, took_s: float) -> None:
        """Sleep as long as the rate asks for; wake at once when told to stop."""
        rate = self._policy.rate_bytes_per_s
        if rate is not None:
            pause_s = moved_bytes / rate - took_s
            if pause_s > 0:
                self._mover.stop.wait(pause_s)


def _whole_blocks(remote: dict[int, int]) -> list[int]:
    """Return the first address of each aligned 2 MiB block that lies on one node in whole."""
    count: Counter[tuple[int, int]] = Counter(
        (address // THP_BYTES, node) for address, node in remote.items()
    )
    return [block * THP_BYTES for (block, _), pages in count.items() if pages == _PAGES_PER_THP]


def _page_status(result: int) -> PageStatus:
    if result == UNWRITTEN:
        return PageStatus.NOT_ATTEMPTED
    if result == -errno.EACCES:
        return PageStatus.SHARED
    if result in {-errno.ENOENT, -errno.EFAULT}:
        return PageStatus.ABSENT
    if result == -errno.ENOMEM:
        return PageStatus.NO_ROOM
    return PageStatus.BUSY
