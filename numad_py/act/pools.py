"""Huge pages of a target for the time of a move, where the kernel makes none for it.

A move takes a free page of the target's pool, and where there is none the kernel makes one from the
node's memory; the page that is left goes back to its own node's memory then, and the pools are as
large together as before (``alloc_hugetlb_folio_nodemask``, ``move_hugetlb_state``, mm/hugetlb.c).
It makes none that are larger than the largest block of free memory it keeps (1 GiB on x86): for
these the pool of the target is made larger first, and as much smaller afterwards where pages were
left, or where some are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from numad_py.act.journal import Growth
from numad_py.act.ranges import Range
from numad_py.errors import NumadError
from numad_py.kernel.settings import Settings


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
        # Where there are more than that, somebody else has set it, and the next write would undo
        # that.
        if now is None or now.persistent != before + more:
            return


def settled(growth: Growth, settings: Settings) -> Growth:
    """Return a growth as it is by what its pools have now, after the write that was under way.

    What an earlier version wrote down does not say how many it got: as many as the pools have more
    together, unless somebody else has set the target since; then it stays unknown.
    """
    found = {node: settings.pool(node, growth.page_bytes) for node in growth.pools}
    now = {node: pool.persistent for node, pool in found.items() if pool is not None}
    if growth.got is None:
        before, _ = growth.pools[growth.target]
        if (
            now.keys() != growth.pools.keys()
            or not 0 <= now[growth.target] - before <= growth.wanted
        ):
            return growth
        more = sum(pages - growth.pools[node][0] for node, pages in now.items())
        pools = {node: (pages, growth.pools[node][1]) for node, pages in now.items()}
        return replace(growth, got=max(0, min(growth.wanted, more)), pools=pools)
    there = growth.under_way is None or growth.under_way[0] in now
    return growth.settled(now) if there else growth


def give_back_pages(
    growth: Growth,
    settings: Settings,
    note: Callable[[Growth], None] = lambda _: None,
    others: Collection[int] = (),
) -> str:
    """Take off what was added: first where pages were left, then on the target; say what was done.

    As many as the target had got, whatever becomes of other pools meanwhile. A pool that somebody
    else has set since is left as it is; it may be one from which pages came, then those go on the
    target, as surplus where they are in use. It may be done again where it was cut short.

    Args:
        growth: with what it had got; as it was noted last.
        settings: reads and sets the pools.
        note: called before each write with what the growth is then; also before it fails.
        others: nodes whose pools have pages of another growth: those are its own.

    Raises:
        RightsError: a pool may not be set.
        NumadError: one cannot be, or has as many pages after it as before.
    """
    size = growth.page_bytes
    pools = {node: pool for node in growth.pools if (pool := settings.pool(node, size))}
    target = pools.get(growth.target)
    if target is None or pools.keys() != growth.pools.keys():
        return "a node is gone, its pool is left as it is"
    growth = settled(growth, settings)
    noted, _ = growth.pools[growth.target]
    theirs = (
        "" if target.persistent == noted else f"somebody else has set it to {target.persistent}"
    )
    if growth.got is None:
        return f"{theirs}: it is left"
    # Whoever has lowered it since has taken ours off first.
    left = growth.got - max(0, noted - target.persistent)
    given = []
    for node, pool in sorted(pools.items(), key=lambda item: item[0] == growth.target):
        persistent, free_before = growth.pools[node]
        part = left
        if node != growth.target:
            part = 0 if node in others else min(left, pool.free - free_before)
        if part <= 0 or pool.persistent != persistent:
            continue
        growth = replace(growth, under_way=(node, persistent - part))
        note(growth)
        try:
            settings.set_pool(node, size, persistent - part)
        except NumadError:
            note(settled(growth, settings))
            raise
        growth = settled(growth, settings)
        part = persistent - growth.pools[node][0]
        given.append(f"{part} on node {node}")
        left -= part
    told = f"{', '.join(given)} taken off" if given else ""
    if theirs:
        return "; ".join(filter(None, (told, f"{theirs}: it is left")))
    if left > 0:
        note(growth)
        msg = f"{growth.name} were added for a move, and {left} of them cannot be taken off"
        raise NumadError(msg)
    return told or "there are none to give back"
