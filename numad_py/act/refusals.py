"""Which ranges of a worker would not move, so that they are tried seldom."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from numad_py.model.snapshot import WorkerId

MOST_RANGES = 4096
"""Of one worker; where more refuse, those behind are tried again each time."""

Span = tuple[int, int]
"""Start and end address."""


class Refusals:
    """Ranges of each worker in which nothing moved that was tried.

    Pinned pages (of a driver, of RDMA) stay until they are unpinned, and each try unmaps each of
    them some ten times (``migrate_pages``, mm/migrate.c): the worker faults them in again.
    """

    def __init__(self) -> None:
        """Know of none."""
        self._spans: dict[WorkerId, list[Span]] = {}

    def open_parts(self, worker: WorkerId, start: int, end: int) -> Iterator[Span]:
        """Yield what of a range is not known to refuse, in order."""
        spans = self._spans.get(worker, [])
        at = max(0, bisect_right(spans, (start, start)) - 1)
        for low, high in spans[at:]:
            if low >= end:
                break
            if high <= start:
                continue
            if start < low:
                yield start, low
            start = max(start, high)
        if start < end:
            yield start, end

    def add(self, worker: WorkerId, found: Iterable[Span]) -> None:
        """Remember more of them; those that touch become one."""
        merged: list[Span] = []
        for start, end in sorted([*self._spans.get(worker, []), *found]):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        if merged:
            self._spans[worker] = merged[:MOST_RANGES]

    def forget(self, worker: WorkerId) -> None:
        """Drop what is known of a worker: it ended, or all is to be tried again."""
        self._spans.pop(worker, None)

    def forget_except(self, alive: frozenset[WorkerId]) -> None:
        """Drop what is known of others than these."""
        for worker in [worker for worker in list(self._spans) if worker not in alive]:
            self._spans.pop(worker, None)
