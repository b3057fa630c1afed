"""Stretches of an address space: sets of them that stand in order and apart."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

Span = tuple[int, int]
"""Start and end address."""


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return these in order; those that overlap or touch become one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def gaps(spans: Sequence[Span], start: int, end: int) -> Iterator[Span]:
    """Yield what of a stretch none of these covers, in order."""
    # By index: a slice would copy the rest for each of thousands of areas.
    for at in range(max(0, bisect_right(spans, (start, start)) - 1), len(spans)):
        low, high = spans[at]
        if low >= end:
            break
        if high <= start:
            continue
        if start < low:
            yield start, low
        start = max(start, high)
    if start < end:
        yield start, end


def touches(spans: Sequence[Span], start: int, end: int) -> bool:
    """Say whether a stretch overlaps any of these."""
    at = bisect_left(spans, (end, 0))
    return at > 0 and spans[at - 1][1] > start
