"""Pages of one range as arrays: addresses, and the node of each, as move_pages has them.

A GiB has 262,144 small pages, and Python would spend longer on looping over them than the kernel
on moving them: whatever is done for each is done by a function that loops in C.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from random import Random

THP_BYTES = 2 << 20
"""Size of a transparent huge page on x86-64, and on aarch64 with 4 KiB pages."""
THP_BASE_BYTES = 4096
"""Of such a kernel's ordinary pages. With 64 KiB ones transparent huge pages have 512 MiB, and no
chunk is that large: there each page is handed in, and the first takes its huge page along."""

_BLOCK_PAGES = 4096


@lru_cache(maxsize=4)
def _block(page_bytes: int) -> int:
    """Return the offsets of a block's pages, as one large number."""
    offsets = array("Q", range(0, _BLOCK_PAGES * page_bytes, page_bytes))
    return int.from_bytes(offsets, "little")


@lru_cache(maxsize=4)
def _ones(count: int) -> int:
    """Return so many ones, as such a number: times an address it is added to each."""
    return int.from_bytes(array("Q", [1]) * count, "little")


def addresses_of(start: int, end: int, page_bytes: int) -> array[int]:
    """Return the address of each page of a range.

    Block by block by one addition of large numbers: an array of a ``range`` takes four times as
    long, and half as long as the kernel takes to say where the pages lie.
    """
    found = array("Q")
    offsets, ones = _block(page_bytes), _ones(_BLOCK_PAGES)
    while end - start >= _BLOCK_PAGES * page_bytes:
        found.frombytes((offsets + start * ones).to_bytes(8 * _BLOCK_PAGES, "little"))
        start += _BLOCK_PAGES * page_bytes
    found.extend(range(start, end, page_bytes))
    return found


def shifted(addresses: array[int], by: int) -> array[int]:
    """Return each address that many bytes further on, by one addition of large numbers too."""
    number = int.from_bytes(addresses, "little") + by * _ones(len(addresses))
    found = array("Q")
    found.frombytes(number.to_bytes(8 * len(addresses), "little"))
    return found


def drawn(addresses: range, most: int, chance: Random) -> array[int]:
    """Return some of these at random, one of each stretch: memory may have come home by stripes."""
    step = -(-len(addresses) // most)
    stretches = range(0, len(addresses), step)
    last = len(addresses) - 1
    # At a third of what randrange() costs; a chunk of huge pages has little else to pay.
    draws = array("H", chance.randbytes(2 * len(stretches)))
    at = (start + draw * step // 65536 for start, draw in zip(stretches, draws, strict=True))
    return array("Q", (addresses[min(each, last)] for each in at))


def as_array(addresses: Iterable[int]) -> array[int]:
    """Return addresses in order, as the kernel takes them."""
    if isinstance(addresses, array):
        return addresses
    if isinstance(addresses, range):
        return addresses_of(addresses.start, addresses.stop, addresses.step)
    return array("Q", sorted(addresses))


def count_of(node: int, nodes: array[int]) -> int:
    """Return how many pages are on a node.

    Mostly all are; that is seen without making an object of each number.
    """
    alike = array("i", [node]) * len(nodes)
    return len(nodes) if nodes == alike else nodes.count(node)


@dataclass(frozen=True)
class Pages:
    """Pages in order of address."""

    addresses: array[int] | range
    """Type code ``Q``; a range where there is no gap and few of them may ever be needed, as of huge
    pages."""
    nodes: array[int]
    """Type code ``i``: the node of each page, or a negative errno (move_pages(2))."""
    page_bytes: int

    @classmethod
    def of_range(
        cls, start: int, end: int, page_bytes: int, nodes_of: Callable[[array[int]], array[int]]
    ) -> Pages:
        """Return all pages of a range; ``nodes_of`` asks the kernel where they lie."""
        addresses = addresses_of(start, end, page_bytes)
        return cls(addresses, nodes_of(addresses), page_bytes)

    def __len__(self) -> int:
        """Return how many pages there are."""
        return len(self.addresses)

    @property
    def total_bytes(self) -> int:
        """Their size."""
        return len(self.addresses) * self.page_bytes

    def on(self, node: int) -> Pages:
        """Return those on a node."""
        count = count_of(node, self.nodes)
        if count == len(self):
            return self
        if not count:
            return Pages(array("Q"), array("i"), self.page_bytes)
        addresses = array("Q", compress(self.addresses, map(node.__eq__, self.nodes)))
        return Pages(addresses, array("i", [node]) * count, self.page_bytes)

    def block_heads(self) -> array[int]:
        """Return the first address of each aligned block of 2 MiB whose pages are all here."""
        heads = array("Q")
        if not self.addresses:
            return heads
        first = -(-self.addresses[0] // THP_BYTES) * THP_BYTES
        end = self.addresses[-1] + self.page_bytes
        if end - self.addresses[0] == self.total_bytes:
            return array("Q", range(first, end - THP_BYTES + 1, THP_BYTES))
        for head in range(first, self.addresses[-1] + 1, THP_BYTES):
            at = bisect_left(self.addresses, head)
            last = at + THP_BYTES // self.page_bytes - 1
            # In order of address and no two alike: the ends tell that all between are there.
            if last < len(self) and self.addresses[last] - head == THP_BYTES - self.page_bytes:
                heads.append(head)
        return heads
