"""Workers that map one file, as a full reading finds them, on a machine of two nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numad_py.model.machine import NodeState
from numad_py.model.residency import Kind, Mobility, SegmentId, SegmentPart
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker
from numad_py.model.topology import Node, Topology
from numad_py.observe.segments import merge
from numad_py.policy.schema import Policy, Rule, SharedPages
from tests.unit import seen
from tests.unit.seen import GIB, MIB

BY_NODE = {0: frozenset(range(4)), 1: frozenset(range(4, 8))}
WEIGHTS = SegmentId("08:01", 42)


def worker(
    label: str,
    own: Mapping[int, int],
    weights: Mapping[int, int],
    *,
    mapmax: int,
    kind: Kind = Kind.FILE,
    bound: int = 0,
    **more: Any,
) -> Worker:
    """Return a worker whose threads its user keeps on node 1.

    Args:
        label: of the worker.
        own: MiB by node of its own memory.
        weights: MiB by node of the file that it maps.
        mapmax: how many mappings a page of the file has; 1: nobody else's.
        kind: of the file.
        bound: MiB on node 0 that its user bound there.
        more: fields of the worker.
    """
    mobility = Mobility.SHARED if mapmax > 1 else Mobility.MOVABLE
    sizes = {
        **{(node, Kind.ANON, Mobility.MOVABLE): size * MIB for node, size in own.items()},
        **{(node, kind, mobility): size * MIB for node, size in weights.items()},
        (0, Kind.ANON, Mobility.POLICY): bound * MIB,
    }
    on = tuple((node, size * MIB) for node, size in sorted(weights.items()))
    part = SegmentPart(WEIGHTS, "/m.gguf", kind, on, on if mapmax > 1 else (), mapmax)
    total = sum((*own.values(), *weights.values())) * MIB
    values = {
        "threads": (Thread(10, 5, BY_NODE[1], 4, 100),),
        "memory": MemoryStatus(anon_bytes=total),
        "run_share": {1: 1.0},
    }
    found = seen.residency(sizes, segments=(part,), policies=("bind:0",) if bound else ())
    return seen.worker(label, found, **(values | more))


def machine(*workers: Worker, free_gib: int = 4) -> Snapshot:
    """Return a look at two nodes of 8 GiB with so many GiB free on each."""
    nodes = tuple(Node(i, BY_NODE[i], 8 * GIB, {i: 10, 1 - i: 20}) for i in (0, 1))
    states = tuple(NodeState(i, 8 * GIB, free_gib * GIB, 0) for i in (0, 1))
    return seen.snapshot(
        *workers, topology=Topology(nodes), node_states=states, segments=merge(workers)
    )


def policy(homes: Mapping[str, int | None], **more: Any) -> Policy:
    """Return rules by name with their home, or None, all of which let shared memory be moved."""
    keys = {"shared": SharedPages.USERS, **more}
    return Policy(
        rules=tuple(
            Rule(name, "x.toml:1", nodes=None if home is None else frozenset({home}), **keys)
            for name, home in homes.items()
        )
    )
