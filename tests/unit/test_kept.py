"""Of a full reading that stands: how large the worker is, what else is taken down, what is kept."""

from __future__ import annotations

import pytest

from numad_py.model.residency import Source
from numad_py.observe.scan import Scanner
from tests.unit.test_scan import closely
from tests.unit.told import GIB, MIB, ONE, POLICY, Told, look, source_of, subject


@pytest.fixture
def told() -> Told:
    """Return readings that say what they are told."""
    return Told()


def test_a_full_reading_that_stands_is_as_large_as_the_worker_is_now(told: Told) -> None:
    """It has grown by less than would call for another: its bytes follow, their shares stay."""
    told.full_cost_s = 0.1
    told.by_node = {0: 750 * MIB, 1: 250 * MIB}
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    closely(scanner, 100.0)
    told.by_node = {0: 780 * MIB, 1: 260 * MIB}
    kept = look(scanner, 115.0)[ONE].residency
    assert kept is not None
    assert kept.full
    assert kept.by_node() == {0: 780 * MIB, 1: 260 * MIB}


def test_slow_growth_ends_a_full_reading_at_last(told: Told) -> None:
    """It is held against what was read, not against what has become of it."""
    told.full_cost_s = 0.1
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    closely(scanner, 100.0)
    sources = []
    for step in range(1, 5):
        told.by_node = {0: GIB + 20 * step * MIB}
        sources.append(source_of(look(scanner, 100.0 + 60 * step)[ONE]))
    assert sources == [Source.NUMA_MAPS, Source.NUMA_MAPS, Source.SAMPLE, Source.SAMPLE]


def test_a_closer_look_takes_down_charges_and_since_when_nothing_changed(told: Told) -> None:
    """Those of the reading before would confirm, or refute, another one."""
    told.full_cost_s = 0.1
    told.charged = {0: GIB}
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    told.by_node = told.charged = {0: GIB // 2, 1: GIB // 2}
    reading = closely(scanner, 110.0)
    assert reading.charged == told.charged
    assert reading.since_s == 110.0
    look(scanner, 130.0)
    assert told.samples[ONE.pid] == 1, "its cgroup confirms what was read closely"


@pytest.mark.parametrize(("size", "kept"), [(10 * MIB, False), (150 * MIB, True), (GIB, True)])
def test_areas_are_kept_of_who_may_be_sampled(told: Told, size: int, *, kept: bool) -> None:
    """A small worker is read in full each time, and needs none."""
    told.doubt = "odd"
    look(Scanner(told, POLICY), 100.0, subject(size=size))
    assert told.kept_areas == [kept]
