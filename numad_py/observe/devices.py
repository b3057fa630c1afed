"""Which PCI devices a worker uses, asked as seldom as will do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from numad_py.errors import NumadError, RightsError
from numad_py.kernel.devices import CharDevice, CharDevices, DeviceUse, Number
from numad_py.kernel.stat import Stat
from numad_py.model.snapshot import WorkerId
from numad_py.model.topology import ACCELERATORS, Topology

YOUNG_S = 120.0
"""A worker is young so long: servers open their devices after minutes of imports."""
YOUNG_EVERY_S = 15.0
"""So often a young one is looked at,"""
FIRST_S = 60.0
"""an older one after so long, and each time that nothing is new after twice as long,"""
SELDOM_S = 600.0
"""up to so long. So long is a table of device files taken to be the same, too."""
JUMPED_PART = 8
"""Who has jumped is looked at after this part of its pause already: whoever opens a device starts
threads for it and maps its libraries."""
JUMPED_THREADS = 2
"""A jump is a change of the number of threads by so much,"""
JUMPED_BYTES = 32 << 20
"""or of RSS."""


@dataclass(frozen=True)
class DevicesSeen:
    """The PCI devices that a worker uses."""

    addresses: tuple[str, ...] = ()
    """Sorted."""
    unsure: bool = False
    """It has several accelerators open and none mapped: it may use some of them only."""


@dataclass(frozen=True)
class _Seen:
    seen: DevicesSeen
    next_at_s: float
    every_s: float
    num_threads: int
    resident_bytes: int

    def jumped(self, stat: Stat) -> bool:
        """Say whether the worker has become so much larger or smaller that it may use others."""
        return (
            abs(stat.num_threads - self.num_threads) >= JUMPED_THREADS
            or abs(stat.resident_bytes - self.resident_bytes) >= JUMPED_BYTES
        )


class _Table:
    """Character devices by path and by number."""

    def __init__(self, devices: Iterable[CharDevice], made_at_s: float) -> None:
        devices = tuple(devices)
        self.made_at_s = made_at_s
        self.empty = not devices
        self._by_path = {device.path: device.addresses for device in devices}
        self._by_number = {device.number: device.addresses for device in devices}

    def addresses(self, path: str, number: Number | None) -> tuple[str, ...]:
        """Return what is behind a device file: by its number, by its path where that is unknown."""
        if number is not None:
            return self._by_number.get(number, ())
        return self._by_path.get(path, ())


class Devices:
    """Remembers each worker's devices from look to look."""

    def __init__(self, use: DeviceUse, char_devices: CharDevices) -> None:
        """Start with nothing seen."""
        self._use = use
        self._char_devices = char_devices
        self._topology: Topology | None = None
        self._table: _Table | None = None
        self._seen: dict[WorkerId, _Seen] = {}

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is remembered of workers that ended."""
        self._seen = {k: v for k, v in self._seen.items() if k in workers}

    def look(
        self, worker: WorkerId, stat: Stat, now_s: float, age_s: float, topology: Topology
    ) -> DevicesSeen:
        """Return the devices that a worker uses, of those that the topology names.

        Nothing where there are none, or they may not be seen; what was known where it vanished.
        """
        if topology is not self._topology:
            # Devices came or went, and their numbers may be others'.
            self._topology, self._table = topology, None
            self._seen.clear()
        known = self._seen.get(worker)
        if known is not None and now_s < known.next_at_s:
            early_s = known.every_s - max(YOUNG_EVERY_S, known.every_s / JUMPED_PART)
            if now_s < known.next_at_s - early_s or not known.jumped(stat):
                return known.seen
        seen = self._read(worker.pid, self._current_table(topology, now_s), topology)
        if age_s < YOUNG_S:
            every_s = YOUNG_EVERY_S
        elif known is not None and known.seen == seen and known.every_s >= FIRST_S:
            every_s = min(2 * known.every_s, SELDOM_S)
        else:
            every_s = FIRST_S
        self._seen[worker] = _Seen(
            seen, now_s + every_s, every_s, stat.num_threads, stat.resident_bytes
        )
        return seen

    def _current_table(self, topology: Topology, now_s: float) -> _Table:
        """Return the table of device files; a driver that is loaded later brings new ones."""
        if self._table is None or now_s - self._table.made_at_s >= SELDOM_S:
            addresses = {device.address for device in topology.devices}
            found: list[CharDevice] = []
            if addresses:
                found += self._char_devices.char_devices(addresses)
                found += (d for d in self._use.nvidia() if addresses.issuperset(d.addresses))
            self._table = _Table(found, now_s)
        return self._table

    def _read(self, pid: int, table: _Table, topology: Topology) -> DevicesSeen:
        if table.empty:
            return DevicesSeen()
        numbers: dict[str, Number | None] = {}
        try:
            numbers = self._use.opened(pid)
            opened = {a for path, number in numbers.items() for a in table.addresses(path, number)}
            if not opened:
                return DevicesSeen()
        except RightsError:
            # The shipped service may read maps, and no descriptors.
            opened = set()
        except NumadError:
            return DevicesSeen()
        try:
            paths = self._use.mapped(pid)
        except NumadError:
            paths = set()
        mapped = {a for path in paths for a in table.addresses(path, numbers.get(path))}
        accelerators = {d.address for d in topology.devices if d.kind in ACCELERATORS}
        if mapped & accelerators:
            opened -= accelerators
        unsure = len(opened & accelerators) > 1
        return DevicesSeen(tuple(sorted(mapped | opened)), unsure)
