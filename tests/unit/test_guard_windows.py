"""Windows of a guarded metric, held against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numad_py.decide.guard.windows import (
    MOST_WINDOWS,
    after,
    before,
    measure,
    quantile,
    take,
)
from numad_py.model.guard import GuardReading
from tests.unit.guarded import GUARD, histogram

EVERY_S = 5.0
Readings = tuple[GuardReading, ...]


def taken(*readings: GuardReading, window_s: float = 30.0) -> Readings:
    """Return what is kept of readings that come one after the other."""
    kept: Readings = ()
    for reading in readings:
        kept = take(kept, reading, window_s)
    return kept


def steady(count: int, per_step: float = 10.0, *, from_s: float = 0.0) -> list[GuardReading]:
    """Return readings each 5 s of requests that all took between 0.1 and 0.2 s."""
    return [histogram(from_s + EVERY_S * i, [0, per_step * i, 0, 0, 0, 0]) for i in range(count)]


def gauge(at_s: float, value: float) -> GuardReading:
    """Return a reading of a gauge."""
    return GuardReading(at_s, "latency_seconds", value=value)


# Quantiles


@pytest.mark.parametrize(
    ("share", "buckets", "count", "expected"),
    [
        # 100 observations, rank 95: the 5th of the 20 in (0.4, 0.8].
        (0.95, [(0.1, 50), (0.4, 90), (0.8, 110)], 100, (0.4 + 0.4 * 5 / 20, False)),
        # Rank 50 is the last of the first bucket, which begins at 0.
        (0.5, [(0.1, 50), (0.4, 100)], 100, (0.1, False)),
        (0.25, [(0.1, 50), (0.4, 100)], 100, (0.05, False)),
        # Nothing in the first two: within the third.
        (0.5, [(0.1, 0), (0.2, 0), (0.4, 8)], 8, (0.3, False)),
        # Above the last bound it is that bound, as Prometheus says; and that is told.
        (0.99, [(0.1, 50), (0.4, 90)], 100, (0.4, True)),
        # A first bucket at or below 0 has no beginning.
        (0.5, [(-1.0, 10), (1.0, 10)], 10, (-1.0, False)),
        # A bucket that seems to hold fewer than the one before holds as many.
        (0.5, [(0.1, 4), (0.2, 3), (0.4, 10)], 10, (0.2 + 0.2 * 1 / 6, False)),
    ],
)
def test_a_quantile_is_that_of_histogram_quantile(
    share: float, buckets: list[tuple[float, float]], count: float, expected: tuple[float, bool]
) -> None:
    """Linear within a bucket; each figure is worked out from promql/quantile.go by hand."""
    found = quantile(share, buckets, count)
    assert found is not None
    assert found[0] == pytest.approx(expected[0])
    assert found[1] is expected[1]


def test_of_nothing_there_is_no_quantile() -> None:
    """Neither of no observation, nor of no bucket."""
    assert quantile(0.95, [(0.1, 0)], 0) is None
    assert quantile(0.95, [], 10) is None


# What is kept


def test_a_reading_that_is_known_is_not_taken_twice() -> None:
    """Several cycles may see the same one, and some see none."""
    (one, two) = steady(2)
    assert taken(one, two, two) == (one, two)
    assert take((one, two), None, 30.0) == (one, two)


@pytest.mark.parametrize(
    "then",
    [
        histogram(10.0, [0, 3, 0, 0, 0, 0]),
        histogram(10.0, [5, 5, 0, 0, 0, 0], "other_seconds"),
        replace(histogram(10.0, [0, 50, 0, 0, 0, 0]), buckets=((0.1, 0.0), (7.0, 50.0))),
        replace(histogram(10.0, [0, 50, 0, 0, 0, 0]), buckets=((0.1, 0.0),)),
        gauge(10.0, 1.0),
    ],
    ids=["went back", "another metric", "other bounds", "fewer buckets", "a gauge"],
)
def test_a_counter_that_went_back_begins_anew(then: GuardReading) -> None:
    """The server was restarted, or the metric is another one: no difference means anything."""
    assert taken(*steady(2), then) == (then,)


def test_only_what_a_window_can_reach_is_kept() -> None:
    """Four windows, and one reading from before that to begin with."""
    kept = taken(*steady(1000))
    assert kept[0].at_s == 999 * EVERY_S - MOST_WINDOWS * 30.0
    assert len(kept) == 25


def test_a_long_window_keeps_few_readings() -> None:
    """A day's readings of a window of an hour are some dozens, and the last one is the newest."""
    kept = taken(*steady(17280), window_s=3600.0)
    assert len(kept) <= 70
    assert kept[-1].at_s == 17279 * EVERY_S


# Windows


def test_the_window_before_is_the_last_full_one() -> None:
    """The shortest that is as long as it is to be; what was before it does not count."""
    slow = [histogram(EVERY_S * i, [0, 0, 0, 0, 10 * i, 0]) for i in range(10)]
    fast = [histogram(45.0 + EVERY_S * i, [0, 10 * i, 0, 0, 90, 0]) for i in range(1, 8)]
    found = before(taken(*slow, *fast), GUARD, 80.0, EVERY_S)
    assert found is not None
    assert (found.what, found.seconds, found.observations) == ("p95 of latency_seconds", 30.0, 60)
    assert found.value == pytest.approx(0.195)
    assert found.enough


def test_there_is_no_window_before_it_is_full_or_after_it_is_old() -> None:
    """25 s are no 30, and what is 20 s old tells nothing of now."""
    assert before(taken(*steady(6)), GUARD, 25.0, EVERY_S) is None
    assert before(taken(*steady(7)), GUARD, 30.0, EVERY_S) is not None
    assert before(taken(*steady(7)), GUARD, 45.0, EVERY_S) is not None
    assert before(taken(*steady(7)), GUARD, 46.0, EVERY_S) is None
    assert before((), GUARD, 0.0, EVERY_S) is None


def test_a_window_of_few_requests_is_extended() -> None:
    """Two in 5 s make 12 in 30 s: it takes 50 s for 20. Of one in 5 s, the longest is told."""
    found = before(taken(*steady(40, 2.0)), GUARD, 195.0, EVERY_S)
    assert found is not None
    assert (found.seconds, found.observations, found.enough) == (50.0, 20, True)
    few = before(taken(*steady(40, 0.5)), GUARD, 195.0, EVERY_S)
    assert few is not None
    assert (few.seconds, few.observations, few.enough) == (120.0, 12, False)


def test_a_high_quantile_needs_more_observations() -> None:
    """Of 60 one is beyond p95, and none beyond p99: that takes 100."""
    policy = replace(GUARD, quantile=0.99)
    found = before(taken(*steady(40)), policy, 195.0, EVERY_S)
    assert found is not None
    assert (found.what, found.observations) == ("p99 of latency_seconds", 100)


def test_the_window_after_begins_with_the_first_reading_after_a_move() -> None:
    """What was observed before and during the move does not count."""
    readings = taken(*steady(20))
    found = after(readings, 61.0, GUARD)
    assert found is not None
    assert (found.seconds, found.observations) == (30.0, 60)
    assert after(readings, 91.0, GUARD) is None
    assert after(readings, 96.0, GUARD) is None


def test_of_a_gauge_it_is_the_mean() -> None:
    """Over the readings within the window; three are enough, two are not."""
    readings = taken(*(gauge(EVERY_S * i, value) for i, value in enumerate((9, 1, 2, 6))))
    found = measure(readings, GUARD)
    assert found is not None
    assert (found.what, found.value, found.observations) == ("mean of latency_seconds", 3.0, 3)
    assert found.enough
    few = measure(readings[1:], GUARD)
    assert few is not None
    assert not few.enough


def test_where_nothing_was_observed_there_is_not_enough() -> None:
    """An idle server has a window all the same, without a figure."""
    found = before(taken(*steady(7, 0.0)), GUARD, 30.0, EVERY_S)
    assert found is not None
    assert (found.observations, found.enough) == (0, False)
