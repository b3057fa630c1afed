"""The machine: nodes with their real ids, CPUs, distances and PCI devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

LOCAL_DISTANCE = 10
"""Distance of a node to itself (ACPI SLIT; LOCAL_DISTANCE in include/linux/topology.h)."""
ACCELERATORS = ("display", "accelerator")
"""Kinds of PCI devices that compute; GPUs without a monitor are displays to PCI, too."""


def device_noun(kind: str) -> str:
    """Return what people call a kind of PCI device.

    >>> device_noun("display"), device_noun("accelerator"), device_noun("infiniband")
    ('GPU', 'accelerator', 'infiniband')
    """
    return "GPU" if kind == "display" else kind


@dataclass(frozen=True)
class Performance:
    """Rated figures of a node's memory, for the initiators nearest to it.

    From nodeN/access0/initiators (Documentation/admin-guide/mm/numaperf.rst); each None where the
    firmware's HMAT leaves it out.
    """

    read_bandwidth_mib_s: int | None = None
    write_bandwidth_mib_s: int | None = None
    read_latency_ns: int | None = None
    write_latency_ns: int | None = None


@dataclass(frozen=True)
class Node:
    """One online NUMA node. ``id`` is the kernel's id; ids may have holes."""

    id: int
    cpus: frozenset[int]
    """Online CPUs; empty for a CPU-less node (CXL, HBM, GPU memory)."""
    memory_bytes: int
    """MemTotal of the node; 0 for a memoryless node."""
    distances: Mapping[int, int]
    """Distance to each online node by id, this one included."""
    memory_tier: int | None = None
    """Lower is faster (mm/memory-tiers.c, Linux 6.1); None where the kernel does not rank it."""
    performance: Performance | None = None
    """None where the firmware says nothing of it."""
    cores: tuple[frozenset[int], ...] = ()
    """Its CPUs by core, SMT siblings together; one of which the kernel says nothing is in none."""

    @property
    def has_cpu(self) -> bool:
        """Whether threads can run here."""
        return bool(self.cpus)

    @property
    def has_memory(self) -> bool:
        """Whether pages can live here."""
        return self.memory_bytes > 0


@dataclass(frozen=True)
class PciDevice:
    """A PCI device that inference may use: accelerator, display, network."""

    address: str
    """``0000:3b:00.0``."""
    kind: str
    """``accelerator``, ``display``, ``ethernet``, ``infiniband`` or ``nvme``."""
    vendor_id: str
    device_id: str
    node: int | None
    """``None`` where sysfs says -1: unknown, which is not node 0."""
    driver: str | None = None
    name: str | None = None
    """Vendor and model in words, where the hardware database knows them."""


@dataclass(frozen=True)
class Topology:
    """All online nodes in order of id."""

    nodes: tuple[Node, ...]
    devices: tuple[PciDevice, ...] = field(default=())

    @cached_property
    def node_ids(self) -> tuple[int, ...]:
        """Ids of the online nodes, ascending."""
        return tuple(node.id for node in self.nodes)

    @cached_property
    def cpus(self) -> frozenset[int]:
        """Every online CPU of every node."""
        return frozenset().union(*(node.cpus for node in self.nodes))

    def node(self, node_id: int) -> Node | None:
        """Return the node of that id, or None where it is not online."""
        return next((node for node in self.nodes if node.id == node_id), None)

    def cpus_of(self, node_ids: Iterable[int]) -> frozenset[int]:
        """Return the CPUs of these nodes together."""
        wanted = set(node_ids)
        return frozenset().union(*(node.cpus for node in self.nodes if node.id in wanted))

    def nodes_of(self, cpus: Iterable[int]) -> frozenset[int]:
        """Return the nodes to which any of these CPUs belongs."""
        wanted = frozenset(cpus)
        return frozenset(node.id for node in self.nodes if node.cpus & wanted)

    def node_of_cpu(self, cpu: int) -> int | None:
        """Return the node of a CPU, or None for one that is offline or unknown."""
        return next((node.id for node in self.nodes if cpu in node.cpus), None)

    def distance(self, source: int, target: int) -> int:
        """Return the distance between two nodes; LOCAL_DISTANCE x 2 where it is not known."""
        node = self.node(source)
        if node is None:
            return 2 * LOCAL_DISTANCE
        unknown = LOCAL_DISTANCE if source == target else 2 * LOCAL_DISTANCE
        return node.distances.get(target, unknown)
