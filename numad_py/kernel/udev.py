"""Events of the kernel that change the topology, and names of devices, through pyudev."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterable
from typing import Any

SUBSYSTEMS = ("cpu", "memory", "node", "pci")


class TopologyEvents:
    """Calls back when CPUs, memory, nodes or PCI devices come, go, or go on- and offline."""

    def __init__(self, on_change: Callable[[str], None]) -> None:
        """``on_change`` gets a description, on a thread of its own."""
        self._on_change = on_change
        self._wake_read, self._wake_write = os.pipe()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen on netlink.

        Raises:
            OSError: the socket cannot be had (AF_NETLINK refused by a sandbox).
        """
        import pyudev  # noqa: PLC0415 - one-shot verbs need not load it

        # Straight from the kernel: udev's own events need a running udevd, which containers lack.
        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        for subsystem in SUBSYSTEMS:
            monitor.filter_by(subsystem)
        monitor.start()
        self._thread = threading.Thread(
            target=self._listen, args=(monitor,), name="udev", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        os.write(self._wake_write, b"x")
        if self._thread is not None:
            self._thread.join(timeout=1)

    def _listen(self, monitor: Any) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(monitor.fileno(), select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wake_read in ready:
                return
            try:
                device = monitor.poll(timeout=0)
            except OSError:
                # ENOBUFS: events were lost, so anything may have changed.
                self._on_change("events were lost")
                continue
            if device is not None:
                self._on_change(f"{device.action} {device.device_path}")


def pci_names(addresses: Iterable[str]) -> dict[str, str]:
    """Return vendor and model by PCI address, as far as the hardware database has them."""
    names: dict[str, str] = {}
    with contextlib.suppress(ImportError, OSError):
        import pyudev  # noqa: PLC0415

        wanted = set(addresses)
        for device in pyudev.Context().list_devices(subsystem="pci"):
            if device.sys_name in wanted:
                words = [
                    device.properties.get(f"ID_{what}_FROM_DATABASE")
                    for what in ("VENDOR", "MODEL")
                ]
                names[device.sys_name] = " ".join(word for word in words if word)
    return {address: name for address, name in names.items() if name}
