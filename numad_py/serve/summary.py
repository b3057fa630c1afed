"""The line that ``systemctl status`` shows."""

from __future__ import annotations

from numad_py.model.plan import Verdict
from numad_py.serve.plain import counted
from numad_py.serve.report import CycleReport


def summary(report: CycleReport, moving: int) -> str:
    """Return how many workers are at home and how many are being moved.

    Args:
        report: of the last cycle.
        moving: decisions under way or waiting.
    """
    with_memory = sum(1 for node in report.snapshot.topology.nodes if node.has_memory)
    workers = len(report.snapshot.workers)
    if with_memory < 2:  # noqa: PLR2004 - it takes two to move anything
        return f"one node: nothing to move; measuring {counted(workers, 'worker')}"
    home = sum(1 for d in report.plan.decisions if d.verdict is Verdict.REST)
    words = [f"{home} of {counted(workers, 'worker')} at home", f"{moving} moving"]
    if report.paused:
        words.insert(0, "paused")
    if report.policy_error:
        words.append("policy file rejected, the earlier one stands")
    return f"{report.mode}: {', '.join(words)}"
