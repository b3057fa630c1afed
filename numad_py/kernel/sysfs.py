"""/sys of a machine, at any mount point: nodes, distances, PCI devices."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from numad_py.errors import Malformed, NumadError
from numad_py.kernel.files import Files
from numad_py.model.cpulist import parse_list
from numad_py.model.machine import HugePages, NodeState, NumaStat
from numad_py.model.topology import LOCAL_DISTANCE, Node, PciDevice, Performance, Topology

_KINDS = (
    ("0x03", "display"),
    ("0x12", "accelerator"),
    ("0x0200", "ethernet"),
    ("0x0207", "infiniband"),
    ("0x0108", "nvme"),
)
"""Device kinds by the beginning of their PCI class."""
_NODES = "devices/system/node"
_CPUS = "devices/system/cpu"
_TIERS = "devices/virtual/memory_tiering"
_PCI = "bus/pci/devices"
_TIER = re.compile(r"memory_tier([0-9]+)$")
_HUGE = re.compile(r"hugepages-([0-9]+)kB$")
_MEMINFO = ("MemTotal", "MemFree", "Active(file)", "Inactive(file)", "Dirty")
"""Lines of a node's meminfo that are read: it is read in each cycle, and has 40."""
_NUMASTAT = {
    "hit": "numa_hit",
    "miss": "numa_miss",
    "foreign": "numa_foreign",
    "local": "local_node",
    "other": "other_node",
}
_PERFORMANCE = {
    "read_bandwidth_mib_s": "read_bandwidth",
    "write_bandwidth_mib_s": "write_bandwidth",
    "read_latency_ns": "read_latency",
    "write_latency_ns": "write_latency",
}


def is_own(root: str | os.PathLike[str]) -> bool:
    """Say whether a sysfs is this machine's own, wherever it is mounted."""
    try:
        return Path(root, "devices/system/node").samefile("/sys/devices/system/node")
    except OSError:
        return False


class SysFs(Files):
    """Reads one sysfs. What is absent is left out: a node may go offline between two reads."""

    def __init__(self, root: str | os.PathLike[str] = "/sys") -> None:
        """Read below ``root``."""
        super().__init__(root)
        self._huge_sizes: dict[int, tuple[int, ...]] = {}
        """Sizes of hugetlb pages in KiB by node: they hardly change."""

    def online(self) -> tuple[int, ...]:
        """Return the ids of the online nodes, ascending.

        Raises:
            NumadError: there is no node directory: a kernel without CONFIG_NUMA, or no sysfs.
        """
        try:
            return tuple(sorted(parse_list(self._read(f"{_NODES}/online"))))
        except (NumadError, ValueError) as error:
            msg = (
                f"{self.root / _NODES / 'online'} cannot be used ({error}): is this a sysfs, "
                "of a kernel with CONFIG_NUMA?"
            )
            raise NumadError(msg) from None

    def transparent_huge_pages(self) -> str | None:
        """Return ``always``, ``madvise`` or ``never`` (mm/huge_memory.c, enabled_show).

        None where the kernel has none (CONFIG_TRANSPARENT_HUGEPAGE).
        """
        try:
            found = re.search(r"\[(\w+)\]", self._read("kernel/mm/transparent_hugepage/enabled"))
        except NumadError:
            return None
        return found[1] if found else None

    def topology(self) -> Topology:
        """Return the online nodes with their real ids, and the PCI devices.

        Raises:
            NumadError: there is no node directory: a kernel without CONFIG_NUMA, or no sysfs.
            Malformed: a node's CPUs or distances do not follow their grammar.
        """
        self._huge_sizes.clear()
        ids = self.online()
        tiers = self._memory_tiers()
        nodes = tuple(self._node(node, ids, tiers.get(node)) for node in ids)
        return Topology(nodes, self.pci_devices())

    def _node(self, node: int, ids: tuple[int, ...], memory_tier: int | None) -> Node:
        folder = f"{_NODES}/node{node}"
        try:
            values = [int(word) for word in self._text(f"{folder}/distance").split()]
            cpus = parse_list(self._text(f"{folder}/cpulist"))
        except ValueError as error:
            msg = f"{self.root / folder}: distance or cpulist cannot be parsed: {error}"
            raise Malformed(msg) from None
        return Node(
            id=node,
            cpus=cpus,
            memory_bytes=self._meminfo(node).get("MemTotal", 0),
            # The file has one column for each online node, in order of id, whatever the holes.
            distances=dict(zip(ids, values, strict=False)) or {node: LOCAL_DISTANCE},
            memory_tier=memory_tier,
            performance=self._performance(node),
            cores=self._cores(cpus),
        )

    def _cores(self, cpus: frozenset[int]) -> tuple[frozenset[int], ...]:
        """Return CPUs by core (``thread_siblings_list``, drivers/base/topology.c), online ones."""
        cores: list[frozenset[int]] = []
        seen: set[int] = set()
        for cpu in sorted(cpus):
            if cpu in seen:
                continue
            with contextlib.suppress(ValueError):
                text = self._text(f"{_CPUS}/cpu{cpu}/topology/thread_siblings_list")
                if core := parse_list(text) & cpus:
                    cores.append(core)
                    seen |= core
        return tuple(cores)

    def _memory_tiers(self) -> dict[int, int]:
        """Return the tier of each node that has one (``nodelist_show``, mm/memory-tiers.c)."""
        tiers: dict[int, int] = {}
        for name in self._names(_TIERS):
            if match := _TIER.match(name):
                with contextlib.suppress(ValueError):
                    nodes = parse_list(self._text(f"{_TIERS}/{name}/nodelist"))
                    tiers.update(dict.fromkeys(nodes, int(match[1])))
        return tiers

    def _performance(self, node: int) -> Performance | None:
        """Return what the firmware's HMAT says of a node's memory, None where it says nothing.

        What it leaves out reads as 0 (``hmat_update_target_access``, drivers/acpi/numa/hmat.c).
        """
        folder = f"{_NODES}/node{node}/access0/initiators"
        figures = {
            field: self._number(f"{folder}/{name}") or None for field, name in _PERFORMANCE.items()
        }
        return Performance(**figures) if any(figures.values()) else None

    def node_state(self, node: int, before: NodeState | None = None) -> NodeState:
        """Return memory, huge pages and allocations of one node; nothing of it where offline.

        Huge pages and allocations are taken over from ``before`` where that is given: they are in
        six files, memory is in one.
        """
        meminfo = self._meminfo(node)
        cache = meminfo.get("Active(file)", 0) + meminfo.get("Inactive(file)", 0)
        return NodeState(
            node=node,
            total_bytes=meminfo.get("MemTotal", 0),
            free_bytes=meminfo.get("MemFree", 0),
            reclaimable_bytes=max(0, cache - meminfo.get("Dirty", 0)),
            huge_pages=self._huge_pages(node) if before is None else before.huge_pages,
            numastat=self._numastat(node) if before is None else before.numastat,
        )

    def _huge_pages(self, node: int) -> tuple[HugePages, ...]:
        """Return the pools of a node by size of page; one that cannot be read is left out.

        Their files count persistent and surplus pages (``nr_hugepages_show_common``, mm/hugetlb.c).
        """
        folder = f"{_NODES}/node{node}/hugepages"
        sizes = self._huge_sizes.get(node)
        if sizes is None:
            matches = map(_HUGE.match, self._names(folder))
            sizes = tuple(sorted(int(match[1]) for match in matches if match))
            # A node without memory has none until some is plugged in.
            if sizes:
                self._huge_sizes[node] = sizes
        pools = []
        for size in sizes:
            pool = f"{folder}/hugepages-{size}kB"
            total = self._number(f"{pool}/nr_hugepages")
            free = self._number(f"{pool}/free_hugepages") if total else total
            if total is None or free is None:
                self._huge_sizes.pop(node, None)
            else:
                pools.append(HugePages(size * 1024, total, free))
        return tuple(pools)

    def _numastat(self, node: int) -> NumaStat | None:
        """Return a node's numastat (``node_read_numastat``, drivers/base/node.c)."""
        text = self._text(f"{_NODES}/node{node}/numastat")
        figures = dict(line.split(" ", 1) for line in text.split("\n")[:-1] if " " in line)
        try:
            return NumaStat(**{field: int(figures[name]) for field, name in _NUMASTAT.items()})
        except (KeyError, ValueError):
            return None

    def pci_devices(self) -> tuple[PciDevice, ...]:
        """Return accelerators, displays, network cards and NVMe drives, by address."""
        devices = []
        for address in sorted(self._names(_PCI)):
            folder = f"{_PCI}/{address}"
            code = self._text(f"{folder}/class").strip()
            kind = next((kind for start, kind in _KINDS if code.startswith(start)), None)
            if kind is None:
                continue
            number = self._text(f"{folder}/numa_node").strip()
            driver = None
            with contextlib.suppress(OSError):
                driver = os.path.basename(os.readlink(f"{self._prefix}{folder}/driver"))
            devices.append(
                PciDevice(
                    address=address,
                    kind=kind,
                    vendor_id=self._text(f"{folder}/vendor").strip(),
                    device_id=self._text(f"{folder}/device").strip(),
                    node=int(number) if number.isdecimal() else None,
                    driver=driver,
                )
            )
        return tuple(devices)

    def _meminfo(self, node: int) -> dict[str, int]:
        """Return a node's meminfo in bytes; lines read ``Node 0 MemTotal:  2048 kB``."""
        try:
            text = self._read_often(f"{_NODES}/node{node}/meminfo")
        except NumadError:
            return {}
        figures: dict[str, int] = {}
        for key in _MEMINFO:
            number, unit, _ = text.partition(f" {key}:")[2].partition(" kB\n")
            number = number.strip()
            if unit and number.isdecimal():
                figures[key] = int(number) * 1024
        return figures

    def _names(self, folder: str) -> list[str]:
        """Return the names in a folder; none where it is absent."""
        try:
            return os.listdir(self._prefix + folder)
        except OSError:
            return []

    def _number(self, path: str) -> int | None:
        number, newline, _ = self._text(path).partition("\n")
        return int(number) if newline and number.isdecimal() else None

    def _text(self, path: str) -> str:
        """Return a file's text, empty where it is absent: a node may go offline in between."""
        try:
            return self._read(path)
        except NumadError:
            return ""
