"""What explain says of one worker, and how it says that there is no such worker."""

from __future__ import annotations

import re
import string
from dataclasses import replace
from typing import Any

import pytest

from numad_py.errors import UsageError
from numad_py.model.guard import Compared, Judgement
from numad_py.model.outcome import End
from numad_py.model.plan import (
    Alternative,
    Cost,
    Decision,
    HomeSource,
    Limit,
    MemoryMove,
    Reason,
    Verdict,
)
from numad_py.model.residency import Confirmation, Kind, Mobility, Source
from numad_py.model.snapshot import Bandwidth, MemoryStatus, PassedOver, Worker
from numad_py.serve.explain import WIDTH, explain_document, render_explain
from numad_py.serve.explain_words import BARRED, ENDS, MEANINGS, SOURCES, WIDEN
from numad_py.serve.status import plan_document, status_document
from tests.unit.seen import GIB, MIB, NOW_S, anon, report, residency, rests, snapshot, worker

FACTS = {"pid", "home", "away", "remote", "cpus", "widen"}
"""What a meaning may ask to be filled in."""


def document(seen: Worker, source: str = "daemon", **more: Any) -> dict[str, Any]:
    """Return what is said of a worker that rests, unless its decision is changed."""
    made = report(snapshot(seen), replace(rests(seen), **more))
    return explain_document(status_document(made, source=source), seen.label)


def story(seen: Worker, **more: Any) -> str:
    """Return its story, in one line, so that no sentence is broken."""
    return " ".join(render_explain(document(seen, **more)).split())


def moved(**more: Any) -> dict[str, Any]:
    """Return the changes that make a decision to act of one to rest."""
    moves = (MemoryMove(1, 0, 300 * MIB), MemoryMove(2, 0, 5 * MIB))
    act = {"verdict": Verdict.ACT, "reason": Reason.REMOTE_MEMORY, "moves": moves}
    return act | {"bind_cpus": frozenset({0, 1})} | more


def unknown(name: str, *labels: str, **more: Any) -> str:
    """Return what is said where there is no such worker."""
    made = report(snapshot(*map(worker, labels), **more))
    comms = {7: "bash"}
    with pytest.raises(UsageError) as error:
        explain_document(status_document(made, source="direct"), name, comms.get)
    return str(error.value)


# The words


def test_everything_that_a_decision_may_name_has_its_words() -> None:
    """Each reason has a meaning and advice; each source of a home, limit and end its sentence."""
    assert MEANINGS.keys() == set(Reason)
    assert SOURCES.keys() == WIDEN.keys() == set(HomeSource)
    assert BARRED.keys() == set(Limit)
    assert ENDS.keys() == set(End)
    for meaning in MEANINGS.values():
        assert meaning.meaning
        assert meaning.advice


@pytest.mark.parametrize("reason", Reason)
def test_a_meaning_asks_for_nothing_that_is_not_there(reason: Reason) -> None:
    """No brace is left in a story, also where the worker has no home."""
    said = MEANINGS[reason]
    for text in (said.verdict, said.advice):
        asked = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
        assert asked <= FACTS
    assert "{" not in said.meaning
    seen = worker(found=anon(GIB))
    for finding in (rests(seen).finding, replace(rests(seen).finding, home=None)):
        assert not re.search("[{}]|None", story(seen, reason=reason, finding=finding))


# One worker


def test_the_document_is_the_workers_part_of_status() -> None:
    """Worker and decision stand apart, the decision as plan has it."""
    seen = worker(found=anon(GIB))
    made = report(snapshot(seen, worker("x/1")))
    status = status_document(made, source="direct")
    found = explain_document(status, "x/0")
    assert found["schema"] == status["schema"]
    assert {**found["worker"], "decision": found["decision"]} == status["workers"][0]
    (planned, _) = plan_document(made, source="direct")["decisions"]
    assert found["decision"].items() <= planned.items()
    assert explain_document(status, "10") == found


def test_a_worker_of_which_nobody_decided_has_a_story() -> None:
    """What is known of it is told, and nothing is made up."""
    status = status_document(report(snapshot(worker(found=anon(GIB)))), source="daemon")
    status["workers"][0]["decision"] = None
    told = render_explain(explain_document(status, "x/0"))
    assert "1.0 GiB of its own" in told
    assert "What numad-py does" not in told


@pytest.mark.parametrize(
    ("source", "mode", "said"),
    [
        ("daemon", "act", "Now it binds its threads to CPUs 0-1, moves 300.0 MiB from node 1"),
        ("daemon", "advise", "It runs in mode advise, and does nothing. In mode act it binds"),
        ("direct", "act", "This was only a look, which changes nothing. The daemon, in mode act,"),
    ],
)
def test_it_is_said_whether_anything_is_done(source: str, mode: str, said: str) -> None:
    """Only a daemon in mode act acts; the commands that do the same by hand stand below."""
    found = document(worker(found=anon(GIB)), source, **moved()) | {"mode": mode}
    told = render_explain(found)
    assert said in " ".join(told.split())
    assert "\n    migratepages 10 1 0\n    migratepages 10 2 0\n" in told + "\n"


def test_a_daemon_that_only_tries_out_does_not_say_that_it_acts() -> None:
    """Its mode is act; that nothing is carried out is told by the daemon."""
    made = replace(
        report(snapshot(seen := worker(found=anon(GIB))), replace(rests(seen), **moved()))
    )
    status = status_document(replace(made, dry_run=True), source="daemon")
    told = " ".join(render_explain(explain_document(status, "x/0")).split())
    assert "It runs with --dry-run, and does nothing. Without that it binds its threads" in told
    assert "Now it" not in told


def test_what_no_command_does_is_said_below_those_that_do() -> None:
    """With the line that places it at a restart."""
    moves = (MemoryMove(1, 0, MIB), MemoryMove(1, 2, MIB))
    told = render_explain(document(worker(found=anon(GIB)), **moved(moves=moves)))
    assert "migratepages 10" not in told
    assert "migratepages cannot divide what lies on node 1 among nodes 0,2" in told
    assert "\n    numactl --physcpubind=0-1 --localalloc COMMAND\n" in told


def test_what_a_home_costs_is_told_by_what_for() -> None:
    """As those that were weighed against it are."""
    told = story(worker(found=anon(GIB)), cost=Cost(moving=MIB))
    assert "by how busy the worker is. This one costs 1.0 MiB for the move." in told


def test_other_homes_are_told_with_what_speaks_against_them() -> None:
    """By how much they are dearer, or what bars them; what a constraint says is not said twice."""
    others = (
        Alternative(frozenset({3}), -GIB, Limit.CPUS),
        Alternative(frozenset({4}), 0),
        Alternative(frozenset({1}), 512 * MIB),
        Alternative(frozenset({1, 2}), GIB, Limit.MEMORY),
    )
    said = "node 3 would be 1.0 GiB cheaper, but has too few CPUs left beside the others"
    told = story(worker(found=anon(GIB)), alternatives=others, constraints=(said,))
    assert f"What shaped the choice: - {said} " in told
    assert told.count("node 3") == 1
    assert "- node 4 would be just as good" in told
    assert "- node 1 would cost as much as 512.0 MiB more on another node" in told
    assert "- nodes 1-2: too little memory for it beside the others" in told


def test_many_other_homes_are_counted() -> None:
    """The cheapest are named."""
    others = tuple(Alternative(frozenset({i}), i * MIB) for i in range(1, 10))
    told = story(worker(found=anon(GIB)), alternatives=others)
    assert "- node 4 would" in told
    assert "node 5" not in told
    assert "- and 5 more" in told


def test_how_sure_the_figures_are_is_said() -> None:
    """What was counted, when, what confirmed it, and by how much that may be wrong."""
    later = Confirmation(Source.SAMPLE, NOW_S - 2, 0.009)
    told = story(worker(found=anon(GIB, age_s=200, confirmed=later)))
    assert "These figures are from 3 minutes ago: every page of it was counted." in told
    assert "2 seconds ago they were checked, and found unchanged" in told
    assert "may be off by 0.9 points" in told


def test_what_stands_in_the_way_of_memory_is_said_where_it_is_much() -> None:
    """Pinned and swapped memory, and traffic that leaves the node, as far as they are known."""
    memory = MemoryStatus(pinned_bytes=300 * MIB, swapped_bytes=200 * MIB)
    seen = worker(found=anon(GIB), memory=memory, bandwidth=Bandwidth(1.0, 4.0))
    told = story(seen)
    assert "Devices have 300.0 MiB of it pinned" in told
    assert "Another 200.0 MiB are swapped out" in told
    assert "75% of what it reads and writes there goes to another node." in told
    little = story(worker(found=anon(GIB), memory=MemoryStatus(pinned_bytes=1, swapped_bytes=1)))
    assert "pinned" not in little
    assert "swapped" not in little


def test_what_a_process_calls_itself_cannot_break_the_page() -> None:
    """Neither a line nor an escape sequence of its name gets through."""
    told = render_explain(document(worker(found=anon(GIB), comm="a\nWhat you can do\n\x1b[2J")))
    assert told.count("\nWhat you can do\n") == 1
    assert "\x1b" not in told


def test_words_that_not_everybody_knows_are_explained_once_where_they_stand() -> None:
    """And only there."""
    seen = worker(found=anon(GIB))
    assert "Words" not in render_explain(document(seen))
    told = story(seen, constraints=("its cpuset grants memory on node 0 only",) * 2)
    assert told.count("- cpuset: ") == 1


def test_no_line_is_too_long() -> None:
    """A long reason is wrapped, and hangs below its dash."""
    told = render_explain(document(worker(found=anon(GIB)), constraints=("why " * 60,)))
    assert max(map(len, told.splitlines())) <= WIDTH
    assert "\n    why why" in told


def test_the_last_move_is_told_by_the_daemon() -> None:
    """What became of it, and what went wrong."""
    seen = worker(found=anon(GIB))
    status = status_document(report(snapshot(seen)), source="daemon")
    outcome = {
        "decision": "2:x/0",
        "worker": "x/0",
        "end": "failed",
        "seconds": 1.25,
        "threads_bound": 3,
        "moved_bytes": MIB,
        "error": "no right",
    }
    status["outcomes"] = [outcome | {"worker": "y/0", "decision": "2:y/0"}, outcome]
    told = " ".join(render_explain(explain_document(status, "x/0")).split())
    assert "Last time (decision 2:x/0) 1.0 MiB were moved and 3 threads bound in 1.2 s; it" in told
    assert "it failed (no right)." in told
    assert "2:y/0" not in told


# No such worker


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vlm/0", "no worker 'vlm/0' among 3 workers; did you mean vllm/0"),
        ("vllm", "did you mean vllm/0 or vllm/1? numad-py status lists them"),
        ("777", "no worker '777' among 3 workers; numad-py status lists them"),
        ("7", "pid 7 (bash) is a process, but no worker: no rule matches it, or an exclude does"),
        ("\N{SUPERSCRIPT TWO}", "among 3 workers"),
    ],
)
def test_a_name_of_no_worker_is_met_with_those_that_come_near(name: str, said: str) -> None:
    """With the number of workers, or what is known of the process."""
    assert said in unknown(name, "vllm/0", "vllm/1", "ollama/2")


def test_a_process_that_was_passed_over_is_told_why() -> None:
    """As status says it, which no worker at all does not change."""
    over = PassedOver(55, "postgres", GIB, "no rule matches")
    said = "pid 55 (postgres) is no worker: no rule matches"
    assert unknown("55", passed_over=(over,)) == said
    assert "there is none at all" in unknown("x/0")


def test_decisions_carry_what_else_could_have_been() -> None:
    """``plan --json`` has alternatives, what bars them, and constraints."""
    seen = worker(found=anon(GIB))
    other = Alternative(frozenset({1, 0}), 5, Limit.APART)
    decision: Decision = replace(rests(seen), alternatives=(other,), constraints=("one",))
    made = report(snapshot(seen), decision)
    (found,) = plan_document(made, source="direct")["decisions"]
    assert found["alternatives"] == [{"home": [0, 1], "dearer_bytes": 5, "barred_by": "apart"}]
    assert found["constraints"] == ["one"]


def test_what_lies_off_home_is_a_part_of_all_while_mobility_is_not_known() -> None:
    """A sample tells not what may be moved: all of it counts, and never none of nothing."""
    found = residency(
        {(0, Kind.ANON, Mobility.MOVABLE): 99 * MIB, (1, Kind.ANON, Mobility.MOVABLE): MIB},
        mobility_known=False,
    )
    seen = worker(found=found)
    finding = replace(rests(seen).finding, remote_bytes=MIB)
    decision = replace(rests(seen), reason=Reason.BELOW_THRESHOLD, finding=finding)
    made = report(snapshot(seen), decision)
    shown = render_explain(explain_document(status_document(made, source="direct"), "x/0"))
    assert "1.0 MiB of the 100.0 MiB" in " ".join(shown.split())


# Guards


def test_what_a_guard_has_found_is_told_after_the_fact() -> None:
    """As long as nothing newer was found, also where the worker is at home; not twice."""
    found = Judgement(2, Compared.KEPT, "p95 was 2 before the move and is 1 after it")
    told = story(worker(found=anon(GIB)), judgement=found)
    assert "What its guard has last found: p95 was 2 before the move and is 1 after it." in told
    waits = {"verdict": Verdict.WAIT, "reason": Reason.GUARDING, "why": found.why}
    told = story(worker(found=anon(GIB)), judgement=found, **waits)
    assert told.count("p95 was 2") == 1


def test_an_endpoint_that_cannot_be_read_is_told_of_at_any_time() -> None:
    """Whoever has mistyped its address need not wait for a move to see that."""
    told = story(worker(found=anon(GIB), guard_problem="http://127.0.0.1:1/: Connection refused"))
    assert "could not be read: http://127.0.0.1:1/: Connection refused." in told


def test_taking_a_move_back_is_told_as_such() -> None:
    """Where memory goes, and that threads get their masks back; no numactl line for it."""
    changes = moved(reason=Reason.GUARD_UNDO, give_back=True, bind_cpus=None)
    found = document(worker(found=anon(GIB)), **changes)
    told = " ".join(render_explain(found).split())
    assert "moves 5.0 MiB from node 2 to node 0 and gives its threads their own masks back" in told
    assert found["decision"]["restart_command"] is None
