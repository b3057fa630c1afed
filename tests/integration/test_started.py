"""What a daemon's log says of its beginning and its end, whatever its mode."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from numad_py.compose import serving
from numad_py.errors import NumadError
from numad_py.events import Stop
from tests.integration.program import machine, policy
from tests.integration.running import build


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Put back what a daemon sets for its whole process."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    structlog.reset_defaults()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def told(path: Path, folder: Path) -> list[Any]:
    """Return what is logged by a daemon that is stopped after its first cycle."""
    daemon = build(machine(folder), path)
    with capture_logs() as lines, serving(daemon):
        daemon.mailbox.put(Stop("the test has ended"))
        daemon.run()
    return lines


@pytest.mark.parametrize("mode", ["observe", "advise", "act"])
def test_a_daemon_says_once_that_it_has_started(tmp_path: Path, mode: str) -> None:
    """By which policy, in which mode, where it listens and what it found, in a single line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    path = policy(tmp_path, f'[metrics]\nlisten = "{address}"\n')
    path.write_text(path.read_text().replace("[daemon]", f'[daemon]\nmode = "{mode}"'))
    (line,) = [line for line in told(path, tmp_path) if line["event"] == "started"]
    assert line == {
        "event": "started",
        "log_level": "info",
        "mode": mode,
        "policy": [str(path)],
        "metrics": address,
        "socket": f"{tmp_path}/run/control.sock",
        "nodes": "0-1",
        "workers": 1,
    }


def test_a_daemon_without_metrics_says_so(tmp_path: Path) -> None:
    """None stands for a port that is not opened."""
    lines = told(policy(tmp_path, '[metrics]\nlisten = ""\n'), tmp_path)
    (line,) = [line for line in lines if line["event"] == "started"]
    assert line["metrics"] is None


def test_its_end_is_told_where_it_had_begun(tmp_path: Path) -> None:
    """With how many workers got their affinity back, also where that is none."""
    lines = told(policy(tmp_path, '[metrics]\nlisten = ""\n'), tmp_path)
    assert lines[-1]["event"] == "stopped, affinity given back"
    assert lines[-1]["workers"] == 0


def test_a_start_that_fails_tells_of_no_end(tmp_path: Path) -> None:
    """The error says it all: nothing was begun, so there is nothing to give back."""
    made = machine(tmp_path)
    daemon = build(made, policy(tmp_path))
    (made.sysfs / "devices/system/node/online").unlink()
    with capture_logs() as lines, pytest.raises(NumadError):
        daemon.run()
    assert not [line for line in lines if "stopped" in str(line["event"])]
