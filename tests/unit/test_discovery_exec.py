"""Second looks: when a program that came by exec is seen, and what looking for it costs."""

from __future__ import annotations

import pytest

from numad_py.observe.discovery import (
    IDLE_S,
    LARGE_SLOW_S,
    MOST_RESTED,
    SLOW_S,
)
from numad_py.policy.schema import Policy
from tests.fake_tree import PF_KTHREAD
from tests.unit.crowd import (
    BOOT_S,
    JUDGED,
    POLICY,
    SERVER,
    Crowd,
    Looks,
    Proc,
    labels,
    old_crowd,
    rule,
)

# Second looks


@pytest.mark.parametrize("age_s", [0.0, 0.4, 1.5, 7.0, 40.0, 119.0, 400.0])
@pytest.mark.parametrize("interval_s", [1.0, 5.0])
@pytest.mark.parametrize("crowd", [0, 300])
@pytest.mark.parametrize("busy", [True, False])
def test_a_server_that_comes_by_exec_is_found_in_time(
    age_s: float, interval_s: float, crowd: int, *, busy: bool
) -> None:
    """After at most the age it had, at most SLOW_S, and one look; at once if it was just seen.

    Four times its age where it did not run before.
    """
    looks = Looks(old_crowd(crowd), interval_s=interval_s)
    looks.look()
    began_s = looks.now_s + 0.1
    process = looks.start(9, Proc())
    process.start_s = began_s
    looks.look()
    while looks.now_s + interval_s < began_s + age_s:
        process.cpu_ticks += busy
        assert not looks.look().workers
    process.exec(SERVER)
    exec_s = max(looks.now_s, began_s + age_s)
    times = 1 if busy else 2**MOST_RESTED
    while not looks.look().workers:
        assert looks.now_s - exec_s <= min(times * (exec_s - began_s), SLOW_S)
    if age_s < interval_s - 0.1:
        assert looks.now_s - began_s < 2 * interval_s


def test_an_old_process_becomes_a_server_within_slow_s() -> None:
    """One that was there long before the first look is found, too."""
    looks = Looks(old_crowd(40), interval_s=5.0)
    looks.look()
    for process in looks.crowd.procs.values():
        process.exec(SERVER)
    while looks.now_s <= BOOT_S + SLOW_S + 2 * looks.interval_s:
        census = looks.look()
    assert len(census.workers) == 40


@pytest.mark.parametrize("later_s", [0.0, 3.0])
def test_a_script_that_waited_for_a_child_is_looked_at_at_once(later_s: float) -> None:
    """A start script that downloads for minutes and execs then is found in a look or two."""
    looks = Looks(old_crowd(40), interval_s=5.0)
    looks.look()
    script = looks.start(9, Proc())
    looks.start(10, Proc(ppid=9, cmdline="curl", comm="curl"))
    while looks.now_s < BOOT_S + 300:
        looks.look()
    del looks.crowd.procs[10]
    if not later_s:
        script.exec(SERVER)
    found = looks.look(forked=1).workers
    if later_s:
        script.exec(SERVER)
        found = looks.look().workers
    assert [worker.id.pid for worker in found] == [9]


def test_idle_children_that_end_cost_a_look_at_their_parent_only() -> None:
    """A shell that starts something every second is looked at once a look, and nobody else."""
    looks = Looks(old_crowd(1), interval_s=5.0)
    looks.look()
    for i in range(20):
        child = looks.start(2000 + i, Proc(ppid=1000))
        child.cpu_ticks = 0
        looks.look()
        del looks.crowd.procs[2000 + i]
    looks.crowd.reads.clear()
    looks.look(forked=1)
    assert looks.crowd.pids_read() == {1000}


def test_a_large_process_is_looked_at_more_often() -> None:
    """An idle worker of a pool gets its name when it is given work, at whatever age."""
    looks = Looks(old_crowd(4), interval_s=5.0)
    looks.crowd.procs[1002].resident_kib = 1 << 20
    looks.look()
    looks.crowd.procs[1002].exec(SERVER)
    while looks.now_s <= BOOT_S + LARGE_SLOW_S + 2 * looks.interval_s:
        census = looks.look()
    assert [worker.id.pid for worker in census.workers] == [1002]


def test_a_second_look_reads_the_program_alone_every_other_time() -> None:
    """Of one that runs it is asked each time which program it is, the rest every other time."""
    looks = Looks(Crowd())
    looks.crowd.add(1, Proc())
    looks.look()
    process = looks.start(9, Proc())
    kinds = []
    for _ in range(200):
        process.cpu_ticks += 1
        looks.look()
        files = {file for pid, file in looks.crowd.reads if pid == 9}
        looks.crowd.reads.clear()
        if files:
            kinds.append(files)
    assert kinds[::2] == [JUDGED] * len(kinds[::2])
    assert kinds[1::2] == [{"stat", "exe", "cmdline"}] * len(kinds[1::2])
    # Ages 0, 1, 2, and then doubling at most, until 200 s have passed.
    assert 7 <= len(kinds) <= 14


def test_of_one_that_does_not_run_its_stat_alone_is_read() -> None:
    """Becoming another program takes CPU time; in an hour it is judged again even so."""
    looks = Looks(Crowd(), interval_s=5.0)
    looks.crowd.add(1, Proc())
    looks.look()
    looks.crowd.reads.clear()
    read: set[str] = set()
    while looks.now_s < BOOT_S + IDLE_S - SLOW_S:
        looks.look()
        read |= {file for _, file in looks.crowd.reads}
    assert read == {"stat"}
    while looks.now_s < BOOT_S + IDLE_S + 3 * SLOW_S:
        looks.look()
    assert looks.crowd.reads[1, "cgroup"] >= 1


def test_a_change_of_user_alone_is_seen_after_two_pauses() -> None:
    """A process that gives up root without an exec matches a rule on its user in the end."""
    policy = Policy(rules=(rule("mine", user="4242"),))
    looks = Looks(Crowd(), policy)
    looks.crowd.add(1, Proc())
    looks.look()
    process = looks.start(9, Proc())
    while looks.now_s < process.start_s + 10:
        process.cpu_ticks += 1
        looks.look()
    process.uid = 4242
    process.cpu_ticks += 1
    while not looks.look().workers:
        assert looks.now_s < process.start_s + 40 + looks.interval_s


def test_kernel_threads_are_judged_once() -> None:
    """They never exec: of each one its stat is read once, and nothing after."""
    looks = Looks(Crowd(), interval_s=5.0)
    for pid in range(2, 40):
        looks.crowd.add(pid, Proc("", flags=PF_KTHREAD, comm="kworker/0:1"))
    assert looks.look().unmatched == 38
    for _ in range(100):
        looks.look(forked=1)
    looks.discovery.use(POLICY)
    looks.look()
    stats = [count for (_, file), count in looks.crowd.reads.items() if file == "stat"]
    assert stats == [1] * 38
    assert not {file for _, file in looks.crowd.reads} & {"status", "cgroup"}


# A worker that becomes another program


def test_a_worker_that_runs_another_executable_is_told_once() -> None:
    """Identity, label and rule stay: nothing else shows it."""
    looks = Looks(Crowd())
    looks.crowd.add(9, Proc(SERVER))
    (found,) = looks.look().workers
    assert looks.look().execed == frozenset()
    looks.crowd.procs[9].exec("/opt/server-2 --model m")
    census = looks.look()
    assert census.execed == {found.id}
    assert labels(census) == {9: found.label}
    assert looks.look().execed == frozenset()


def test_a_script_that_becomes_a_worker_counts_from_then() -> None:
    """It waited for a download: the server that it is now is young."""
    looks = Looks(Crowd(), interval_s=5.0)
    script = looks.start(9, Proc("/bin/sh start"))
    looks.look()
    script.exec(SERVER)
    census = looks.look()
    assert {found.id for found in census.workers} == census.execed
    assert census.execed


@pytest.mark.parametrize("cmdline", ["/opt/server busy with request 7", "/opt/server idle"])
def test_a_worker_that_writes_over_its_arguments_is_the_same_program(cmdline: str) -> None:
    """Servers show there what they do, each time anew."""
    looks = Looks(Crowd())
    looks.crowd.add(9, Proc(SERVER))
    looks.look()
    looks.crowd.procs[9].cmdline = cmdline
    looks.crowd.procs[9].comm = "busy"
    census = looks.look()
    assert len(census.workers) == 1
    assert census.execed == frozenset()
