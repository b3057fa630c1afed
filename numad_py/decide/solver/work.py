"""What a search may cost: counted, not measured by a clock, so that its answer is always the same.

A step is about half a microsecond. All parts of a search spend of one amount.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MOST = 400_000
"""Steps that one problem is worth, beside what finding its first answer takes."""


class Work:
    """An amount of steps, of which a search spends until it is done."""

    def __init__(self, steps: int = MOST) -> None:
        """Begin with so many."""
        self.left = steps

    def spend(self, steps: int) -> None:
        """Take steps that have been made; the last of a search may take more than there are."""
        self.left -= steps

    @property
    def done(self) -> bool:
        """Whether nothing is left: a search ends with the best that it has found."""
        return self.left <= 0

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Give back what is spent for as long as this lasts."""
        before = self.left
        try:
            yield
        finally:
            self.left = before

    @contextmanager
    def part(self, most: int) -> Iterator[None]:
        """Let so many steps be spent at most for as long as this lasts; what is left is kept."""
        kept = max(0, self.left - most)
        self.left -= kept
        try:
            yield
        finally:
            self.left += kept
