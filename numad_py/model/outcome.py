"""What acting on a decision did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from numad_py.model.plan import Decision
from numad_py.model.residency import Residency


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
    """-ENOMEM: no free page on the target."""


class End(str, Enum):
    """How carrying out a decision ended."""

    DONE = "done"
    """All of it, or all but a trifle: the page counts say what that was."""
    PARTIAL = "partial"
    """Some pages did not move; the page counts say why."""
    STOPPED = "stopped"
    """Broken off between two chunks: shutdown, pause or reload."""
    GONE = "gone"
    """The worker ended or its pid is another process by now."""
    NO_ROOM = "no-room"
    """The target node lost its headroom."""
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
    moved: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """Bytes by source and target node."""
    pages: Mapping[PageStatus, int] = field(default_factory=dict)
    """Base or huge pages by status."""
    refused_bytes: Mapping[int, int] = field(default_factory=dict)
    """Bytes by node that would not move."""
    after: Residency | None = None
    """Measured again when the move had ended."""
    error: str | None = None

    @property
    def moved_bytes(self) -> int:
        """Bytes moved in all."""
        return sum(self.moved.values())
