"""The machine's part of ``status``: nodes, devices, files that workers map, what interferes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from numad_py.model.cpulist import format_list
from numad_py.model.snapshot import Snapshot
from numad_py.serve.worker_status import rounded

MOST_SEGMENTS = 64
"""So many are told of, the largest; a worker may map thousands of files."""

Document = dict[str, Any]


def machine_documents(snapshot: Snapshot) -> Document:
    """Return what a status document says of the machine, by key."""
    return {
        "nodes": nodes(snapshot),
        "pressure": {name: rounded(share) for name, share in asdict(snapshot.pressure).items()},
        "interferences": [asdict(found) for found in snapshot.interferences],
        "devices": devices(snapshot),
        "segments": segments(snapshot),
        "segments_in_all": {
            "count": len(snapshot.segments),
            "resident_bytes": sum(segment.resident_bytes for segment in snapshot.segments),
        },
    }


def nodes(snapshot: Snapshot) -> list[Document]:
    """Return the nodes in order of id; what could not be read is None."""
    states = {state.node: state for state in snapshot.node_states}
    of_workers = snapshot.resident_by_node()
    documents = []
    for node in snapshot.topology.nodes:
        state = states.get(node.id)
        busy_cpus = state.busy_cpus if state is not None else None
        documents.append(
            {
                "id": node.id,
                "cpus": format_list(node.cpus),
                "busy_cpus": None if busy_cpus is None else round(busy_cpus, 2),
                # Memory that was added or taken away since the topology was read counts.
                "memory_bytes": node.memory_bytes if state is None else state.total_bytes,
                "free_bytes": state.free_bytes if state is not None else None,
                "reclaimable_bytes": state.reclaimable_bytes if state is not None else None,
                "workers_bytes": of_workers.get(node.id, 0),
                "huge_pages": [asdict(pool) for pool in state.huge_pages] if state else [],
                "numastat_pages": asdict(state.numastat) if state and state.numastat else None,
                "memory_tier": node.memory_tier,
                "performance": asdict(node.performance) if node.performance else None,
                "distances": {str(k): v for k, v in sorted(node.distances.items())},
            }
        )
    return documents


def devices(snapshot: Snapshot) -> list[Document]:
    """Return the PCI devices by address."""
    return [
        {
            "address": d.address,
            "kind": d.kind,
            "vendor": d.vendor_id,
            "device": d.device_id,
            "node": d.node,
            "driver": d.driver,
            "name": d.name,
        }
        for d in snapshot.topology.devices
    ]


def segments(snapshot: Snapshot) -> list[Document]:
    """Return the largest files and shared segments that workers map, each once."""
    return [
        {
            "path": segment.path,
            "device": segment.id.device,
            "inode": segment.id.inode,
            "kind": segment.kind.value,
            "resident_bytes": segment.resident_bytes,
            "bytes_by_node": {str(n): size for n, size in sorted(segment.bytes_by_node.items())},
            "users": list(segment.users),
        }
        for segment in snapshot.segments[:MOST_SEGMENTS]
    ]
