"""The main scenario: workers that stray in five ways, by how many nodes there are."""

from __future__ import annotations

from dataclasses import dataclass

KNOWN = "/opt/load/llama-server"
"""The load generator under a name that the shipped policy knows."""
UNKNOWN = "/opt/load/otherd"

Homes = list[list[int]]
"""Sets of nodes of which any will do."""


@dataclass(frozen=True)
class Stray:
    """A worker, and where it belongs."""

    name: str
    story: str
    options: str
    """Of the load generator."""
    homes: Homes
    """Empty where it must stay as it is."""
    program: str = KNOWN
    before: str = ""
    """Command that runs it."""


def strays(nodes: int, size: str, thp: str) -> tuple[Stray, ...]:
    """Return A to E for a machine whose first CPUs are 0 on node 0, and 1 on it as well.

    Long pauses: under emulation, passes over a GiB take the CPUs that moving it needs.
    """
    last = nodes - 1
    common = f"--thp {thp} --churn --pause-ms 3000"
    small = f"--size 100MiB --cpus 0 {common}"
    return (
        Stray(
            "a",
            "pinned by its user to node 0, memory on node 1",
            f"--size {size} --memory-nodes 1 --cpus 0 {common}",
            [[0]],
        ),
        Stray(
            "b",
            f"free, memory on node {last}, threads elsewhere",
            f"--size {size} --memory-nodes {last} --start-cpus 1 {common}",
            [[last]],
        ),
        Stray(
            "c",
            f"two threads, memory split over nodes {last - 1} and {last}",
            f"--size {size} --memory-nodes {last - 1},{last} --threads 2 {common}",
            [[last - 1], [last]],
        ),
        Stray(
            "d", "matches no rule: not touched", f"{small} --memory-nodes 1", [], program=UNKNOWN
        ),
        Stray(
            "e",
            "its user bound it with numactl --membind=1: not touched",
            small,
            [],
            before="numactl --membind=1",
        ),
    )
