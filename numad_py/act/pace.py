"""How large the chunks of a move are, and how long it rests between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from numad_py.policy.schema import MigrationPolicy

FIRST_BYTES = 4 << 20
"""The first chunk: what a page costs here is not known yet."""
LEAST_BYTES = 1 << 20
"""No chunk is smaller, however slow: each call has to empty every CPU's page vectors first
(``lru_cache_disable``, mm/swap.c)."""
GROWTH = 2
"""A chunk is at most so much larger than the one before it."""
_LATEST_WEIGHT = 0.5
_MOST_CALL_SHARE = 0.5
"""Of ``longest_chunk`` for the call itself: where it takes longer, the bytes get the rest of it all
the same, since smaller chunks would mean more calls."""
_LEAST_BYTES_SHARE = 0.1
"""Of a chunk's time so much at least is taken to be its bytes': times vary."""


@dataclass
class Pace:
    """Learns what moving costs and keeps to the policy's times.

    A chunk is made so large that it takes about ``longest_chunk``: that bounds how long the worker
    waits for a page that is on its way, and how long a stop takes. It shrinks at once when a chunk
    took longer, and grows by half a step at a time when it took less.

    A chunk's time is that of a call, whatever is moved by it, and that of its bytes. Chunks of less
    than ``LEAST_BYTES``, which stacks and small heaps make and come first, tell the former.
    """

    policy: MigrationPolicy
    rest: Callable[[float], object]
    """Sleeps so many seconds, or until the move is to stop."""
    longest_s: float = 0.0
    """The longest chunk so far."""
    chunks: int = 0
    _chunk_bytes: int = field(default=FIRST_BYTES)
    _s_per_byte: float | None = None
    _call_s: float | None = None
    """The least that a call has taken; None until a small one was seen."""

    def chunk_bytes(self, unit: int) -> int:
        """Return how large the next chunk is, in whole units (pages, or huge pages)."""
        wanted = min(self._chunk_bytes, self.policy.chunk_bytes)
        return max(unit, wanted // unit * unit)

    def after(self, moved_bytes: int, took_s: float, duty_share: float = 1.0) -> None:
        """Learn from a chunk, and rest as long as rate and duty ask for.

        Args:
            moved_bytes: that moved in it; of none, nothing is learnt of its cost.
            took_s: from when it was begun until all of it was counted.
            duty_share: of the policy's duty, while somebody else needs the machine more.
        """
        self.chunks += 1
        self.longest_s = max(self.longest_s, took_s)
        if moved_bytes:
            self._learn(moved_bytes, took_s)
        pause_s = took_s / (self.policy.duty * duty_share) - took_s
        if self.policy.rate_bytes_per_s is not None:
            pause_s = max(pause_s, moved_bytes / self.policy.rate_bytes_per_s - took_s)
        if pause_s > 0:
            self.rest(pause_s)

    def _learn(self, moved_bytes: int, took_s: float) -> None:
        if moved_bytes < LEAST_BYTES or self._call_s is not None:
            self._call_s = took_s if self._call_s is None else min(self._call_s, took_s)
        if moved_bytes < LEAST_BYTES:
            return
        call_s = self._call_s or 0.0
        s_per_byte = max(took_s - call_s, _LEAST_BYTES_SHARE * took_s) / moved_bytes
        before = self._s_per_byte
        if before is None or s_per_byte >= before:
            self._s_per_byte = s_per_byte
        else:
            self._s_per_byte = before + _LATEST_WEIGHT * (s_per_byte - before)
        longest_s = self.policy.longest_chunk_s
        wanted_s = longest_s - min(call_s, _MOST_CALL_SHARE * longest_s)
        wanted = int(wanted_s / max(self._s_per_byte, 1e-12))
        self._chunk_bytes = max(LEAST_BYTES, min(wanted, GROWTH * self._chunk_bytes))
