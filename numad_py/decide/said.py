"""What is said of a worker while the cycle's decisions are made."""

from __future__ import annotations

from dataclasses import dataclass

from numad_py.model.guard import Judgement
from numad_py.model.plan import MemoryMove, Reason, Verdict


@dataclass(frozen=True)
class Said:
    """A decision less the worker it is about."""

    verdict: Verdict
    reason: Reason
    why: str
    bind_cpus: frozenset[int] | None = None
    moves: tuple[MemoryMove, ...] = ()
    give_back: bool = False
    """An earlier move is taken back: threads get their first masks."""
    judgement: Judgement | None = None
    """What was found about an earlier move in this cycle."""
