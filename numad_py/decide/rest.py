"""Whether anything is left to decide."""

from __future__ import annotations

from numad_py.model.plan import Plan, Verdict
from numad_py.model.snapshot import Snapshot

YOUNG_S = 60.0
"""A worker may still load, of which the size that each look reads does not tell all (hugetlb)."""


def at_rest(plan: Plan, snapshot: Snapshot) -> bool:
    """Say whether the same is decided again as long as nothing changes.

    It is where every worker rests, and is past its youth: whoever waits does so for a time to come,
    and who is refused, for room that others may leave any time.
    """
    return all(d.verdict is Verdict.REST for d in plan.decisions) and all(
        worker.age_s >= YOUNG_S and not worker.memory.hugetlb_bytes for worker in snapshot.workers
    )
