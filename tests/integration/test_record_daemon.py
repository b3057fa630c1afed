"""Recording the cycles of a daemon that runs on a made machine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from numad_py.cli import main, record
from numad_py.events import Wake
from numad_py.model.outcome import End
from numad_py.replay.recording import Recording
from tests.integration.program import ask, machine, policy
from tests.integration.running import Running, running


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Run a daemon that does nothing, and have the command line ask it."""
    with running(machine(tmp_path), policy(tmp_path)) as up:
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
    by = ["--config", str(served.policy)]
    told = ask(capsys, "record", str(path), "--cycles", "3", "--for", "10s", *by)
    waking.join()
    assert (told["source"], told["cycles"], told["missed_cycles"]) == ("daemon", 3, 0)
    recording = Recording(path)
    assert recording.header.policy == served.daemon.policy
    cycles = list(recording)
    assert [c.snapshot.cycle for c in cycles] == [2, 3, 4]
    assert [[o.end for o in c.outcomes] for c in cycles] == [[End.SIMULATED]] * 3


def test_a_restart_of_the_daemon_does_not_end_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new one counts from 1: its cycles are taken all the same, and it is said."""
    monkeypatch.setattr(record, "POLL_S", 0.05)
    made = machine(tmp_path)
    written = policy(tmp_path)
    stack = contextlib.ExitStack()
    first = stack.enter_context(running(made, written))

    def cycles(up: Running, number: int) -> None:
        for _ in range(number):
            time.sleep(0.3)
            up.daemon.mailbox.put(Wake("the test wants a cycle"))

    def restart() -> None:
        with stack:
            cycles(first, 4)
            time.sleep(0.3)
        with running(made, written) as second:
            cycles(second, 5)

    restarting = threading.Thread(target=restart)
    restarting.start()
    path = tmp_path / "cycles.jsonl"
    by = ["--config", str(written)]
    assert main(["record", str(path), "--cycles", "6", "--for", "10s", *by]) == 0
    restarting.join()
    told = capsys.readouterr()
    assert "the daemon was restarted: its cycles count from 1 again" in told.err
    numbers = [cycle.snapshot.cycle for cycle in Recording(path)]
    assert numbers[:4] == [2, 3, 4, 5]
    assert numbers[4] < numbers[5] <= 5
    assert f"6 cycles, {numbers[4] - 1} missed" in told.out
