"""Bringing a file's cached pages to a node: of that file alone, without reading it again."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from numad_py.act.handing import Hands, page_status
from numad_py.act.pages import Pages
from numad_py.kernel.pagecache import PAGE_BYTES, CachedFile
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.outcome import PageStatus


@dataclass
class Cached:
    """Where a file's pages lie, and what became of those that were to move."""

    by_node: Counter[int] = field(default_factory=Counter)
    """Bytes, as found."""
    moved_bytes: int = 0
    mapped_bytes: int = 0
    """That stayed because another process maps them: they are that worker's to move."""
    refused_bytes: int = 0
    """That stayed for another reason: under I/O, or not movable."""
    no_room_bytes: int = 0
    """That stayed because the node has no room above its headroom."""


def bring(file: CachedFile, target: int, syscalls: Syscalls, room: Callable[[], int]) -> Cached:
    """Move the cached pages of a file to a node, but for those that others map.

    This process maps each of them for a moment, and moves it as its own (MPOL_MF_MOVE): nothing is
    dropped and nothing read from the disk again, and what another process maps as well answers
    EACCES and stays.

    Args:
        file: whose pages.
        target: the node.
        syscalls: ask and move.
        room: bytes that the target can still take; read before each stretch.

    Raises:
        NumadError: they cannot be asked for.
        OSError: the kernel refuses the node: it is absent, or not allowed to this process.
    """
    found = Cached()
    for window in file.windows():
        for start, end in window.runs:
            pages = _pages(start, end, syscalls)
            _count(found, pages)
            for source in sorted(set(pages.nodes) - {target}):
                if source >= 0:
                    _move(found, pages.on(source), source, target, syscalls, room)
    return found


def _pages(start: int, end: int, syscalls: Syscalls) -> Pages:
    def nodes_of(addresses: array[int]) -> array[int]:
        return syscalls.move_pages_query(os.getpid(), addresses)

    return Pages.of_range(start, end, PAGE_BYTES, nodes_of)


def _count(found: Cached, pages: Pages) -> None:
    for node, count in Counter(pages.nodes).items():
        if node >= 0:
            found.by_node[node] += count * PAGE_BYTES


def _move(  # noqa: PLR0917 - from where to where, with what
    found: Cached,
    remote: Pages,
    source: int,
    target: int,
    syscalls: Syscalls,
    room: Callable[[], int],
) -> None:
    if room() < remote.total_bytes:
        found.no_room_bytes += remote.total_bytes
        return
    result = Hands(syscalls, os.getpid(), source, target).move(remote, huge=False)
    found.moved_bytes += result.moved * PAGE_BYTES
    stayed = Counter(map(page_status, result.stayed.values()))
    found.mapped_bytes += stayed[PageStatus.SHARED] * PAGE_BYTES
    found.no_room_bytes += stayed[PageStatus.NO_ROOM] * PAGE_BYTES
    found.refused_bytes += stayed[PageStatus.BUSY] * PAGE_BYTES
