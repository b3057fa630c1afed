"""A daemon on a made machine, whose cycles run on a thread of the test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from numad_py.compose import build_daemon
from numad_py.daemon import Daemon
from numad_py.events import Stop
from numad_py.policy.load import load
from numad_py.serve.control import ControlServer
from tests.fake_tree import FakeMachine

WITHIN_S = 5.0


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something that another thread brings about."""
    limit = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < limit, f"{what} did not happen within {WITHIN_S} s"
        time.sleep(0.01)


@dataclass(frozen=True)
class Running:
    """A daemon that runs, and the files it runs by."""

    daemon: Daemon
    policy: Path
    socket: Path


def build(made: FakeMachine, policy: Path) -> Daemon:
    """Return a daemon that touches nothing, not yet running."""
    return build_daemon(
        load(policy),
        config=str(policy),
        dry=True,
        procfs_root=str(made.procfs),
        sysfs_root=str(made.sysfs),
        privileged=False,
    )


@contextlib.contextmanager
def cycling(daemon: Daemon) -> Iterator[None]:
    """Run a daemon until the block ends."""
    thread = threading.Thread(target=daemon.run, name="daemon")
    thread.start()
    try:
        until(lambda: daemon.report is not None, "the first cycle")
        yield
    finally:
        daemon.mailbox.put(Stop("the test has ended"))
        thread.join(WITHIN_S)
    assert not thread.is_alive()


@contextlib.contextmanager
def running(made: FakeMachine, policy: Path) -> Iterator[Running]:
    """Run a daemon with its control socket until the block ends."""
    daemon = build(made, policy)
    server = ControlServer(Path(daemon.policy.daemon.runtime_dir) / "control.sock", daemon.handle)
    with cycling(daemon):
        server.start()
        try:
            yield Running(daemon, policy, server.path)
        finally:
            server.stop()
