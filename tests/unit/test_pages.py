"""Pages as arrays, held against the same done page by page."""

from __future__ import annotations

import errno
import random
from array import array

import pytest

from numad_py.act.pages import THP_BYTES, Pages, addresses_of, as_array, shifted
from numad_py.act.pages import drawn as one_of_each
from numad_py.model.residency import BASE_PAGE_BYTES

BLOCK = THP_BYTES // BASE_PAGE_BYTES
NODES = (0, 1, 7, -errno.ENOENT, -errno.EACCES)
HEAD = 0x7F0000000000
"""Begins a block."""


def drawn(seed: int) -> Pages:
    """Return pages of which some are missing, in runs of many nodes."""
    rng = random.Random(seed)  # noqa: S311 - to be drawn again, not to be secret
    at = HEAD + rng.randrange(2 * BLOCK) * BASE_PAGE_BYTES
    addresses, nodes = array("Q"), array("i")
    for _ in range(rng.randrange(8)):
        at += rng.choice([0, 0, 1, BLOCK]) * BASE_PAGE_BYTES
        for _ in range(rng.choice([0, 1, 3, BLOCK - 1, BLOCK, 2 * BLOCK])):
            addresses.append(at)
            nodes.append(rng.choice(NODES) if rng.random() < 0.01 else NODES[seed % 2])
            at += BASE_PAGE_BYTES
    return Pages(addresses, nodes, BASE_PAGE_BYTES)


def pairs(pages: Pages) -> list[tuple[int, int]]:
    """Return address and node of each."""
    return list(zip(pages.addresses, pages.nodes, strict=True))


def heads_one_by_one(pages: Pages) -> list[int]:
    """Return the blocks that are here in whole, the slow way."""
    here = set(pages.addresses)
    return [
        address
        for address in sorted(here)
        if address % THP_BYTES == 0
        and all(address + i * BASE_PAGE_BYTES in here for i in range(1, BLOCK))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_on_keeps_the_pages_of_one_node_in_order(seed: int) -> None:
    """What is left is each page of that node, and nothing else."""
    pages = drawn(seed)
    for node in NODES:
        assert pairs(pages.on(node)) == [(a, n) for a, n in pairs(pages) if n == node]


@pytest.mark.parametrize("seed", range(40))
def test_a_block_head_stands_for_a_block_that_is_here_in_whole(seed: int) -> None:
    """Each aligned block of 2 MiB with all its pages has its head named, no other block has."""
    pages = drawn(seed)
    for part in (pages, pages.on(0), pages.on(1)):
        assert list(part.block_heads()) == heads_one_by_one(part)


@pytest.mark.parametrize("gone", [0, 1, BLOCK // 2, BLOCK - 1])
def test_one_missing_page_spoils_its_block_and_no_other(gone: int) -> None:
    """The block before and the one behind keep their heads."""
    numbers = [i for i in range(3 * BLOCK) if i != BLOCK + gone]
    addresses = array("Q", [HEAD + i * BASE_PAGE_BYTES for i in numbers])
    pages = Pages(addresses, array("i", [0]) * len(addresses), BASE_PAGE_BYTES)
    assert list(pages.block_heads()) == [HEAD, HEAD + 2 * THP_BYTES]


def test_2_mib_that_are_not_aligned_hold_no_block() -> None:
    """A huge page lies on a multiple of its size."""
    pages = Pages.of_range(
        HEAD + BASE_PAGE_BYTES,
        HEAD + BASE_PAGE_BYTES + THP_BYTES,
        BASE_PAGE_BYTES,
        lambda a: array("i", [0]) * len(a),
    )
    assert len(pages) == BLOCK
    assert list(pages.block_heads()) == []


def test_a_range_is_asked_about_page_by_page() -> None:
    """Each page of the range's own size is asked for once; the size follows from their number."""
    asked = []

    def nodes_of(addresses: array[int]) -> array[int]:
        asked.append(list(addresses))
        return array("i", [3]) * len(addresses)

    pages = Pages.of_range(HEAD, HEAD + 3 * THP_BYTES, THP_BYTES, nodes_of)
    assert asked == [[HEAD, HEAD + THP_BYTES, HEAD + 2 * THP_BYTES]]
    assert pages.total_bytes == 3 * THP_BYTES
    assert list(pages.nodes) == [3, 3, 3]


def test_no_pages_have_no_heads() -> None:
    """Nothing is found in nothing."""
    none = Pages(array("Q"), array("i"), BASE_PAGE_BYTES)
    assert (len(none), len(none.on(0))) == (0, 0)
    assert list(none.block_heads()) == []


@pytest.mark.parametrize("pages_before", [0, 1, BLOCK - 1, BLOCK])
@pytest.mark.parametrize("count", [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 1])
def test_a_range_is_as_good_as_its_addresses(pages_before: int, count: int) -> None:
    """The same blocks, and the same pages on a node, whether or not all are there."""
    start = HEAD + pages_before * BASE_PAGE_BYTES
    addresses = range(start, start + count * BASE_PAGE_BYTES, BASE_PAGE_BYTES)
    for rest in (0, 1):
        nodes = array("i", [0] * (count // 2) + [rest] * (count - count // 2))
        pages = Pages(addresses, nodes, BASE_PAGE_BYTES)
        alike = Pages(array("Q", addresses), nodes, BASE_PAGE_BYTES)
        assert list(pages.block_heads()) == list(alike.block_heads()) == heads_one_by_one(pages)
        assert [pairs(pages.on(node)) for node in NODES] == [pairs(alike.on(n)) for n in NODES]


def test_addresses_become_an_array_in_order() -> None:
    """An array is taken as it is, a range made one, also a part of it; others are sorted."""
    given = array("Q", [BASE_PAGE_BYTES, 0])
    assert as_array(given) is given
    assert as_array({BASE_PAGE_BYTES, 0}) == array("Q", [0, BASE_PAGE_BYTES])
    part = range(HEAD, HEAD + 20 * THP_BYTES, BASE_PAGE_BYTES)[3:9000]
    assert as_array(part) == array("Q", part) == addresses_of(part.start, part.stop, part.step)


@pytest.mark.parametrize("page_bytes", [BASE_PAGE_BYTES, THP_BYTES])
@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 64, 65, 3 * BLOCK, 32 * BLOCK])
def test_one_page_of_each_stretch_is_drawn(count: int, page_bytes: int) -> None:
    """In order, and any of its pages may be."""
    addresses = range(HEAD, HEAD + count * page_bytes, page_bytes)
    chance, step = random.Random(count), -(-count // 32)  # noqa: S311
    rounds = [list(one_of_each(addresses, 32, chance)) for _ in range(100)]
    for found in rounds:
        assert [addresses.index(a) // step for a in found] == list(range(-(-count // step)))
    of_the_first = {found[0] for found in rounds}
    assert len(of_the_first) == step if step < 4 else len(of_the_first) > 4


@pytest.mark.parametrize("by", [0, BASE_PAGE_BYTES, THP_BYTES - BASE_PAGE_BYTES])
def test_addresses_are_shifted_one_by_one(by: int) -> None:
    """Adding to all at once carries nothing from one into the next, high in user space too."""
    addresses = array("Q", [0, HEAD, (1 << 32) - BASE_PAGE_BYTES, (1 << 47) - THP_BYTES])
    assert list(shifted(addresses, by)) == [address + by for address in addresses]
    assert not shifted(array("Q"), by)
