"""Which ranges of a worker would not move, so that they are tried seldom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from numad_py.act.spans import Span, gaps, merged
from numad_py.model.snapshot import WorkerId

MOST_RANGES = 4096
"""Of one worker; where more refuse, those behind are tried again each time."""


class Refusals:
    """Ranges of each worker in which nothing moved that was tried.

    Pinned pages (of a driver, of RDMA) stay until they are unpinned, and each try unmaps each of
    them some ten times (``migrate_pages``, mm/migrate.c): the worker faults them in again.
    """

    def __init__(self) -> None:
        """Know of none."""
        self._spans: dict[WorkerId, list[Span]] = {}

    def open_parts(self, worker: WorkerId, start: int, end: int) -> Iterator[Span]:
        """Return what of a range is not known to refuse, in order."""
        return gaps(self._spans.get(worker, []), start, end)

    def add(self, worker: WorkerId, found: Iterable[Span]) -> None:
        """Remember more of them; those that touch become one."""
        spans = merged([*self._spans.get(worker, []), *found])
        if spans:
            self._spans[worker] = spans[:MOST_RANGES]

    def forget(self, worker: WorkerId) -> None:
        """Drop what is known of a worker: it ended, or all is to be tried again."""
        self._spans.pop(worker, None)

    def forget_except(self, alive: frozenset[WorkerId]) -> None:
        """Drop what is known of others than these."""
        for worker in [worker for worker in list(self._spans) if worker not in alive]:
            self._spans.pop(worker, None)
