"""What discovery may cost: pauses that drift apart, the budget of a look, and memory."""

from __future__ import annotations

import time

import pytest

from numad_py.observe.discovery import (
    EARLIEST,
    LONGEST_LOOK_S,
    SECOND_LOOKS_S,
    SLOW_S,
    Discovery,
)
from numad_py.policy.schema import Policy
from tests.unit.crowd import (
    BOOT_S,
    JUDGED,
    MIB,
    SERVER,
    Crowd,
    Looks,
    Proc,
    labels,
    old_crowd,
    rule,
)


# Spreading
@pytest.mark.parametrize("interval_s", [1.0, 5.0])
def test_second_looks_spread_evenly_over_the_looks(interval_s: float) -> None:
    """Of 5,000 old processes no look reads much more than twice the average."""
    looks = Looks(old_crowd(5000), interval_s=interval_s)
    looks.look()
    looks.crowd.pids_read()
    counts = []
    while looks.now_s < BOOT_S + 5 * SLOW_S:
        looks.look()
        counts.append(len(looks.crowd.pids_read()))
    average = 5000 * interval_s / SLOW_S
    assert max(counts) < 2.5 * average
    assert sum(counts) / len(counts) < average / EARLIEST


def test_a_crowd_that_began_at_once_drifts_apart() -> None:
    """2,000 that were forked together are soon no longer looked at together."""
    looks = Looks(old_crowd(1))
    looks.look()
    for pid in range(2000, 4000):
        looks.start(pid, Proc())
    while looks.now_s < BOOT_S + 10 * SLOW_S:
        looks.look()
    looks.crowd.pids_read()
    counts = []
    for _ in range(int(SLOW_S)):
        looks.look()
        counts.append(len(looks.crowd.pids_read()))
    assert max(counts) < 4 * 2000 / SLOW_S


# Budget

READ_S = LONGEST_LOOK_S / 100
"""CPU time of a read in these tests; judging takes five."""
CROWD = 300
"""Processes that are there already."""
A_LOOK = round((LONGEST_LOOK_S - SECOND_LOOKS_S) / READ_S / len(JUDGED))
"""So many newcomers are judged in a look."""


@pytest.fixture
def dear(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Return looks at a crowd in which nothing but reading takes CPU time, and reading a lot."""
    looks = Looks(Crowd(), interval_s=0.01)
    looks.crowd.read_s = READ_S
    monkeypatch.setattr("numad_py.observe.discovery.thread_cpu_s", lambda: looks.crowd.cpu_s)
    return looks


def test_the_first_look_judges_all(dear: Looks) -> None:
    """A daemon that starts knows every worker after one look, whatever that takes."""
    for pid in range(1, 400):
        dear.crowd.add(pid, Proc(SERVER))
    census = dear.look()
    assert (len(census.workers), census.deferred) == (399, 0)


def test_newcomers_wait_in_order_of_arrival(dear: Looks) -> None:
    """Beyond the budget they wait for the next look, and come before those that came later."""
    dear.crowd.add(1, Proc())
    dear.look()
    arrivals = [*range(5000, 5000 + 2 * A_LOOK), *range(200, 200 + 2 * A_LOOK)]
    for pid in arrivals[: 2 * A_LOOK]:
        dear.start(pid, Proc(SERVER))
    found: list[int] = []
    deferred = []
    for look in range(5):
        census = dear.look()
        found += sorted(labels(census).keys() - set(found))
        deferred.append(census.deferred)
        if look == 0:
            for pid in arrivals[2 * A_LOOK :]:
                dear.start(pid, Proc(SERVER))
    assert found[: len(found) // A_LOOK * A_LOOK] == arrivals[: len(found) // A_LOOK * A_LOOK]
    assert sorted(found) == sorted(arrivals)
    assert deferred == [A_LOOK, 2 * A_LOOK, A_LOOK, 0, 0]


def test_who_was_never_seen_goes_before_known_ones_in_new_folders(dear: Looks) -> None:
    """Short of memory the kernel drops all folders of /proc: a server need not wait behind them."""
    crowd = dear.crowd
    for pid in range(1000, 1000 + CROWD):
        crowd.add(pid, Proc())
    dear.look()
    for process in crowd.procs.values():
        process.inode = next(crowd.inodes)
    crowd.add(90_000, Proc(SERVER))
    crowd.reads.clear()
    census = dear.look(forked=1)
    assert [found.id.pid for found in census.workers] == [90_000]
    while dear.look().deferred:
        continue
    assert {file for pid, file in crowd.reads if pid != 90_000} == {"stat"}
    assert max(count for (pid, _), count in crowd.reads.items() if pid != 90_000) == 1


def test_another_process_in_a_new_folder_is_found_behind_them(dear: Looks) -> None:
    """Its start time tells, when its turn comes."""
    for pid in range(1000, 1000 + CROWD):
        dear.crowd.add(pid, Proc())
    dear.look()
    dear.crowd.add(pid, Proc(SERVER, start_s=dear.now_s))
    for process in dear.crowd.procs.values():
        process.inode = next(dear.crowd.inodes)
    for _ in range(20):
        census = dear.look(forked=1)
        if census.workers:
            break
    assert [found.id.pid for found in census.workers] == [pid]


def test_a_look_keeps_its_budget(dear: Looks) -> None:
    """However many are new and due, judging takes LONGEST_LOOK_S and one process more at most."""
    dear.crowd.add(1, Proc())
    dear.look()
    for pid in range(10, 1000):
        dear.start(pid, Proc())
    for _ in range(30):
        before_s = dear.crowd.cpu_s
        dear.look()
        assert dear.crowd.cpu_s - before_s < LONGEST_LOOK_S + READ_S * len(JUDGED)


def test_who_ended_while_waiting_costs_nothing(dear: Looks) -> None:
    """It is not read, and makes room for those behind it."""
    dear.crowd.add(1, Proc())
    dear.look()
    for pid in range(100, 1000):
        dear.start(pid, Proc())
    waiting = dear.look().deferred
    assert waiting == 900 - A_LOOK
    last = dear.start(5000, Proc(SERVER))
    dear.crowd.procs = {pid: p for pid, p in dear.crowd.procs.items() if p is last or pid == 1}
    dear.crowd.reads.clear()
    census = dear.look()
    assert labels(census) == {5000: "server/0"}
    assert census.deferred == 0
    assert dear.crowd.pids_read() - {1} == {5000}
    assert dear.crowd.vanished == 0


def test_an_exec_is_seen_amid_a_storm_of_newcomers(dear: Looks) -> None:
    """Part of the budget is for second looks, so that newcomers cannot keep a server unseen."""
    shells = [dear.start(pid, Proc()) for pid in range(10)]
    dear.look()
    for shell in shells:
        shell.exec(SERVER)
    dear.interval_s = 1.0
    for look in range(int(SLOW_S) + 10):
        for pid in range(100 * (look + 1), 100 * (look + 1) + 100):
            dear.start(pid, Proc())
        found = labels(dear.look()).keys()
        if found >= set(range(10)):
            return
    pytest.fail("a server was not seen")


def test_workers_are_read_whatever_the_budget_says(dear: Looks) -> None:
    """The figures of every known worker are of this look, though judging them took all its time."""
    for pid in range(1, 300):
        dear.crowd.add(pid, Proc(SERVER))
    dear.look()
    for process in dear.crowd.procs.values():
        process.resident_kib = 8
    dear.start(500, Proc(SERVER))
    census = dear.look()
    assert [found.stat.resident_bytes for found in census.workers] == [8 * 1024] * 299 + [0]
    assert dear.crowd.cpu_s > LONGEST_LOOK_S


# Bounds


def sizes(discovery: Discovery) -> dict[str, int]:
    """Return how many entries everything has that could grow."""
    known = discovery._known
    rooms = {**vars(discovery), **vars(known), **vars(known.agenda), **vars(known._labels)}
    return {k: len(v) for k, v in rooms.items() if isinstance(v, (dict, list, set))}


def test_what_is_remembered_is_bounded_by_who_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands that came and went leave nothing behind, at whatever age they went."""
    monkeypatch.setattr("numad_py.observe.discovery.MOST_MATCHES", 50)
    looks = Looks(old_crowd(20))
    procs = looks.crowd.procs
    looks.look()
    most = 0
    for _ in range(300):
        first = max(procs) + 1
        for pid in range(first, first + 60):
            cmdline = SERVER if pid % 20 == 0 else f"sh {pid}"
            looks.start(pid, Proc(cmdline, resident_kib=64 * MIB))
        most = max(most, len(procs))
        looks.look()
        for name, size in sizes(looks.discovery).items():
            assert size <= 2 * most + 64, name
        # Most live for one look, a tenth for up to half a minute.
        for pid in [p for p in procs if p >= 2000]:
            lives_s = pid % 300 / 10 if pid % 10 == 0 else 0
            if looks.now_s - procs[pid].start_s > lives_s:
                del procs[pid]
    for pid in [p for p in procs if p != 1000]:
        del procs[pid]
    looks.look(forked=1)
    after = sizes(looks.discovery)
    assert after.pop("_matches") <= 50
    assert after.pop("_heap") <= 2 * most + 64
    assert max(after.values()) == 1


def test_rules_that_are_gone_leave_nothing_behind() -> None:
    """Whoever reloads the policy with other names each day finds the daemon no larger."""
    looks = Looks(Crowd())
    looks.crowd.add(5, Proc(SERVER))
    for day in range(100):
        looks.discovery.use(Policy(rules=(rule(f"r{day}", cmdline="/opt/server"),)))
        assert labels(looks.look()) == {5: f"r{day}/0"}
    after = sizes(looks.discovery)
    assert after.pop("_heap") <= 66
    assert max(after.values()) == 1


def test_many_workers_that_come_at_once_take_no_time_to_name() -> None:
    """Ten times as many workers take about ten times as long, not a hundred times."""

    def cost_s(count: int) -> float:
        looks = Looks(Crowd())
        for pid in range(1, count + 1):
            looks.crowd.add(pid, Proc(SERVER))
        assert len(looks.look().workers) == count
        began = time.thread_time()
        looks.discovery.use(Policy(rules=(rule("new", cmdline="/opt/server"),)))
        looks.look()
        return time.thread_time() - began

    assert cost_s(4000) < 40 * cost_s(400)
