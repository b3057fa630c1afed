"""When a worker's memory is looked at, and what holds that back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numad_py.model.residency import Source
from numad_py.model.snapshot import WorkerId
from numad_py.observe.budget import BURST_S, LONGEST_LOOK_S
from numad_py.observe.kept import CHANGED_BYTES
from numad_py.observe.pauses import CALM_TIMES
from numad_py.observe.scan import CONFIRMED_TIMES, Scanner
from tests.unit.told import (
    GIB,
    MIB,
    ONE,
    POLICY,
    TWO,
    Told,
    look,
    subject,
)


@pytest.fixture
def told() -> Told:
    """Return readings that say what they are told."""
    return Told()


# When


def test_known_figures_cost_nothing(told: Told) -> None:
    """Until they are old, a worker of the same size is not looked at."""
    scanner = Scanner(told, POLICY)
    first = look(scanner, 100.0)[ONE]
    assert look(scanner, 114.9)[ONE] == first
    assert told.samples[ONE.pid] == 1
    look(scanner, 115.0)
    assert told.samples[ONE.pid] == 2


@pytest.mark.parametrize(
    ("size", "times"),
    [
        (1000 * MIB, 1),
        (1049 * MIB, 1),
        (951 * MIB, 1),
        (1050 * MIB, 2),
        (950 * MIB, 2),
        (None, 1),
    ],
)
def test_it_is_read_again_when_it_grew_or_shrank(told: Told, size: int | None, times: int) -> None:
    """From a twentieth of its size on; a size that is not known says nothing."""
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0, subject(size=1000 * MIB))
    look(scanner, 101.0, subject(size=size))
    assert told.samples[ONE.pid] == times


def test_a_small_worker_is_not_read_again_for_a_few_mib(told: Told) -> None:
    """A share of little is nothing that matters: it takes 8 MiB."""
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0, subject(size=MIB))
    look(scanner, 101.0, subject(size=MIB + CHANGED_BYTES - 1))
    assert told.fulls[ONE.pid] == 1
    look(scanner, 102.0, subject(size=MIB + CHANGED_BYTES))
    assert told.fulls[ONE.pid] == 2


def test_slow_growth_is_seen_in_the_end(told: Told) -> None:
    """Changes count against the size at the last reading, not at the last look."""
    scanner = Scanner(told, POLICY)
    for step in range(6):
        look(scanner, 100.0 + step, subject(size=(1000 + 10 * step) * MIB))
    assert told.samples[ONE.pid] == 2


def test_a_cgroup_charged_as_before_confirms_the_figures(told: Told) -> None:
    """One small file in place of a sample, for some intervals; then it is looked at again.

    Asked for ever more seldom, down to once in CALM_TIMES intervals.
    """
    told.charged = {0: GIB}
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    confirmed = set()
    for step in range(1, CONFIRMED_TIMES + 1):
        kept = look(scanner, 100.0 + 15 * step)[ONE].residency
        assert kept is not None
        assert kept.confirmed is not None
        assert kept.confirmed.source is Source.NUMA_STAT
        confirmed.add((kept.confirmed.at_s - 100) / 15)
        assert told.samples[ONE.pid] == 1
    assert sorted(confirmed) == [1, 2, 4, 8, 12, 16, 20]
    for step in range(1, CALM_TIMES + 1):
        look(scanner, 100.0 + 15 * (CONFIRMED_TIMES + step))
    assert told.samples[ONE.pid] == 2


def test_a_cgroup_charged_otherwise_calls_for_a_look(told: Told) -> None:
    """A few per cent that have moved show in its charges."""
    told.charged = {0: GIB}
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    told.charged = {0: GIB - 20 * MIB, 1: 20 * MIB}
    look(scanner, 115.0)
    assert told.samples[ONE.pid] == 2


# The budget


def test_what_is_overspent_is_paid_off(told: Told) -> None:
    """A reading that cost three seconds of CPU is paid off at the policy's share first."""
    told.sampling = False
    told.full_cost_s = BURST_S + 2.0
    scanner = Scanner(told, POLICY)
    look(scanner, 0.0)
    look(scanner, 2.0 / POLICY.cpu_share - 0.1)
    assert told.fulls[ONE.pid] == 1
    look(scanner, 2.0 / POLICY.cpu_share + 0.1)
    assert told.fulls[ONE.pid] == 2


def test_no_more_than_a_burst_is_saved_up(told: Told) -> None:
    """An idle day does not pay for a minute of reading."""
    told.sampling = False
    scanner = Scanner(told, POLICY)
    look(scanner, 0.0)
    told.full_cost_s = BURST_S + 1.0
    told.by_node = {1: GIB}
    look(scanner, 86400.0)
    told.full_cost_s = 0.0
    look(scanner, 86400.0 + 1.0 / POLICY.cpu_share - 1)
    assert told.fulls[ONE.pid] == 2
    look(scanner, 86400.0 + 1.0 / POLICY.cpu_share + 1)
    assert told.fulls[ONE.pid] == 3


def test_what_promises_most_is_read_first(told: Told) -> None:
    """The large worker before the small one, as long as both are equally old."""
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0, subject(ONE, GIB), subject(TWO, 40 * GIB))
    look(scanner, 115.0, subject(ONE, GIB), subject(TWO, 40 * GIB))
    assert told.order == [TWO.pid, ONE.pid] * 2


def test_the_small_worker_gets_its_turn(told: Told) -> None:
    """Where there is money for one reading at a time, age makes up for size in the end."""
    told.sample_cost_s = 0.3
    scanner = Scanner(told, replace(POLICY, cpu_share=0.02))
    both = subject(ONE, GIB), subject(TWO, 3 * GIB)
    for step in range(40):
        look(scanner, 15.0 * step, *both)
    assert told.samples[ONE.pid] >= told.samples[TWO.pid] / 4


def test_an_unknown_worker_does_not_wait_for_the_budget(told: Told) -> None:
    """Nothing is known of it: it is looked at though the budget is overspent."""
    told.sample_cost_s = BURST_S + 0.5
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    assert look(scanner, 101.0, subject(ONE), subject(TWO))[TWO].residency is not None


def test_one_look_is_bounded(told: Told) -> None:
    """A start with very many large workers spreads over several looks, and says so."""
    told.sample_cost_s = LONGEST_LOOK_S / 2
    scanner = Scanner(told, POLICY)
    workers = [subject(WorkerId(pid, 1), pid * GIB) for pid in range(1, 4)]
    readings = look(scanner, 100.0, *workers)
    assert told.order == [3, 2]
    assert readings[workers[0].id].residency is None
    assert "next cycles" in (readings[workers[0].id].problem or "")
    look(scanner, 105.0, *workers)
    assert told.order == [3, 2, 1]


def test_another_budget_holds_from_now_on(told: Told) -> None:
    """A reload with a larger share pays off sooner."""
    told.sampling = False
    told.full_cost_s = BURST_S + 2.0
    scanner = Scanner(told, POLICY)
    look(scanner, 0.0)
    scanner.use(replace(POLICY, cpu_share=0.2))
    look(scanner, 15.0)
    assert told.fulls[ONE.pid] == 2
