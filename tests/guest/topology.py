"""Guest machines by name."""

from __future__ import annotations

from dataclasses import dataclass, field

REMOTE_DISTANCE = 20


@dataclass(frozen=True)
class GuestNode:
    """One NUMA node of a guest; no CPUs: CPU-less; no memory either: a hole in the node ids."""

    cpus: int
    memory_mib: int


@dataclass(frozen=True)
class GuestTopology:
    """What QEMU is told about nodes, distances and devices."""

    name: str
    nodes: tuple[GuestNode, ...]
    distances: dict[tuple[int, int], int] = field(default_factory=dict)
    """Distance by (source, target), other than 10 and 20."""
    device_nodes: tuple[int, ...] = ()
    """One virtio network card behind a host bridge of each of these nodes."""

    @property
    def cpus(self) -> int:
        """Virtual CPUs in all."""
        return sum(node.cpus for node in self.nodes)

    @property
    def memory_mib(self) -> int:
        """Memory in all."""
        return sum(node.memory_mib for node in self.nodes)

    def qemu_arguments(self) -> list[str]:
        """Return the arguments that make this machine.

        QEMU wants contiguous ids; a hole is a node with neither CPUs nor memory, which the guest's
        kernel leaves offline.
        """
        populated = sum(1 for node in self.nodes if node.cpus)
        arguments = ["-machine", "q35", "-m", f"{self.memory_mib}M"]
        arguments += [
            "-smp",
            f"{self.cpus},sockets={populated},cores={self.cpus // populated},threads=1",
        ]
        cpu = 0
        for i, node in enumerate(self.nodes):
            numa = f"node,nodeid={i}"
            if node.cpus:
                numa += f",cpus={cpu}-{cpu + node.cpus - 1}"
                cpu += node.cpus
            if node.memory_mib:
                arguments += ["-object", f"memory-backend-ram,id=m{i},size={node.memory_mib}M"]
                numa += f",memdev=m{i}"
            arguments += ["-numa", numa]
        for i in range(len(self.nodes)):
            for j in range(i + 1, len(self.nodes)):
                value = self.distances.get((i, j), REMOTE_DISTANCE)
                arguments += ["-numa", f"dist,src={i},dst={j},val={value}"]
        for i, node_id in enumerate(self.device_nodes):
            arguments += [
                "-device",
                f"pxb-pcie,id=px{i},bus_nr={0x20 + 0x10 * i},numa_node={node_id},bus=pcie.0",
                "-device",
                f"pcie-root-port,id=rp{i},bus=px{i},chassis={i + 1},slot={i + 1}",
                "-device",
                f"virtio-net-pci,bus=rp{i}",
            ]
        return arguments


def _uniform(count: int, cpus: int, memory_mib: int) -> tuple[GuestNode, ...]:
    return tuple(GuestNode(cpus, memory_mib) for _ in range(count))


NEAR_PAIRS = {(0, 1): 12, (2, 3): 12}
"""As on two sockets with two nodes each."""
TOPOLOGIES = {
    t.name: t
    for t in (
        GuestTopology("n1c2", _uniform(1, 2, 1024)),
        GuestTopology("n2c4", _uniform(2, 2, 4096), device_nodes=(1,)),
        # With no more CPUs than a small host has: an emulated one that waits for a real one answers
        # no interrupt, and pages that move wait for all CPUs that run their process.
        GuestTopology(
            "n4c2",
            (*_uniform(2, 1, 3072), *_uniform(2, 0, 1024)),
            NEAR_PAIRS,
            device_nodes=(1,),
        ),
        GuestTopology("n4c8", _uniform(4, 2, 2560), NEAR_PAIRS, device_nodes=(1,)),
    )
}
