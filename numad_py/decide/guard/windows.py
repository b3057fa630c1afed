"""Windows of a guarded metric: which readings make one, and what it measures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numad_py.model.guard import GuardReading, Measured
from numad_py.policy.schema import GuardPolicy

LEAST_OBSERVATIONS = 20
"""Of a histogram in a window, and as many as make one beyond the quantile likely: 100 of p99."""
LEAST_READINGS = 3
"""Of a gauge in a window."""
MOST_WINDOWS = 4
"""A window with too few observations is extended to so many times its length at most."""
_KEPT_A_WINDOW = 16
"""Readings that are remembered of a window: it may be an hour long."""

Readings = tuple[GuardReading, ...]


def take(readings: Readings, reading: GuardReading | None, window_s: float) -> Readings:
    """Return the readings with a new one, less those that no window can reach any more.

    Where a counter went back (the server was restarted) or is another one, it is the first one.
    """
    if reading is None or (readings and reading.at_s <= readings[-1].at_s):
        return readings
    if not readings or not _goes_on(readings[-1], reading):
        return (reading,)
    close = len(readings) > 1 and (
        readings[-1].at_s - readings[-2].at_s < window_s / _KEPT_A_WINDOW
    )
    readings = (*(readings[:-1] if close else readings), reading)
    oldest_s = reading.at_s - MOST_WINDOWS * window_s
    old = sum(r.at_s <= oldest_s for r in readings)
    return readings[max(0, old - 1) :]


def _goes_on(last: GuardReading, new: GuardReading) -> bool:
    if last.metric != new.metric or (last.count is None) != (new.count is None):
        return False
    if last.count is None or new.count is None:
        return True
    return (
        len(last.buckets) == len(new.buckets)
        and new.count >= last.count
        and all(
            a[0] == b[0] and a[1] <= b[1] for a, b in zip(last.buckets, new.buckets, strict=True)
        )
    )


def before(
    readings: Readings, policy: GuardPolicy, now_s: float, every_s: float
) -> Measured | None:
    """Return the metric over the last full window; None where there is none.

    The shortest that has enough observations, else the longest there is.
    """
    if not readings or now_s - readings[-1].at_s > 3 * every_s:
        return None
    found = None
    for first in range(len(readings) - 2, -1, -1):
        if readings[-1].at_s - readings[first].at_s < policy.window_s:
            continue
        found = measure(readings[first:], policy)
        if found is not None and found.enough:
            break
    return found


def after(readings: Readings, moved_at_s: float, policy: GuardPolicy) -> Measured | None:
    """Return the metric over all of the time since a move; None before the second reading."""
    return measure([r for r in readings if r.at_s >= moved_at_s], policy)


def measure(window: Sequence[GuardReading], policy: GuardPolicy) -> Measured | None:
    """Return the metric over the time from the first of these readings to the last.

    None where there are fewer than two readings. Where nothing was observed, ``value`` is 0.
    """
    if len(window) < 2:  # noqa: PLR2004 - from and to
        return None
    first, last = window[0], window[-1]
    seconds = last.at_s - first.at_s
    if first.count is None or last.count is None:
        values = [r.value for r in window[1:] if r.value is not None]
        if not values:
            return None
        mean = math.fsum(values) / len(values)
        what = f"mean of {last.metric}"
        return Measured(what, mean, seconds, len(values), enough=len(values) >= LEAST_READINGS)
    share = policy.quantile
    count = last.count - first.count
    buckets = [(b[0], b[1] - a[1]) for a, b in zip(first.buckets, last.buckets, strict=True)]
    value, beyond = quantile(share, buckets, count) or (0.0, False)
    least = max(LEAST_OBSERVATIONS, math.ceil(round(1 / (1 - share), 6)))
    what = f"p{100 * share:g} of {last.metric}"
    return Measured(what, value, seconds, count, enough=count >= least, beyond=beyond)


def quantile(
    share: float, buckets: Sequence[tuple[float, float]], count: float
) -> tuple[float, bool] | None:
    """Return a quantile as Prometheus's histogram_quantile has it, and whether it is off the end.

    Observations of a bucket are taken to lie evenly between its bounds, those of the first one
    above 0. Off the end of the buckets that have a bound, it is the last bound.

    Args:
        share: 0..1.
        buckets: (upper bound, observations up to it), ascending; without +Inf.
        count: observations in all.
    """
    if count <= 0 or not buckets:
        return None
    rank = share * count
    lower, below = 0.0, 0.0
    for i, (bound, so_far) in enumerate(buckets):
        # Series that were not read at quite the same moment may seem to go down.
        up_to = max(below, so_far)
        if up_to >= rank and up_to > below:
            if i == 0 and bound <= 0:
                return bound, False
            return lower + (bound - lower) * (rank - below) / (up_to - below), False
        lower, below = bound, up_to
    return buckets[-1][0], True
