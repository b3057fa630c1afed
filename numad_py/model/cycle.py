"""One cycle as it is recorded: what was seen, what was said about it, what had been done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from numad_py.model.outcome import Outcome
from numad_py.model.plan import MemoryMove, Plan, Reason, Verdict
from numad_py.model.snapshot import Snapshot, WorkerId


@dataclass(frozen=True)
class Said:
    """A decision in short: its finding can be worked out from the snapshot."""

    worker: WorkerId
    label: str
    verdict: Verdict
    reason: Reason
    home: frozenset[int] | None = None
    """Home nodes; None where it has none."""
    bind_cpus: frozenset[int] | None = None
    moves: tuple[MemoryMove, ...] = ()


@dataclass(frozen=True)
class Cycle:
    """What one cycle saw, took in and decided."""

    snapshot: Snapshot
    said: tuple[Said, ...] = ()
    """One for each worker, sorted by label."""
    outcomes: tuple[Outcome, ...] = ()
    """Of decisions of earlier cycles, ended since the cycle before."""

    @classmethod
    def of(cls, snapshot: Snapshot, plan: Plan, outcomes: Iterable[Outcome]) -> Cycle:
        """Return a cycle from what the rooms handed on in it."""
        said = tuple(
            Said(
                worker=d.worker,
                label=d.label,
                verdict=d.verdict,
                reason=d.reason,
                home=None if d.finding.home is None else d.finding.home.nodes,
                bind_cpus=d.bind_cpus,
                moves=d.moves,
            )
            for d in plan.decisions
        )
        return cls(snapshot, said, tuple(outcomes))
