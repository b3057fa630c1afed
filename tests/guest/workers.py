"""Workers of a test inside a guest, and the ground truth about them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.guest.machine import Machine
from tests.guest.scenario import KNOWN, Homes, Stray


@dataclass
class Workers:
    """Starts workers as transient units, and ends them all."""

    guest: Machine
    pids: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, options: str, *, program: str = KNOWN, before: str = "") -> None:
        """Start one; ``before`` stands in front of the command, as ``numactl --membind=1`` would.

        Args:
            name: of the worker in this test.
            options: of the load generator.
            program: under which name it runs.
            before: a command that runs it.
        """
        self.start_program(name, f"{before} {program} {options} --ready /run/load/{name}")

    def start_program(self, name: str, command: str) -> None:
        """Start another one, which writes its pid to ``/run/load/NAME`` when it is ready."""
        unit = f"systemd-run --quiet --collect --unit=load-{name}"
        self.guest.run(f"mkdir -p /run/load && rm -f /run/load/{name} && {unit} {command}")
        self.pids[name] = ""

    def start_all(self, strays: Iterable[Stray]) -> None:
        """Start a scenario's workers and wait until their memory is in place."""
        for stray in strays:
            self.start(stray.name, stray.options, program=stray.program, before=stray.before)
        self.wait_ready()

    def wait_ready(self, limit_s: int = 120) -> None:
        """Wait until all memory is in place."""
        for name in [name for name, pid in self.pids.items() if not pid]:
            path = f"/run/load/{name}"
            self.pids[name] = self.guest.out(
                f"for i in $(seq {2 * limit_s}); do [ -s {path} ] && break; sleep 0.5; done; "
                f"cat {path} || {{ journalctl -u load-{name} -o cat >&2; exit 1; }}",
                timeout=limit_s + 60,
            ).strip()

    def stop(self) -> None:
        """End them all."""
        self.guest.run("systemctl stop 'load-*'; rm -rf /run/load", check=False)
        self.pids.clear()

    def alive(self, *names: str) -> bool:
        """Say whether these still run."""
        pids = " ".join(self.pids[name] for name in names)
        return self.guest.run(f"kill -0 {pids}", check=False).returncode == 0

    # Ground truth

    def wait_home(self, homes: dict[str, Homes], limit_s: int) -> dict[str, float | None]:
        """Return after how many seconds each worker had 99 % of its pages at home; None: never."""
        by_pid = {self.pids[name]: home for name, home in homes.items()}
        answer = self._probe(
            f"wait {limit_s} {shlex.quote(json.dumps(by_pid))}", timeout=limit_s + 60
        )
        return {name: answer["seconds"][self.pids[name]] for name in homes}

    def residencies(self, *names: str) -> dict[str, dict[int, int]]:
        """Return resident bytes by worker and node."""
        found = self._probe("residency " + " ".join(self.pids[name] for name in names))
        return {
            name: {int(node): size for node, size in found[self.pids[name]].items()}
            for name in names
        }

    def residency(self, name: str) -> dict[int, int]:
        """Return one worker's resident bytes by node."""
        return self.residencies(name)[name]

    def masks(self, *names: str) -> dict[str, dict[int, list[int]]]:
        """Return the CPUs that each thread may use, by worker and thread id."""
        found = self._probe("masks " + " ".join(self.pids[name] for name in names))
        return {
            name: {int(tid): cpus for tid, cpus in found[self.pids[name]].items()} for name in names
        }

    def metrics(self) -> dict[str, float]:
        """Return the daemon's metrics by name and labels, as they stand in the exposition."""
        lines = self.guest.out("python3 /opt/load/probe.py metrics").splitlines()
        pairs = (re.match(r"(\w+(?:\{.*\})?) (\S+)$", line) for line in lines if line[:1] != "#")
        return {pair[1]: float(pair[2]) for pair in pairs if pair is not None}

    def _probe(self, words: str, timeout: float = 120) -> Any:
        return json.loads(self.guest.out(f"python3 /opt/load/probe.py {words}", timeout=timeout))
