"""Mistakes that numad is known for, each a fact about numad-py.

Held by tests that stand elsewhere:

- A command name with a blank is parsed:
  ``property/test_kernel_texts: test_a_stat_line_is_read_whatever_the_command_is_called``.
- A pid that is used again is seen: ``test_discovery: test_a_reused_pid_is_another_process``,
  ``test_act: test_a_reused_pid_is_not_touched``,
  ``test_mover_ends: test_the_end_of_the_worker_ends_it``.
- hugetlb pages count by their size:
  ``fixtures/test_numa_maps: test_huge_pages_count_by_their_own_size_only_where_they_are_hugetlb``;
  they need free ones: ``test_stability: test_huge_pages_go_where_there_are_free_ones``.
- Shared pages are not moved along: ``test_mover:
  test_shared_files_and_memory_that_its_user_bound_are_left_alone``.
- A pinned page is tried twice in a move: ``test_mover:
  test_what_will_not_move_is_tried_twice_at_most``.
- Node ids are names: ``property/test_decide: test_renumbered_nodes_give_the_renumbered_plan``.
- Stop waits for a chunk and not for a move: ``test_mover_ends: test_stop_ends_it_within_a_chunk``,
  ``guest/test_faults: test_stop_ends_a_move_within_two_seconds``.
- What was done is undone: ``test_act: test_all_threads_are_bound_and_given_back``, ``test_actuator:
  test_masks_are_given_back_on_demand``, ``guest/test_main_job:
  test_strays_come_home_and_all_is_given_back``.
- One daemon at a time: ``test_act: test_a_second_daemon_is_turned_away``; a socket that was left
  behind is replaced: ``integration/test_control:
  test_a_stale_socket_is_replaced_and_none_is_left_behind``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.act.affinity import bind, restore_all
from numad_py.act.journal import Journal
from numad_py.decide.decisions import decide
from numad_py.decide.remember import remember
from numad_py.errors import PolicyError
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.model.machine import NodeState
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Plan, Reason, Verdict
from numad_py.model.residency import Kind, Mobility
from numad_py.model.snapshot import Snapshot, Thread, Worker, WorkerId
from numad_py.model.topology import Node, Topology
from numad_py.policy.load import load
from numad_py.policy.schema import Policy
from tests.unit import seen
from tests.unit.moving import decision
from tests.unit.seen import GIB, MIB
from tests.unit.test_stability import START, decisions, home, machine, remote, worker

HOUR = 720
"""Looks in it."""


def on(ids: dict[int, tuple[int, int, int]], *workers: Worker) -> Snapshot:
    """Return a machine of nodes by id, each with its CPUs, GiB and free GiB."""
    nodes = tuple(
        Node(
            node,
            frozenset(range(100 * node, 100 * node + cpus)),
            size * GIB,
            {other: 10 if other == node else 20 for other in ids},
        )
        for node, (cpus, size, _) in ids.items()
    )
    states = tuple(
        NodeState(node, size * GIB, free * GIB, 0) for node, (_, size, free) in ids.items()
    )
    cpus = frozenset().union(*(node.cpus for node in nodes))
    free = tuple(replace(w, threads=(Thread(10, 5, cpus, min(cpus), 100),)) for w in workers)
    return seen.snapshot(*free, topology=Topology(nodes), node_states=states)


def targets(plan: Plan) -> set[int]:
    """Return the nodes to which a plan brings anything."""
    return {move.target for d in plan.decisions for move in d.moves}


@pytest.mark.parametrize("there", [0, 2, 5])
def test_a_worker_that_is_97_percent_local_is_not_moved_wholesale(there: int) -> None:
    """On three nodes with holes in their ids it stays where it is, however free the others are."""
    ids = {node: (4, 16, 4 if node == there else 15) for node in (0, 2, 5)}
    other = next(node for node in ids if node != there)
    plan, _ = decide(on(ids, worker("x/0", {there: 9700, other: 300})), Policy(), START)
    assert home(plan.decisions[0]) == [there]
    assert targets(plan) <= {there}
    assert sum(d.move_bytes for d in plan.decisions) <= 300 * MIB


def test_a_memoryless_node_is_no_home_and_no_crash() -> None:
    """Its CPUs are not where memory goes, whatever runs there and however busy the others are."""
    ids = {1: (4, 8, 4), 4: (16, 0, 0), 7: (1, 8, 7)}
    workers = [worker(f"x/{i}", {1: 900, 7: 100}, run_share={4: 1.0}) for i in range(3)]
    plan, _ = decide(on(ids, *workers), Policy(), START)
    assert all(home(d) and 4 not in (home(d) or []) for d in plan.decisions)
    assert 4 not in targets(plan)


def test_a_node_without_cpus_is_never_a_target() -> None:
    """A CXL node with all the room there is gets nothing, and what lies there is brought off it."""
    ids = {0: (4, 8, 5), 3: (4, 8, 4), 9: (0, 64, 60)}
    here, there = worker("x/0", {0: 3000}), worker("x/1", {9: 2000})
    plan, _ = decide(on(ids, here, there), Policy(), START)
    assert home(plan.decisions[0]) == [0]
    assert targets(plan) <= {0, 3}
    assert targets(plan)


def test_a_node_that_goes_takes_no_daemon_along() -> None:
    """Where a worker's home went offline, it is given another from what is left."""
    ids = {1: (4, 8, 6), 4: (4, 8, 5), 7: (4, 8, 5)}
    first, state = decide(on(ids, worker("x/0", {7: 2000})), Policy(), START)
    assert home(first.decisions[0]) == [7]
    state = remember(state, [Outcome(first.decisions[0], End.DONE, 1000.0, 1.0)], 1001.0)
    del ids[7]
    # Its memory was taken to the others by the kernel before the node could go.
    after = on(ids, worker("x/0", {1: 1500, 4: 500}))
    plan, _ = decide(after, Policy(), state)
    assert home(plan.decisions[0]) == [1]
    # And where the figures are of a moment before.
    plan, _ = decide(on(ids, worker("x/0", {7: 2000})), Policy(), state)
    assert (home(plan.decisions[0]) or [0])[0] in ids


def test_a_shared_segment_is_not_dragged_by_each_of_its_users() -> None:
    """Two that are pinned to two nodes and map the same 4 GiB: neither moves a byte of it."""
    sizes = {(0, Kind.SHMEM, Mobility.SHARED): 4 * GIB}
    users = [
        seen.worker(f"x/{node}", seen.residency(sizes), threads=(Thread(10, 5, cpus, 0, 100),))
        for node, cpus in ((0, frozenset({0})), (1, frozenset({4})))
    ]
    state = START
    for step in range(20):
        plan, state = decide(machine(*users, at_s=1000.0 + 60 * step), Policy(), state)
        assert not targets(plan)
    assert decisions(plan)["x/1"].reason is Reason.IMMOVABLE


@pytest.mark.parametrize(("measured", "most"), [(True, 3), (False, 6)])
def test_pinned_memory_is_not_retried_for_ever(*, measured: bool, most: int) -> None:
    """What is known to refuse, and what just fails: each pause is twice as long as the last.

    In an hour a worker is looked at 720 times.
    """
    stuck, state, tried = remote("x/0", 1000), START, 0
    for look in range(HOUR):
        at_s = 1000.0 + 5 * look
        plan, state = decide(machine(stuck, at_s=at_s), Policy(), state)
        for one in plan.decisions:
            if one.verdict is Verdict.ACT:
                tried += 1
                after = stuck.residency if measured else None
                end = End.PARTIAL if measured else End.FAILED
                state = remember(state, [Outcome(one, end, at_s, 1.0, after=after)], at_s + 1)
    assert 1 <= tried <= most


def test_a_mask_of_its_user_is_no_wish_to_be_overruled() -> None:
    """One pinned to a full node is not bound elsewhere, though the others have all the room."""
    pinned = remote("x/0", 6000)
    plan, _ = decide(machine(pinned, free=(1, 1, 8, 8)), Policy(), START)
    (found,) = plan.decisions
    assert (found.verdict, found.bind_cpus, found.moves) == (Verdict.REFUSE, None, ())


PINNED = """
import os, threading, time
first, second = sorted(os.sched_getaffinity(0))[:2]
def pinned():
    os.sched_setaffinity(0, {second})
    ready.set()
    time.sleep(60)
ready = threading.Event()
threading.Thread(target=pinned, daemon=True).start()
ready.wait()
print("ready", flush=True)
time.sleep(60)
"""


def test_threads_that_are_pinned_one_by_one_keep_their_cpus(tmp_path: Path) -> None:
    """As a guest's vCPUs: binding narrows the free threads, and no mask that is elsewhere."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    with subprocess.Popen([sys.executable, "-c", PINNED], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        procfs, journal = ProcFs(), Journal(tmp_path, "boot")
        ours = WorkerId(process.pid, procfs.stat(process.pid).start_ticks)
        bind(decision(ours), frozenset({cpus[0]}), procfs, Syscalls(), journal)
        masks = {t.tid == ours.pid: t.affinity for t in procfs.threads(ours.pid)}
        assert masks == {True: frozenset({cpus[0]}), False: frozenset({cpus[1]})}
        restore_all(journal, procfs, Syscalls())
        masks = {t.tid == ours.pid: t.affinity for t in procfs.threads(ours.pid)}
        assert masks == {True: frozenset(cpus), False: frozenset({cpus[1]})}
        journal.close()
        process.kill()


HOLDER = """
import sys, time
from pathlib import Path
from numad_py.act.journal import Journal
journal = Journal(Path(sys.argv[1]), "boot")
print("held", flush=True)
time.sleep(60)
"""


def test_what_a_killed_daemon_left_behind_keeps_no_other_from_starting(tmp_path: Path) -> None:
    """The lock goes with its holder: no pid in a file has to be believed."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert list(tmp_path.iterdir())
    Journal(tmp_path, "boot").close()


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("placement", 'headroom = "95%"'),
        ("placement", 'smt_share = "130%"'),
        ("placement", 'cooldown = "2d"'),
        ("placement", 'moved_per_cycle = "1KiB"'),
        ("scan", 'interval = "1ms"'),
        ("scan", 'cpu_share = "0%"'),
        ("metrics", "max_workers = 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(tmp_path: Path, table: str, line: str) -> None:
    """And said with its line and the range, not passed over."""
    path = tmp_path / "p.toml"
    path.write_text(f"[{table}]\n{line}\n")
    with pytest.raises(PolicyError, match=r"out of range|not a share") as caught:
        load(path)
    assert f"p.toml:2: {table}.{line.partition(' ')[0]}" in caught.value.problems[0]
