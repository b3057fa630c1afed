"""Reports as JSON documents with a schema version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numad_py.model.outcome import Outcome
from numad_py.serve.decision_status import decision_document
from numad_py.serve.machine_status import machine_documents
from numad_py.serve.report import CycleReport
from numad_py.serve.worker_status import rounded, worker_document

SCHEMA = 1
"""Goes up when a key changes its meaning or goes; new keys do not count."""

Document = dict[str, Any]


def status_document(report: CycleReport, *, source: str) -> Document:
    """Return nodes, devices and workers.

    Args:
        report: of the last cycle, or of one look; times that count to now count to its age.
        source: ``daemon`` or ``direct``; a direct look holds nothing that depends on the clock.
    """
    snapshot = report.snapshot
    decisions = {d.worker: d for d in report.plan.decisions}
    document: Document = {
        **head_document(report, source=source),
        **machine_documents(snapshot),
        "workers": [
            worker_document(
                replace(worker, age_s=worker.age_s + report.age_s),
                decisions.get(worker.id),
                now_s=snapshot.at_s + report.age_s,
                moved_bytes=report.progress.get(worker.id),
                topology=snapshot.topology,
            )
            for worker in snapshot.workers
        ],
        "unmatched_processes": snapshot.unmatched,
        "passed_over": [
            {
                "pid": p.pid,
                "comm": p.comm,
                "command": p.command,
                "resident_bytes": p.resident_bytes,
                "why": p.why,
            }
            for p in snapshot.passed_over
        ],
    }
    if source == "daemon":
        document["outcomes"] = [outcome_document(o) for o in report.outcomes]
        document["settings"] = {
            "changed": dict(report.settings.changed),
            "problems": dict(report.settings.problems),
        }
    return document


def head_document(report: CycleReport, *, source: str) -> Document:
    """Return who speaks, by which policy, and how long ago it looked where that is the daemon."""
    document: Document = {
        "schema": SCHEMA,
        "source": source,
        "mode": report.mode,
        "dry_run": report.dry_run,
        "paused": report.paused,
        "policy": {"files": list(report.policy_sources), "error": report.policy_error},
    }
    if source == "daemon":
        document["cycle"] = report.cycle
        document["age_seconds"] = round(report.cycle_age_s, 2)
        document["cycle_seconds"] = round(report.cycle_duration_s, 6)
        document["last_cycle_at"] = report.last_cycle_at
    return document


def outcome_document(outcome: Outcome) -> Document:
    """Return what became of a decision."""
    return {
        "decision": outcome.decision.id,
        "worker": outcome.decision.label,
        "end": outcome.end.value,
        "seconds": round(outcome.duration_s, 3),
        "threads_bound": outcome.threads_bound,
        "threads_left": outcome.threads_left,
        "threads_given_back": outcome.threads_given_back,
        "moved_bytes": outcome.moved_bytes,
        "pages": {status.value: n for status, n in outcome.pages.items()},
        "error": outcome.error,
    }


def plan_document(report: CycleReport, *, source: str) -> Document:
    """Return all decisions, with the commands that would do the same by hand."""
    return {
        **head_document(report, source=source),
        "notes": [i.text for i in report.snapshot.interferences if i.present and i.level == "warn"],
        "decisions": [
            {
                **decision_document(d, report.snapshot.topology),
                "worker": d.label,
                "pid": d.worker.pid,
                "home": sorted(d.finding.home.nodes) if d.finding.home else None,
                "home_source": d.finding.home.source.value if d.finding.home else None,
                "locality": rounded(d.finding.locality),
            }
            for d in report.plan.decisions
        ],
    }
