"""What the log says, how often, and in which form."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from numad_py.model.guard import Compared, Judgement
from numad_py.model.outcome import End, Outcome, PageStatus
from numad_py.model.plan import (
    Alternative,
    Decision,
    Home,
    HomeSource,
    MemoryMove,
    Plan,
    Reason,
    Verdict,
)
from numad_py.model.snapshot import WorkerId
from numad_py.model.topology import Node, Topology
from numad_py.policy.schema import LogFormat
from numad_py.serve.logs import Voice, configure
from tests.unit.fake_kernel import MIB
from tests.unit.moving import decision

ACT = decision(WorkerId(10, 5), [MemoryMove(1, 0, MIB)])
REFUSE = replace(ACT, verdict=Verdict.REFUSE, reason=Reason.NO_ROOM, why="no node has room")
TOPOLOGY = Topology(tuple(Node(i, frozenset({i}), 4096 * MIB, {}) for i in (0, 1, 2)))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture(autouse=True)
def _logs_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    yield
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    """Log as JSON into a stream."""
    stream = io.StringIO()
    configure("debug", LogFormat.JSON, stream)
    return stream


def said(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return what was logged since the last call."""
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    stream.seek(0)
    stream.truncate()
    return lines


def plan(*decisions: Decision) -> Plan:
    """Return a plan of a cycle."""
    return Plan(1, decisions)


def test_a_decision_is_said_once_for_as_long_as_it_stands(stream: io.StringIO) -> None:
    """With id, worker, reason and numbers; the next cycles say nothing of it."""
    voice = Voice()
    voice.say(plan(REFUSE), TOPOLOGY)
    (line,) = said(stream)
    assert (line["event"], line["reason"], line["decision"]) == ("refuse", "no-room", "1:x/0")
    assert (line["worker"], line["pid"], line["why"]) == ("x/0", 10, "no node has room")
    for cycle in (2, 3, 4):
        voice.say(plan(replace(REFUSE, id=f"{cycle}:x/0", why="still none, by 1 MiB")), TOPOLOGY)
    assert said(stream) == []


def test_a_decision_that_changes_is_said_again(stream: io.StringIO) -> None:
    """Another verdict or another reason; and the first one, when it comes back."""
    voice = Voice()
    other = replace(REFUSE, reason=Reason.MEMPOLICY)
    for what in (REFUSE, other, ACT, REFUSE):
        voice.say(plan(what), TOPOLOGY)
    assert [line["reason"] for line in said(stream)] == [
        "no-room",
        "mempolicy",
        "remote-memory",
        "no-room",
    ]


def test_a_worker_that_comes_back_is_said_again(stream: io.StringIO) -> None:
    """What was said of a worker is forgotten with it."""
    voice = Voice()
    for what in (plan(REFUSE), plan(), plan(REFUSE)):
        voice.say(what, TOPOLOGY)
    assert len(said(stream)) == 2


def test_another_worker_of_the_same_label_is_said(stream: io.StringIO) -> None:
    """A label is handed on between two cycles where a server restarts: that is another process."""
    voice = Voice()
    voice.say(plan(REFUSE), TOPOLOGY)
    voice.say(plan(replace(REFUSE, worker=WorkerId(11, 9))), TOPOLOGY)
    assert [line["pid"] for line in said(stream)] == [10, 11]


def test_each_worker_is_said_for_itself(stream: io.StringIO) -> None:
    """One that stands does not silence another."""
    voice = Voice()
    voice.say(plan(REFUSE), TOPOLOGY)
    voice.say(plan(REFUSE, replace(REFUSE, label="x/1")), TOPOLOGY)
    assert [line["worker"] for line in said(stream)] == ["x/0", "x/1"]


def test_waiting_is_said_to_those_who_debug(stream: io.StringIO) -> None:
    """A cooldown follows every move and is no news."""
    Voice().say(plan(replace(ACT, verdict=Verdict.WAIT, reason=Reason.COOLDOWN)), TOPOLOGY)
    assert [line["level"] for line in said(stream)] == ["debug"]


def test_without_acting_the_commands_are_said(stream: io.StringIO) -> None:
    """Whoever only wants advice can do it by hand."""
    Voice().say(plan(ACT), TOPOLOGY, acting=True)
    Voice().say(plan(ACT), TOPOLOGY, acting=False)
    acting, advising = said(stream)
    assert "by_hand" not in acting
    assert advising["by_hand"] == "migratepages 10 1 0"
    assert "not_by_hand" not in advising


def test_what_cannot_be_done_by_hand_is_said_with_what_helps(stream: io.StringIO) -> None:
    """No command divides a node's memory among two; a restart places it."""
    home = Home(frozenset({0, 2}), HomeSource.PLANNER, "told")
    moves = (MemoryMove(1, 0, MIB), MemoryMove(1, 2, MIB))
    divided = replace(ACT, moves=moves, finding=replace(ACT.finding, home=home))
    Voice().say(plan(divided), TOPOLOGY, acting=False)
    (line,) = said(stream)
    assert line["by_hand"] == ""
    assert line["not_by_hand"] == ["migratepages cannot divide what lies on node 1 among nodes 0,2"]
    assert line["at_a_restart"] == "numactl --cpunodebind=0,2 --localalloc COMMAND"


def test_what_shaped_a_choice_is_said_where_it_matters(stream: io.StringIO) -> None:
    """Of what is done or refused; of a worker that rests it would be noise."""
    shaped: dict[str, Any] = {
        "constraints": ("why",),
        "alternatives": (Alternative(frozenset({1}), MIB),),
    }
    rests: dict[str, Any] = {"verdict": Verdict.REST, "reason": Reason.HOME}
    for what in (
        replace(ACT, **shaped),
        replace(REFUSE, **shaped),
        replace(ACT, **shaped, **rests),
    ):
        Voice().say(plan(what), TOPOLOGY)
    act, refuse, rest = said(stream)
    for line in (act, refuse):
        assert (line["constraints"], line["other_homes"]) == (["why"], ["node 1: 1.0 MiB dearer"])
    assert "constraints" not in rest


@pytest.mark.parametrize("end", End)
def test_every_outcome_is_said_and_a_bad_one_is_a_warning(end: End, stream: io.StringIO) -> None:
    """Each time, with what it did; only a dry run's are not, since nothing happened."""
    one = Outcome(
        ACT, end, 1.0, 2.0, moved={(1, 0): MIB}, pages={PageStatus.SHARED: 3}, error="broken"
    )
    Voice().say_outcomes((one, one))
    lines = said(stream)
    assert len(lines) == (0 if end is End.SIMULATED else 2)
    quiet = {End.DONE, End.STOPPED, End.PLACED, End.GONE}
    for line in lines:
        assert line["event"] == f"move {end.value}"
        assert line["level"] == ("info" if end in quiet else "warning")
        assert (line["pages"], line["error"]) == ({"shared": 3}, "broken")


def test_json_lines_hold_whatever_a_worker_is_called(stream: io.StringIO) -> None:
    """Quotes, newlines and bytes that are no UTF-8 leave it one object a line, with its time."""
    odd = 'a"b\n{c}\udcff'
    structlog.get_logger().info("odd", worker=odd)
    (line,) = said(stream)
    assert (line["worker"], line["level"]) == (odd, "info")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("end", "pages", "refused", "told"),
    [
        (End.DONE, {PageStatus.MOVED: 900, PageStatus.SHARED: 2}, {1: 8192}, "2 shared pages"),
        (End.DONE, {PageStatus.BUSY: 1, PageStatus.ABSENT: 3}, {1: 4096}, "1 busy page"),
        (End.DONE, {}, {1: 8192}, "8.0 KiB"),
        (End.DONE, {PageStatus.MOVED: 900, PageStatus.ABSENT: 3}, {}, None),
        (End.PARTIAL, {PageStatus.SHARED: 2}, {1: 8192}, None),
    ],
)
def test_a_move_that_is_done_but_for_a_trifle_says_for_what(
    stream: io.StringIO,
    end: End,
    pages: dict[PageStatus, int],
    refused: dict[int, int],
    told: str | None,
) -> None:
    """By why it did not move, or by its size where nobody counted pages; the rest had all moved."""
    outcome = Outcome(ACT, end, 0.0, 1.0, pages=pages, refused_bytes=refused)
    Voice.say_outcomes([outcome])
    (line,) = said(stream)
    assert (line["event"], line.get("but_for")) == (f"move {end.value}", told)


def test_an_exception_is_part_of_its_json_line(stream: io.StringIO) -> None:
    """A traceback on lines of its own would be no JSON."""
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        structlog.get_logger().exception("bug")
    (line,) = said(stream)
    assert "ZeroDivisionError" in line["exception"]


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"),
    [(True, None, True), (True, "1", False), (False, None, False)],
)
def test_colours_are_for_terminals_without_no_color(
    terminal: bool,  # noqa: FBT001
    no_color: str | None,
    coloured: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NO_COLOR, and a file or pipe, get plain text (no-color.org)."""
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal() if terminal else io.StringIO()
    configure("info", LogFormat.CONSOLE, stream)
    structlog.get_logger().info("hello", worker="x/0")
    assert "hello" in stream.getvalue()
    assert ("\x1b[" in stream.getvalue()) is coloured


@pytest.mark.parametrize(("terminal", "as_json"), [(True, False), (False, True)])
def test_auto_is_text_on_a_terminal_and_json_elsewhere(
    terminal: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """People read the one, collectors the other."""
    stream = Terminal() if terminal else io.StringIO()
    configure("info", LogFormat.AUTO, stream)
    structlog.get_logger().info("hello")
    assert stream.getvalue().startswith("{") is as_json


def test_the_journal_stamps_text_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second time in each line would only take room."""
    lines = []
    for journal in (False, True):
        if journal:
            monkeypatch.setenv("JOURNAL_STREAM", "8:1")
        stream = io.StringIO()
        configure("info", LogFormat.CONSOLE, stream)
        structlog.get_logger().info("hello")
        lines.append(stream.getvalue())
    assert [line[:2] == "20" for line in lines] == [True, False]


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", "dwe"), ("info", "we"), ("warning", "we"), ("error", "e")],
)
def test_a_level_leaves_out_what_is_below_it(level: str, shown: str) -> None:
    """As the policy has it."""
    stream = io.StringIO()
    configure(level, LogFormat.JSON, stream)
    log = structlog.get_logger()
    log.debug("d")
    log.warning("w")
    log.error("e")
    assert "".join(line["event"] for line in said(stream)) == shown


def test_what_a_guard_has_found_is_said_once(stream: io.StringIO) -> None:
    """In its cycle, whatever was said of the worker; a move that stays is no warning."""
    voice = Voice()
    found = Judgement(2, Compared.KEPT, "p95 was 2 and is 1")
    waits = replace(ACT, verdict=Verdict.WAIT, reason=Reason.COOLDOWN, judgement=found)
    for cycle in (2, 3):
        voice.say(Plan(cycle, (waits,)), TOPOLOGY)
    decided, line = said(stream)
    assert decided["event"] == "wait"
    assert (line["event"], line["level"]) == ("guard kept", "info")
    assert (line["worker"], line["why"]) == ("x/0", found.why)
    undone = replace(waits, judgement=Judgement(4, Compared.UNDONE, "p95 was 1 and is 2"))
    voice.say(Plan(4, (undone,)), TOPOLOGY)
    (line,) = said(stream)
    assert (line["event"], line["level"]) == ("guard undone", "warning")
