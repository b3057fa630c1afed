"""Huge pages of a target for the time of a move, where the kernel makes none for it.

A move takes a free page of the target's pool, and where there is none the kernel makes one from the
node's memory; the page that is left goes back to its own node's memory then, and the pools are as
large together as before (``alloc_hugetlb_folio_nodemask``, ``move_hugetlb_state``, mm/hugetlb.c).
It makes none that are larger than the largest block of free memory it keeps (1 GiB on x86): for
these the pool of the target is made larger first, and as much smaller afterwards where pages were
left, or where some are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from numad_py.act.journal import Growth
from numad_py.act.ranges import Range
from numad_py.errors import NumadError
from numad_py.kernel.settings import PoolCounts, Settings


def growth_for(
    ranges: Iterable[Range], page_bytes: int, target: int, settings: Settings, room_bytes: int
) -> Growth | None:
    """Return by how much a pool is to grow for the pages of these ranges; None: not at all.

    Args:
        ranges: areas of pages that are to go.
        page_bytes: size of the huge pages; areas of others do not count.
        target: where to.
        settings: tells what the pools have.
        room_bytes: what the target can still take, in ordinary pages.
    """
    coming: dict[int, int] = {}
    for found in ranges:
        for node, size in found.remote.items() if found.huge_bytes == page_bytes else ():
            coming[node] = coming.get(node, 0) + size // page_bytes
    nodes = {target, *coming}
    pools = {node: pool for node in nodes if (pool := settings.pool(node, page_bytes))}
    if target not in pools:
        return None
    missing = sum(coming.values()) - pools[target].free
    wanted = min(missing, max(0, room_bytes) // page_bytes)
    if wanted <= 0:
        return None
    before = {node: (pool.persistent, pool.free) for node, pool in pools.items()}
    return Growth(page_bytes, target, wanted, before)


def grow(growth: Growth, settings: Settings, stopped: Callable[[], bool]) -> None:
    """Make a pool larger, a page at a time, until it has all or the kernel finds no more.

    One takes the kernel long where it has to clear 1 GiB of others' pages first, and a write that
    has begun cannot be broken off.

    Raises:
        RightsError: the pool may not be set.
        NumadError: it cannot be.
    """
    before, _ = growth.pools[growth.target]
    for more in range(1, growth.wanted + 1):
        if stopped():
            return
        settings.set_pool(growth.target, growth.page_bytes, before + more)
        now = settings.pool(growth.target, growth.page_bytes)
        if now is None or now.persistent < before + more:
            return


def give_back_pages(growth: Growth, settings: Settings) -> str:
    """Take off what was added: first where pages were left, then on the target; say what was done.

    How much that is, is what the pools have more together than before, so that it may be done again
    where it was cut short.

    Raises:
        RightsError: a pool may not be set.
        NumadError: one cannot be, or has as many pages after it as before.
    """
    size = growth.page_bytes
    pools = {node: pool for node in growth.pools if (pool := settings.pool(node, size))}
    target = pools.get(growth.target)
    if target is None or pools.keys() != growth.pools.keys():
        return "a node is gone, its pool is left as it is"
    before, _ = growth.pools[growth.target]
    if not before <= target.persistent <= before + growth.wanted:
        return f"somebody else has set it to {target.persistent}: it is left"
    left = min(growth.wanted, _more(growth.pools, pools))
    if left <= 0:
        return "there are none to give back"
    given = []
    for node, pool in sorted(pools.items(), key=lambda item: item[0] == growth.target):
        _, free_before = growth.pools[node]
        part = left if node == growth.target else min(left, max(0, pool.free - free_before))
        if part > 0:
            settings.set_pool(node, size, pool.persistent - part)
            now = settings.pool(node, size)
            part = pool.persistent - now.persistent if now is not None else part
            given.append(f"{part} on node {node}")
            left -= part
    if left > 0:
        msg = f"{growth.name} were added for a move, and {left} of them cannot be taken off"
        raise NumadError(msg)
    return f"{', '.join(given)} taken off"


def _more(before: Mapping[int, tuple[int, int]], now: Mapping[int, PoolCounts]) -> int:
    return sum(pool.persistent - before[node][0] for node, pool in now.items())
