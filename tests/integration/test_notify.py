"""What a service manager hears of a daemon, over a real datagram socket."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from numad_py.serve.notify import Notifier
from tests.fake_tree import FakeMachine, FakeNode, FakeProcess, anon
from tests.integration.program import LLAMA, MIB, machine, policy
from tests.integration.running import build, cycling, until


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str | bytes) -> None:
        """Listen."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Return all that was said so far."""
        while True:
            try:
                self.heard.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return self.heard


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Listen, and set the environment as systemd does for a unit with WatchdogSec=150ms."""
    listener = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "150000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    yield listener
    listener.socket.close()


def test_a_daemon_says_ready_after_its_first_cycle_and_stopping_at_its_end(
    tmp_path: Path, manager: Manager
) -> None:
    """READY comes when the first cycle is done and its status known; STOPPING comes last."""
    with cycling(build(machine(tmp_path), policy(tmp_path))):
        until(lambda: "READY=1" in manager.listen(), "READY")
        assert manager.heard[: manager.heard.index("READY=1")] == [
            "WATCHDOG=1",
            "STATUS=act: 0 of 1 worker at home, 0 moving",
        ]
        assert "STOPPING=1" not in manager.listen()
    assert manager.listen()[-1] == "STOPPING=1"
    assert manager.heard.count("READY=1") == 1


def test_the_watchdog_is_fed_between_cycles_that_are_further_apart_than_its_limit(
    tmp_path: Path, manager: Manager
) -> None:
    """With an interval of 5 s and a limit of 150 ms, the loop itself feeds it, thrice per limit."""
    daemon = build(machine(tmp_path), policy(tmp_path))
    with cycling(daemon):
        until(lambda: manager.listen().count("WATCHDOG=1") >= 6, "feeding the watchdog")
        assert daemon.totals.cycles == 1


def test_pause_and_a_refused_policy_show_in_the_status(tmp_path: Path, manager: Manager) -> None:
    """Whoever runs systemctl status sees why nothing moves, and that a reload did not count."""
    path = policy(tmp_path)
    daemon = build(machine(tmp_path), path)
    with cycling(daemon):
        daemon.handle("pause", {})
        path.write_text("[nonsense]\n")
        daemon.on_signal(signal.SIGHUP, None)
        said = (
            "STATUS=act: paused, 0 of 1 worker at home, 0 moving, "
            "policy file rejected, the earlier one stands"
        )
        until(lambda: said in manager.listen(), "the status of both")


def test_one_node_is_said(tmp_path: Path, manager: Manager) -> None:
    """On a machine with one node the service idles, and says that this is all there is to do."""
    worker = FakeProcess(100, LLAMA, anon({0: MIB}))
    made = FakeMachine(tmp_path / "tree", [FakeNode(0, (0, 1))], [worker]).write()
    with cycling(build(made, policy(tmp_path))):
        said = "STATUS=one node: nothing to move; measuring 1 worker"
        until(lambda: said in manager.listen(), "the status")


def test_a_signal_ends_it(tmp_path: Path, manager: Manager) -> None:
    """SIGTERM becomes an event like any other; the end is said at once."""
    daemon = build(machine(tmp_path), policy(tmp_path))
    with cycling(daemon):
        daemon.on_signal(signal.SIGTERM, None)
        until(lambda: "STOPPING=1" in manager.listen(), "STOPPING")


def test_another_process_s_watchdog_is_not_fed(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WATCHDOG_PID says whose it is (sd_watchdog_enabled(3)); a child feeds not its parent's."""
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    with cycling(build(machine(tmp_path), policy(tmp_path))):
        until(lambda: "READY=1" in manager.listen(), "READY")
    assert "WATCHDOG=1" not in manager.listen()


def test_the_abstract_name_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with @ is abstract (sd_notify(3))."""
    name = f"numad-py-test-{os.getpid()}"
    listener = Manager(b"\0" + name.encode())
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notifier = Notifier.from_environ()
    notifier.ready()
    notifier.watchdog()
    assert listener.listen() == ["READY=1"]
    listener.socket.close()


def test_a_manager_that_is_gone_or_was_never_there_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a service manager, or when it has gone, the daemon runs on."""
    Notifier(str(tmp_path / "gone"), 1.0).status("x")
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert Notifier.from_environ().address is None
    with cycling(build(machine(tmp_path), policy(tmp_path))):
        pass
