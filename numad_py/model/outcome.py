"""What acting on a decision did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from numad_py.model.plan import Decision
from numad_py.model.residency import Mobility, Residency


class PageStatus(str, Enum):
    """What became of a page handed to move_pages (its status entry, move_pages(2))."""

    MOVED = "moved"
    SHARED = "shared"
    """-EACCES: mapped by several processes, or the target is outside its cpuset."""
    BUSY = "busy"
    """-EBUSY, -EIO, or still on the old node: pinned, or under I/O."""
    ABSENT = "absent"
    """-ENOENT or -EFAULT: not there any more."""
    NO_ROOM = "no-room"
    """-ENOMEM, or not tried: no free page on the target."""
    UNTRIED = "untried"
    """Not handed in: all that was tried of its area refused."""


class End(str, Enum):
    """How carrying out a decision ended."""

    DONE = "done"
    """All of it, or all but a trifle: the page counts say what that was."""
    PARTIAL = "partial"
    """Some pages did not move; the page counts say why."""
    STOPPED = "stopped"
    """Broken off between two chunks: shutdown, pause or reload."""
    PLACED = "placed"
    """Its user placed it by hand meanwhile, which ``error`` tells: the rest stays where it is."""
    GONE = "gone"
    """The worker ended, or its pid is another process or program by now."""
    NO_ROOM = "no-room"
    """A target node lost its headroom, or has no free huge page."""
    PRESSURE = "pressure"
    """Memory stayed short, here or in the worker's cgroup: the rest is for later."""
    FAILED = "failed"
    """A system call failed; ``error`` says which and what to do."""
    SIMULATED = "simulated"
    """A dry run: nothing was touched."""


@dataclass(frozen=True)
class Outcome:
    """What was done about one decision."""

    decision: Decision
    end: End
    started_at_s: float
    """Time since boot."""
    duration_s: float
    threads_bound: int = 0
    threads_left: int = 0
    """Threads whose mask could not be set, or is the user's own."""
    threads_given_back: int = 0
    """Threads that got the mask back that they had before numad-py narrowed it."""
    moved: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """Bytes by source and target node."""
    moved_shared: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """Of these, what other workers map too."""
    pages: Mapping[PageStatus, int] = field(default_factory=dict)
    """Base or huge pages by status."""
    refused_bytes: Mapping[int, int] = field(default_factory=dict)
    """Bytes by node that would not move."""
    chunks: int = 0
    longest_chunk_s: float = 0.0
    """How long the longest chunk took: so long the worker may have waited for one of its pages."""
    waited_s: float = 0.0
    """Spent waiting because memory was short."""
    after: Residency | None = None
    """Measured again when the move had ended."""
    error: str | None = None

    @property
    def moved_own(self) -> Mapping[tuple[int, int], int]:
        """Bytes moved by source and target, less what other workers map too."""
        return {pair: n - self.moved_shared.get(pair, 0) for pair, n in self.moved.items()}

    @property
    def moved_bytes(self) -> int:
        """Bytes moved in all."""
        return sum(self.moved.values())

    @property
    def promised_locality(self) -> float | None:
        """Locality that carrying out all of the decision would have brought."""
        finding = self.decision.finding
        if not finding.movable_bytes:
            return None
        left_bytes = max(0, finding.remote_bytes - self.decision.move_bytes)
        return 1 - left_bytes / finding.movable_bytes

    @property
    def reached_locality(self) -> float | None:
        """Locality as it was measured afterwards; None where it was not, or nothing is movable."""
        home = self.decision.finding.home
        if self.after is None or home is None:
            return None
        movable = self.after.by_node(mobility=Mobility.MOVABLE)
        total = sum(movable.values())
        return sum(movable.get(node, 0) for node in home.nodes) / total if total else None
