"""Handing pages to the kernel, each as seldom as will do, and learning what became of each.

What move_pages(2) makes hard (do_pages_move, mm/migrate.c): pages for one target go in batches, and
a page that is refused at once ends a batch. A batch in which one page fails says nothing of any of
its pages, though it has moved the others, and the call ends there: what stands behind it was not
attempted.

Mostly all pages move; then each step is a loop in C. What is done in Python is done for the few
that would not.
"""

from __future__ import annotations

import errno
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from numad_py.act.pages import THP_BYTES, Pages, as_array, count_of, shifted
from numad_py.errors import NumadError, RightsError
from numad_py.kernel.syscalls import UNWRITTEN, Syscalls
from numad_py.model.outcome import PageStatus

SPREAD = 8
"""Pages of a block of 2 MiB, evenly over it, that tell with its second and its last page whether it
was a huge page."""
_FINAL = frozenset({-errno.EACCES, -errno.ENOENT, -errno.EFAULT})
"""Answers that a second try would not change: shared, not there, not mapped."""


@dataclass
class Result:
    """What became of the pages of one chunk."""

    moved: int = 0
    """Pages."""
    stayed: dict[int, int] = field(default_factory=dict)
    """A negative errno by address, of pages that did not move; -EBUSY where nothing was said."""
    no_room: bool = False
    """The target got full in the middle."""
    along: int | None = None
    """Pages that moved with the first one of their huge page; None: that was not tried."""


@dataclass(frozen=True)
class Hands:
    """Moves pages of one process from one node to another."""

    syscalls: Syscalls
    pid: int
    source: int
    target: int
    shared: bool = False
    """Whether pages are moved that other processes map too."""

    def move(self, pages: Pages, *, huge: bool) -> Result:
        """Move pages that lie on the source; one that will not is tried twice, not more.

        Args:
            pages: in order of address.
            huge: whether some may be transparent huge pages. Such a page moves whole with any one
                of its addresses, and further ones only cost: a block of 2 MiB is tried by one.
        """
        result = Result()
        addresses: Sequence[int] = pages.addresses
        refused = set[int]()
        if huge and (heads := pages.block_heads()):
            self._call(heads, result)
            result.moved, addresses, refused = self._after(pages, heads)
            result.along = max(0, result.moved - len(heads))
        if not refused:
            stayed = self._attempt(addresses, result)
            self._attempt_again(stayed, (), result)
            return result
        small, blocks = _apart(addresses, refused)
        # One page more tells whether it is a huge page that stays or the first small page only.
        stayed = self._attempt([*small, *(block[-1] for block in blocks.values())], result)
        fresh: list[int] = []
        for head, block in blocks.items():
            if block[-1] in stayed:
                result.stayed.update(dict.fromkeys((head, *block), stayed.pop(block[-1])))
            else:
                fresh += (head, *block[:-1])
        self._attempt_again(stayed, fresh, result)
        return result

    def _after(self, pages: Pages, heads: array[int]) -> tuple[int, array[int], set[int]]:
        """Look at blocks whose first pages were handed in.

        A few pages of a block tell: with a huge page all have moved; of small ones the first alone,
        and the second of a larger folio; where they differ all are asked for. To ask for each would
        take a third as long as the move. Should a few of another folio stand between those, they
        are taken for what those are, and found when the worker is measured again.

        Returns:
            How many pages have moved; the addresses of those that are on the source, of no block
            too; and which first pages of blocks are among these.
        """
        block_pages = THP_BYTES // pages.page_bytes
        step = -(-block_pages // SPREAD)
        offsets = [0, 1, *range(step, block_pages, step), block_pages - 1]
        probes = array("Q")
        for at in offsets:
            probes += shifted(heads, at * pages.page_bytes)
        answers = self._nodes_of(probes)
        if block_pages * len(heads) == len(pages) and count_of(self.target, answers) == len(probes):
            return len(pages), array("Q"), set()
        addresses = as_array(pages.addresses)
        moved, left, refused, behind = 0, array("Q"), set(), 0
        for number, head in enumerate(heads):
            first, *others = answers[number :: len(heads)]
            at = bisect_left(addresses, head, behind)
            left += addresses[behind:at]
            behind = at + block_pages
            block = addresses[at:behind]
            if first == self.target and others.count(first) == len(others):
                moved += block_pages
            elif others.count(self.source) == len(others):
                moved += first == self.target
                left += block if first == self.source else block[1:]
            else:
                asked = Pages(block, self._nodes_of(block), pages.page_bytes)
                moved += asked.nodes.count(self.target)
                left.extend(asked.on(self.source).addresses)
                first = asked.nodes[0]
            if first == self.source:
                refused.add(head)
        left += addresses[behind:]
        return moved, left, refused

    def _attempt_again(self, stayed: dict[int, int], fresh: Iterable[int], result: Result) -> None:
        """Try once more what a second try may move, and pages that had none yet."""
        result.stayed.update({a: said for a, said in stayed.items() if said in _FINAL})
        again = sorted((*fresh, *(a for a, said in stayed.items() if said not in _FINAL)))
        if result.no_room:
            result.stayed.update(dict.fromkeys(again, -errno.ENOMEM))
        elif again:
            result.stayed.update(self._attempt(again, result))

    def _attempt(self, addresses: Sequence[int], result: Result) -> dict[int, int]:
        """Hand pages in until the kernel got to each; return what it says of those that stay."""
        waiting = as_array(addresses)
        stayed: dict[int, int] = {}
        while waiting:
            status, not_done = self._call(waiting, result)
            moved = count_of(self.target, status)
            result.moved += moved
            if moved == len(waiting):
                break
            answers = list(zip(waiting, status, strict=True))
            # A page that was there already is told of, too, and ends a batch as one that refuses.
            told = [address for address, said in answers if said != UNWRITTEN]
            stayed.update(
                (address, said if said < 0 else -errno.EBUSY)
                for address, said in answers
                if said not in {UNWRITTEN, self.target}
            )
            unsaid = array("Q", (address for address, said in answers if said == UNWRITTEN))
            nodes = self._nodes_of(unsaid)
            result.moved += nodes.count(self.target)
            left = [a for a, n in zip(unsaid, nodes, strict=True) if n == self.source]
            # Of the last batch alone no more can have failed than it holds: more means that the
            # call ended earlier, at the last page that was told.
            last_told = told[-1] if told else 0
            behind = sum(1 for address in waiting if address > last_told)
            waiting = array("Q")
            if told and not_done > behind and not result.no_room:
                waiting = array("Q", (a for a in left if a > last_told))
                left = [a for a in left if a < last_told]
            stayed.update(dict.fromkeys(left, -errno.ENOMEM if result.no_room else -errno.EBUSY))
        return stayed

    def _call(self, addresses: array[int], result: Result) -> tuple[array[int], int]:
        """Return the status of each page, and how many the kernel says are not done."""
        targets = array("i", [self.target]) * len(addresses)
        try:
            not_done, status = self.syscalls.move_pages(
                self.pid, addresses, targets, shared=self.shared
            )
        except OSError as error:
            if error.errno == errno.EPERM and self.shared:
                msg = (
                    "no right to move pages that several processes map: CAP_SYS_NICE is missing; "
                    'give it to the service, or set shared = "leave" in the rule'
                )
                raise RightsError(msg) from None
            if error.errno == errno.EACCES:
                # Of the call, not of a page (do_pages_move, mm/migrate.c).
                msg = (
                    f"its cpuset no longer grants it memory on node {self.target}: "
                    "nothing more is moved there (AllowedMemoryNodes= of its unit)"
                )
                raise NumadError(msg) from None
            if error.errno != errno.ENOMEM:
                raise
            # What it had moved by then stands; nothing was said of it.
            result.no_room = True
            return array("i", [UNWRITTEN]) * len(addresses), len(addresses)
        return status, not_done

    def _nodes_of(self, addresses: array[int]) -> array[int]:
        return self.syscalls.move_pages_query(self.pid, addresses)


def page_status(result: int) -> PageStatus:
    """Return what a status entry of move_pages(2) means."""
    if result == -errno.EACCES:
        return PageStatus.SHARED
    if result in {-errno.ENOENT, -errno.EFAULT}:
        return PageStatus.ABSENT
    if result == -errno.ENOMEM:
        return PageStatus.NO_ROOM
    return PageStatus.BUSY


def _apart(addresses: Iterable[int], heads: set[int]) -> tuple[list[int], dict[int, list[int]]]:
    """Return the pages of no such block, and those behind each head, both in order."""
    small: list[int] = []
    blocks: dict[int, list[int]] = {head: [] for head in heads}
    for address in addresses:
        head = address // THP_BYTES * THP_BYTES
        if head not in heads:
            small.append(address)
        elif address != head:
            blocks[head].append(address)
    return small, {head: block for head, block in blocks.items() if block}
