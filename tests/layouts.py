"""Memory layouts out of a seed: areas up to 16 GiB that take no memory, and who is where in them.

A layout answers as move_pages(2) does when it is given no nodes to move to, and knows the truth.
Patterns are those of first touch, of interleaving and of memory that grew while threads wandered,
and the bad cases of any sampling: stripes, clusters, areas with next to nothing in them.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numad_py.model.residency import BASE_PAGE_BYTES, Kind, Mobility
from numad_py.model.snapshot import MemoryStatus
from numad_py.observe.sample import Area

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
ABSENT = -2
"""-ENOENT: no page there."""
UNMAPPED = -14
"""-EFAULT: no area there, or the zero page."""
HUGE = 2 * MIB // BASE_PAGE_BYTES
"""Base pages in a transparent huge page."""
EXACT_PAGES = 1 << 14
"""Longer runs of scattered pages are not counted page by page but by expectation."""
FIRST_ADDRESS = 0x7E00_0000_0000
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Run:
    """Pages one behind the other that follow one pattern."""

    pages: int
    cycle: tuple[int, ...]
    """Nodes, or ABSENT, by turns."""
    seed: int | None = None
    """If given, not by turns: each page takes one of the cycle's at random."""

    def node_of(self, page: int) -> int:
        """Return the node of a page of the run."""
        if self.seed is None:
            return self.cycle[page % len(self.cycle)]
        mixed = (page * 0x9E3779B97F4A7C15 + self.seed) & _WORD
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _WORD
        return self.cycle[(mixed ^ mixed >> 31) % len(self.cycle)]

    def counts(self) -> dict[int, float]:
        """Return resident pages by node."""
        if self.seed is not None and self.pages <= EXACT_PAGES:
            seen: Sequence[int] = [self.node_of(page) for page in range(self.pages)]
            rounds, rest = 0.0, seen
        elif self.seed is not None:
            rounds, rest = self.pages / len(self.cycle), ()
        else:
            rounds, rest = self.pages // len(self.cycle), self.cycle[: self.pages % len(self.cycle)]
        nodes = {node for node in self.cycle if node >= 0}
        return {node: rounds * self.cycle.count(node) + rest.count(node) for node in nodes}


@dataclass(frozen=True)
class Stretch:
    """One area and what lies in it; pages behind the last run are absent."""

    area: Area
    runs: tuple[Run, ...]


class Layout:
    """A process's memory."""

    def __init__(self, family: str, stretches: Sequence[Stretch]) -> None:
        """Lay out areas that stand in order of address."""
        self.family = family
        self.areas = tuple(stretch.area for stretch in stretches)
        self.asked = 0
        """Addresses that were asked for so far."""
        self._starts: list[int] = []
        self._runs: list[tuple[Run, int, int]] = []
        """Each with its address and its pages' size."""
        self._sizes: dict[tuple[int, Kind], float] = {}
        for stretch in stretches:
            self._lay(stretch)

    def _lay(self, stretch: Stretch) -> None:
        area, at = stretch.area, stretch.area.start
        for run in stretch.runs:
            self._put(at, run, area.page_bytes)
            at += run.pages * area.page_bytes
            for node, pages in run.counts().items():
                key = (node, area.kind)
                self._sizes[key] = self._sizes.get(key, 0.0) + pages * area.page_bytes
        if at < area.end:
            self._put(at, Run(1, (ABSENT,)), area.page_bytes)
        self._put(area.end, Run(1, (UNMAPPED,)), area.page_bytes)

    def _put(self, at: int, run: Run, page_bytes: int) -> None:
        self._starts.append(at)
        self._runs.append((run, at, page_bytes))

    def nodes_of(self, addresses: array[int]) -> array[int]:
        """Return the node or negative errno of the page at each address."""
        self.asked += len(addresses)
        return array("i", map(self._node_of, addresses))

    def _node_of(self, address: int) -> int:
        run, start, page_bytes = self._runs[bisect_right(self._starts, address) - 1]
        return run.node_of((address - start) // page_bytes)

    @property
    def resident_bytes(self) -> float:
        """Resident bytes in truth."""
        return sum(self._sizes.values())

    def shares(self) -> dict[int, float]:
        """Return each node's share of the resident bytes in truth; of all nodes that have any."""
        shares: dict[int, float] = {}
        for (node, _), size in self._sizes.items():
            if size:
                shares[node] = shares.get(node, 0.0) + size / self.resident_bytes
        return shares

    def bytes_of(self, kind: Kind) -> int:
        """Return resident bytes of a kind in truth, whole pages."""
        size = sum(size for (_, of), size in self._sizes.items() if of is kind)
        return round(size / BASE_PAGE_BYTES) * BASE_PAGE_BYTES

    @property
    def memory(self) -> MemoryStatus:
        """What /proc/PID/status would say."""
        return MemoryStatus(
            anon_bytes=self.bytes_of(Kind.ANON),
            file_bytes=self.bytes_of(Kind.FILE),
            shmem_bytes=self.bytes_of(Kind.SHMEM),
            hugetlb_bytes=self.bytes_of(Kind.HUGETLB),
        )


class _Builder:
    """Puts areas one behind the other, with gaps."""

    def __init__(self, seed: int) -> None:
        """Start with nothing."""
        self.rng = random.Random(seed)  # noqa: S311 - to be drawn again, not to be secret
        self.stretches: list[Stretch] = []
        self._at = FIRST_ADDRESS

    def add(
        self,
        runs: Sequence[Run],
        *,
        pages: int | None = None,
        kind: Kind = Kind.ANON,
        mobility: Mobility = Mobility.MOVABLE,
        page_bytes: int = BASE_PAGE_BYTES,
    ) -> None:
        """Add an area of the runs, or of more pages than these."""
        pages = pages or sum(run.pages for run in runs)
        start = -(-self._at // page_bytes) * page_bytes
        end = start + pages * page_bytes
        self.stretches.append(Stretch(Area(start, end, page_bytes, kind, mobility), tuple(runs)))
        self._at = end + self.rng.randrange(3) * BASE_PAGE_BYTES

    def pages(self, least: int = 4 * MIB, most: int = 16 * GIB) -> int:
        """Return a number of base pages, each magnitude as likely."""
        return int(least * (most / least) ** self.rng.random()) // BASE_PAGE_BYTES

    def scattered(self, pages: int, cycle: Sequence[int]) -> Run:
        """Return pages that take one of the cycle's each at random."""
        return Run(pages, tuple(cycle), self.rng.getrandbits(64))

    def blocks(self, pages: int, cycle: Sequence[int], block: int = HUGE) -> list[Run]:
        """Return blocks of pages that take one of the cycle's each at random."""
        runs = [Run(block, (self.rng.choice(cycle),)) for _ in range(pages // block)]
        rest = pages % block
        return [*runs, Run(rest, (cycle[0],))] if rest else runs

    def nodes(self) -> list[int]:
        """Return two to four nodes, in any order."""
        return self.rng.sample(range(4), self.rng.randrange(2, 5))

    def any_runs(self, pages: int) -> list[Run]:
        """Return runs of any pattern in which all pages are resident."""
        nodes = self.nodes()
        cut = self.rng.randrange(pages + 1)
        return self.rng.choice(
            [
                [Run(pages, (nodes[0],))],
                [Run(cut, (nodes[0],)), Run(pages - cut, (nodes[1],))],
                [Run(pages, tuple(nodes))],
                [self.scattered(pages, nodes)],
                self.blocks(pages, nodes),
            ]
        )


def _local(b: _Builder) -> None:
    b.add([Run(b.pages(), (b.rng.randrange(4),))])


def _few_at_one_end(b: _Builder) -> None:
    pages = b.pages()
    few = max(1, pages // 100)
    b.add([Run(pages - few, (0,)), Run(few, (1,))])


def _few_pages(b: _Builder) -> None:
    b.add([b.scattered(b.pages(), [1] + [0] * 99)])


def _few_blocks(b: _Builder) -> None:
    b.add(b.blocks(b.pages(GIB // 4), [1] + [0] * 99))


def _halves(b: _Builder) -> None:
    pages = b.pages()
    b.add([Run(pages // 2, (0,)), Run(pages - pages // 2, (1,))])


def _one_end(b: _Builder) -> None:
    pages = b.pages()
    cut = int(pages * b.rng.uniform(0.02, 0.5))
    b.add([Run(cut, (1,)), Run(pages - cut, (0,))])


def _page_stripes(b: _Builder) -> None:
    b.add([Run(b.pages(), tuple(b.nodes()))])


def _block_stripes(b: _Builder) -> None:
    b.add([Run(b.pages(), tuple(node for node in b.nodes() for _ in range(HUGE)))])


def _random_pages(b: _Builder) -> None:
    odds = b.rng.randrange(1, 10)
    b.add([b.scattered(b.pages(), [*[0] * odds, *[1] * (10 - odds)])])


def _random_blocks(b: _Builder) -> None:
    odds = b.rng.randrange(1, 10)
    b.add(b.blocks(b.pages(), [*[0] * odds, *[1] * (10 - odds)]))


def _mixed(b: _Builder) -> None:
    """Some areas of each kind, of any pattern, of which the last pages may be absent."""
    for _ in range(b.rng.randrange(2, 30)):
        runs = b.any_runs(b.pages(64 * KIB, GIB))
        pages = int(sum(run.pages for run in runs) * b.rng.choice([1, 1, 1, 1.5, 4]))
        kind = b.rng.choice([Kind.ANON, Kind.ANON, Kind.FILE, Kind.SHMEM])
        b.add(runs, pages=pages, kind=kind, mobility=b.rng.choice(list(Mobility)))


def _sparse(b: _Builder) -> None:
    """A heap with holes, a file that is filled as it is used, and a reserve hardly begun."""
    b.add(b.blocks(b.pages(GIB // 4, 4 * GIB), [0, 1, ABSENT, ABSENT], b.rng.choice([16, HUGE])))
    used = b.pages(64 * MIB, 2 * GIB)
    b.add(b.any_runs(used), pages=used * b.rng.randrange(2, 9), kind=Kind.FILE)
    used = b.pages(MIB, 256 * MIB)
    b.add([Run(used, (2,))], pages=used * b.rng.choice([10, 100]))


def _stacks(b: _Builder) -> None:
    """Thread stacks of 8 MiB with little in them, libraries, and a heap."""
    size = 8 * MIB // BASE_PAGE_BYTES
    for _ in range(b.rng.randrange(8, 400)):
        used = b.rng.randrange(2, 40)
        b.add([Run(size - used, (ABSENT,)), Run(used, (b.rng.randrange(2),))])
    for _ in range(100):
        pages = b.pages(8 * KIB, 8 * MIB)
        cycle = [0] * b.rng.randrange(1, 5) + [ABSENT]
        b.add([b.scattered(pages, cycle)], kind=Kind.FILE, mobility=Mobility.SHARED)
    b.add(b.any_runs(b.pages(GIB // 2)))


def _scattered_holes(b: _Builder) -> None:
    """One area in which pages are absent here and there, more on one node than on the other."""
    pages, odds = b.pages(64 * MIB), b.rng.randrange(1, 8)
    cut = int(pages * b.rng.uniform(0.1, 0.9))
    holes = [ABSENT] * b.rng.randrange(1, 10)
    b.add([b.scattered(cut, [0, 1, 1]), b.scattered(pages - cut, [0] * odds + holes)])


def _hugetlb(b: _Builder) -> None:
    """A pool of huge pages beside a heap."""
    page_bytes = b.rng.choice([2 * MIB, 2 * MIB, GIB])
    pages = max(2, b.pages(256 * MIB) * BASE_PAGE_BYTES // page_bytes)
    b.add(b.any_runs(pages), kind=Kind.HUGETLB, page_bytes=page_bytes)
    b.add(b.any_runs(b.pages(16 * MIB, 2 * GIB)))


_FAMILIES: dict[str, Callable[[_Builder], None]] = {
    "local": _local,
    "few at one end": _few_at_one_end,
    "few pages": _few_pages,
    "few blocks": _few_blocks,
    "halves": _halves,
    "one end": _one_end,
    "page stripes": _page_stripes,
    "block stripes": _block_stripes,
    "random pages": _random_pages,
    "random blocks": _random_blocks,
    "mixed": _mixed,
    "sparse": _sparse,
    "stacks": _stacks,
    "scattered holes": _scattered_holes,
    "hugetlb": _hugetlb,
}
FAMILIES = tuple(_FAMILIES)
"""Names of the patterns."""


def layout(family: str, seed: int) -> Layout:
    """Return a layout of a family; the same for the same seed."""
    builder = _Builder(seed)
    _FAMILIES[family](builder)
    return Layout(family, builder.stretches)
