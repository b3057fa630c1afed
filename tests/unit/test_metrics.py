"""What the daemon exposes of a machine and its workers, and what it leaves out."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from numad_py.model.guard import Compared
from numad_py.model.machine import HugePages, Interference, NodeState, NumaStat, Pressure
from numad_py.model.plan import Plan, Reason
from numad_py.model.residency import Confirmation, Residency, Source
from numad_py.model.snapshot import Bandwidth, MemoryStatus, Snapshot
from numad_py.policy.load import defaults
from numad_py.serve.metrics import make_registry, render
from numad_py.serve.report import CycleReport, Totals
from tests.unit.seen import GIB, MIB, NOW_S, anon, maps_file, report, segment, snapshot, worker

Series = dict[str, float]


def exposed(seen: Snapshot, totals: Totals | None = None, max_workers: int = 128) -> Series:
    """Return numad-py's own series as they are scraped, without their common prefix."""
    made = report(seen)
    registry = make_registry(lambda: (made, totals or Totals()), max_workers)
    lines = render(registry, "")[0].decode().splitlines()
    pairs = (re.match(r"numad_py_(\S+) (\S+)$", line) for line in lines)
    return {pair[1]: float(pair[2]) for pair in pairs if pair is not None}


def named(series: Series, name: str) -> dict[str, float]:
    """Return the series of one metric by their labels."""
    pattern = re.compile(rf"{name}(?:\{{(.*)\}})?$")
    found = ((pattern.match(key), value) for key, value in series.items())
    return {match[1] or "": value for match, value in found if match is not None}


# Readings


def test_what_guards_found_is_counted_from_the_start() -> None:
    """Each result has its series, so that the first move that is taken back shows as a rise."""
    series = exposed(snapshot(), Totals(judgements={Compared.UNDONE: 2}))
    assert named(series, "guard_judgements_total") == {
        'result="kept"': 0.0,
        'result="undone"': 2.0,
        'result="not-comparable"': 0.0,
        'result="unreadable"': 0.0,
    }


def test_readings_are_counted_by_source_from_the_start() -> None:
    """Each source has its series, so that the first reading of a kind shows as a rise."""
    totals = Totals(readings={Source.SAMPLE: 3}, reading_s={Source.SAMPLE: 0.25})
    series = exposed(snapshot(), totals)
    assert named(series, "readings_total") == {
        'source="numa_maps"': 0.0,
        'source="numa_stat"': 0.0,
        'source="sample"': 3.0,
    }
    assert series['reading_cpu_seconds_total{source="sample"}'] == 0.25


def test_every_reason_has_a_series_from_the_start() -> None:
    """A reason that no pair names would only show up after its first decision."""
    labels = named(exposed(snapshot()), "decisions_total")
    assert {re.findall(r'reason="([^"]*)"', key)[0] for key in labels} == {r.value for r in Reason}


# Workers


def test_where_figures_come_from_is_one_series_a_worker() -> None:
    """1 for the source, and none for the others."""
    series = exposed(snapshot(worker(found=anon(GIB, source=Source.SAMPLE, sampled_pages=9))))
    assert named(series, "worker_residency_source") == {'rule="x",source="sample",worker="x/0"': 1}


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (anon(GIB), 0.0),
        (anon(GIB, confirmed=Confirmation(Source.SAMPLE, NOW_S, 0.01)), 0.01),
        (anon(GIB, source=Source.NUMA_STAT), None),
        (None, None),
    ],
)
def test_the_error_is_what_may_be_wrong_by_now(
    found: Residency | None, error: float | None
) -> None:
    """A confirmation may have missed a small change; where nobody knows there is no series."""
    series = exposed(snapshot(worker(found=found)))
    assert series.get('worker_residency_error_ratio{rule="x",worker="x/0"}') == error


def test_the_error_of_a_sample_adds_to_that_of_its_confirmation() -> None:
    """It was off by so much, and may have changed by so much since."""
    later = Confirmation(Source.NUMA_STAT, NOW_S, 0.01)
    found = anon(GIB, source=Source.SAMPLE, sampled_pages=1000, confirmed=later)
    series = exposed(snapshot(worker(found=found)))
    stated = found.error_share + 0.01
    assert series['worker_residency_error_ratio{rule="x",worker="x/0"}'] == pytest.approx(stated)


def test_figures_are_as_old_as_their_last_confirmation() -> None:
    """A full reading of hours ago that a sample has just confirmed is no reason to worry."""
    age = 'worker_residency_age_seconds{rule="x",worker="x/0"}'
    assert exposed(snapshot(worker(found=anon(GIB, age_s=40))))[age] == 40.0
    later = Confirmation(Source.SAMPLE, NOW_S - 2, 0.01)
    assert exposed(snapshot(worker(found=anon(GIB, age_s=40, confirmed=later))))[age] == 2.0


def test_pinned_swapped_and_traffic_are_exposed_where_known() -> None:
    """0 is a figure, not known is no series."""
    memory = MemoryStatus(pinned_bytes=5, swapped_bytes=0)
    series = exposed(snapshot(worker(memory=memory, bandwidth=Bandwidth(1.0, 4.0)), worker("y/1")))
    x, y = 'rule="x",worker="x/0"', 'rule="y",worker="y/1"'
    for name, value in (
        ("worker_pinned_bytes", 5.0),
        ("worker_swapped_bytes", 0.0),
        ("worker_bandwidth_bytes_per_second", 4.0),
        ("worker_local_bandwidth_bytes_per_second", 1.0),
    ):
        assert named(series, name) == {x: value}, name
    assert named(series, "worker_demand_cpus") == {x: 1.5, y: 1.5}


def test_workers_beyond_the_limit_count_in_sums_only() -> None:
    """Series of workers are bounded, the memory of all of them is not left out."""
    series = exposed(snapshot(worker(found=anon(GIB)), worker("x/1", anon(GIB))), max_workers=1)
    assert not any('worker="x/1"' in key for key in series)
    assert series['workers_resident_bytes{node="0"}'] == 2 * GIB
    assert series["workers_unlabelled"] == 1


# The machine


def test_what_workers_share_counts_once() -> None:
    """Every node has its series, also one that holds nothing."""
    pair = [worker(f"x/{i}", maps_file({0: GIB})) for i in range(2)]
    series = exposed(snapshot(*pair, segments=(segment({0: GIB}, "x/0", "x/1"),)))
    assert named(series, "workers_resident_bytes") == {'node="0"': GIB, 'node="1"': 0}


def test_segments_are_counted_without_labels() -> None:
    """Paths as labels would have no end."""
    many = tuple(segment({0: MIB, 1: MIB}, number=i, path=f"/{i}") for i in range(100))
    series = exposed(snapshot(segments=many))
    assert (series["segments"], series["segments_resident_bytes"]) == (100.0, 200.0 * MIB)
    assert not any("/7" in key for key in series)


def test_nodes_expose_their_memory_and_huge_pages() -> None:
    """Pools by the bytes of a page, so that no size is called two names."""
    state = NodeState(1, 4 * GIB, 3 * GIB, GIB, huge_pages=(HugePages(2 * MIB, 512, 100),))
    series = exposed(snapshot(node_states=(state,)))
    assert series['node_memory_bytes{node="1"}'] == 4 * GIB
    assert series['node_free_bytes{node="1"}'] == 3 * GIB
    assert series['node_reclaimable_bytes{node="1"}'] == GIB
    assert named(series, "node_huge_pages") == {'node="1",size="2097152"': 512}
    assert named(series, "node_free_huge_pages") == {'node="1",size="2097152"': 100}


def test_busy_cpus_and_allocations_are_exposed_where_known() -> None:
    """Allocations as counters by event; the first look knows no CPU use."""
    known = NodeState(0, GIB, GIB, 0, numastat=NumaStat(9, 1, 2, 8, 3), busy_cpus=1.5)
    series = exposed(snapshot(node_states=(known, NodeState(1, GIB, GIB, 0))))
    assert named(series, "node_busy_cpus") == {'node="0"': 1.5}
    assert named(series, "node_numastat_pages_total") == {
        'event="hit",node="0"': 9,
        'event="miss",node="0"': 1,
        'event="foreign",node="0"': 2,
        'event="local",node="0"': 8,
        'event="other",node="0"': 3,
    }


def test_pressure_has_no_series_where_the_kernel_does_not_measure_it() -> None:
    """Zero would say that nobody waits."""
    series = exposed(snapshot(pressure=Pressure(cpu_some=0.0, memory_full=0.25)))
    assert named(series, "pressure_ratio") == {
        'resource="cpu",stall="some"': 0.0,
        'resource="memory",stall="full"': 0.25,
    }


def test_interferences_that_are_not_there_are_exposed_as_zero() -> None:
    """So that an alert can tell that one has gone from that nobody looks."""
    found = (
        Interference("numad", present=True, level="fail", text=""),
        Interference("swap", present=False, level="ok", text=""),
    )
    series = exposed(snapshot(interferences=found))
    assert named(series, "interference") == {'name="numad"': 1, 'name="swap"': 0}


def test_before_the_first_cycle_only_totals_are_exposed() -> None:
    """Nothing is known of the machine yet."""
    registry = make_registry(lambda: (None, Totals()), 128)
    shown = render(registry, "")[0].decode()
    assert "numad_py_readings_total" in shown
    assert "numad_py_node_" not in shown


def test_the_age_of_figures_counts_to_the_scrape() -> None:
    """A daemon whose interval is long does not tell old figures for new ones."""
    seen = snapshot(worker(found=anon(GIB, age_s=40)))
    asked = replace(report(seen), began_at_s=500.0).aged(507.0)
    shown = render(make_registry(lambda: (asked, Totals()), 128), "")[0].decode()
    assert 'numad_py_worker_residency_age_seconds{rule="x",worker="x/0"} 47.0' in shown


def test_what_may_be_moved_has_no_series_while_nobody_knows() -> None:
    """Where the mobility of its pages is not known; what lies off home is known all the same."""
    unknown = exposed(snapshot(worker(found=anon(GIB, mobility_known=False))))
    known = exposed(snapshot(worker(found=anon(GIB))))
    for name in ("worker_movable_bytes", "worker_immovable_bytes"):
        assert not named(unknown, name)
        assert named(known, name)
    assert named(unknown, "worker_remote_bytes")


def test_a_worker_without_a_decision_is_still_measured() -> None:
    """A report may come before anything was decided on it."""
    seen = snapshot(worker(found=anon(GIB)))
    made = CycleReport.of_one_look(seen, Plan(3, ()), defaults())
    shown = render(make_registry(lambda: (made, Totals()), 128), "")[0].decode()
    assert "numad_py_worker_residency_source{" in shown
    assert "numad_py_worker_movable_bytes{" not in shown
