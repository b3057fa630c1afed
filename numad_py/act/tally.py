"""What has been moved so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from numad_py.model.outcome import End, PageStatus


@dataclass
class Tally:
    """Grows as the mover goes along."""

    end: End = End.DONE
    moved: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Bytes by source and target."""
    moved_shared: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Of these, what other workers map too."""
    pages: Counter[PageStatus] = field(default_factory=Counter)
    refused_bytes: Counter[int] = field(default_factory=Counter)
    error: str | None = None
    chunks: int = 0
    longest_chunk_s: float = 0.0
    waited_s: float = 0.0
    """Spent waiting because memory was short."""

    @property
    def moved_bytes(self) -> int:
        """Bytes moved in all."""
        return sum(self.moved.values())
