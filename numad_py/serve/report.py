"""What a cycle leaves for people and machines to see; frozen, so that any thread may read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from numad_py.model.guard import Compared
from numad_py.model.machine import NodeState, Pressure
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Plan
from numad_py.model.residency import Source
from numad_py.model.settings import SettingsTold
from numad_py.model.snapshot import Snapshot, WorkerId
from numad_py.policy.schema import Policy


@dataclass(frozen=True)
class Took:
    """What a cycle took."""

    duration_s: float
    cpu_s: float


@dataclass(frozen=True)
class CycleReport:
    """The last cycle."""

    cycle: int
    """Its number; where nothing had changed, snapshot and plan are of an earlier one."""
    snapshot: Snapshot
    plan: Plan
    outcomes: tuple[Outcome, ...]
    """The last ones, of this cycle or an earlier one."""
    mode: str
    paused: bool
    policy_sources: tuple[str, ...]
    policy_error: str | None
    """What is wrong with the file that was refused at the last reload."""
    policy_loaded_at: float
    """Unix time."""
    cycle_duration_s: float
    cycle_cpu_s: float
    interval_s: float
    progress: Mapping[WorkerId, int]
    """Bytes moved so far, of moves under way."""
    last_cycle_at: float
    """Unix time."""
    settings: SettingsTold = field(default_factory=SettingsTold)
    """Kernel settings that the doer has changed, and those that it could not."""
    began_at_s: float = 0.0
    """When its look began, by this machine's time since boot."""
    dry_run: bool = False
    """Whether nothing is carried out, whatever the mode."""
    glanced_at_s: float = 0.0
    """When the cycle began, by the same clock: later than that, where it was a mere glance."""
    age_s: float = 0.0
    """How long ago the look was when the report was asked for; 0 of one that no daemon made."""
    cycle_age_s: float = 0.0
    """The same of the cycle."""

    def aged(self, now_s: float) -> CycleReport:
        """Return the report as it is at a time since boot: what it tells has grown older."""
        return replace(
            self,
            age_s=max(0.0, now_s - self.began_at_s),
            cycle_age_s=max(0.0, now_s - self.glanced_at_s),
        )

    def repeated(
        self,
        *,
        cycle: int,
        glanced_at_s: float,
        node_states: tuple[NodeState, ...],
        pressure: Pressure,
        took: Took,
        last_cycle_at: float,
    ) -> CycleReport:
        """Return the report of a cycle in which only the nodes were looked at anew.

        What it tells of workers stays as old as it is.
        """
        return replace(
            self,
            cycle=cycle,
            glanced_at_s=glanced_at_s,
            snapshot=replace(self.snapshot, node_states=node_states, pressure=pressure),
            cycle_duration_s=took.duration_s,
            cycle_cpu_s=took.cpu_s,
            last_cycle_at=last_cycle_at,
        )

    @classmethod
    def of_one_look(cls, snapshot: Snapshot, plan: Plan, policy: Policy) -> CycleReport:
        """Return the report of a look that no daemon made: no times, so that it can be compared."""
        return cls(
            cycle=snapshot.cycle,
            snapshot=snapshot,
            plan=plan,
            outcomes=(),
            mode=policy.daemon.mode.value,
            paused=False,
            policy_sources=policy.sources,
            policy_error=None,
            policy_loaded_at=0.0,
            cycle_duration_s=0.0,
            cycle_cpu_s=0.0,
            interval_s=policy.daemon.interval_s,
            progress={},
            last_cycle_at=0.0,
        )


@dataclass(frozen=True)
class Totals:
    """What is counted since the daemon started."""

    cycles: int = 0
    failed_cycles: int = 0
    cycle_s: float = 0.0
    cycle_cpu_s: float = 0.0
    readings: Mapping[Source, int] = field(default_factory=dict)
    """Readings of a worker's memory, by how they were made."""
    reading_s: Mapping[Source, float] = field(default_factory=dict)
    """CPU time that they took."""
    decisions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By verdict and reason."""
    judgements: Mapping[Compared, int] = field(default_factory=dict)
    """What guards found about moves."""
    moves: Mapping[str, int] = field(default_factory=dict)
    """By end."""
    moved_bytes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """By source and target node."""
    pages: Mapping[str, int] = field(default_factory=dict)
    """By status."""
    threads_bound: int = 0
    move_s: float = 0.0
    promised_bytes: int = 0
    """That decisions that were carried out were to move."""
    chunks: int = 0
    longest_chunk_s: float = 0.0
    waited_s: float = 0.0
    """That moves waited because memory was short."""
    reload_failures: int = 0

    def add(
        self,
        *,
        plan: Plan,
        outcomes: Iterable[Outcome],
        took: Took,
        readings: Mapping[Source, int],
        reading_s: Mapping[Source, float],
    ) -> Totals:
        """Return the totals with one cycle more; readings come as totals already."""
        moves, pages, moved = Counter(self.moves), Counter(self.pages), Counter(self.moved_bytes)
        threads_bound, move_s = self.threads_bound, self.move_s
        judgements = Counter(self.judgements)
        judgements.update(judgement.result for _, judgement in plan.judgements)
        outcomes = tuple(outcomes)
        carried_out = [o for o in outcomes if o.end is not End.SIMULATED]
        for outcome in outcomes:
            moves[outcome.end.value] += 1
            pages.update({status.value: n for status, n in outcome.pages.items()})
            moved.update(outcome.moved)
            threads_bound += outcome.threads_bound
            move_s += outcome.duration_s
        return replace(
            self.repeat(plan, took),
            promised_bytes=self.promised_bytes + sum(o.decision.move_bytes for o in carried_out),
            chunks=self.chunks + sum(o.chunks for o in outcomes),
            longest_chunk_s=max([self.longest_chunk_s, *(o.longest_chunk_s for o in outcomes)]),
            waited_s=self.waited_s + sum(o.waited_s for o in outcomes),
            readings=dict(readings),
            reading_s=dict(reading_s),
            judgements=dict(judgements),
            moves=dict(moves),
            moved_bytes=dict(moved),
            pages=dict(pages),
            threads_bound=threads_bound,
            move_s=move_s,
        )

    def repeat(self, plan: Plan, took: Took) -> Totals:
        """Return the totals with one cycle more, that has decided as the one before."""
        decisions = Counter(self.decisions)
        decisions.update((d.verdict.value, d.reason.value) for d in plan.decisions)
        return replace(
            self,
            cycles=self.cycles + 1,
            cycle_s=self.cycle_s + took.duration_s,
            cycle_cpu_s=self.cycle_cpu_s + took.cpu_s,
            decisions=dict(decisions),
        )
