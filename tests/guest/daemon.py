"""The service inside a guest, as its operator handles it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tests.guest.machine import Machine

DROP_IN = "/etc/numad-py/conf.d/50-test.toml"


class Service:
    """numad-py.service of one guest."""

    def __init__(self, guest: Machine) -> None:
        """Start nothing yet."""
        self.guest = guest

    def configure(self, text: str) -> None:
        """Lay a policy drop-in over the shipped policy; not loaded until start or reload."""
        self.guest.run(f"printf %s {shlex.quote(text)} > {DROP_IN}")

    def start(self) -> None:
        """Start it, and wait until it is ready; where it is not, its journal tells why."""
        why = "journalctl -u numad-py -n 20 -o cat --no-pager"
        self.guest.run(f"systemctl start numad-py || {{ {why}; exit 1; }}")

    def stop(self) -> float:
        """Stop it; return how long that took, seconds of the guest's clock."""
        out = self.guest.out(
            "bash -c 'a=$EPOCHREALTIME; systemctl stop numad-py; echo $a $EPOCHREALTIME'"
        )
        began, ended = out.split()
        return float(ended) - float(began)

    def show(self, name: str) -> str:
        """Return a property of the unit."""
        return self.guest.out(f"systemctl show --value -p {name} numad-py").strip()

    def log(self) -> list[dict[str, Any]]:
        """Return the log of this boot, a dictionary an event."""
        lines = self.guest.out("journalctl -u numad-py -o cat --no-pager").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def status(self) -> dict[str, Any]:
        """Return the running daemon's status document."""
        document: dict[str, Any] = json.loads(self.guest.out("numad-py status --json"))
        assert document["source"] == "daemon"
        return document

    def workers(self) -> dict[str, Any]:
        """Return what the daemon says of each worker, by pid."""
        return {str(worker["pid"]): worker for worker in self.status()["workers"]}
