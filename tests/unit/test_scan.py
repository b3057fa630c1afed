"""Whose memory is looked at when, how closely, and what holds that back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from numad_py.kernel.cgroupfs import CgroupFs, MemoryNumaStat
from numad_py.kernel.procfs import ProcFs
from numad_py.model.residency import (
    Kind,
    Mobility,
    Residency,
    ResidencyEntry,
    Source,
)
from numad_py.model.snapshot import MemoryStatus, WorkerId
from numad_py.observe.budget import BURST_S, LONGEST_LOOK_S
from numad_py.observe.readings import Looked, Readings, Subject
from numad_py.observe.scan import CHANGED_BYTES, CONFIRMED_TIMES, Reading, Scanner
from numad_py.policy.schema import ScanPolicy

MIB, GIB = 1 << 20, 1 << 30
ONE, TWO = WorkerId(10, 5), WorkerId(20, 5)
POLICY = ScanPolicy(interval_s=15.0, cpu_share=0.02)
DRAWN = 1024


def residency(
    by_node: dict[int, int], source: Source, *, cost_s: float = 0.0, at_s: float = 0.0
) -> Residency:
    """Return anonymous memory on nodes."""
    entries = (ResidencyEntry(n, Kind.ANON, Mobility.MOVABLE, s) for n, s in by_node.items())
    return Residency(
        tuple(entries),
        read_at_s=at_s,
        cost_s=cost_s,
        source=source,
        sampled_pages=DRAWN if source is Source.SAMPLE else None,
    )


class Told(Readings):
    """Brings what it was told to, and counts how often it was asked."""

    def __init__(self) -> None:
        """Tell one GiB on node 0, whoever is asked for."""
        super().__init__(ProcFs(), CgroupFs("/nowhere"), None)
        self.by_node = {0: GIB}
        self.full_cost_s = 0.0
        self.sample_cost_s = 0.001
        self.sampling = True
        self.looked: Looked | None = None
        self.doubt: str | None = None
        self.drawn = DRAWN
        self.charged: dict[int, int] | None = None
        self.fulls: Counter[int] = Counter()
        self.samples: Counter[int] = Counter()
        self.order: list[int] = []

    @property
    def can_sample(self) -> bool:
        """Say what it was told."""
        return self.sampling

    def full(self, subject: Subject, now_s: float, _between: Callable[[], None]) -> Looked:
        """Count, and bring a full reading."""
        self.fulls[subject.id.pid] += 1
        self.order.append(subject.id.pid)
        if self.looked is not None:
            return self.looked
        self._frames[subject.id] = self._frames.get(subject.id)  # type: ignore[assignment]
        return Looked(
            residency(self.by_node, Source.NUMA_MAPS, cost_s=self.full_cost_s, at_s=now_s)
        )

    def sample(self, subject: Subject, now_s: float) -> Looked:
        """Count, and bring a sample."""
        self.samples[subject.id.pid] += 1
        self.order.append(subject.id.pid)
        if self.looked is not None:
            return self.looked
        found = residency(self.by_node, Source.SAMPLE, cost_s=self.sample_cost_s, at_s=now_s)
        return Looked(replace(found, sampled_pages=self.drawn), doubt=self.doubt)

    def own_cgroup(self, _subject: Subject) -> MemoryNumaStat | None:
        """Bring what it was told."""
        if self.charged is None:
            return None
        return MemoryNumaStat(
            anon=self.charged,
            file={},
            shmem={},
            file_mapped={},
            anon_thp={0: 2 * MIB},
            shmem_thp=None,
            file_thp=None,
        )


@pytest.fixture
def told() -> Told:
    """Return readings that say what they are told."""
    return Told()


def subject(worker: WorkerId = ONE, size: int | None = GIB, hugetlb: int | None = None) -> Subject:
    """Return a worker of a size."""
    return Subject(worker, MemoryStatus(anon_bytes=size, hugetlb_bytes=hugetlb), "/one.service")


def look(scanner: Scanner, now_s: float, *subjects: Subject) -> dict[WorkerId, Reading]:
    """Look at workers, or at one of one GiB."""
    return scanner.look(subjects or (subject(),), now_s, lambda: None)


def source_of(reading: Reading) -> Source:
    """Return where its figures come from."""
    assert reading.residency is not None
    return reading.residency.source


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
    told.drawn = 20
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
    """One small file in place of a sample, for some intervals; then it is looked at again."""
    told.charged = {0: GIB}
    scanner = Scanner(told, POLICY)
    look(scanner, 100.0)
    for step in range(1, CONFIRMED_TIMES + 1):
        kept = look(scanner, 100.0 + 15 * step)[ONE].residency
        assert kept is not None
        assert kept.confirmed is not None
        assert (kept.confirmed.source, kept.confirmed.at_s) == (Source.NUMA_STAT, 100 + 15 * step)
        assert told.samples[ONE.pid] == 1
    look(scanner, 100.0 + 15 * (CONFIRMED_TIMES + 1))
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
