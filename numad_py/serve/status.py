"""Reports as JSON documents with a schema version, and as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numad_py.model.cpulist import format_list
from numad_py.model.outcome import Outcome
from numad_py.model.plan import Decision, Plan, Verdict
from numad_py.model.quantity import format_bytes
from numad_py.model.residency import Kind, Mobility
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.model.text import printable
from numad_py.serve.report import CycleReport

SCHEMA = 1
"""Goes up when a key changes its meaning or goes; new keys do not count."""

Document = dict[str, Any]


def status_document(report: CycleReport, *, source: str) -> Document:
    """Return nodes, devices and workers.

    Args:
        report: of the last cycle, or of one look.
        source: ``daemon`` or ``direct``; a direct look holds nothing that depends on the clock.
    """
    snapshot = report.snapshot
    decisions = {d.worker: d for d in report.plan.decisions}
    document: Document = {
        "schema": SCHEMA,
        "source": source,
        "mode": report.mode,
        "paused": report.paused,
        "policy": {"files": list(report.policy_sources), "error": report.policy_error},
        "nodes": _nodes(snapshot),
        "devices": [
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
        ],
        "workers": [_worker(w, decisions.get(w.id), report) for w in snapshot.workers],
        "unmatched_processes": snapshot.unmatched,
        "passed_over": [
            {"pid": p.pid, "comm": p.comm, "resident_bytes": p.resident_bytes, "why": p.why}
            for p in snapshot.passed_over
        ],
    }
    if source == "daemon":
        document["cycle"] = snapshot.cycle
        document["cycle_seconds"] = round(report.cycle_duration_s, 6)
        document["last_cycle_at"] = report.last_cycle_at
        document["outcomes"] = [outcome_document(o) for o in report.outcomes]
    return document


def _nodes(snapshot: Snapshot) -> list[Document]:
    states = {state.node: state for state in snapshot.node_states}
    return [
        {
            "id": node.id,
            "cpus": format_list(node.cpus),
            "memory_bytes": node.memory_bytes,
            "free_bytes": states[node.id].free_bytes if node.id in states else None,
            "reclaimable_bytes": states[node.id].reclaimable_bytes if node.id in states else None,
            "distances": {str(k): v for k, v in sorted(node.distances.items())},
        }
        for node in snapshot.topology.nodes
    ]


def _worker(worker: Worker, decision: Decision | None, report: CycleReport) -> Document:
    finding = decision.finding if decision is not None else None
    home = finding.home if finding is not None else None
    residency = worker.residency
    return {
        "worker": worker.label,
        "rule": worker.rule,
        "pid": worker.id.pid,
        "start_ticks": worker.id.start_ticks,
        "comm": worker.comm,
        "user": worker.user,
        "cgroup": worker.cgroup,
        "threads": len(worker.threads),
        "allowed_cpus": format_list(worker.allowed_cpus),
        "bound_by_us": bool(worker.first_masks),
        "home": None
        if home is None
        else {"nodes": sorted(home.nodes), "source": home.source.value, "why": home.why},
        "locality": _rounded(finding.locality if finding else None),
        "run_locality": _rounded(finding.run_locality if finding else None),
        "run_share": {str(n): _rounded(s) for n, s in sorted(worker.run_share.items())},
        "demand_cpus": _rounded(worker.demand_cpus),
        "movable_bytes": finding.movable_bytes if finding else None,
        "remote_bytes": finding.remote_bytes if finding else None,
        "immovable_bytes": finding.immovable_bytes if finding else None,
        "moved_so_far_bytes": report.progress.get(worker.id),
        "resident_bytes": None
        if residency is None
        else {
            str(node): {
                kind.value: size
                for kind in Kind
                if (size := residency.by_node(kind=kind).get(node, 0))
            }
            for node in sorted(residency.by_node())
        },
        "shared_bytes": residency.total_bytes(mobility=Mobility.SHARED) if residency else None,
        "policy_bytes": residency.total_bytes(mobility=Mobility.POLICY) if residency else None,
        "residency_age_seconds": None
        if residency is None
        else round(report.snapshot.at_s - residency.read_at_s, 2),
        "problem": worker.problem,
        "decision": None if decision is None else _decision(decision),
    }


def _decision(decision: Decision) -> Document:
    return {
        "id": decision.id,
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "why": decision.why,
    }


def outcome_document(outcome: Outcome) -> Document:
    """Return what became of a decision."""
    return {
        "decision": outcome.decision.id,
        "worker": outcome.decision.label,
        "end": outcome.end.value,
        "seconds": round(outcome.duration_s, 3),
        "threads_bound": outcome.threads_bound,
        "threads_left": outcome.threads_left,
        "moved_bytes": outcome.moved_bytes,
        "pages": {status.value: n for status, n in outcome.pages.items()},
        "error": outcome.error,
    }


def plan_document(plan: Plan, mode: str) -> Document:
    """Return all decisions, with the commands that would do the same by hand."""
    return {
        "schema": SCHEMA,
        "mode": mode,
        "decisions": [
            {
                **_decision(d),
                "worker": d.label,
                "pid": d.worker.pid,
                "home": sorted(d.finding.home.nodes) if d.finding.home else None,
                "home_source": d.finding.home.source.value if d.finding.home else None,
                "locality": _rounded(d.finding.locality),
                "bind_cpus": None if d.bind_cpus is None else format_list(d.bind_cpus),
                "moves": [
                    {"source": m.source, "target": m.target, "bytes": m.move_bytes} for m in d.moves
                ],
                "commands": commands(d),
            }
            for d in plan.decisions
        ],
    }


def commands(decision: Decision) -> list[str]:
    """Return the taskset and migratepages lines that come nearest to a decision."""
    pid = decision.worker.pid
    lines = []
    if decision.bind_cpus is not None:
        lines.append(
            f"taskset --all-tasks --cpu-list --pid {format_list(decision.bind_cpus)} {pid}"
        )
    lines += [f"migratepages {pid} {m.source} {m.target}" for m in decision.moves]
    return lines


def render_status(document: Mapping[str, Any]) -> str:
    """Return a status document as text."""
    head = f"mode {document['mode']}" + (", paused" if document["paused"] else "")
    if document["policy"]["error"]:
        head += "\nthe policy file was refused, an earlier one stands:\n  " + document["policy"][
            "error"
        ].replace("\n", "\n  ")
    nodes = _table(
        ("NODE", "CPUS", "MEMORY", "FREE", "DISTANCES"),
        [
            (
                str(n["id"]),
                n["cpus"] or "none",
                format_bytes(n["memory_bytes"]),
                "?" if n["free_bytes"] is None else format_bytes(n["free_bytes"]),
                " ".join(f"{k}:{v}" for k, v in n["distances"].items()),
            )
            for n in document["nodes"]
        ],
    )
    parts = [head, nodes]
    placed = [d for d in document["devices"] if d["node"] is not None]
    if placed:
        parts.append(
            _table(
                ("DEVICE", "KIND", "NODE", "DRIVER", "NAME"),
                [
                    (d["address"], d["kind"], str(d["node"]), d["driver"] or "-", d["name"] or "-")
                    for d in placed
                ],
            )
        )
    if document["workers"]:
        parts.append(
            _table(
                ("WORKER", "PID", "HOME", "LOCAL", "RESIDENT BY NODE", "DECISION"),
                [_worker_row(w) for w in document["workers"]],
            )
        )
        if why := _why_lines(document["workers"]):
            parts.append("\n".join(why))
    else:
        parts.append("no worker: no process matches a rule (numad-py check-config lists the rules)")
    if document["passed_over"]:
        parts.append(
            _table(
                ("NOT WATCHED", "PID", "RESIDENT", "WHY"),
                [
                    (p["comm"], str(p["pid"]), format_bytes(p["resident_bytes"]), p["why"])
                    for p in document["passed_over"]
                ],
            )
        )
    return "\n\n".join(parts)


def _worker_row(worker: Mapping[str, Any]) -> tuple[str, ...]:
    home = worker["home"]
    resident = worker["resident_bytes"]
    decision = worker["decision"]
    return (
        worker["worker"],
        str(worker["pid"]),
        "-" if home is None else f"{format_list(home['nodes'])} ({home['source']})",
        _percent(worker["locality"]),
        "?"
        if resident is None
        else " ".join(f"{n}:{format_bytes(sum(k.values()))}" for n, k in resident.items()),
        "-" if decision is None else f"{decision['verdict']} {decision['reason']}",
    )


def _why_lines(workers: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{w['worker']}: {w['decision']['why']}"
        for w in workers
        if w["decision"] is not None and w["decision"]["verdict"] != Verdict.REST.value
    ]


def render_plan(document: Mapping[str, Any]) -> str:
    """Return a plan document as text."""
    decisions = document["decisions"]
    if not decisions:
        return "nothing to decide: no worker"
    lines = [
        _table(
            ("WORKER", "PID", "HOME", "LOCAL", "VERDICT", "REASON"),
            [
                (
                    d["worker"],
                    str(d["pid"]),
                    "-" if d["home"] is None else format_list(d["home"]),
                    _percent(d["locality"]),
                    d["verdict"],
                    d["reason"],
                )
                for d in decisions
            ],
        )
    ]
    for d in decisions:
        lines.append(f"\n{d['id']}  {d['why']}")
        lines += [f"    {command}" for command in d["commands"]]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rows = [tuple(printable(cell) for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
