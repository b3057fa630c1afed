"""How closely a worker's memory is looked at, and which figures stand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numad_py.model.residency import Source
from numad_py.model.snapshot import WorkerId
from numad_py.observe.budget import LONGEST_LOOK_S
from numad_py.observe.readings import Looked
from numad_py.observe.scan import Reading, Scanner
from tests.unit.told import (
    GIB,
    MIB,
    ONE,
    POLICY,
    Told,
    look,
    residency,
    source_of,
    subject,
)


@pytest.fixture
def told() -> Told:
    """Return readings that say what they are told."""
    return Told()


# How


def test_a_large_worker_is_sampled(told: Told) -> None:
    """Its numa_maps is left alone: a sample costs the same whatever its size."""
    scanner = Scanner(told, POLICY)
    reading = look(scanner, 100.0)[ONE]
    assert source_of(reading) is Source.SAMPLE
    assert not told.fulls
    assert scanner.counts[Source.SAMPLE] == 1
    assert scanner.cpu_s[Source.SAMPLE] == told.sample_cost_s


def test_a_small_worker_is_read_in_full(told: Told) -> None:
    """Where numa_maps is no dearer than a sample, every page is counted."""
    reading = look(Scanner(told, POLICY), 100.0, subject(size=64 * MIB))[ONE]
    assert source_of(reading) is Source.NUMA_MAPS
    assert not told.samples


def test_a_worker_of_huge_pages_is_read_in_full_once_that_has_proved_cheap(told: Told) -> None:
    """Transparent huge pages cost a hundredth: what a full reading took is remembered."""
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    scanner.closer(subject(), 100.0, lambda: None)
    assert source_of(look(scanner, 115.0)[ONE]) is Source.NUMA_MAPS
    assert told.fulls[ONE.pid] == 2


def test_what_cannot_be_sampled_is_read_in_full(told: Told) -> None:
    """Another machine's files have no kernel that could be asked."""
    told.sampling = False
    assert source_of(look(Scanner(told, POLICY), 100.0)[ONE]) is Source.NUMA_MAPS


def test_hugetlb_is_read_in_full_at_first(told: Told) -> None:
    """Size of page and extent of hugetlb areas stand in numa_maps alone."""
    scanner = Scanner(told, POLICY)
    reading = look(scanner, 100.0, subject(hugetlb=GIB))[ONE]
    assert source_of(reading) is Source.NUMA_MAPS


def test_a_sample_in_doubt_is_followed_by_a_full_reading(told: Told) -> None:
    """Pages that AutoNUMA has marked answer as if absent on Linux 6.1."""
    told.doubt = "a third of it is not there"
    assert source_of(look(Scanner(told, POLICY), 100.0)[ONE]) is Source.NUMA_MAPS


def test_a_sample_in_doubt_is_no_figure_where_it_may_not_be_read_in_full(told: Told) -> None:
    """The problem names both: the doubt, and the key that would allow more."""
    told.doubt = "a third of it is not there"
    scanner = Scanner(told, replace(POLICY, longest_hold_s=0.001))
    reading = look(scanner, 100.0)[ONE]
    assert reading.residency is None
    assert reading.problem is not None
    assert "a third of it is not there" in reading.problem
    assert "longest_hold" in reading.problem
    look(scanner, 105.0)
    assert told.samples[ONE.pid] == 1
    look(scanner, 115.0)
    assert told.samples[ONE.pid] == 2


def test_pages_that_lie_too_thin_are_counted(told: Told) -> None:
    """400 MiB in a reserve of a TiB: of a thousand draws hardly one hits a page."""
    told.drawn = 5
    assert source_of(look(Scanner(told, POLICY), 100.0)[ONE]) is Source.NUMA_MAPS
    barred = Scanner(told, replace(POLICY, longest_hold_s=0.001))
    assert source_of(look(barred, 100.0)[ONE]) is Source.SAMPLE


def test_a_cgroup_that_says_otherwise_calls_for_a_full_reading(told: Told) -> None:
    """Sample and memory.numa_stat count the same pages; one of them must be wrong."""
    told.charged = {0: GIB // 2, 1: GIB // 2}
    assert source_of(look(Scanner(told, POLICY), 100.0)[ONE]) is Source.NUMA_MAPS


def test_without_a_right_the_cgroup_tells(told: Told) -> None:
    """memory.numa_stat takes no right of ptrace; it is not sure of what may be moved."""
    told.looked = Looked(None, "no right: CAP_SYS_PTRACE", no_right=True)
    told.charged = {1: GIB}
    reading = look(Scanner(told, POLICY), 100.0)[ONE]
    assert source_of(reading) is Source.NUMA_STAT
    assert reading.residency is not None
    assert reading.residency.by_node() == {1: GIB}
    assert not reading.residency.mobility_known


def test_without_a_right_and_a_cgroup_of_its_own_the_problem_is_told(told: Told) -> None:
    """It says what is missing."""
    told.looked = Looked(None, "no right: CAP_SYS_PTRACE", no_right=True)
    reading = look(Scanner(told, POLICY), 100.0)[ONE]
    assert reading.residency is None
    assert reading.problem == "no right: CAP_SYS_PTRACE"


def test_thp_bytes_come_from_its_own_cgroup(told: Told) -> None:
    """Neither numa_maps nor a sample can tell transparent huge pages."""
    assert look(Scanner(told, POLICY), 100.0)[ONE].thp_bytes is None
    told.charged = {0: GIB}
    assert look(Scanner(told, POLICY), 100.0)[ONE].thp_bytes == 2 * MIB


# A full reading that stands


def closely(scanner: Scanner, now_s: float) -> Reading:
    """Read the worker in full, as where a decision hangs on it."""
    reading = scanner.closer(subject(), now_s, lambda: None)
    assert reading is not None
    return reading


def test_a_full_reading_stands_while_samples_agree(told: Told) -> None:
    """Its figures stay exact; status says by what and when they were confirmed."""
    told.full_cost_s = 0.1
    told.by_node = {0: 960 * MIB, 1: 64 * MIB}
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    full = closely(scanner, 100.0).residency
    told.by_node = {0: 955 * MIB, 1: 69 * MIB}
    kept = look(scanner, 115.0)[ONE].residency
    assert told.samples[ONE.pid] == 2
    assert full is not None
    assert kept is not None
    assert kept.full
    assert kept.by_node() == full.by_node()
    assert kept.read_at_s == 100.0
    assert kept.confirmed is not None
    assert (kept.confirmed.source, kept.confirmed.at_s) == (Source.SAMPLE, 115.0)
    assert 0.005 < kept.confirmed.error_share < 0.02


def test_a_full_reading_falls_when_a_sample_is_beyond_its_error(told: Told) -> None:
    """Pages have moved: the sample is what is known now."""
    told.full_cost_s = 0.1
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    closely(scanner, 100.0)
    told.by_node = {0: 900 * MIB, 1: 124 * MIB}
    assert source_of(look(scanner, 115.0)[ONE]) is Source.SAMPLE


def test_an_unsure_sample_confirms_nothing(told: Told) -> None:
    """Few of its draws were movable pages: that it agrees is no news."""
    told.full_cost_s = 0.1
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    closely(scanner, 100.0)
    told.drawn = 100
    assert source_of(look(scanner, 115.0)[ONE]) is Source.SAMPLE


def test_many_small_changes_add_up(told: Told) -> None:
    """Each sample is held against the full reading, not against the one before."""
    told.full_cost_s = 0.1
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    closely(scanner, 100.0)
    sources = []
    for step in range(1, 9):
        told.by_node = {0: GIB - 4 * step * MIB, 1: 4 * step * MIB}
        sources.append(source_of(look(scanner, 100.0 + 15 * step)[ONE]))
    assert sources[0] is Source.NUMA_MAPS
    assert sources[-1] is Source.SAMPLE


# A decision hangs on it


def test_where_a_decision_hangs_on_it_it_is_read_in_full(told: Told) -> None:
    """The full reading takes the sample's place."""
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    assert source_of(closely(scanner, 100.0)) is Source.NUMA_MAPS
    assert source_of(look(scanner, 105.0)[ONE]) is Source.NUMA_MAPS
    assert told.samples[ONE.pid] == 1


def test_a_worker_too_large_to_be_held_up_is_not(told: Told) -> None:
    """Its sample stays, and says which key would allow more."""
    scanner = Scanner(told, replace(POLICY, longest_hold_s=1.5))
    huge = subject(size=256 * GIB)
    look(scanner, 100.0, huge)
    reading = scanner.closer(huge, 100.0, lambda: None)
    assert reading is not None
    assert reading.residency is not None
    assert reading.residency.source is Source.SAMPLE
    assert reading.residency.no_full_reading is not None
    assert "[scan] longest_hold is 1.5 s" in reading.residency.no_full_reading
    assert not told.fulls


def test_its_turn_comes_though_the_budget_is_spent(told: Told) -> None:
    """Samples of many workers use up the share: the one that matters does not starve."""
    told.sample_cost_s = 0.4
    scanner = Scanner(told, POLICY)
    workers = [subject(WorkerId(pid, 1), GIB) for pid in range(1, 4)]
    for step in range(10):
        look(scanner, 100.0 + 5 * step, *workers)
    assert scanner.closer(workers[0], 145.0, lambda: None) is not None
    assert told.fulls[1] == 1


def test_it_is_not_asked_for_in_each_look(told: Told) -> None:
    """A worker that grows and grows is read in full ever more seldom, until something is done."""
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    looks_s = [100.0 + 5 * step for step in range(200)]
    read_at_s = [s for s in looks_s if scanner.closer(subject(), s, lambda: None) is not None]
    assert read_at_s == [100.0, 115.0, 145.0, 205.0, 325.0, 565.0, 805.0, 1045.0]
    scanner.accept(ONE, residency({0: GIB}, Source.NUMA_MAPS))
    assert scanner.closer(subject(), 1100.0, lambda: None) is not None


def test_one_look_reads_no_more_in_full_than_it_may(told: Told) -> None:
    """At the start of many remote workers, those that are left have their turn in the next."""
    told.full_cost_s = LONGEST_LOOK_S / 2
    scanner = Scanner(told, POLICY)
    workers = [subject(WorkerId(pid, 1), GIB) for pid in range(1, 6)]
    look(scanner, 100.0, *workers)
    read = [scanner.closer(worker, 100.0, lambda: None) for worker in workers]
    assert [reading is not None for reading in read] == [True, True, False, False, False]


def test_a_full_reading_that_fails_leaves_the_figures(told: Told) -> None:
    """The charges of its cgroup are better than nothing, and say why there is no more."""
    told.looked = Looked(None, "no right: CAP_SYS_PTRACE", no_right=True)
    told.charged = {1: GIB}
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    kept = closely(scanner, 100.0).residency
    assert kept is not None
    assert kept.source is Source.NUMA_STAT
    assert kept.no_full_reading == "no right: CAP_SYS_PTRACE"


def test_what_reading_took_is_learnt(told: Told) -> None:
    """On a slow machine the same size holds it up longer; the first reading shows it."""
    told.full_cost_s = 1.8
    scanner = Scanner(told, replace(POLICY, longest_hold_s=1.5))
    look(scanner, 100.0)
    closely(scanner, 100.0)
    look(scanner, 300.0)
    reading = closely(scanner, 300.0)
    assert told.fulls[ONE.pid] == 1
    assert reading.residency is not None
    assert reading.residency.no_full_reading is not None


# What others tell


def test_a_measurement_after_a_move_is_taken_over(told: Told) -> None:
    """It is not read again until it is old; its size counts from the next look on."""
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    scanner.accept(ONE, residency({1: GIB}, Source.NUMA_MAPS, at_s=110.0))
    reading = look(scanner, 124.0)[ONE]
    assert reading.residency is not None
    assert reading.residency.by_node() == {1: GIB}
    assert told.samples[ONE.pid] == 1
    look(scanner, 124.5, subject(size=GIB + 60 * MIB))
    assert told.samples[ONE.pid] == 2


def test_a_move_that_was_not_measured_calls_for_a_look(told: Told) -> None:
    """What was known is from before it."""
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    scanner.accept(ONE, None)
    look(scanner, 101.0)
    assert told.samples[ONE.pid] == 2


def test_memory_that_was_moved_for_it_calls_for_a_look(told: Told) -> None:
    """What another user of its files has moved is told at the next look; once is enough."""
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    scanner.outdate(ONE)
    look(scanner, 101.0)
    assert told.samples[ONE.pid] == 2
    look(scanner, 102.0)
    assert told.samples[ONE.pid] == 2


def test_a_worker_that_ended_is_forgotten(told: Told) -> None:
    """Its pid may come back as another worker."""
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    scanner.forget_except(frozenset())
    look(scanner, 101.0)
    assert told.samples[ONE.pid] == 2


def test_a_failed_reading_is_tried_again(told: Told) -> None:
    """The next look is not held back by an age of nothing."""
    told.looked = Looked(None, "odd")
    scanner = Scanner(told, POLICY)
    assert look(scanner, 100.0)[ONE].problem == "odd"
    told.looked = None
    assert look(scanner, 101.0)[ONE].residency is not None


def test_what_between_raises_ends_the_look(told: Told) -> None:
    """Somebody said stop."""

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Scanner(told, POLICY).look([subject()], 100.0, stop)
    assert not told.samples


def test_what_was_read_in_full_is_confirmed_by_a_light_sample(told: Told) -> None:
    """Where nothing is to be learnt but whether it has changed, a third of the pages will do."""
    told.full_cost_s = 0.05
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    look(scanner, 200.0)
    assert told.light == [False, False]
    scanner.closer(subject(), 300.0, lambda: None)
    look(scanner, 400.0)
    assert told.light == [False, False, True]


def test_full_readings_that_bring_nothing_new_are_made_more_seldom(told: Told) -> None:
    """A worker at rest is read at 15, 30, 60, 120, 180 s; one whose memory moves every 15 s."""
    for moves, count in ((False, 6), (True, 13)):
        scanner = Scanner(told, POLICY)
        told.sampling, told.fulls[ONE.pid] = False, 0
        for step in range(13):
            told.by_node = {step % 2 if moves else 0: GIB}
            look(scanner, 100.0 + 15 * step)
        assert told.fulls[ONE.pid] == count
