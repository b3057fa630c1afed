"""The arithmetic of the bench of moving: passes, stalls, targets, and which chunk follows."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.bench import chunks, movers, moving, shootdowns, stalls
from tests.bench.movers import (
    AUTONUMA,
    CALM,
    FULL,
    MIGRATEPAGES,
    NOTHING,
    NUMAD,
    PACED,
    UNPACED,
    Run,
    loads,
)
from tests.bench.plot import Line, svg
from tests.bench.table import Figure
from tests.guest.measure_moves import CONTENDERS, parse_list
from tests.guest.passes import Pass, parse_passes, percentile, with_open, within
from tests.guest.topology import TOPOLOGIES

MIB = 1 << 20


# Passes


def test_a_percentile_is_one_of_the_values() -> None:
    """Nearest rank: 99 of 100 values do not exceed the p99 of 100; of ten it is the largest."""
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 99) == 99.0
    assert percentile(values, 50) == 50.0
    assert percentile(values[:10], 99) == 100.0
    assert percentile([7.0], 50) == 7.0


def test_a_log_is_read_up_to_where_it_is_cut() -> None:
    """Its last line may be half written."""
    line = {"thread": 1, "pass": 0, "start_ns": 2_000_000_000, "took_ns": 500_000_000}
    text = f"{json.dumps(line)}\n" + json.dumps(line)[:20]
    assert parse_passes(text) == [Pass(1, 2.0, 2.5)]


def test_a_pass_counts_in_each_window_that_it_touches() -> None:
    """One that began before the move and was held up by it is the one that matters."""
    passes = [Pass(0, 0.0, 1.0), Pass(0, 1.5, 4.0), Pass(1, 5.0, 5.25)]
    found = within(passes, 2.0, 4.5)
    assert found == {"passes": 1, "p50": 2500.0, "p99": 2500.0, "worst": 2500.0}
    assert within(passes, 4.0, 5.0) is None


def test_a_pass_that_has_not_come_back_takes_until_now() -> None:
    """A thread that hangs logs nothing; one that rests between passes does not hang."""
    passes = [Pass(0, 0.0, 1.0), Pass(1, 2.0, 9.9)]
    assert with_open(passes, 0.5, 10.0)[2:] == [Pass(0, 1.5, 10.0)]


def test_cpu_lists_are_read() -> None:
    """As they stand in sysfs."""
    assert parse_list("0-2,5\n") == [0, 1, 2, 5]
    assert parse_list("\n") == []


# Runs


def told(seconds: float | None, worst: float, p99: float = 10.0) -> dict[str, Any]:
    """Return what is told of one worker."""
    return {
        "seconds": seconds,
        "share": 1.0,
        "kept_its_cpus": True,
        "quiet": {"passes": 100, "p50": 5.0, "p99": p99, "worst": 2 * p99},
        "moving": {"passes": 50, "p50": 5.0, "p99": worst / 2, "worst": worst},
    }


FOUND: dict[str, Any] = {
    "quiet_s": 10.0,
    "window_s": 20.0,
    "own_cpu_s": 3.0,
    "quiet": {"all_s": 15.0, "workers_s": 10.0, "workers_kernel_s": 4.0},
    "moving": {"all_s": 40.0, "workers_s": 22.0, "workers_kernel_s": 6.0},
    "workers": [told(3.0, 100.0, 50.0), told(4.0, 80.0)],
}


def test_a_run_is_as_slow_as_its_slowest_and_stalls_as_its_most_stalled_worker() -> None:
    """Each worker is held against its own quiet passes, not against the others'."""
    run = Run.of(FOUND)
    assert (run.seconds, run.worst_ms, run.stall, run.p99_stall) == (4.0, 100.0, 8.0, 4.0)
    assert (run.quiet_p99_ms, run.busy_cpus) == (10.0, 1.5)


def test_cpu_time_is_what_goes_beyond_the_quiet_window() -> None:
    """Others: 18 s, less 3 of the contender, less 10 as ever. Workers: 6 s, less 2 as ever."""
    run = Run.of(FOUND)
    assert run.others_cpu_s == pytest.approx(5.0)
    assert run.workers_kernel_cpu_s == pytest.approx(4.0)


def test_work_meanwhile_is_by_the_second() -> None:
    """100 passes in 20 s, where there were 200 in 10 s before; who stops makes none."""
    assert Run.of(FOUND).work == pytest.approx(0.25)
    stopped = {**told(3.0, 100.0), "moving": None}
    assert Run.of({**FOUND, "workers": [told(3.0, 100.0), stopped]}).work == pytest.approx(0.125)


def test_a_run_that_did_not_end_counts_as_long_as_it_was_given() -> None:
    """One that is not home is enough, also where a sample said so; without a pass, no stall."""
    stuck = {**told(None, 80.0), "moving": None}
    run = Run.of({**FOUND, "workers": [told(3.0, 100.0), stuck]})
    assert (run.seconds, run.at_least_s, run.stall) == (None, 20.0, 10.0)
    assert run.words().startswith("not within 20 s")
    wrong = {**told(3.0, 80.0), "share": 0.97}
    assert Run.of({**FOUND, "workers": [told(3.0, 100.0), wrong]}).seconds is None


def test_a_quiet_window_without_a_pass_is_no_measurement() -> None:
    """It says which window was too short."""
    with pytest.raises(RuntimeError, match="quiet window of 10 s"):
        Run.of({**FOUND, "workers": [{**told(3.0, 100.0), "quiet": None}]})


# Targets

RUN = Run.of(FOUND)


def _met(ours: dict[str, float | None], theirs: dict[str, float | None]) -> dict[str, bool | None]:
    """Return which targets are met, by what a row compares."""
    made: dict[str, Any] = {"window_s": 90.0, **ours}
    found = {
        **dict.fromkeys((MIGRATEPAGES, AUTONUMA, NUMAD, NOTHING), replace(RUN, **theirs)),  # type: ignore[arg-type]
        **dict.fromkeys((PACED, UNPACED), replace(RUN, **made)),
    }
    setting = stalls.Setting("bookworm", "case", "guest")
    return {row.case.removeprefix("case: "): row.met for row in stalls.rows(setting, found)}


def test_time_is_held_against_all_three() -> None:
    """1.3 times migratepages and an interval, before AutoNUMA, a fifth of numad."""
    assert _met({"seconds": 18.0}, {"seconds": 10.0})["time, migratepages"]
    assert not _met({"seconds": 18.1}, {"seconds": 10.0})["time, migratepages"]
    assert _met({"seconds": 10.0}, {"seconds": 10.0})["time, AutoNUMA"]
    assert not _met({"seconds": 10.1}, {"seconds": 10.0})["time, AutoNUMA"]
    assert _met({"seconds": 2.0}, {"seconds": 10.0})["time, numad"]
    assert not _met({"seconds": 2.1}, {"seconds": 10.0})["time, numad"]


def test_a_limit_too_short_for_others_leaves_a_target_open() -> None:
    """A fifth of numad: 10 s is enough where it was given 90 s, and says nothing at 20 s."""
    assert _met({"seconds": 10.0}, {"seconds": None, "window_s": 90.0})["time, numad"]
    assert _met({"seconds": 10.0}, {"seconds": None, "window_s": 20.0})["time, numad"] is None


def test_who_does_not_end_meets_no_target_of_time() -> None:
    """Not even against others who do not end either; nor one of stalls: nothing moved."""
    met = _met({"seconds": None, "window_s": 1.0}, {"seconds": None, "window_s": 90.0})
    assert [met[f"time, {who}"] for who in ("migratepages", "AutoNUMA", "numad")] == [False] * 3
    assert not _met({"seconds": None, "stall": 1.0}, {})["worst pass by quiet p99"]


def test_waits_are_held_against_the_quiet_and_against_others() -> None:
    """3 times the quiet p99; a fiftieth of migratepages on Linux 6.1; half of AutoNUMA."""
    met = _met({"stall": 3.0, "worst_ms": 20.0}, {"worst_ms": 1000.0})
    assert met["worst pass by quiet p99"]
    assert met["worst pass, migratepages"]
    assert not _met({"worst_ms": 21.0}, {"worst_ms": 1000.0})["worst pass, migratepages"]
    assert _met({"worst_ms": 20.0}, {"worst_ms": 40.0})["worst pass, AutoNUMA"]
    assert not _met({"worst_ms": 21.0, "stall": 3.1}, {"worst_ms": 40.0})["worst pass, AutoNUMA"]
    assert not _met({"stall": 3.1}, {})["worst pass by quiet p99"]


# Loads, chunks, extent


def test_on_few_cpus_to_spare_means_that_workers_rest() -> None:
    """On many a worker may well be busy; without CPUs to spare it never rests."""
    few, many = loads(2, 8), loads(64, 8)
    assert few[CALM].pause_ms > many[CALM].pause_ms > 0
    assert loads(64, 2)[CALM] == few[CALM]
    assert few[FULL].pause_ms == many[FULL].pause_ms == 0


def _point(chunk_s: float, speed: float, duty: float = 1.0) -> chunks.Point:
    return chunks.Point(chunk_s, duty, Figure.of([speed]), 2.0, 1.0, chunk_s)


def test_the_shortest_chunk_that_is_fast_enough_is_advised() -> None:
    """A longer one only makes workers wait; half the duty says nothing of the chunk."""
    found = [_point(0.01, 50), _point(0.05, 95), _point(0.2, 90), _point(1.0, 100)]
    assert chunks.advised([*found, _point(0.05, 300, duty=0.5)]) == 0.05


def test_moves_of_the_same_way_are_one_point() -> None:
    """The stall is the worst of all of them, against the median of the quiet windows."""
    way = {"longest_chunk_s": 0.05, "duty": 1.0}
    quiet = {"p99": 10.0}
    moves = [
        {
            "way": way,
            "seconds": seconds,
            "moved_bytes": 100 * MIB,
            "longest_chunk_s": 0.1 * seconds,
            "quiet": quiet,
            "moving": {"worst": 30.0 * seconds, "p99": 10.0},
        }
        for seconds in (1.0, 2.0)
    ]
    (point,) = chunks.points(moves)
    assert point.mib_per_s.values == (100.0, 50.0)
    assert (point.stall, point.p99_stall, point.chunk_s) == (6.0, 1.0, 0.2)


def test_a_worker_that_runs_is_held_against_itself_stopped() -> None:
    """With the others stopped in both, and with the others running in both."""
    seconds = {"all": 1.0, "it": 2.0, "the others": 10.0, "none": 20.0}
    moves = [
        {
            "stopped": who,
            "seconds": took_s,
            "moved_bytes": 100 * MIB,
            "shootdowns": 25_600 if who in {"the others", "none"} else 0,
            "longest_call_s": took_s / 4,
        }
        for who, took_s in seconds.items()
    ]
    alone, together = shootdowns.compared(moves, "4 KiB pages", "guest")
    assert (alone.ratio, together.ratio) == (0.1, 0.1)
    assert alone.ours == Figure.of([10.0])
    assert together.theirs == Figure.of([50.0])
    assert "256 interrupts for TLB shootdowns a MiB, longest call of 16 MiB 2500 ms" in alone.note


def test_a_drawing_is_well_formed_and_has_each_point() -> None:
    """Titles may hold what XML does not like."""
    drawn = ET.fromstring(svg("a < b", "ms", [Line("x & y", [(1.0, 0.0), (100.0, 5.0)])]))  # noqa: S314
    circles = [e for e in drawn.iter() if e.tag.endswith("circle")]
    assert [float(c.attrib["cx"]) for c in circles] == [64.0, 544.0]
    assert "x & y" in [e.text for e in drawn.iter()]


def test_options_pick_parts_of_what_is_measured() -> None:
    """What they leave open is as in the whole, or as in the short one."""
    given = dict.fromkeys(
        ("release", "topology", "thp", "load", "part", "size", "quiet_s", "limit_s", "rounds"),
        None,
    )
    options = argparse.Namespace(**{**given, "short": True, "thp": ["always"], "rounds": 1})
    assert moving.chosen(options) == replace(moving.SHORT, thps=("always",), rounds=1)
    assert moving.chosen(argparse.Namespace(**given, short=False)) == moving.Extent()


def test_a_guest_has_a_real_cpu_for_each_of_its_own_first() -> None:
    """Then more than there are; on a large host there are none with more. Both have four nodes."""
    assert moving.topologies_for(2) == moving.topologies_for(7) == ("n4c2", "n4c8")
    assert moving.topologies_for(8) == moving.topologies_for(64) == ("n4c8",)
    assert moving.topologies_for(1) == ("n4c2", "n4c8")
    assert {len(TOPOLOGIES[name].nodes) for name in moving.TOPOLOGIES_BY_CPUS} == {4}


def test_speed_by_itself_is_measured_where_each_cpu_is_real() -> None:
    """Unless another machine is asked for."""
    extent = moving.Extent(parts=("homes", "raw"))
    assert moving.parts_by_topology(extent, 2) == {"n4c2": ("homes", "raw"), "n4c8": ("homes",)}
    assert moving.parts_by_topology(extent, 8) == {"n4c8": ("homes", "raw")}
    asked = replace(extent, topologies=("n4c8",))
    assert moving.parts_by_topology(asked, 2) == {"n4c8": ("homes", "raw")}


def test_numad_py_is_as_nice_as_its_service() -> None:
    """The shipped unit lets it go first; one that says nothing leaves it as all others."""
    assert movers.nice_of((movers.ROOT / "systemd/numad-py.service").read_text()) == -10
    assert movers.nice_of("[Service]\nType=notify\n") == 0


def test_each_contender_is_known_to_the_script() -> None:
    """What runs in the guest knows them by the same names."""
    assert {contender.program for contender in movers.CONTENDERS} == set(CONTENDERS)
