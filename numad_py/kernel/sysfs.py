"""/sys of a machine, at any mount point: nodes, distances, PCI devices."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from numad_py.errors import Malformed, NumadError
from numad_py.model.cpulist import parse_list
from numad_py.model.machine import NodeState
from numad_py.model.topology import LOCAL_DISTANCE, Node, PciDevice, Topology

_KINDS = (
    ("0x03", "display"),
    ("0x12", "accelerator"),
    ("0x0200", "ethernet"),
    ("0x0207", "infiniband"),
    ("0x0108", "nvme"),
)
"""Device kinds by the beginning of their PCI class."""


def is_own(root: str | os.PathLike[str]) -> bool:
    """Say whether a sysfs is this machine's own, wherever it is mounted."""
    try:
        return Path(root, "devices/system/node").samefile("/sys/devices/system/node")
    except OSError:
        return False


class SysFs:
    """Reads one sysfs."""

    def __init__(self, root: str | os.PathLike[str] = "/sys") -> None:
        """Read below ``root``."""
        self.root = Path(root)
        self._nodes = self.root / "devices/system/node"

    def topology(self) -> Topology:
        """Return the online nodes with their real ids, and the PCI devices.

        Raises:
            NumadError: there is no node directory: a kernel without CONFIG_NUMA, or no sysfs.
            Malformed: a node's CPUs or distances do not follow their grammar.
        """
        ids = self._online()
        return Topology(tuple(self._node(node, ids) for node in ids), self.pci_devices())

    def _node(self, node: int, ids: tuple[int, ...]) -> Node:
        folder = self._nodes / f"node{node}"
        try:
            values = [int(word) for word in self._text(folder / "distance").split()]
            cpus = parse_list(self._text(folder / "cpulist"))
        except ValueError as error:
            msg = f"{folder}: distance or cpulist cannot be parsed: {error}"
            raise Malformed(msg) from None
        return Node(
            id=node,
            cpus=cpus,
            memory_bytes=self._meminfo(node).get("MemTotal", 0),
            # The file has one column for each online node, in order of id, whatever the holes.
            distances=dict(zip(ids, values, strict=False)) or {node: LOCAL_DISTANCE},
        )

    def node_states(self) -> tuple[NodeState, ...]:
        """Return free and reclaimable memory of each online node."""
        return tuple(self.node_state(node) for node in self._online())

    def node_state(self, node: int) -> NodeState:
        """Return free and reclaimable memory of one node; none of either where it is offline."""
        meminfo = self._meminfo(node)
        cache = meminfo.get("Active(file)", 0) + meminfo.get("Inactive(file)", 0)
        return NodeState(
            node=node,
            total_bytes=meminfo.get("MemTotal", 0),
            free_bytes=meminfo.get("MemFree", 0),
            reclaimable_bytes=max(0, cache - meminfo.get("Dirty", 0)),
        )

    def pci_devices(self) -> tuple[PciDevice, ...]:
        """Return accelerators, displays, network cards and NVMe drives, by address."""
        folder = self.root / "bus/pci/devices"
        try:
            addresses = sorted(path.name for path in folder.iterdir())
        except OSError:
            return ()
        devices = []
        for address in addresses:
            code = self._text(folder / address / "class").strip()
            kind = next((kind for start, kind in _KINDS if code.startswith(start)), None)
            if kind is None:
                continue
            number = self._text(folder / address / "numa_node").strip()
            driver = None
            with contextlib.suppress(OSError):
                driver = (folder / address / "driver").readlink().name
            devices.append(
                PciDevice(
                    address=address,
                    kind=kind,
                    vendor_id=self._text(folder / address / "vendor").strip(),
                    device_id=self._text(folder / address / "device").strip(),
                    node=int(number) if number.isdecimal() else None,
                    driver=driver,
                )
            )
        return tuple(devices)

    def _online(self) -> tuple[int, ...]:
        try:
            return tuple(sorted(parse_list((self._nodes / "online").read_text())))
        except (OSError, ValueError) as error:
            msg = (
                f"{self._nodes / 'online'} cannot be used ({error}): is this a sysfs, "
                "of a kernel with CONFIG_NUMA?"
            )
            raise NumadError(msg) from None

    def _meminfo(self, node: int) -> dict[str, int]:
        """Return a node's meminfo in bytes; lines read ``Node 0 MemTotal:  2048 kB``."""
        figures: dict[str, int] = {}
        for line in self._text(self._nodes / f"node{node}" / "meminfo").splitlines():
            words = line.split()
            if len(words) == 5 and words[3].isdecimal():  # noqa: PLR2004 - Node N KEY: VALUE kB
                figures[words[2].rstrip(":")] = int(words[3]) * 1024
        return figures

    @staticmethod
    def _text(path: Path) -> str:
        """Return a file's text, empty where it is absent: a node may go offline in between."""
        try:
            return path.read_text(errors="replace")
        except OSError:
            return ""
