"""Where a file's cached pages lie: all of them, or some that stand for all."""

from __future__ import annotations

import math
import os
import random
import statistics
from array import array
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from numad_py.kernel.pagecache import PAGE_BYTES, CachedFile, Window
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.residency import INTERVAL_Z

PART_BYTES = 1 << 20
MOST_PARTS = 256
"""Of a file that is larger than all of them so many parts are drawn, one of each stretch. Files are
cached by stretches, so that many small parts tell more than few large ones."""


@dataclass(frozen=True)
class Lies:
    """Where a file is cached."""

    parts: tuple[Mapping[int, int], ...]
    """Bytes by node of each part that was looked at."""
    scale: float
    """The file's size by that of all parts; 1: all of it was looked at."""

    @property
    def by_node(self) -> dict[int, int]:
        """Bytes by node."""
        total: Counter[int] = Counter()
        for part in self.parts:
            total.update(part)
        return {node: round(size * self.scale) for node, size in sorted(total.items())}

    def error_bytes(self, nodes: Collection[int]) -> int:
        """Return how far off what lies on these nodes in all may be, 95 times in 100."""
        if self.scale == 1 or len(self.parts) < 2:  # noqa: PLR2004 - of one nothing is known
            return 0
        sizes = [sum(part.get(node, 0) for node in nodes) for part in self.parts]
        deviation = statistics.stdev(sizes) * math.sqrt(len(sizes))
        return round(INTERVAL_Z * deviation * self.scale)


def look(file: CachedFile, syscalls: Syscalls) -> Lies:
    """Return where the cached pages of a file lie, every one of them.

    Raises:
        NumadError: they cannot be asked for.
    """
    return Lies(tuple(_by_node(window, syscalls) for window in file.windows()), 1.0)


def glimpse(file: CachedFile, syscalls: Syscalls) -> Lies:
    """Return the same of some parts of it: 256 MiB, which takes some 30 ms.

    Raises:
        NumadError: they cannot be asked for.
    """
    if file.size_bytes <= MOST_PARTS * PART_BYTES:
        return look(file, syscalls)
    drawn = random.Random(file.size_bytes)  # noqa: S311 - the same for the same file
    stretch = file.size_bytes // MOST_PARTS
    parts, looked_bytes = [], 0
    for i in range(MOST_PARTS):
        offset = i * stretch + drawn.randrange(max(1, stretch - PART_BYTES))
        with file.window(offset // PAGE_BYTES * PAGE_BYTES, PART_BYTES) as window:
            parts.append(_by_node(window, syscalls))
            looked_bytes += window.size_bytes
    return Lies(tuple(parts), file.size_bytes / looked_bytes)


def _by_node(window: Window, syscalls: Syscalls) -> dict[int, int]:
    found: Counter[int] = Counter()
    for start, end in window.runs:
        addresses = array("Q", range(start, end, PAGE_BYTES))
        found.update(syscalls.move_pages_query(os.getpid(), addresses))
    return {node: count * PAGE_BYTES for node, count in sorted(found.items()) if node >= 0}
