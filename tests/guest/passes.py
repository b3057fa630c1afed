"""Passes of the load generator: read from its log, and what they come to in a window."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import NamedTuple


class Pass(NamedTuple):
    """One pass of one thread over its part of the memory, on the monotonic clock."""

    thread: int
    start_s: float
    end_s: float


def parse_passes(text: str) -> list[Pass]:
    """Return the passes of a log of the load generator; its last line may be cut."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            said = json.loads(line)
            start_ns = said["start_ns"]
            found.append(Pass(said["thread"], start_ns / 1e9, (start_ns + said["took_ns"]) / 1e9))
    return found


def with_open(passes: Sequence[Pass], pause_s: float, now_s: float) -> list[Pass]:
    """Add the pass of each thread that has not come back yet: it takes this long at least."""
    last = {one.thread: one.end_s for one in sorted(passes, key=lambda one: one.end_s)}
    begun = {thread: end_s + pause_s for thread, end_s in last.items()}
    return [*passes, *(Pass(thread, at, now_s) for thread, at in begun.items() if at < now_s)]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that so many percent of all do not exceed (nearest rank)."""
    return sorted(values)[max(0, -(-percent * len(values) // 100) - 1)]


def within(passes: Sequence[Pass], from_s: float, to_s: float) -> dict[str, float] | None:
    """Tell of the passes of which some part lies in a window; None where there are none."""
    found = [1e3 * (p.end_s - p.start_s) for p in passes if p.start_s < to_s and p.end_s > from_s]
    if not found:
        return None
    p50, p99 = percentile(found, 50), percentile(found, 99)
    return {"passes": len(found), "p50": p50, "p99": p99, "worst": max(found)}
