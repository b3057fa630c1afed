"""The real numad inside a guest."""

from __future__ import annotations

from tests.guest.machine import Machine

INTERVAL_S = 5
COMMAND = f"numad -v -H 0 -i {INTERVAL_S}:{INTERVAL_S}"
"""Logs at level info, which is where a cycle can be seen; leaves khugepaged as it is."""
LOG = "/var/log/numad.log"
_END_LIMIT_S = 60


class Numad:
    """numad of one guest; it becomes a daemon by itself."""

    def __init__(self, guest: Machine) -> None:
        """Start it."""
        self._guest = guest
        guest.run(f"rm -f {LOG}; {COMMAND}")
        self.pid = guest.out("cat /var/run/numad.pid").strip()

    def log(self) -> str:
        """Return what it has logged."""
        return self._guest.out(f"cat {LOG}")

    def stop(self) -> None:
        """End it, and wait: while it moves, it cannot be ended."""
        tenths = 10 * _END_LIMIT_S
        wait = f"for i in $(seq {tenths}); do [ -e /proc/{self.pid} ] || break; sleep 0.1; done"
        self._guest.run(f"kill {self.pid}; {wait}", timeout=2 * _END_LIMIT_S)
