"""The commands that do by hand what a decision is about, and what no command does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numad_py.model.plan import Decision, Home, HomeSource, MemoryMove, Reason, Verdict
from numad_py.model.topology import Node, Topology
from numad_py.serve.decision_status import commands, not_by_hand, restart_command
from tests.unit.seen import GIB, MIB, anon, rests, worker

TOPOLOGY = Topology(
    tuple(
        Node(i, frozenset(range(2 * i, 2 * i + 2)) if i < 3 else frozenset(), GIB, {})
        for i in range(5)
    )
)
"""Three nodes with CPUs, and two that have memory only."""


def acts(
    *moves: MemoryMove,
    home: frozenset[int] = frozenset({0}),
    bind_cpus: frozenset[int] | None = None,
) -> Decision:
    """Return the decision to bring pid 10 home."""
    resting = rests(worker(found=anon(GIB)))
    finding = replace(resting.finding, home=Home(home, HomeSource.PLANNER, "told"))
    act = replace(resting, verdict=Verdict.ACT, reason=Reason.REMOTE_MEMORY, finding=finding)
    return replace(act, moves=moves, bind_cpus=bind_cpus)


def test_each_source_that_goes_to_one_node_is_a_line() -> None:
    """Threads first, as numad-py does it."""
    moves = (MemoryMove(1, 0, MIB), MemoryMove(2, 0, MIB))
    decision = acts(*moves, bind_cpus=frozenset({0, 1}))
    assert commands(decision) == [
        "taskset --all-tasks --cpu-list --pid 0-1 10",
        "migratepages 10 1 0",
        "migratepages 10 2 0",
    ]
    assert not_by_hand(decision) == []


def test_what_goes_to_several_nodes_is_no_line() -> None:
    """Two lines of one source would bring all of it to the first; it is said instead."""
    moves = (MemoryMove(2, 0, MIB), MemoryMove(2, 1, MIB), MemoryMove(3, 1, MIB))
    decision = acts(*moves, home=frozenset({0, 1}))
    assert commands(decision) == ["migratepages 10 3 1"]
    assert not_by_hand(decision) == [
        "migratepages cannot divide what lies on node 2 among nodes 0-1"
    ]
    assert restart_command(decision, TOPOLOGY) == "numactl --cpunodebind=0-1 --localalloc COMMAND"


@pytest.mark.parametrize(
    ("home", "bind_cpus", "options"),
    [
        ({0, 2}, None, "--cpunodebind=0,2 --localalloc"),
        ({0}, {1}, "--physcpubind=1 --localalloc"),
        ({3}, None, "--preferred=3"),
        ({0, 3}, {0, 1}, "--physcpubind=0-1 --membind=0,3"),
        ({3, 4}, None, "--membind=3-4"),
    ],
)
def test_a_restart_places_memory_by_its_threads_where_there_are_cpus(
    home: set[int], bind_cpus: set[int] | None, options: str
) -> None:
    """So it may still be moved afterwards; only memory without CPUs has to be named."""
    bind = None if bind_cpus is None else frozenset(bind_cpus)
    decision = acts(MemoryMove(1, 0, MIB), home=frozenset(home), bind_cpus=bind)
    assert restart_command(decision, TOPOLOGY) == f"numactl {options} COMMAND"


@pytest.mark.parametrize(
    ("verdict", "reason", "helps"),
    [
        (Verdict.REFUSE, Reason.IMMOVABLE, True),
        (Verdict.REFUSE, Reason.NO_ROOM, False),
        (Verdict.WAIT, Reason.COOLDOWN, False),
        (Verdict.REST, Reason.HOME, False),
    ],
)
def test_a_restart_is_told_where_it_helps(verdict: Verdict, reason: Reason, *, helps: bool) -> None:
    """For what cannot be moved there is no other way; without room it is no way either."""
    decision = replace(acts(), verdict=verdict, reason=reason)
    assert (restart_command(decision, TOPOLOGY) is not None) is helps
