"""sd_notify(3): readiness, status line and watchdog, in a datagram each."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Notifier:
    """Tells the service manager; does nothing where there is none."""

    address: str | None = None
    watchdog_s: float | None = None
    """WatchdogSec of the unit."""

    @classmethod
    def from_environ(cls) -> Notifier:
        """Take socket and watchdog from the environment that systemd sets."""
        usec = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(
            address=os.environ.get("NOTIFY_SOCKET") or None,
            watchdog_s=int(usec) / 1e6 if usec.isdigit() and ours and int(usec) else None,
        )

    def ready(self) -> None:
        """Say that the first cycle has ended."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        """Say that the loop turns."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if self.address is None:
            return
        # A leading @ stands for the abstract name space.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(text.encode(), address)
