"""One pass over a worker's ranges, chunk by chunk: ask, move what is remote, count, rest."""

from __future__ import annotations

import random
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from numad_py.act.brakes import Brakes
from numad_py.act.handing import Hands, page_status
from numad_py.act.identity import Alive
from numad_py.act.lookout import Lookout, open_ranges
from numad_py.act.pace import Pace
from numad_py.act.pages import THP_BYTES, Pages, drawn
from numad_py.act.ranges import Range, soonest_first
from numad_py.act.refusals import Refusals
from numad_py.act.spans import Span, merged, touches
from numad_py.act.tally import Tally
from numad_py.kernel import clock
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.outcome import End, PageStatus
from numad_py.model.plan import Decision

BARREN_CHUNKS = 3
"""After so many in a row in which pages refused and none moved, the rest of an area is left."""
SAMPLED = 32
"""Of a chunk that was wholly on one node by the last look so many pages are asked for: where more
than a tenth have come home by themselves since, one of these has in 29 cases of 30."""
MOST_UNTRIED = 8
"""Where two chunks have had no huge page, it is tried ever more seldom whether there are some, in
one chunk of so many at last: that takes a call and a query more."""
SPARSE = 256
"""Where so many times as much is looked through as is there, it is looked through faster."""
ASKED_BYTES = 64 << 20
"""Then so much at once: 16,384 pages, 2 ms."""


@dataclass
class _Area:
    """A range while it is walked over."""

    found: Range
    left: dict[int, int]
    """Bytes by source that were seen there and have not been met yet."""
    barren: int = 0
    """Chunks in a row in which pages refused and none moved."""
    kept: bool = False
    """Whether any page that is remote may have stayed behind in what was walked over."""
    most_bytes: int = 0
    """That may be moved in the next chunk."""
    dense_until: int = 0
    """Up to there more is remote than a chunk may have, as was seen when much was asked for."""
    small: int = 0
    """How many chunks in a row had no huge page when that was tried."""
    untried: int = 0
    """Chunks since it was tried last."""

    def next_tries_huge(self) -> bool:
        """Count the next chunk, and say whether it is to be tried for transparent huge pages.

        Nothing tells where they are but smaps, which walks over all of them. Where some are after
        all, each moves with its first page, and the others count as moved.
        """
        if not self.found.may_be_thp:
            return False
        self.untried += 1
        if self.untried < min(2 ** max(0, self.small - 1), MOST_UNTRIED):
            return False
        self.untried = 0
        return True

    def tried_huge(self, along: int | None) -> None:
        """Learn from a chunk how many pages moved with others; None: it was not tried."""
        if along is not None:
            self.small = 0 if along else self.small + 1

    def is_sparse(self, start: int, end: int) -> bool:
        """Say whether next to nothing is to be met in what is left of a part."""
        if self.found.hugetlb or start < self.dense_until:
            return False
        return SPARSE * sum(self.left.values()) < end - start

    @property
    def unit(self) -> int:
        """What a chunk is made of: pages, or huge pages where there may be some."""
        return THP_BYTES if self.found.may_be_thp else self.found.page_bytes


@dataclass
class Walk:
    """Carries out the moves of one decision."""

    decision: Decision
    syscalls: Syscalls
    handle: Alive
    tally: Tally
    pace: Pace
    brakes: Brakes
    room: Callable[[int, int], int]
    """Bytes that a node can still take, in huge pages of a size; 0: in ordinary ones."""
    refusals: Refusals
    stop: threading.Event
    lookout: Lookout
    _left: list[Range] = field(default_factory=list)
    """Still to be walked over, the last one first."""
    _walked: list[Span] = field(default_factory=list)
    _budget: dict[int, list[list[int]]] = field(default_factory=dict)
    """By source node: [target, bytes left] pairs in order."""
    _full: set[tuple[int, int]] = field(default_factory=set)
    """Targets without room, with the size of huge page that they have none for; 0: ordinary."""
    _random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311
    """Draws pages; the same for the same move, so that a move can be done over."""

    @property
    def full(self) -> frozenset[tuple[int, int]]:
        """Targets that had no room, with the size of huge page they had none for; 0: ordinary."""
        return frozenset(self._full)

    def run(self, ranges: Sequence[Range]) -> None:
        """Move these ranges, in this order."""
        for move in self.decision.moves:
            self._budget.setdefault(move.source, []).append([move.target, move.move_bytes])
        self._left = list(reversed(ranges))
        while self._left:
            self._range(self._left.pop())
            if self.tally.end is not End.DONE:
                return
        if self._full:
            self.tally.end = End.NO_ROOM

    def _range(self, found: Range) -> None:
        """Move one range until what was seen on the sources has been met, or all is seen anew."""
        area = _Area(found, dict(found.remote))
        parts = list(self.refusals.open_parts(self.decision.worker, found.start, found.end))
        area.kept = sum(end - start for start, end in parts) < found.end - found.start
        for start, end in parts:
            while start < end and any(area.left.values()) and self._takes(found.huge_bytes):
                duty_share = self._may_go_on()
                if duty_share is None or self._look_again(start, area):
                    return
                size = area.most_bytes = self._chunk_bytes(area)
                if area.is_sparse(start, end):
                    size = max(size, ASKED_BYTES)
                # Chunks end between units, so that a huge page is not cut in two.
                stop = min(start // area.unit * area.unit + size, end)
                if not self._chunk(start, stop, area, duty_share):
                    continue
                if area.barren == BARREN_CHUNKS:
                    self._give_up(stop, area)
                    self._walked.append((found.start, found.end))
                    return
                start = stop  # noqa: PLW2901 - what is left of this part
        self._walked.append((found.start, found.end))

    def _look_again(self, at: int, area: _Area) -> bool:
        """Take up what has become of the worker where it is time to; say whether it was.

        Raises:
            PlacedByUser: its user has placed it by hand.
        """

        def rest() -> list[Range]:
            return [area.found.part(at, area.found.end, sure=False), *self._left]

        ranges = self.lookout.again(rest)
        if ranges is None:
            return False
        self._walked = merged([*self._walked, (area.found.start, at)])
        clean = area.found.sure and not area.kept
        fresh = open_ranges(ranges, self._walked, sure_from=at if clean else None)
        if self.tally.moved_bytes >= self.decision.move_bytes:
            # Who goes on making areas far from home is another decision's: this move ends.
            known = merged((found.start, found.end) for found in rest())
            fresh = [found for found in fresh if touches(known, found.start, found.end)]
        self._left = list(reversed(soonest_first(fresh)))
        return True

    def _chunk_bytes(self, area: _Area) -> int:
        """Return how much is to be tried at once: of hugetlb no more than some target has room for.

        Ordinary memory runs short long before it is full; of a pool the last page is as good.
        """
        size = self.pace.chunk_bytes(area.unit)
        if self.decision.give_back:
            left = sum(max(0, left) for pairs in self._budget.values() for _, left in pairs)
            size = min(size, max(area.unit, left // area.unit * area.unit))
        huge_bytes = area.found.huge_bytes
        if not huge_bytes:
            return size
        targets = {target for pairs in self._budget.values() for target, _ in pairs}
        most = max(self.room(target, huge_bytes) for target in targets)
        return min(size, max(huge_bytes, most // huge_bytes * huge_bytes))

    def _may_go_on(self) -> float | None:
        """Return the share of duty for the next chunk; None where there is none."""
        if self.stop.is_set():
            self.tally.end = End.STOPPED
            return None
        self.handle.check()
        duty_share = self.brakes.wait()
        if self.stop.is_set():
            self.tally.end = End.STOPPED
            return None
        if duty_share is None:
            self.tally.end = End.PRESSURE
        return duty_share

    def _chunk(self, start: int, end: int, area: _Area, duty_share: float) -> bool:
        """Ask where a chunk's pages are, move those that are remote, and rest.

        False where it turns out to have more of them than a chunk may: smaller ones are to be made.
        """
        began_s, moved_before = clock.monotonic_s(), self.tally.moved_bytes
        chunk = self._pages(start, end, area.found)
        # Before any is moved: what comes to a source by this move is not taken away again.
        found = {source: chunk.on(source) for source in self._budget}
        remote_bytes = sum(remote.total_bytes for remote in found.values())
        wide = end - start > area.most_bytes
        if wide and remote_bytes > area.most_bytes:
            area.dense_until = end
            self.pace.after(0, clock.monotonic_s() - began_s, duty_share)
            return False
        refused = False
        for source, remote in found.items():
            if remote and not self._spent(source):
                area.left[source] = max(0, area.left.get(source, 0) - remote.total_bytes)
                refused |= self._move(source, remote, area)
        moved_bytes = self.tally.moved_bytes - moved_before
        area.kept |= moved_bytes < remote_bytes
        self.pace.after(moved_bytes, clock.monotonic_s() - began_s, duty_share)
        if moved_bytes:
            area.barren = 0
        elif refused:
            area.barren += 1
            self.refusals.add(self.decision.worker, [(start, end)])
        return True

    def _pages(self, start: int, end: int, found: Range) -> Pages:
        """Return a chunk's pages and where each lies.

        Where all of the range was on one node by the last look only a few are asked for, since that
        walks over them once more. A page that has come home by itself answers a move with its node,
        as one that was moved does (``do_pages_move``, mm/migrate.c): so all are asked for where any
        of the few has.
        """
        addresses = range(start, end, found.page_bytes)
        if found.whole_on is not None:
            few = self._nodes_of(drawn(addresses, SAMPLED, self._random))
            if few.count(found.whole_on) == len(few):
                there = array("i", [found.whole_on]) * len(addresses)
                return Pages(addresses, there, found.page_bytes)
        return Pages.of_range(start, end, found.page_bytes, self._nodes_of)

    def _nodes_of(self, addresses: array[int]) -> array[int]:
        return self.syscalls.move_pages_query(self.decision.worker.pid, addresses)

    def _target(self, source: int, size: int, huge_bytes: int) -> int | None:
        """Return where so many bytes of a node go now; None where nothing has room for them.

        The last target takes what exceeds its budget.
        """
        pairs = self._budget[source]
        while len(pairs) > 1 and pairs[0][1] <= 0:
            pairs.pop(0)
        for at, (target, _) in enumerate(pairs):
            if (target, huge_bytes) in self._full:
                continue
            if self.room(target, huge_bytes) >= size:
                pairs.insert(0, pairs.pop(at))
                return target
            self._full.add((target, huge_bytes))
        return None

    def _takes(self, huge_bytes: int) -> bool:
        """Say whether any target may still have room for such pages, and is to get some."""
        if all(map(self._spent, self._budget)):
            return False
        targets = {target for pairs in self._budget.values() for target, _ in pairs}
        return any((target, huge_bytes) not in self._full for target in targets)

    def _spent(self, source: int) -> bool:
        """Say whether all has gone back that a move had brought: what was there before stays."""
        return self.decision.give_back and all(left <= 0 for _, left in self._budget[source])

    def _move(self, source: int, remote: Pages, area: _Area) -> bool:
        """Move what a chunk has on one node, and count it; say whether any of it refused."""
        tally, page_bytes, found = self.tally, remote.page_bytes, area.found
        target = self._target(source, remote.total_bytes, found.huge_bytes)
        if target is None:
            tally.pages[PageStatus.NO_ROOM] += len(remote)
            return False
        pid = self.decision.worker.pid
        hands = Hands(self.syscalls, pid, source, target, shared=found.shared)
        result = hands.move(remote, huge=area.next_tries_huge())
        area.tried_huge(result.along)
        moved_bytes = result.moved * page_bytes
        tally.pages[PageStatus.MOVED] += result.moved
        tally.moved[source, target] += moved_bytes
        if found.shared:
            tally.moved_shared[source, target] += moved_bytes
        self._budget[source][0][1] -= moved_bytes
        refused = False
        for said, pages in Counter(result.stayed.values()).items():
            what = page_status(said)
            tally.pages[what] += pages
            if what not in {PageStatus.ABSENT, PageStatus.NO_ROOM}:
                tally.refused_bytes[source] += pages * page_bytes
                refused = True
        if result.no_room:
            self._full.add((target, found.huge_bytes))
        return refused

    def _give_up(self, start: int, area: _Area) -> None:
        """Take the rest of an area to refuse as well, untried."""
        self.refusals.add(self.decision.worker, [(start, area.found.end)])
        for source, size in area.left.items():
            self.tally.refused_bytes[source] += size
            self.tally.pages[PageStatus.UNTRIED] += size // area.found.page_bytes
