"""Recording the cycles of a daemon that runs on a made machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from numad_py.cli import record
from numad_py.events import Wake
from numad_py.model.outcome import End
from numad_py.replay.recording import Recording
from tests.integration.program import ask, machine, policy
from tests.integration.running import Running, running


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a daemon that does nothing, and have the command line ask it."""
    with running(machine(tmp_path), policy(tmp_path)) as up:
        monkeypatch.setattr(record, "socket_path", lambda: up.socket)
        monkeypatch.setattr(record, "POLL_S", 0.05)
        yield up


def test_the_daemons_own_cycles_are_recorded(
    served: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the outcomes that each took in, and under the daemon's policy."""

    def wake() -> None:
        # After the first question: what came before is not kept.
        for _ in range(3):
            time.sleep(0.3)
            served.daemon.mailbox.put(Wake("the test wants a cycle"))

    waking = threading.Thread(target=wake)
    waking.start()
    path = tmp_path / "cycles.jsonl"
    told = ask(capsys, "record", str(path), "--cycles", "3", "--for", "10s")
    waking.join()
    assert (told["source"], told["cycles"], told["missed_cycles"]) == ("daemon", 3, 0)
    recording = Recording(path)
    assert recording.header.policy == served.daemon.policy
    cycles = list(recording)
    assert [c.snapshot.cycle for c in cycles] == [2, 3, 4]
    assert [[o.end for o in c.outcomes] for c in cycles] == [[End.SIMULATED]] * 3
