"""``advise``: what it prints on made machines, how it ends, and that callers are kept apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from numad_py import advisor
from numad_py.cli import main
from numad_py.errors import NumadError, UsageError
from numad_py.events import Wake
from numad_py.kernel import clock
from numad_py.serve.control import call
from numad_py.serve.render import render_status
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, anon
from tests.integration.program import NONE_AT_ALL, numad_py, policy, roots
from tests.integration.program import machine as one_away
from tests.integration.running import Running, running, until

MIB = 1 << 20
GIB = 1 << 30
UNRESERVED = (
    "numad-py: no daemon was asked, so nothing is reserved: who asks next may be told the same "
    "nodes\n"
)


def machine(folder: Path) -> FakeMachine:
    """Return two sockets of two nodes, ids with a hole, and a large node without CPUs."""
    nodes = [
        FakeNode(0, (0, 1), free_mib=1000),
        FakeNode(2, (2, 3), free_mib=1600),
        FakeNode(3, (4, 5), free_mib=1700),
        FakeNode(6, (6, 7), free_mib=1000),
        FakeNode(9, (), memory_mib=8192, free_mib=8000),
    ]
    near = {(a, b): 30 for a in range(10) for b in range(a + 1, 10)} | {(0, 2): 12, (3, 6): 12}
    other = FakeProcess(100, ("/bin/other",), anon({0: MIB}))
    return FakeMachine(folder / "tree", nodes, [other], near).write()


@pytest.fixture
def asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the options that look at the made machine; its CPUs are always idle."""
    monkeypatch.setattr(advisor, "SAMPLE_S", 0.0)
    return [*roots(machine(tmp_path)), "--config", str(policy(tmp_path))]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Running]:
    """Run a daemon on the made machine."""
    with running(machine(tmp_path), policy(tmp_path)) as up:
        yield up


def ask(up: Running, cpus: object, size: object = 0, **more: object) -> dict[str, Any]:
    """Return a daemon's advice."""
    return cast("dict[str, Any]", call(up.socket, "advise", cpus=cpus, bytes=size, **more))  # type: ignore[arg-type]


# What is printed


@pytest.mark.parametrize(
    ("asked", "printed"),
    [
        (["1"], "3"),
        (["1:1500"], "3"),
        (["1:1500MiB"], "3"),
        (["2:2GiB"], "3,6"),
        (["4", "--cpus"], "4-7"),
        (["8:4500"], "0,2-3,6"),
        (["8", "--cpus"], "0-7"),
    ],
)
def test_the_list_is_bare(
    capsys: pytest.CaptureFixture[str], asks: list[str], asked: list[str], printed: str
) -> None:
    """As numad prints it: one line, no word; that nothing is reserved stands elsewhere."""
    assert main(["advise", *asked, *asks]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{printed}\n"
    assert captured.err == UNRESERVED


def test_reserved_cpus_are_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asks: list[str]
) -> None:
    """Neither in the list of CPUs nor as a node that has no others."""
    policy(tmp_path, '[placement]\nreserved_cpus = "0,4-5"\n')
    assert main(["advise", "3", "--cpus", *asks]) == 0
    assert capsys.readouterr().out == "1-3\n"
    assert main(["advise", "6", *asks]) == 3


def test_json_has_the_reasons(capsys: pytest.CaptureFixture[str], asks: list[str]) -> None:
    """Nodes, CPUs, parts, reasons and alternatives; nothing is reserved by a look."""
    assert main(["advise", "2:2GiB", "--json", *asks]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["reasons"][1] == "one node would have room for 1.6 GiB at most"
    assert document["alternatives"][:2] == [
        {"nodes": [0, 2], "fits": True, "why": "memory would be fuller, 92%, not 89%"},
        {"nodes": [2, 3], "fits": True, "why": "farther apart, distance 30, not 12"},
    ]
    del document["reasons"], document["alternatives"]
    room = int((1000 - 0.05 * 2048) * MIB)
    assert document == {
        "schema": 1,
        "source": "direct",
        "cpus_asked": 2,
        "bytes_asked": 2 * GIB,
        "fits": True,
        "reservation": None,
        "nodes": [3, 6],
        "cpus": "4-7",
        "bytes_by_node": {"3": 2 * GIB - room, "6": room},
        "cpus_by_node": {"3": 1.0, "6": 1.0},
        "crowded": False,
    }


# What fits nowhere, and what makes no sense


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("9", "9 CPUs are asked for, but nodes 0,2-3,6 have 8; ask for 8 at most"),
        ("1:8GiB", "8.0 GiB asked for, but nodes 0,2-3,6 have room for 4.8 GiB: 5% of each node"),
    ],
)
def test_what_fits_nowhere_ends_with_3(
    capsys: pytest.CaptureFixture[str], asks: list[str], asked: str, said: str
) -> None:
    """Nothing is printed where a script would read it; why stands on standard error."""
    assert main(["advise", asked, *asks]) == 3
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith(f"numad-py: {said}")  # nothing is said of reservations
    assert main(["advise", asked, "--json", *asks]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["fits"], document["most_cpus"]) == (False, 8)
    assert document["most_bytes"] == sum(
        int((f - 0.05 * 2048) * MIB) for f in (1000, 1600, 1700, 1000)
    )
    assert said in document["why"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("", "'' is not NCPUS[:SIZE]; write 4, 4:8192 (MiB) or \"4:8GiB\""),
        ("0", "no process keeps 0 CPUs busy; ask for 1 to 1048576"),
        ("-2", "'-2' is not NCPUS[:SIZE]"),
        ("2.5", "'2.5' is not NCPUS[:SIZE]"),
        ("٣", "is not NCPUS[:SIZE]"),
        ("99999999999", "is not NCPUS[:SIZE]"),
        ("9999999", "no process keeps 9999999 CPUs busy"),
        ("4:", "'4:' ends before the size; write 4, or 4:8192 (MiB), or \"4:8GiB\""),
        ("4:8GB", "'8GB' has no unit known here; did you mean \"8GiB\"?"),
        ("4:-1", "'-1' is not a size"),
        ("4:8:2", "'8:2' is not a size"),
        ("4:999999999999999", "more memory than any machine has"),
        ("4:99999999999999999999", "is not a size"),
    ],
)
def test_what_makes_no_sense_ends_with_2(
    capsys: pytest.CaptureFixture[str], asks: list[str], asked: str, said: str
) -> None:
    """With what to write instead, and nothing where a script would read it."""
    with pytest.raises(SystemExit) as ended:
        main(["advise", asked, *asks])
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert not captured.out
    assert said in captured.err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--run"], 2, "--run wants a command"),
        (["--cpus", "--run", "true"], 2, "--json and --cpus have no use with it"),
        (["--json", "--run", "true"], 2, "--json and --cpus have no use with it"),
        (["--sysfs", "/nowhere", "--run", "true"], 2, "--procfs and --sysfs show another"),
        (["--run", "no-such-program"], 1, "no-such-program: there is no such program"),
    ],
)
def test_what_cannot_be_started_is_said_before_anything_is_asked(
    capsys: pytest.CaptureFixture[str], more: list[str], code: int, said: str
) -> None:
    """So that no room is reserved for it."""
    assert main(["advise", "1", *more]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert "reserved" not in captured.err
    assert not captured.out


# --run


def started(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Start a command where it is best on this machine, without any right."""
    config = ["--config", str(policy(tmp_path))]
    return numad_py("advise", "1:1MiB", *config, "--run", *command, drop=NONE_AT_ALL)


def test_a_command_is_started_in_our_place(tmp_path: Path) -> None:
    """Its output and exit code are all there is; its options are its own, even if like ours."""
    ended = started(
        tmp_path, "sh", "-c", 'echo "$@"; exit 7', "--json", "--c", "--help", "--", "-1"
    )
    assert (ended.returncode, ended.stdout) == (7, "--c --help -- -1\n")


def test_a_command_runs_on_the_cpus_of_the_nodes(tmp_path: Path) -> None:
    """On no CPU that we may not use ourselves, and with the signals that any program has."""
    mine = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, mine[-1:])
        ended = started(tmp_path, "--", "sh", "-c", "taskset -p $$; kill -PIPE $$")
    finally:
        os.sched_setaffinity(0, mine)
    assert ended.stdout.endswith(f"current affinity mask: {1 << mine[-1]:x}\n")
    assert ended.returncode == -signal.SIGPIPE


# Reservations


def test_callers_one_after_another_are_kept_apart(served: Running) -> None:
    """Each is told other nodes, until there is no room that is not reserved."""
    told = [ask(served, 2, 800 * MIB) for _ in range(4)]
    assert sorted(answer["nodes"] for answer in told) == [[0], [2], [3], [6]]
    assert [answer["reservation"]["id"] for answer in told] == [1, 2, 3, 4]
    assert all(119 < a["reservation"]["expires_in_seconds"] <= 120 for a in told)
    document = ask(served, 2, 2 * GIB)
    assert (document["fits"], document["reservation"]) == (False, None)
    assert document["why"].endswith("and 3.1 GiB reserved for others")


def test_status_shows_what_is_reserved(served: Running) -> None:
    """As data, and as text for people."""
    ask(served, 1, GIB, name="vm-7")
    status = cast("dict[str, Any]", call(served.socket, "status"))
    (one,) = status["reservations"]
    assert (one["name"], one["nodes"], one["bytes_by_node"]) == ("vm-7", [3], {"3": GIB})
    assert "RESERVED FOR  NODES  CPUS  MEMORY   ENDS IN\nvm-7          3      1     1.0 GiB  1" in (
        render_status(status)
    )


def test_a_name_is_told_the_same_again(served: Running) -> None:
    """Its own reservation does not stand in its way, and is replaced."""
    answers = [ask(served, 2, GIB, name="vm-7")["nodes"] for _ in range(3)]
    assert answers == [[3]] * 3
    assert len(served.daemon.advisor.told()) == 1


def test_an_expired_reservation_is_given_to_the_next(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After placement.reserve nobody is kept from its room, and status forgets it."""
    assert ask(served, 2, GIB)["nodes"] == [3]
    assert ask(served, 2, GIB)["nodes"] == [2]
    now_s = clock.boottime_s
    monkeypatch.setattr(clock, "boottime_s", lambda: now_s() + 121)
    assert served.daemon.advisor.told() == []
    # What was started on it at the last moment may be seen by the next look only.
    assert ask(served, 2, GIB, name="next")["nodes"] == [0, 2]
    cycles = served.daemon.totals.cycles
    served.daemon.mailbox.put(Wake("the test wants a cycle"))
    until(lambda: served.daemon.totals.cycles > cycles, "a cycle")
    assert ask(served, 2, GIB, name="next")["nodes"] == [3]


def test_workers_keep_off_what_is_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is to come home finds no room there, until what is reserved has ended."""
    monkeypatch.setattr(clock, "boottime_s", lambda: 1000.0)  # as the made machine has it
    with running(one_away(tmp_path), policy(tmp_path)) as up:

        def reason() -> object:
            seen = up.daemon.totals.cycles
            up.daemon.mailbox.put(Wake("the test wants a cycle"))
            until(lambda: up.daemon.totals.cycles > seen, "a cycle")
            (worker,) = cast("dict[str, Any]", call(up.socket, "plan"))["decisions"]
            return worker["reason"]

        assert reason() == "remote-memory"
        # What it is about to bring is promised to nobody; while paused it brings nothing.
        assert not ask(up, 1, 1300 * MIB, within_nodes="0")["fits"]
        call(up.socket, "pause")
        assert reason() == "paused"
        assert ask(up, 1, 1300 * MIB, within_nodes="0", name="vm")["fits"]
        call(up.socket, "resume")
        assert reason() == "no-room"
        # One of the same name, made so long ago that it ends now.
        monkeypatch.setattr(clock, "boottime_s", lambda: 880.0)
        assert ask(up, 1, MIB, within_nodes="0", name="vm")["reservation"]
        assert reason() == "remote-memory"


def test_nothing_is_reserved_where_the_policy_says_so(tmp_path: Path) -> None:
    """``reserve = "0s"``: every caller is told the best."""
    with running(machine(tmp_path), policy(tmp_path, '[placement]\nreserve = "0s"\n')) as up:
        answers = [ask(up, 2, GIB) for _ in range(2)]
    assert [(a["nodes"], a["reservation"]) for a in answers] == [([3], None)] * 2


def test_too_many_reservations_are_an_error(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how long to wait; a name that has one may still replace it."""
    monkeypatch.setattr("numad_py.decide.reservations.MOST", 2)
    ask(served, 1, name="a")
    ask(served, 1)
    with pytest.raises(NumadError, match=r"reservations are alive, .* the next ends in 120 s"):
        ask(served, 1)
    assert ask(served, 1, name="a")["reservation"]["id"] == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"cpus": 0},
        {"cpus": True},
        {"cpus": "4"},
        {"cpus": None},
        {"cpus": 1, "size": -1},
        {"cpus": 1, "size": 1.5},
        {"cpus": 1, "size": 1 << 80},
        {"cpus": 1, "within_cpus": [0, 1]},
        {"cpus": 1, "within_nodes": "x"},
        {"cpus": 1, "name": ""},
        {"cpus": 1, "name": "x" * 65},
        {"cpus": 1, "name": "a\nb"},
        {"cpus": 1, "name": 7},
    ],
)
def test_an_odd_request_is_a_usage_error(served: Running, arguments: dict[str, object]) -> None:
    """Whatever a client sends; the daemon goes on and has reserved nothing."""
    with pytest.raises(UsageError):
        ask(served, **arguments)
    assert served.daemon.advisor.told() == []


def test_the_verb_asks_the_daemon_where_one_runs(
    served: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list is the daemon's, and there is nothing to be said of reservations."""
    by = ["--config", str(served.policy)]
    for printed in ("3\n", "2\n"):
        assert main(["advise", "2:1GiB", *by]) == 0
        assert capsys.readouterr() == (printed, "")
    assert main(["advise", "2:1GiB", "--name", "vm", "--json", *by]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["source"], document["nodes"]) == ("daemon", [0, 2])
    assert document["reservation"]["name"] == "vm"
    assert main(["advise", "2:4GiB", *by]) == 3
    assert "GiB reserved for others" in capsys.readouterr().err
