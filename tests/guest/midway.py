"""A fault in the middle of a move: begin, strike, and see afterwards that nothing was lost."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.project import ROOT
from tests.guest.workers import Workers

MIB = 1 << 20
SOON = (
    '[daemon]\ninterval = "1s"\n[scan]\ninterval = "2s"\n'
    '[placement]\ncooldown = "1s"\nsettle = "1s"\n'
)
SLOW = f'{SOON}[migration]\nrate = "32MiB/s"\nlongest_chunk = "20ms"\n'
"""So slow that there is a middle."""
UNPACED = f'{SOON}[migration]\nrate = "unlimited"\nlongest_chunk = "1s"\nduty = "100%"\n'
"""Hardly ever between two chunks."""
JOURNAL = "/var/lib/numad-py/journal.jsonl"
ENDED_WITHIN_S = 60
PASSES_WITHIN_S = 30


def rule(name: str, node: int) -> str:
    """Return a rule for one worker, and only as long as it is the program that it was."""
    match = f"cmdline = '^/opt/load/llama-server .*/run/load/{name}$'"
    return f'[[rule]]\nname = "{name}"\n{match}\nnodes = [{node}]\n'


def wait_for(what: Callable[[], Any], limit_s: float = ENDED_WITHIN_S) -> Any:
    """Wait until something is true or there, and return it."""
    end = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        time.sleep(0.3)
    return found


@dataclass
class Midway:
    """One run of the service, with a fault in it."""

    guest: Machine
    workers: Workers
    masks: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    """As they were before the service began, by worker and thread."""
    _invocation: str = ""
    _ends: set[str] = field(default_factory=set)
    """Of moves that were waited for."""

    def __post_init__(self) -> None:
        """Bring in what strikes."""
        self.service = Service(self.guest)
        for name in ("probe.py", "strike.py"):
            self.guest.put(ROOT / "tests/guest" / name, f"/opt/strike/tests/guest/{name}")

    def start(self, name: str, options: str, *, before: str = "") -> None:
        """Start a worker that counts its passes."""
        log = f"--log /run/load/{name}.log"
        self.workers.start(name, f"--thp never --pause-ms 200 {options} {log}", before=before)

    def begin(self, policy: str) -> None:
        """Start the service once all memory is in place."""
        self.workers.wait_ready()
        self.masks |= self.workers.masks(*self.workers.pids)
        self.service.configure(policy)
        self.service.start()
        self._invocation = self.service.show("InvocationID")

    def strike(self, name: str, node: int, command: str, *, after_mib: int = 16) -> str:
        """Run a command when so much of a worker has come to a node; return what it printed."""
        words = f"{self.workers.pids[name]} {node} {after_mib} {shlex.quote(command)}"
        return self.guest.out(f"cd /opt/strike && python3 -m tests.guest.strike {words}")

    # What is told of it

    def log(self) -> list[dict[str, Any]]:
        """Return what this run has logged."""
        only = f"journalctl _SYSTEMD_INVOCATION_ID={self._invocation} -o cat --no-pager"
        lines = self.guest.out(only).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def moves(self, name: str) -> list[dict[str, Any]]:
        """Return how decisions about a worker ended, in order."""
        pid, lines = int(self.workers.pids[name]), self.log()
        ids = {line["decision"] for line in lines if line["event"] == "act" and line["pid"] == pid}
        ended = (line for line in lines if line["event"].startswith("move "))
        return [line for line in ended if line["decision"] in ids]

    def ended(self, name: str, end: str) -> dict[str, Any]:
        """Wait until a move of a worker has ended in a way; return its line.

        ``stop`` holds that it was counted as well.
        """

        def found() -> dict[str, Any] | None:
            lines = self.moves(name)
            return next((line for line in lines if line["event"] == f"move {end}"), None)

        line: dict[str, Any] = wait_for(found)
        print({**line, "timestamp": None})
        self._ends.add(end)
        return line

    def on_node(self, name: str, node: int) -> int:
        """Return how many bytes of a worker lie on a node."""
        return self.workers.residency(name).get(node, 0)

    def home(self, name: str, node: int, limit_s: int = 60) -> None:
        """Wait until a worker has 99 % of its pages on a node."""
        seconds = self.workers.wait_home({name: [[node]]}, limit_s)
        assert seconds[name] is not None, (self.workers.residency(name), self.moves(name))

    def journal(self) -> list[dict[str, Any]]:
        """Return the journal, of which each line must be whole."""
        return [json.loads(line) for line in self.guest.out(f"cat {JOURNAL}").splitlines()]

    # Afterwards

    def passes(self, name: str) -> int:
        """Return how often a worker has gone over its memory."""
        return int(self.guest.out(f"wc -l < /run/load/{name}.log"))

    def goes_on(self, *names: str) -> None:
        """Hold that workers live and get on."""
        before = {name: self.passes(name) for name in names}
        assert self.workers.alive(*names)
        wait_for(
            lambda: all(self.passes(name) > before[name] + 1 for name in names), PASSES_WITHIN_S
        )

    def finish(self, *names: str) -> None:
        """Stop the service, and hold that these workers have their masks and get on.

        The journal is empty then.
        """
        self.stop(*names)
        self.goes_on(*names)
        assert self.journal() == []

    def stop(self, *names: str) -> None:
        """Stop the service, and hold that these workers have their masks.

        What was waited for was counted, no cycle failed, and the log tells of no defect.
        """
        metrics = self.workers.metrics()
        for end in self._ends:
            assert metrics[f'numad_py_moves_total{{end="{end}"}}'] >= 1
        assert metrics["numad_py_failed_cycles_total"] == 0
        assert self.service.show("NRestarts") == "0"
        self.service.stop()
        assert self.service.show("Result") == "success"
        assert self.workers.masks(*names) == {name: self.masks[name] for name in names}
        assert not [line for line in self.log() if "exception" in line]
