"""What doctor says of guards: read once from a real server on the loopback, or why not."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fake_tree import FakeMachine, FakeProcess, anon
from tests.integration.program import MIB, ask, machine, policy, roots
from tests.unit.test_endpoint import HISTOGRAM, Server, server

if TYPE_CHECKING:
    import pytest

__all__ = ["server"]


def told(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    url: str,
    *more: str,
    workers: int = 1,
    own: bool = True,
) -> tuple[str, str]:
    """Return level and text of the only check of a guard, on a machine with so many workers."""
    others = [FakeProcess(300 + i, ("/srv/serve",), anon({0: MIB})) for i in range(workers)]
    made = machine(folder, *others)
    if own:
        seen_as_own(made)
    lines = (f'url = "{url}"', 'metric = "latency_seconds"', *more)
    rule = "[[rule]]\nname = \"mine\"\ncmdline = '^/srv/serve'\n[rule.guard]\n"
    path = policy(folder, rule + "".join(f"{line}\n" for line in lines))
    document = ask(capsys, "doctor", *roots(made), "--config", str(path))
    ((level, text),) = [(c["level"], c["text"]) for c in document["checks"] if c["name"] == "guard"]
    return level, text


def seen_as_own(made: FakeMachine) -> None:
    """Let a made /proc be that of the machine on which this runs, by what tells them apart."""
    (made.procfs / "self").symlink_to(str(os.getpid()))


def test_an_endpoint_that_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    """The rule, how many workers it has, the metric, and how much it tells so far; asked once."""
    url = server.guard().url
    level, text = told(capsys, tmp_path, url, workers=2)
    assert level == "ok"
    assert text == (
        f"rule mine (2 workers): latency_seconds of {url} can be read: 16 observations so far"
    )
    assert [path for path, _ in server.asked] == ["/metrics"]


def test_a_gauge_is_told_with_its_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    """It has no observations to count."""
    server.answers["/metrics"] = lambda to: to.text("latency_seconds 0.25\n")
    level, text = told(capsys, tmp_path, server.guard().url)
    assert (level, text.rpartition(": ")[2]) == ("ok", "0.25")


def test_a_histogram_without_observations_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    """It can be read, and would judge nothing."""
    empty = "\n".join(
        line if line.startswith("#") else f"{line.rpartition(' ')[0]} 0"
        for line in HISTOGRAM.splitlines()
    )
    server.answers["/metrics"] = lambda to: to.text(f"{empty}\n")
    level, text = told(capsys, tmp_path, server.guard().url)
    assert level == "note"
    assert text.endswith("no observation so far, and a move without any is not judged")


def test_labels_that_no_series_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    """What is wrong, and what to write."""
    level, text = told(capsys, tmp_path, server.guard().url, 'labels = { model = "c" }')
    assert level == "warn"
    assert "no series of latency_seconds has model='c'; write labels that are there" in text


def test_a_metric_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    """What is wrong, what that means for moves, and how to look for oneself."""
    server.answers["/metrics"] = lambda to: to.text("other 1\n")
    url = f"{server.guard().url}?a=1&b"
    level, text = told(capsys, tmp_path, url)
    assert level == "warn"
    assert text == (
        f"rule mine (1 worker): {url}: there is no latency_seconds; write a histogram or a gauge "
        "that is there; until it can be read, moves wait for two windows and are not judged; "
        f"see what is there: curl -sS '{url}' | grep '^# TYPE'"
    )


def test_an_endpoint_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listens at a port that was just free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        level, text = told(capsys, tmp_path, f"http://127.0.0.1:{free.getsockname()[1]}/metrics")
    assert level == "warn"
    assert "/metrics: Connection refused; until it can be read" in text


def test_an_endpoint_that_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    """It is waited for no longer than the daemon would."""
    server.answers["/metrics"] = server.hang
    level, text = told(capsys, tmp_path, server.guard().url)
    assert level == "warn"
    assert "no answer within 1 s" in text


def test_a_name_that_leads_to_another_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad resolver may say that of localhost: the policy alone cannot tell."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr("numad_py.observe.endpoint._is_loopback", lambda _: False)
        level, text = told(capsys, tmp_path, f"http://localhost:{other.getsockname()[1]}/")
    assert level == "warn"
    assert "localhost leads to another machine; write 127.0.0.1, or allow_remote" in text


def test_another_machine_needs_more_than_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    """Doctor may reach what the filter of the shipped unit keeps from the daemon.

    A connection to 0.0.0.0 reaches this machine, and the policy does not count on that.
    """
    url = server.guard().url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 - nobody listens there
    level, text = told(capsys, tmp_path, url, "allow_remote = true")
    assert level == "ok"
    assert text.endswith(
        "the shipped unit must admit its address too (IPAddressAllow, numad-py(8))"
    )


def test_without_a_worker_nothing_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    """As the daemon does; and that is said."""
    url = server.guard().url
    level, text = told(capsys, tmp_path, url, workers=0)
    assert level == "note"
    assert text == (
        "rule mine: no worker of it is seen now, and its endpoint is read only while one is; "
        f"{url} was not tried"
    )
    assert server.asked == []


def test_of_another_machine_nothing_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    """127.0.0.1 is not its own there."""
    level, text = told(capsys, tmp_path, server.guard().url, own=False)
    assert (level, "no endpoint is read" in text) == ("note", True)
    assert server.asked == []


def test_without_a_guard_nothing_is_said_of_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor where the policy is bad: that has a check of its own."""
    made = machine(tmp_path)
    seen_as_own(made)
    for text, code in (("", 0), ("x = 1\n", 1)):
        path = str(policy(tmp_path, text))
        document = ask(capsys, "doctor", *roots(made), "--config", path, code=code)
        assert "guard" not in {check["name"] for check in document["checks"]}
