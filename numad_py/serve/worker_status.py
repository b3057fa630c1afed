"""A worker's part of ``status``: where its memory lies, what may be moved, and how sure that is."""

from __future__ import annotations

from typing import Any

from numad_py.model.cpulist import format_list
from numad_py.model.plan import Decision, Finding
from numad_py.model.residency import Kind, Mobility, Residency, Source
from numad_py.model.snapshot import Worker
from numad_py.model.topology import Topology
from numad_py.serve.decision_status import decision_document

Document = dict[str, Any]


def worker_document(
    worker: Worker,
    decision: Decision | None,
    *,
    now_s: float,
    moved_bytes: int | None,
    topology: Topology,
) -> Document:
    """Return all that is known of a worker.

    Args:
        worker: as seen in this cycle.
        decision: what is done about it; None where nobody decided.
        now_s: time since boot to which ages count.
        moved_bytes: moved so far, of a move under way.
        topology: tells the nodes of its devices, and which have CPUs.
    """
    finding = decision.finding if decision is not None else None
    home = finding.home if finding is not None else None
    residency = worker.residency
    return {
        "worker": worker.label,
        "rule": worker.rule,
        "pid": worker.id.pid,
        "start_ticks": worker.id.start_ticks,
        "age_seconds": round(worker.age_s),
        "comm": worker.comm,
        "user": worker.user,
        "cgroup": worker.cgroup,
        "threads": len(worker.threads),
        "allowed_cpus": format_list(worker.allowed_cpus),
        "bound_by_us": bool(worker.first_masks),
        "home": None
        if home is None
        else {"nodes": sorted(home.nodes), "source": home.source.value, "why": home.why},
        "locality": rounded(finding.locality if finding else None),
        "run_locality": rounded(finding.run_locality if finding else None),
        "run_share": {str(n): rounded(s) for n, s in sorted(worker.run_share.items())},
        "demand_cpus": rounded(worker.demand_cpus),
        "bandwidth": _bandwidth(worker),
        "devices": [
            {"address": d.address, "kind": d.kind, "node": d.node}
            for d in topology.devices
            if d.address in worker.devices
        ],
        "devices_unsure": worker.devices_unsure,
        "moved_so_far_bytes": moved_bytes,
        **_movable(worker, finding),
        "resident_bytes": None if residency is None else _by_node(residency),
        "resident_bytes_by_page_size": None
        if residency is None
        else {str(size): n for size, n in sorted(residency.by_page_size().items())},
        "thp_bytes": worker.thp_bytes,
        "residency_age_seconds": None if residency is None else _age(now_s, residency.read_at_s),
        "figures": None if residency is None else figures_document(residency, now_s),
        "problem": worker.problem,
        "guard_problem": worker.guard_problem,
        "decision": None if decision is None else decision_document(decision, topology),
    }


def figures_document(residency: Residency, now_s: float) -> Document:
    """Return where a worker's memory figures come from, how old they are and how sure.

    ``error`` is by how much at most a node's share is wrong, 95 times in 100: the farther end of
    the widest interval. None where that is not known.
    """
    confirmed = residency.confirmed
    return {
        "source": residency.source.value,
        "age_seconds": _age(now_s, residency.read_at_s),
        "error": rounded(error_share(residency)),
        "mobility_known": residency.mobility_known,
        "confirmed": None
        if confirmed is None
        else {
            "source": confirmed.source.value,
            "age_seconds": _age(now_s, confirmed.at_s),
            "error": rounded(confirmed.error_share),
        },
        "no_full_reading": residency.no_full_reading,
    }


def error_share(residency: Residency) -> float | None:
    """Return by how much a node's share may be wrong; None where nobody knows.

    A cgroup is charged for pages of files that it was the first to touch, whoever maps them now,
    and not for hugetlb: how far that is from what the worker maps cannot be told from it.
    """
    return None if residency.source is Source.NUMA_STAT else residency.error_share


def _movable(worker: Worker, finding: Finding | None) -> Document:
    """Return what may be moved, and what stands in the way of the rest, in bytes.

    None where nobody knows which pages may be moved: remote bytes are those that lie off home then.
    Pinned and locked come from elsewhere than the others and count parts of them once more.
    """
    memory = worker.memory
    residency = worker.residency
    known = residency if residency is not None and residency.mobility_known else None
    shared = known.total_bytes(mobility=Mobility.SHARED) if known else None
    policy = known.total_bytes(mobility=Mobility.POLICY) if known else None
    if known and finding is not None and finding.shared_bytes is not None:
        # Less what it moves for others too, and what is left to these.
        shared = finding.shared_bytes
    refused = None
    if finding is not None and shared is not None and policy is not None:
        refused = max(0, finding.immovable_bytes - shared - policy - finding.left_bytes)
    return {
        "movable_bytes": finding.movable_bytes if finding and known else None,
        "remote_bytes": finding.remote_bytes if finding else None,
        "immovable_bytes": finding.immovable_bytes if finding and known else None,
        "shared_bytes": shared,
        "policy_bytes": policy,
        "left_bytes": finding.left_bytes if finding and known else None,
        "refused_bytes": refused,
        "pinned_bytes": memory.pinned_bytes,
        "locked_bytes": memory.locked_bytes,
        "swapped_bytes": memory.swapped_bytes,
    }


def _by_node(residency: Residency) -> Document:
    by_kind = {kind: residency.by_node(kind=kind) for kind in Kind}
    return {
        str(node): {
            kind.value: size for kind, by_node in by_kind.items() if (size := by_node.get(node, 0))
        }
        for node in sorted(residency.by_node())
    }


def _bandwidth(worker: Worker) -> Document | None:
    if worker.bandwidth is None:
        return None
    return {
        "local_bytes_per_s": round(worker.bandwidth.local_bytes_per_s),
        "total_bytes_per_s": round(worker.bandwidth.total_bytes_per_s),
    }


def _age(now_s: float, at_s: float) -> float:
    """Return how long ago something was; what was made after the cycle began is new."""
    return round(max(0.0, now_s - at_s), 2)


def rounded(value: float | None) -> float | None:
    """Return a share, or a number of CPUs, as documents show it."""
    return None if value is None else round(value, 4)
