"""Chunks that take as long as the policy says, pauses between them, and brakes by pressure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numad_py.act.brakes import LOOK_S, MOST_WAIT_S, SLOW_SHARE, TRUST_S, Brakes, Strain
from numad_py.act.pace import FIRST_BYTES, LEAST_BYTES, Pace
from numad_py.policy.schema import MigrationPolicy
from tests.unit.fake_kernel import MIB, THP

PAGE = 4096
FREE = MigrationPolicy(longest_chunk_s=0.05, chunk_bytes=64 * MIB, rate_bytes_per_s=None, duty=1.0)


class Rests(list[float]):
    """Remembers how long was slept."""

    def __call__(self, seconds: float) -> None:
        """Take one down."""
        self.append(seconds)


def walked(pace: Pace, s_per_byte: float, chunks: int, unit: int = PAGE) -> list[int]:
    """Move chunks that cost so much a byte; return their sizes."""
    sizes = []
    for _ in range(chunks):
        size = pace.chunk_bytes(unit)
        sizes.append(size)
        pace.after(size, size * s_per_byte)
    return sizes


@pytest.mark.parametrize("bytes_per_s", [40 * MIB, 120 * MIB, 1000 * MIB, 12000 * MIB])
def test_a_chunk_comes_to_take_what_the_policy_says(bytes_per_s: int) -> None:
    """Whatever a page costs here; the most bytes of a chunk bound it on a fast machine."""
    size = walked(Pace(FREE, Rests()), 1 / bytes_per_s, 12)[-1]
    wanted = min(FREE.chunk_bytes, FREE.longest_chunk_s * bytes_per_s)
    assert wanted - PAGE <= size <= wanted


def test_chunks_grow_step_by_step_and_shrink_at_once() -> None:
    """One that is twice as large is the most that is tried; one that took too long is cut."""
    pace = Pace(FREE, Rests())
    sizes = walked(pace, 1 / (12000 * MIB), 4)
    assert sizes == [FIRST_BYTES, 2 * FIRST_BYTES, 4 * FIRST_BYTES, 8 * FIRST_BYTES]
    before = pace.chunk_bytes(PAGE)
    pace.after(before, 10 * FREE.longest_chunk_s)
    assert pace.chunk_bytes(PAGE) <= before / 10
    assert pace.longest_s == 10 * FREE.longest_chunk_s


def test_a_chunk_is_never_less_than_a_unit_or_the_least() -> None:
    """However slow: a huge page is not cut, and a call has a price of its own."""
    pace = Pace(FREE, Rests())
    pace.after(FIRST_BYTES, 3600.0)
    assert pace.chunk_bytes(PAGE) == LEAST_BYTES
    assert pace.chunk_bytes(THP) == THP


@pytest.mark.parametrize("fixed_s", [0.001, 0.004])
def test_small_areas_do_not_make_the_chunks_of_large_ones_small(fixed_s: float) -> None:
    """A call has a price of its own: a stack of two pages says nothing of what a byte costs."""
    pace = Pace(FREE, Rests())
    for _ in range(20):
        pace.after(2 * PAGE, fixed_s + 2 * PAGE / (1000 * MIB))
    assert pace.chunk_bytes(PAGE) == FIRST_BYTES


def test_the_price_of_a_call_is_not_taken_for_that_of_its_bytes() -> None:
    """Where a call alone takes half of what a chunk may, smaller chunks cost more, not less."""
    fixed_s, s_per_byte = FREE.longest_chunk_s / 2, 1 / (400 * MIB)
    pace = Pace(FREE, Rests())
    pace.after(2 * PAGE, fixed_s)
    for _ in range(12):
        size = pace.chunk_bytes(PAGE)
        pace.after(size, fixed_s + size * s_per_byte)
    assert size == pytest.approx(FREE.longest_chunk_s / 2 / s_per_byte, rel=0.1)
    assert pace.longest_s <= 1.1 * FREE.longest_chunk_s


def test_a_call_that_takes_longer_than_a_chunk_may_ends_in_chunks_of_some_size() -> None:
    """The bytes of each take as long as half of a chunk: else most of the time went to calls."""
    fixed_s, s_per_byte = 2 * FREE.longest_chunk_s, 1 / (400 * MIB)
    pace = Pace(FREE, Rests())
    pace.after(2 * PAGE, fixed_s)
    for _ in range(12):
        size = pace.chunk_bytes(PAGE)
        pace.after(size, fixed_s + size * s_per_byte)
    assert 4 * MIB <= size <= 20 * MIB


def test_what_did_not_move_teaches_nothing() -> None:
    """Pages that refuse take long and are no measure of what moving costs."""
    pace = Pace(FREE, Rests())
    pace.after(0, 100.0)
    assert pace.chunk_bytes(PAGE) == FIRST_BYTES


@pytest.mark.parametrize(
    ("duty", "share", "pause_s"),
    [(1.0, 1.0, None), (0.5, 1.0, 0.2), (0.25, 1.0, 0.6), (1.0, 0.25, 0.6)],
)
def test_duty_is_the_share_of_the_time_that_moving_takes(
    duty: float, share: float, pause_s: float | None
) -> None:
    """The pause after a chunk of 0.2 s, with a share of duty under pressure."""
    rests = Rests()
    Pace(replace(FREE, duty=duty), rests).after(MIB, 0.2, share)
    assert list(rests) == ([] if pause_s is None else [pytest.approx(pause_s)])


def test_the_longer_pause_of_rate_and_duty_counts() -> None:
    """Both are kept by one pause, not by the sum of two."""
    rests = Rests()
    policy = replace(FREE, duty=0.5, rate_bytes_per_s=MIB)
    Pace(policy, rests).after(MIB, 0.2)
    Pace(policy, rests).after(MIB // 100, 0.2)
    assert list(rests) == [pytest.approx(0.8), pytest.approx(0.2)]


class Machine:
    """Pressure over a made time: which share of it tasks wait for a CPU and for memory."""

    def __init__(self) -> None:
        """Start without any."""
        self.now_s = 100.0
        self.shares: dict[str, float] = {"cpu": 0.0, "memory": 0.0, "cgroup": 0.0}
        self.stalled: dict[str, float] = dict.fromkeys(self.shares, 0.0)
        self.looks = 0
        self.stops_at_s = float("inf")
        self.busy: dict[int, float] = {0: 1.0, 1: 1.0}
        self.busy_s = {0: 70.0, 1: 30.0}

    def look(self) -> Strain:
        """Return the totals."""
        self.looks += 1
        return Strain(dict(self.stalled), dict(self.busy_s))

    def rest(self, seconds: float) -> None:
        """Let time go by."""
        self.now_s += seconds
        for name, share in self.shares.items():
            self.stalled[name] += share * seconds
        for cpu, share in self.busy.items():
            self.busy_s[cpu] += share * seconds

    def brakes(self) -> Brakes:
        """Return brakes that have looked a first time, and some time later."""
        brakes = Brakes(
            FREE, self.look, lambda: self.now_s, self.rest, lambda: self.now_s >= self.stops_at_s
        )
        brakes.duty_share()
        self.rest(LOOK_S)
        return brakes


@pytest.mark.parametrize(
    ("name", "stalled", "share"),
    [
        ("cpu", 0.4, 1.0),
        ("cpu", 0.6, SLOW_SHARE),
        ("memory", 0.04, 1.0),
        ("memory", 0.06, SLOW_SHARE),
        ("memory", 0.2, 0.0),
        ("cgroup", 0.06, SLOW_SHARE),
        ("cgroup", 0.2, 0.0),
    ],
)
def test_pressure_slows_down_or_stops(name: str, stalled: float, share: float) -> None:
    """By the time since the last look: CPUs only slow down, memory stops from the mark on."""
    machine = Machine()
    machine.shares[name] = stalled
    assert machine.brakes().duty_share() == share


@pytest.mark.parametrize(
    ("busy", "share"),
    [(0.0, 1.0), (0.3, 1.0), (0.7, SLOW_SHARE), (1.0, SLOW_SHARE), (None, SLOW_SHARE)],
)
def test_a_cpu_that_is_idle_can_be_had(busy: float | None, share: float) -> None:
    """Tasks that wait beside it are bound elsewhere; where it is not known none is idle."""
    machine = Machine()
    machine.shares["cpu"] = 0.9
    machine.busy = {0: 1.0} if busy is None else {0: 1.0, 1: busy}
    machine.busy_s = dict.fromkeys(machine.busy, 0.0)
    assert machine.brakes().duty_share() == share


def test_a_cpu_that_comes_online_is_not_known_to_be_idle() -> None:
    """It has no total to compare with yet."""
    machine = Machine()
    machine.shares["cpu"] = 0.9
    brakes = machine.brakes()
    machine.busy[2], machine.busy_s[2] = 0.0, 5.0
    assert brakes.duty_share() == SLOW_SHARE
    machine.rest(LOOK_S)
    assert brakes.duty_share() == 1.0


def test_the_move_may_use_the_only_idle_cpu() -> None:
    """Its own use of it slows it down for one look in ten, and not for every other one."""
    machine = Machine()
    machine.shares["cpu"] = 0.9
    brakes, shares = machine.brakes(), []
    for _ in range(100):
        shares.append(brakes.duty_share())
        machine.busy[1] = shares[-1]
        machine.rest(LOOK_S)
    assert 0.05 < shares.count(SLOW_SHARE) / len(shares) < 0.12


def test_a_machine_that_fills_up_is_spared_soon() -> None:
    """What was idle is taken to be for some seconds, and no longer."""
    machine = Machine()
    machine.shares["cpu"], machine.busy[1] = 0.9, 0.0
    brakes = machine.brakes()
    assert brakes.duty_share() == 1.0
    machine.busy[1] = 1.0
    machine.rest(TRUST_S)
    assert brakes.duty_share() == SLOW_SHARE


def test_a_cpu_whose_total_shrinks_is_not_idle() -> None:
    """What a hypervisor took may become less when a machine is moved to another host."""
    machine = Machine()
    machine.shares["cpu"], machine.busy[1] = 0.9, -0.5
    assert machine.brakes().duty_share() == SLOW_SHARE


def test_at_100_percent_nothing_is_slowed_down() -> None:
    """Also where reading took so long that more seems to have been waited than time went by."""
    machine = Machine()
    machine.shares["cpu"] = 1.01
    brakes = machine.brakes()
    brakes.policy = replace(FREE, cpu_pressure=1.0)
    assert brakes.duty_share() == 1.0


def test_an_idle_cpu_is_no_memory() -> None:
    """Where memory is short nothing moves, whoever is idle."""
    machine = Machine()
    machine.shares["memory"], machine.busy[1] = 0.9, 0.0
    assert machine.brakes().duty_share() == 0.0


def test_pressure_is_looked_at_now_and_then_only() -> None:
    """Chunks may come a thousand a second; PSI and CPU times are read twice a second."""
    machine = Machine()
    brakes = machine.brakes()
    for _ in range(100):
        brakes.duty_share()
        machine.rest(LOOK_S / 50)
    assert machine.looks <= 4


def test_it_waits_for_memory_and_goes_on() -> None:
    """And says how long it has waited."""
    machine = Machine()
    machine.shares["memory"] = 0.5
    brakes = machine.brakes()
    ends_s = machine.now_s + 3.0

    def rest(seconds: float) -> None:
        machine.rest(seconds)
        if machine.now_s >= ends_s:
            machine.shares["memory"] = 0.0

    brakes.rest = rest
    assert brakes.wait() == 1.0
    assert 3.0 <= brakes.waited_s <= 3.0 + 2 * LOOK_S


def test_it_waits_no_longer_than_the_bound() -> None:
    """Memory that stays short ends the move: the rest is for another time."""
    machine = Machine()
    machine.shares["cgroup"] = 0.9
    brakes, began_s = machine.brakes(), machine.now_s
    assert brakes.wait() is None
    assert machine.now_s - began_s <= MOST_WAIT_S + LOOK_S


def test_a_stop_ends_the_wait() -> None:
    """Who stops does not wait for memory."""
    machine = Machine()
    machine.shares["memory"] = 0.9
    brakes, began_s = machine.brakes(), machine.now_s
    machine.stops_at_s = began_s + 1.0
    brakes.wait()
    assert machine.now_s - began_s <= 1.0 + LOOK_S


def test_without_psi_nothing_brakes() -> None:
    """A kernel without pressure stall information tells nothing, and moving goes on."""
    machine = Machine()
    machine.stalled = {}
    machine.shares = {}
    assert machine.brakes().wait() == 1.0
