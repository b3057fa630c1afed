"""A worker's own latency, read around a move: readings, windows of them, and what they led to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

LEAST_BETWEEN_S = 5.0
"""An endpoint is not read more often than this."""


def read_every_s(interval_s: float) -> float:
    """Return the time from one reading of an endpoint to the next, by that of the cycles."""
    return max(interval_s, LEAST_BETWEEN_S)


@dataclass(frozen=True)
class GuardReading:
    """The guarded metric at one moment: a histogram's counts, or a gauge's value.

    Of several series that match, counts are added up, and of values the mean is taken.
    """

    at_s: float
    """Time since boot at which it had been read."""
    metric: str
    """Name and labels, as an exposition has them."""
    buckets: tuple[tuple[float, float], ...] = ()
    """(upper bound, observations up to it since the start), ascending; without the last bucket,
    whose bound is +Inf. Empty of a gauge."""
    count: float | None = None
    """Observations of a histogram in all, which its last bucket holds; None of a gauge."""
    value: float | None = None
    """Of a gauge; None of a histogram."""


@dataclass(frozen=True)
class Measured:
    """The metric over a window of time."""

    what: str
    """What was measured, ``p95 of request_seconds``; two windows of different things differ."""
    value: float
    """The quantile of a histogram, the mean of a gauge; in the metric's own unit."""
    seconds: float
    """How long the window was."""
    observations: float
    """That fell into it: requests of a histogram, readings of a gauge."""
    enough: bool = True
    """Whether these are enough to go by."""
    beyond: bool = False
    """The quantile lies above the last bucket that has a bound: ``value`` is that bound."""


class Compared(str, Enum):
    """What comparing before and after has led to. Values are label values of metrics."""

    KEPT = "kept"
    """Not worse: the move stays."""
    UNDONE = "undone"
    """Worse by more than the rule allows: it is taken back."""
    NOT_COMPARABLE = "not-comparable"
    """Too few requests before or after it, or no figure to go by, or by then it could not be taken
    back any more: it stays."""
    UNREADABLE = "unreadable"
    """The endpoint gave nothing before or after it: it stays."""


@dataclass(frozen=True)
class Judgement:
    """What was found about one move."""

    cycle: int
    """In which it was found."""
    result: Compared
    why: str
    """With the numbers, for people."""
    before: Measured | None = None
    after: Measured | None = None


@dataclass(frozen=True)
class GuardMemory:
    """What is remembered of a guarded worker between cycles."""

    readings: tuple[GuardReading, ...] = ()
    """The last ones, oldest first, a few to a window; none from while it or a fellow was moved."""
    wanted_at_s: float | None = None
    """Since when it has been waiting for a window before it is moved; None: it does not wait."""
    before: Measured | None = None
    """Of before the move that is under way, or that is being judged."""
    moved_at_s: float | None = None
    """When that move had ended; None: none is being judged."""
    moved: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """What it brought, bytes by source and target; of an undo, what is still to go back."""
    undoing: bool = False
    """That move was found to be harmful, and is being taken back."""
    hindered_at_s: float | None = None
    """Since when nothing could be done about a move that was found to be harmful; None: it can."""
    undone: int = 0
    """Moves in a row that were taken back."""
    until_s: float | None = None
    """It is not moved before this time (since boot)."""
    judgement: Judgement | None = None
    """The last one."""
