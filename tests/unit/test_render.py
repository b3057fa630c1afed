"""The text of status and plan: who speaks, and what is worth a word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from numad_py.model.machine import NodeState, Pressure
from numad_py.model.plan import Alternative, Cost, Decision, Limit, MemoryMove, Reason, Verdict
from numad_py.model.residency import Kind, Mobility, Source
from numad_py.model.snapshot import PassedOver, Snapshot
from numad_py.model.topology import Node, Topology
from numad_py.serve.render import render_plan, render_status
from numad_py.serve.status import plan_document, status_document
from tests.unit.seen import (
    GIB,
    MIB,
    anon,
    report,
    residency,
    rests,
    segment,
    snapshot,
    worker,
)

ONE_NODE = Topology((Node(0, frozenset({0}), 4 * GIB, {0: 10}),))


def text(seen: Snapshot) -> str:
    """Return the text of status of a look."""
    return render_status(status_document(report(seen), source="direct"))


def plan(*decisions: Decision) -> list[str]:
    """Return the paragraphs of a plan below its table."""
    seen = snapshot(*(worker(d.label) for d in decisions))
    shown = render_plan(plan_document(report(seen, *decisions), source="direct"))
    return shown.split("\n\n")[2:]


# Who speaks


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "from the daemon, mode act, cycle 3, 4s ago"),
        ({"paused": True}, "from the daemon, mode act, paused, cycle 3, 4s ago"),
        ({"dry_run": True}, "from the daemon, mode act in a dry run, cycle 3, 4s ago"),
        ({"glanced_at_s": -296.0}, "from the daemon, mode act, cycle 3, 5min ago"),
    ],
)
def test_the_daemon_says_its_mode_its_cycle_and_how_long_ago_that_was(
    change: dict[str, Any], said: str
) -> None:
    """In the first line of status and of plan, so that nobody takes old figures for new ones."""
    made = replace(report(snapshot(worker())), **change).aged(4.0)
    assert render_status(status_document(made, source="daemon")).splitlines()[0] == said
    assert render_plan(plan_document(made, source="daemon")).splitlines()[0] == said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("built-in",), "built-in"),
        (("/a/p.toml",), "/a/p.toml"),
        (("/a/p.toml", "/a/conf.d/1.toml", "/a/conf.d/2.toml"), "/a/p.toml and 2 more"),
    ],
)
def test_a_look_of_our_own_says_so_and_by_which_policy(files: tuple[str, ...], said: str) -> None:
    """It may be another policy than the daemon's, and another verdict."""
    made = replace(report(snapshot(worker())), policy_sources=files)
    line = f"looked at directly, not by a daemon; policy: {said}, mode act"
    assert render_status(status_document(made, source="direct")).splitlines()[0] == line
    assert render_plan(plan_document(made, source="direct")).splitlines()[0] == line
    none = replace(report(snapshot()), policy_sources=files)
    assert render_plan(plan_document(none, source="direct")).splitlines()[0] == line


def test_a_refused_policy_stands_below_who_speaks() -> None:
    """In plan too: what is planned goes by the earlier one."""
    made = replace(report(snapshot(worker())), policy_error="p.toml:1: bad\np.toml:2: worse")
    lines = render_plan(plan_document(made, source="daemon")).splitlines()
    assert lines[1:4] == [
        "the policy file was refused, an earlier one stands:",
        "  p.toml:1: bad",
        "  p.toml:2: worse",
    ]


def test_pressure_is_said_in_a_sentence() -> None:
    """CPUs and memory, by the share of time in which some task waited, or all did."""
    seen = snapshot(pressure=Pressure(cpu_some=0.855, memory_some=0.1, memory_full=0.05))
    assert text(seen).splitlines()[1] == (
        "pressure over the last 10 s: some task waited for a CPU 85.5% of the time, for memory "
        "10.0% of the time; all at once for memory 5.0% of the time"
    )


# The plan


def test_a_plan_names_workers_and_not_decisions() -> None:
    """The number of the cycle in a decision's id is for logs, where it is the same."""
    assert plan(replace(rests(worker("x/0")), why="because")) == ["x/0  because"]


def test_many_that_rest_for_the_same_reason_are_counted() -> None:
    """Up to three are named; more are one line, and others keep their own."""
    three = [replace(rests(worker(f"x/{i}")), why="same") for i in range(3)]
    assert plan(*three) == ["x/0  same", "x/1  same", "x/2  same"]
    other = replace(rests(worker("x/4")), why="other")
    four = [*three, replace(rests(worker("x/3")), why="same")]
    assert plan(*four, other) == ["4 workers  same", "x/4  other"]


def test_those_that_do_not_rest_are_named_however_many() -> None:
    """Each has commands of its own."""
    waits = [
        replace(rests(worker(f"x/{i}")), verdict=Verdict.WAIT, reason=Reason.PAUSED, why="paused")
        for i in range(5)
    ]
    assert plan(*waits) == [f"x/{i}  paused" for i in range(5)]


@pytest.mark.parametrize("verdict", [Verdict.ACT, Verdict.REFUSE])
def test_a_plan_tells_what_shaped_a_choice_and_how_to_do_it_by_hand(verdict: Verdict) -> None:
    """Below the reason of who acts or is refused; what the reason has said is not said again."""
    shaped: dict[str, Any] = {
        "alternatives": (
            Alternative(frozenset({1}), 5 * MIB),
            Alternative(frozenset({0, 1}), -MIB, Limit.MEMORY),
        ),
        "constraints": ("first", "second", "told"),
        "cost": Cost(moving=3 * MIB, device=MIB),
        "moves": (MemoryMove(1, 0, MIB), MemoryMove(2, 0, MIB)),
    }
    seen = worker("x/0")
    decision = replace(rests(seen), why="because (told)", verdict=verdict, **shaped)
    (told,) = plan(decision)
    restart = "    at a restart  numactl --cpunodebind=0 --localalloc COMMAND"
    assert told.splitlines() == [
        "x/0  because (told)",
        "    shaped by     first",
        "                  second",
        "    cost          4.0 MiB: 3.0 MiB for the move, 1.0 MiB for the way to its devices",
        "    other homes   node 1: 5.0 MiB dearer",
        "                  nodes 0-1: too little memory for it beside the others",
        "    by hand       migratepages 10 1 0",
        "                  migratepages 10 2 0",
        *([restart] if verdict is Verdict.ACT else []),
    ]
    assert plan(replace(decision, verdict=Verdict.WAIT)) == ["x/0  because (told)"]


def test_a_plan_says_what_cannot_be_done_by_hand() -> None:
    """Where a node's memory would have to be divided, no command is made up."""
    moves = (MemoryMove(2, 0, MIB), MemoryMove(2, 1, MIB))
    (told,) = plan(replace(rests(worker("x/0")), why="y", verdict=Verdict.ACT, moves=moves))
    assert told.splitlines()[1] == (
        "    by hand       (migratepages cannot divide what lies on node 2 among nodes 0-1)"
    )


# What is worth a word


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (Source.SAMPLE, "it was only sampled"),
        (Source.NUMA_STAT, "only the charges of its cgroup are"),
    ],
)
def test_where_mobility_is_not_known_it_is_said_why(source: Source, why: str) -> None:
    """And that it is read in full before it matters; with one node it never does."""
    seen = worker(found=anon(GIB, source=source, mobility_known=False))
    said = f"x/0: what of it may be moved is not known: {why}; it is read in full before anything"
    assert said in text(snapshot(seen))
    assert "may be moved" not in text(snapshot(seen, topology=ONE_NODE))


@pytest.mark.parametrize(("shared", "told"), [(15, False), (17, True)])
def test_little_that_is_shared_is_not_worth_a_word(shared: int, told: bool) -> None:  # noqa: FBT001
    """Every process shares its libraries: from 16 MiB on, where that is a hundredth of it."""
    found = {
        (0, Kind.ANON, Mobility.MOVABLE): 100 * MIB,
        (0, Kind.FILE, Mobility.SHARED): shared * MIB,
    }
    assert ("shared with others" in text(snapshot(worker(found=residency(found))))) is told


def test_transparent_huge_pages_are_told_where_they_are_known() -> None:
    """numa_maps counts them as small ones."""
    shown = text(snapshot(worker(found=anon(GIB), thp_bytes=512 * MIB)))
    assert "x/0: 512.0 MiB in transparent huge pages" in shown
    assert "transparent" not in text(snapshot(worker(found=anon(GIB))))


def test_a_guard_that_cannot_be_read_is_told_on_a_line_of_its_own() -> None:
    """Also of a worker at rest; not again where its decision's reason has said it."""
    problem = "http://localhost:1/metrics: Connection refused"
    seen = worker("x/0", found=anon(GIB), guard_problem=problem)
    assert f"\nx/0: its guard cannot be read: {problem}\n" in text(snapshot(seen)) + "\n"
    assert "guard" not in text(snapshot(worker("x/0", found=anon(GIB))))
    why = f"not guarded: its guard cannot be read: {problem}"
    acts = replace(rests(seen), verdict=Verdict.ACT, reason=Reason.REMOTE_MEMORY, why=why)
    shown = render_status(status_document(report(snapshot(seen), acts), source="direct"))
    assert shown.count(problem) == 1


def test_a_nodes_memory_is_that_of_the_last_look() -> None:
    """What was plugged in or taken out since the topology was read counts; else the topology's."""
    seen = snapshot(worker(), node_states=(NodeState(0, 6 * GIB, GIB, 0),))
    nodes = status_document(report(seen), source="direct")["nodes"]
    assert [node["memory_bytes"] for node in nodes] == [6 * GIB, 4 * GIB]
    assert "\n0     0     6.0 GiB" in text(seen)


def test_shared_anonymous_memory_is_not_called_by_the_kernels_name() -> None:
    """No file /dev/zero was deleted; the document keeps the name that numa_maps has."""
    seen = snapshot(segments=(segment({0: MIB}, "x/0", path="/dev/zero (deleted)"),))
    assert "\n(shared anonymous memory)  file" in text(seen)
    (told,) = status_document(report(seen), source="direct")["segments"]
    assert told["path"] == "/dev/zero (deleted)"


def test_processes_that_are_not_watched_are_told_with_their_command() -> None:
    """Of ten that are called python3 one wants to know which is which."""
    over = PassedOver(7, "python3", GIB, "no rule matches", "python3 train.py")
    shown = text(snapshot(passed_over=(over,)))
    assert "python3      7    1.0 GiB   python3 train.py  no rule matches" in shown
    (told,) = status_document(report(snapshot(passed_over=(over,))), source="direct")["passed_over"]
    assert told["command"] == "python3 train.py"
