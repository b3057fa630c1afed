"""When numa_maps is read: triggers, and the budget that holds them back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from numad_py.errors import Malformed, NumadError, RightsError, Vanished
from numad_py.kernel.procfs import ProcFs
from numad_py.model.residency import Residency
from numad_py.model.snapshot import WorkerId
from numad_py.observe.scan import BURST_S, CHANGED_BYTES, Scanner
from numad_py.policy.schema import ScanPolicy
from tests.fake_tree import anon

MIB = 1 << 20
SIZE = 1000 * MIB
ONE, TWO = WorkerId(10, 5), WorkerId(20, 5)
POLICY = ScanPolicy(interval_s=15.0, cpu_share=0.02)


class Counted(ProcFs):
    """Hands out numa_maps, counts how often, and takes CPU time for it."""

    def __init__(self) -> None:
        """Start with a text that costs nothing to read."""
        super().__init__()
        self.text = anon({0: SIZE})
        self.error: NumadError | None = None
        self.cost_s = 0.0
        self.cpu_s = 7.0
        self.reads: Counter[int] = Counter()

    def numa_maps(self, pid: int) -> str:
        """Return the text, or fail."""
        self.reads[pid] += 1
        self.cpu_s += self.cost_s
        if self.error is not None:
            raise self.error
        return self.text


@pytest.fixture
def procfs(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Return a proc whose reading is the only thing that takes CPU time."""
    counted = Counted()
    monkeypatch.setattr("numad_py.observe.scan.thread_cpu_s", lambda: counted.cpu_s)
    return counted


def measured(at_s: float) -> Residency:
    """Return what the mover found after a move."""
    return Residency((), read_at_s=at_s)


def test_a_worker_is_read_when_it_is_first_seen(procfs: Counted) -> None:
    """Its memory is known from the first look on, and the next look costs nothing."""
    scanner = Scanner(procfs, POLICY)
    reading = scanner.reading(ONE, 100.0, SIZE)
    assert reading.residency is not None
    assert reading.residency.by_node() == {0: SIZE}
    assert reading.residency.read_at_s == 100.0
    assert reading.problem is None
    assert scanner.reading(ONE, 105.0, SIZE) == reading
    assert procfs.reads == {ONE.pid: 1}
    assert scanner.scans == 1


@pytest.mark.parametrize(
    ("size", "reads"),
    [
        (SIZE, 1),
        (SIZE + 49 * MIB, 1),
        (SIZE - 49 * MIB, 1),
        (SIZE + 50 * MIB, 2),
        (SIZE - 50 * MIB, 2),
        (None, 1),
    ],
)
def test_it_is_read_again_when_it_grew_or_shrank(
    procfs: Counted, size: int | None, reads: int
) -> None:
    """From a twentieth of its size on; a size that is not known says nothing."""
    scanner = Scanner(procfs, POLICY)
    scanner.reading(ONE, 100.0, SIZE)
    scanner.reading(ONE, 101.0, size)
    assert procfs.reads[ONE.pid] == reads


def test_a_small_worker_is_not_read_again_for_a_few_mib(procfs: Counted) -> None:
    """A share of little is nothing that matters: it takes 8 MiB."""
    scanner = Scanner(procfs, POLICY)
    scanner.reading(ONE, 100.0, MIB)
    scanner.reading(ONE, 101.0, MIB + CHANGED_BYTES - 1)
    assert procfs.reads[ONE.pid] == 1
    scanner.reading(ONE, 102.0, MIB + CHANGED_BYTES)
    assert procfs.reads[ONE.pid] == 2


def test_slow_growth_is_seen_in_the_end(procfs: Counted) -> None:
    """Changes count against the size at the last reading, not at the last look."""
    scanner = Scanner(procfs, POLICY)
    for step in range(6):
        scanner.reading(ONE, 100.0 + step, SIZE + step * 10 * MIB)
    assert procfs.reads[ONE.pid] == 2


def test_it_is_read_again_when_the_interval_has_passed(procfs: Counted) -> None:
    """Pages move without a change of size; the age of a reading is bounded."""
    scanner = Scanner(procfs, POLICY)
    for at_s, reads in ((100.0, 1), (114.9, 1), (115.0, 2), (129.9, 2), (130.0, 3)):
        reading = scanner.reading(ONE, at_s, SIZE)
        assert procfs.reads[ONE.pid] == reads
        assert at_s - reading.tried_at_s < POLICY.interval_s


def test_what_is_overspent_is_waited_for(procfs: Counted) -> None:
    """A reading that cost three seconds of CPU is paid off at the policy's share first."""
    procfs.cost_s = 3.0
    scanner = Scanner(procfs, POLICY)
    scanner.reading(ONE, 1000.0, SIZE)
    procfs.cost_s = 0.0
    paid_off_s = (3.0 - BURST_S) / POLICY.cpu_share
    scanner.reading(ONE, 1000.0 + paid_off_s - 1, 2 * SIZE)
    assert procfs.reads[ONE.pid] == 1
    scanner.reading(ONE, 1000.0 + paid_off_s + 1, 2 * SIZE)
    assert procfs.reads[ONE.pid] == 2


def test_a_spent_budget_does_not_hold_back_a_worker_that_is_new(procfs: Counted) -> None:
    """Nothing is known of it, and nothing could be decided; but one look does not take for ever."""
    procfs.cost_s = 3.0
    scanner = Scanner(procfs, POLICY)
    scanner.reading(ONE, 100.0, SIZE)
    put_off = scanner.reading(TWO, 100.0, SIZE)
    assert (put_off.residency, put_off.problem) == (
        None,
        "its memory is read in one of the next cycles",
    )
    scanner.begin()
    assert scanner.reading(TWO, 101.0, SIZE).residency is not None


def grow(procfs: Counted, seconds: int) -> Scanner:
    """Look once a second at ten workers, all of which change all the time."""
    procfs.cost_s = 0.2
    scanner = Scanner(procfs, POLICY)
    for second in range(seconds):
        scanner.begin()
        for pid in range(10):
            scanner.reading(WorkerId(pid, 1), 100.0 + second, SIZE * (1 + second % 2))
    return scanner


def test_all_workers_spend_from_one_budget(procfs: Counted) -> None:
    """Over a long time reading takes no more than its share, however many workers grow."""
    scanner = grow(procfs, 1000)
    spent_s = 0.2 * procfs.reads.total()
    assert scanner.scan_s == pytest.approx(spent_s)
    assert scanner.scans == procfs.reads.total()
    first_s = 10 * 0.2
    assert spent_s <= first_s + BURST_S + 1000 * POLICY.cpu_share + 0.2


def test_workers_take_turns_where_the_budget_is_short(procfs: Counted) -> None:
    """None keeps its first reading for as long as others change: the oldest is renewed first."""
    grow(procfs, 1000)
    assert max(procfs.reads.values()) - min(procfs.reads.values()) <= 2


def test_a_quiet_hour_saves_up_no_more_than_the_burst(procfs: Counted) -> None:
    """After it one second of CPU may be spent at once, not an hour's share."""
    scanner = Scanner(procfs, POLICY)
    scanner.reading(ONE, 0.0, SIZE)
    procfs.cost_s = BURST_S / 4
    for i in range(20):
        scanner.reading(ONE, 3600.0, SIZE * (2 + i % 2))
    assert procfs.reads[ONE.pid] - 1 == 4


def test_a_measurement_after_a_move_stands_like_a_reading(procfs: Counted) -> None:
    """It is not paid for again: its size is taken from the next look, its age from its own time."""
    scanner = Scanner(procfs, POLICY)
    scanner.reading(ONE, 100.0, SIZE)
    scanner.accept(ONE, measured(110.0))
    assert scanner.reading(ONE, 116.0, 2 * SIZE).residency == measured(110.0)
    assert procfs.reads[ONE.pid] == 1
    assert scanner.reading(ONE, 117.0, 3 * SIZE).residency != measured(110.0)
    assert procfs.reads[ONE.pid] == 2


def test_a_measurement_after_a_move_grows_old(procfs: Counted) -> None:
    """It is read again an interval after it was made."""
    scanner = Scanner(procfs, POLICY)
    scanner.accept(ONE, measured(110.0))
    scanner.reading(ONE, 124.9, SIZE)
    assert procfs.reads[ONE.pid] == 0
    scanner.reading(ONE, 125.0, SIZE)
    assert procfs.reads[ONE.pid] == 1


def test_a_worker_that_ended_is_forgotten(procfs: Counted) -> None:
    """Those that stay keep what is known of them; a worker that comes back is read anew."""
    scanner = Scanner(procfs, POLICY)
    scanner.reading(ONE, 100.0, SIZE)
    scanner.reading(TWO, 100.0, SIZE)
    scanner.forget_except(frozenset({TWO}))
    scanner.reading(ONE, 101.0, SIZE)
    scanner.reading(TWO, 101.0, SIZE)
    assert procfs.reads == {ONE.pid: 2, TWO.pid: 1}


def test_a_pid_that_is_used_again_is_read_anew(procfs: Counted) -> None:
    """A worker is a pid with its start time."""
    scanner = Scanner(procfs, POLICY)
    scanner.reading(ONE, 100.0, SIZE)
    scanner.reading(replace(ONE, start_ticks=6), 101.0, SIZE)
    assert procfs.reads[ONE.pid] == 2


@pytest.mark.parametrize(
    ("text", "problem"), [("", "empty"), ("\n", "empty"), ("nonsense\n", "1 odd")]
)
def test_a_text_without_areas_is_a_problem_and_not_zero(
    procfs: Counted, text: str, problem: str
) -> None:
    """No figures, a reason in words, and another try at the next look."""
    procfs.text = text
    scanner = Scanner(procfs, POLICY)
    reading = scanner.reading(ONE, 100.0, SIZE)
    assert reading.residency is None
    assert reading.problem is not None
    assert "numa_maps" in reading.problem
    assert problem in reading.problem
    procfs.text = anon({1: SIZE})
    again = scanner.reading(ONE, 101.0, SIZE)
    assert (again.residency is None, again.problem) == (False, None)


@pytest.mark.parametrize("error", [RightsError("no right"), Malformed("odd"), Vanished("gone")])
def test_what_cannot_be_read_leaves_a_problem_in_place_of_old_figures(
    procfs: Counted, error: NumadError
) -> None:
    """Nobody decides on figures of which it is known that they could not be renewed."""
    scanner = Scanner(procfs, POLICY)
    scanner.reading(ONE, 100.0, SIZE)
    procfs.error = error
    reading = scanner.reading(ONE, 200.0, SIZE)
    assert reading.residency is None
    assert reading.problem


def test_another_policy_holds_from_the_next_look_on(procfs: Counted) -> None:
    """A shorter interval makes an older reading due."""
    scanner = Scanner(procfs, POLICY)
    scanner.reading(ONE, 100.0, SIZE)
    scanner.use(replace(POLICY, interval_s=2.0))
    scanner.reading(ONE, 103.0, SIZE)
    assert procfs.reads[ONE.pid] == 2
