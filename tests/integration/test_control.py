"""The control socket, with real sockets, in front of a daemon that runs on a made machine."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from numad_py import commands
from numad_py.cli import control as control_verbs
from numad_py.cli import main
from numad_py.errors import NumadError, PolicyError, UsageError
from numad_py.policy import load as load_module
from numad_py.policy.schema import DaemonPolicy
from numad_py.serve import control
from numad_py.serve.control import LONGEST_REQUEST, ControlServer, call
from tests.integration.program import machine, policy
from tests.integration.running import Running, build, running, until

STATUS = b'{"verb": "status"}\n'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run a daemon for the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("served")
    with running(machine(folder), policy(folder)) as up:
        yield up


@pytest.fixture
def usual(served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    """Let that daemon be the one at the usual place, on a machine without a policy."""
    usual = DaemonPolicy(runtime_dir=str(served.socket.parent))
    monkeypatch.setattr(control_verbs, "DaemonPolicy", lambda: usual)
    monkeypatch.setattr(load_module, "DEFAULT_PATH", str(tmp_path / "absent.toml"))
    return served


def ask(up: Running, verb: str) -> dict[str, Any]:
    """Return a verb's answer."""
    return cast("dict[str, Any]", call(up.socket, verb))


def say(path: Path, data: bytes) -> bytes:
    """Send bytes, end the sending side, and return all that comes back."""
    with socket.socket(socket.AF_UNIX) as client:
        # Connected before there is a timeout: that waits for its turn where many connect at once.
        client.connect(str(path))
        client.settimeout(5)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        received = b""
        # A server that hangs up on unread bytes resets the connection, after its answer.
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(65536):
                received += more
        return received


# Verbs


def test_status_and_plan_come_from_the_last_cycle(served: Running) -> None:
    """A client sees what the daemon saw, and that it was the daemon."""
    document = ask(served, "status")
    assert (document["source"], document["mode"], document["paused"]) == ("daemon", "act", False)
    assert document["cycle"] >= 1
    assert document["workers"][0]["worker"] == "llama.cpp/0"
    plan = ask(served, "plan")
    assert plan["decisions"][0]["moves"] == [{"source": 1, "target": 0, "bytes": 512 << 20}]


def test_ages_count_to_the_question_and_not_to_the_last_cycle(served: Running) -> None:
    """Between two cycles each answer tells older figures; so does a scrape."""
    assert served.daemon.policy.daemon.interval_s >= 5

    def ages() -> tuple[int, float]:
        document = ask(served, "status")
        return document["cycle"], document["workers"][0]["figures"]["age_seconds"]

    def has_aged() -> bool:
        cycle, first = ages()
        time.sleep(0.1)
        later, then = ages()
        return cycle == later and then >= first + 0.1

    until(has_aged, "two questions within a cycle")


def test_pause_and_resume(served: Running) -> None:
    """Paused, the worker waits and it is said why; resumed, it is acted on again."""

    def reason() -> str:
        return str(ask(served, "plan")["decisions"][0]["reason"])

    assert ask(served, "pause") == {"paused": True}
    until(lambda: reason() == "paused", "a paused cycle")
    assert ask(served, "status")["paused"] is True
    assert ask(served, "resume") == {"paused": False}
    until(lambda: reason() == "remote-memory", "a cycle after resume")
    assert ask(served, "status")["paused"] is False


def test_restore_pauses(served: Running) -> None:
    """Masks that were given back must not be taken again by the next cycle."""
    assert ask(served, "restore") == {"paused": True, "restored": 0, "settings": []}
    until(lambda: bool(ask(served, "status")["paused"]), "a paused cycle")
    ask(served, "resume")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, ": no such file"),
        ("[daemon\n", ":1: not TOML: "),
        ("[daemon]\nruntime_dirr = '/x'\n", ":2: daemon.runtime_dirr: no such key"),
        ("[daemon]\nruntime_dir = '/x'\n[log]\nx = 1\n", ":4: log.x: no such key"),
    ],
)
def test_a_bad_file_that_was_named_never_leads_to_the_usual_daemon(
    usual: Running,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    data: str | None,
    said: str,
) -> None:
    """It means another daemon; without --config the usual one is asked, also without a policy."""
    path = tmp_path / "p.toml"
    if data is not None:
        path.write_text(data)

    def paused() -> bool:
        return bool(ask(usual, "status")["paused"])

    until(lambda: not paused(), "a cycle after an earlier test's resume")
    for verb, before in (("pause", False), ("restore", False), ("reload", False), ("resume", True)):
        if before:
            assert main(["pause"]) == 0
            until(paused, "a paused cycle")
            capsys.readouterr()
        assert main([verb, "--config", str(path)]) == 78, verb
        told = capsys.readouterr().err
        assert f"{path}{said}" in told, verb
        assert paused() is before, verb
    assert main(["resume"]) == 0
    until(lambda: not paused(), "a cycle after resume")


def test_an_unknown_verb_is_a_usage_error(served: Running) -> None:
    """The error that a client raises is the daemon's, exit code and all."""
    with pytest.raises(UsageError, match="'dance' is not a verb"):
        call(served.socket, "dance")


def test_reload_takes_over_a_good_policy_and_refuses_a_bad_one(tmp_path: Path) -> None:
    """A bad file is answered with its problems and changes nothing; the next good one counts."""
    path = policy(tmp_path)
    with running(machine(tmp_path), path) as up:
        good = path.read_text()
        path.write_text(good + "levle = 1\n[scan]\ninterval = 5\n")
        with pytest.raises(PolicyError) as refused:
            call(up.socket, "reload")
        assert [p.removeprefix(str(path))[:14] for p in refused.value.problems] == [
            ":6: log.levle:",
            ":8: scan.inter",
        ]
        until(lambda: ask(up, "status")["policy"]["error"] is not None, "a cycle that says so")
        assert ask(up, "status")["mode"] == "act"
        assert "log.levle" in ask(up, "status")["policy"]["error"]
        assert up.daemon.totals.reload_failures == 1

        path.write_text(good.replace("[daemon]\n", '[daemon]\nmode = "advise"\n'))
        assert ask(up, "reload") == {"files": [str(path)], "needs_restart": []}
        until(lambda: ask(up, "status")["mode"] == "advise", "a cycle by the new policy")
        assert ask(up, "status")["policy"]["error"] is None


def test_what_needs_a_restart_is_held_against_what_is_in_force(tmp_path: Path) -> None:
    """Told as long as it differs from the start, and no longer once it is changed back."""
    path = policy(tmp_path, '[metrics]\nlisten = ""\n')
    with running(machine(tmp_path), path) as up:
        good = path.read_text()
        path.write_text(good.replace('listen = ""', 'listen = "127.0.0.1:1"'))
        assert ask(up, "reload")["needs_restart"] == ["metrics.listen"]
        assert ask(up, "reload")["needs_restart"] == ["metrics.listen"]
        path.write_text(good)
        assert ask(up, "reload")["needs_restart"] == []


def test_a_policy_that_matches_nothing_lets_go_of_its_workers(tmp_path: Path) -> None:
    """After a reload every process is judged again."""
    path = policy(tmp_path)
    with running(machine(tmp_path), path) as up:
        assert len(ask(up, "status")["workers"]) == 1
        path.write_text(path.read_text() + "[discovery]\nknown_servers = false\n")
        call(up.socket, "reload")
        until(lambda: not ask(up, "status")["workers"], "a cycle without workers")


def test_before_the_first_cycle_there_is_nothing_to_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a main loop that does not turn is said, rather than waited for."""
    daemon = build(machine(tmp_path), policy(tmp_path))
    with pytest.raises(NumadError, match="first cycle has not ended"):
        daemon.handle("status", {})
    monkeypatch.setattr(commands, "ANSWER_WITHIN_S", 0.05)
    with pytest.raises(NumadError, match="did not get to 'pause'"):
        daemon.handle("pause", {})


# Clients of every sort


@pytest.mark.parametrize(
    "data",
    [
        *(b"\n", b"status\n", b"1\n", b'"status"\n', b"[]\n", b'["verb"]\n', b"null\n", b"{}\n"),
        *(b'{"verb": 1}\n', b'{"verb": null}\n', b'{"verb": ["a"]}\n', b'{"verb"\n', b"\xff\xfe\n"),
        *(b"[" * 20000 + b"\n", b'{"a":' * 5000 + b"\n", b"\0" * 100),
    ],
)
def test_a_malformed_request_is_answered_with_what_one_looks_like(
    served: Running, data: bytes
) -> None:
    """No request is so odd that it gets no answer."""
    reply = json.loads(say(served.socket, data))
    assert (reply["ok"], reply["kind"], reply["exit"]) == (False, "UsageError", 2)
    assert '{"verb": "status"}' in reply["error"]


def test_a_request_without_end_is_cut_off(served: Running) -> None:
    """A client cannot fill the daemon's memory."""
    reply = json.loads(say(served.socket, b'{"verb": "' + b"a" * LONGEST_REQUEST))
    assert (reply["ok"], reply["kind"]) == (False, "UsageError")
    assert f"at most {LONGEST_REQUEST} bytes" in reply["error"]


def test_a_client_that_is_cut_off_hears_why(served: Running) -> None:
    """A daemon that answers before it has read all is running, and its answer counts."""
    with pytest.raises(UsageError, match="a request is one line of at most"):
        call(served.socket, "status", more="a" * 10_000_000)


def test_a_request_without_its_newline_is_a_request(served: Running) -> None:
    """Tools such as socat may leave it out."""
    reply = json.loads(say(served.socket, b'{"verb": "plan"}'))
    assert reply["ok"] is True


def test_silent_and_rude_clients_hold_up_nobody(served: Running) -> None:
    """Clients that say nothing, half of something, or hang up: others are answered at once."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        for i in range(20):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(served.socket))
            if i % 2:
                client.sendall(b'{"verb": ')
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as rude:
                rude.connect(str(served.socket))
                rude.sendall(b'{"verb": "status"}\n')
        assert json.loads(say(served.socket, STATUS))["ok"] is True
    # A client that says nothing is hung up on after five seconds.
    assert time.monotonic() - began < control.TIMEOUT_S


def test_a_silent_client_is_hung_up_on(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its thread for as long as the timeout, and no longer."""
    assert control._Handler.timeout == control.TIMEOUT_S
    monkeypatch.setattr(control._Handler, "timeout", 0.1)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(served.socket))
        assert client.recv(1) == b""


def test_many_clients_are_answered_at_the_same_time(served: Running) -> None:
    """Each on a thread of its own, and each in whole."""
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(json.loads(say(served.socket, STATUS))))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [a["result"]["source"] for a in answers] == ["daemon"] * 20


# The socket file


def echo(verb: str, _arguments: object) -> object:
    """Answer with the verb."""
    return verb


@contextlib.contextmanager
def listening(path: Path) -> Iterator[ControlServer]:
    """Listen on a path for a while."""
    server = ControlServer(path, echo)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_a_stale_socket_is_replaced_and_none_is_left_behind(tmp_path: Path) -> None:
    """A daemon that was killed leaves its file; the next one starts all the same."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert path.is_socket()
    with listening(path):
        assert call(path, "hello") == "hello"
    assert not path.exists()


def test_others_can_neither_reach_the_socket_nor_its_folder(served: Running) -> None:
    """The daemon makes both; owner and group may, others may not."""
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o660
    assert stat.S_IMODE(served.socket.parent.stat().st_mode) & 0o007 == 0


def test_a_second_daemon_is_turned_away(served: Running) -> None:
    """The socket of one that listens is never taken over; its pid stands in the message."""
    second = ControlServer(served.socket, echo)
    with pytest.raises(NumadError, match="another numad-py answers") as refused:
        second.start()
    assert f"stop it first: systemctl stop numad-py, or kill {os.getpid()}" in str(refused.value)
    assert ask(served, "status")["source"] == "daemon"
