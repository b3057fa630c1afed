"""A decision as a document, with the commands that would do the same by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from numad_py.model.cpulist import format_list
from numad_py.model.guard import Judgement
from numad_py.model.plan import Cost, Decision, Reason, Verdict
from numad_py.model.topology import Topology

Document = dict[str, Any]


def decision_document(decision: Decision, topology: Topology) -> Document:
    """Return what is done about a worker, why, and what else it could have been."""
    return {
        "id": decision.id,
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "why": decision.why,
        "alternatives": [
            {
                "home": sorted(a.home),
                "dearer_bytes": a.dearer,
                "barred_by": None if a.barred_by is None else a.barred_by.value,
            }
            for a in decision.alternatives
        ],
        "constraints": list(decision.constraints),
        "cost": None if decision.cost is None else _cost(decision.cost),
        "shared": [
            {"path": s.path, "away_bytes": s.away_bytes, "part": s.part.value, "why": s.why}
            for s in decision.shared
        ],
        "bind_cpus": None if decision.bind_cpus is None else format_list(decision.bind_cpus),
        "moves": [
            {"source": m.source, "target": m.target, "bytes": m.move_bytes} for m in decision.moves
        ],
        "give_back": decision.give_back,
        "judgement": None if decision.judgement is None else _judgement(decision.judgement),
        "commands": commands(decision),
        "not_by_hand": not_by_hand(decision),
        "restart_command": restart_command(decision, topology),
    }


def _judgement(judgement: Judgement) -> Document:
    """Return what a guard has last found; values in the metric's own unit."""
    return {
        "result": judgement.result.value,
        "cycle": judgement.cycle,
        "why": judgement.why,
        "before": None if judgement.before is None else asdict(judgement.before),
        "after": None if judgement.after is None else asdict(judgement.after),
    }


def _cost(cost: Cost) -> Document:
    """Return what a home costs, in bytes on another node, as a whole and by what for."""
    return {"total_bytes": cost.total, **{f"{k}_bytes": size for k, size in asdict(cost).items()}}


def commands(decision: Decision) -> list[str]:
    """Return the taskset and migratepages lines that come nearest to a decision.

    migratepages takes all that a worker has on a node, and cannot divide it
    (do_migrate_pages, mm/mempolicy.c): what goes to several nodes is in ``not_by_hand``.
    """
    pid = decision.worker.pid
    lines = []
    if decision.bind_cpus is not None:
        lines.append(
            f"taskset --all-tasks --cpu-list --pid {format_list(decision.bind_cpus)} {pid}"
        )
    lines += [
        f"migratepages {pid} {source} {targets[0]}"
        for source, targets in _targets(decision).items()
        if len(targets) == 1
    ]
    return lines


def not_by_hand(decision: Decision) -> list[str]:
    """Return what no command does, a sentence each."""
    told = [
        f"migratepages cannot divide what lies on node {source} among nodes {format_list(targets)}"
        for source, targets in _targets(decision).items()
        if len(targets) > 1
    ]
    if decision.moves and decision.leave_files:
        told.append("migratepages takes mapped files along, which its rule leaves where they are")
    return told


def restart_command(decision: Decision, topology: Topology) -> str | None:
    """Return how to start a worker anew so that its memory comes to lie at home.

    Its memory follows its threads then. Only nodes without CPUs are told to the kernel as such: a
    worker that is bound to memory is left alone ever after. None where that would help nothing.
    """
    home = decision.finding.home
    helps = decision.verdict is Verdict.ACT or decision.reason is Reason.IMMOVABLE
    if home is None or not helps or decision.give_back:
        return None
    nodes = {node.id: node.has_cpu for node in topology.nodes if node.id in home.nodes}
    with_cpus = [node for node, has_cpu in nodes.items() if has_cpu]
    options = []
    if decision.bind_cpus is not None:
        options.append(f"--physcpubind={format_list(decision.bind_cpus)}")
    elif with_cpus:
        options.append(f"--cpunodebind={format_list(with_cpus)}")
    if len(with_cpus) == len(nodes):
        options.append("--localalloc")
    elif len(nodes) == 1:
        options.append(f"--preferred={format_list(nodes)}")
    else:
        options.append(f"--membind={format_list(nodes)}")
    return f"numactl {' '.join(options)} COMMAND"


def _targets(decision: Decision) -> dict[int, list[int]]:
    """Return where the bytes of each source go."""
    targets: dict[int, list[int]] = {}
    for move in decision.moves:
        targets.setdefault(move.source, []).append(move.target)
    return targets
