"""A decision as a document, with the commands that would do the same by hand."""

from __future__ import annotations

from typing import Any

from numad_py.model.cpulist import format_list
from numad_py.model.plan import Decision

Document = dict[str, Any]


def decision_document(decision: Decision) -> Document:
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
        "bind_cpus": None if decision.bind_cpus is None else format_list(decision.bind_cpus),
        "moves": [
            {"source": m.source, "target": m.target, "bytes": m.move_bytes} for m in decision.moves
        ],
        "commands": commands(decision),
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
