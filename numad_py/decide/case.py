"""All that a decision about one worker is made of, and what there is to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numad_py.decide.findings import diagnose
from numad_py.decide.home import Given, user_mask
from numad_py.model.plan import DecisionState, Finding, Home, HomeSource, Placed, WorkerMemory
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.policy.schema import PlacementPolicy, Policy

RUN_LOCALITY = 0.9
"""Threads that spend less of their CPU time at home than this are away."""
FINISHED_LOCALITY = 0.99
"""A move that was broken off goes on below this locality,"""
FINISHED_BYTES = 1 << 20
"""and while at least so much is remote."""


@dataclass(frozen=True)
class Case:
    """All that a decision about one worker is made of."""

    worker: Worker
    memory: WorkerMemory
    given: Given
    finding: Finding
    placed: Placed
    remote: bool
    bind: frozenset[int] | None


def cases_of(
    snapshot: Snapshot,
    policy: Policy,
    state: DecisionState,
    given: Mapping[WorkerId, Given],
    placed: Mapping[WorkerId, Placed],
) -> list[Case]:
    """Return the case of each worker, in the order of the snapshot."""
    cases = []
    for worker in snapshot.workers:
        memory = state.of(worker.id)
        home = placed[worker.id].home
        finding = diagnose(worker, home, memory)
        remote = _is_remote(finding, policy.placement, memory, unsure(worker))
        bind = None
        if home is not None:
            bind = _bind(worker, home, finding, snapshot, policy.placement, remote=remote)
        its = placed[worker.id]
        cases.append(Case(worker, memory, given[worker.id], finding, its, remote, bind))
    return cases


def unsure(worker: Worker) -> float:
    """Return by what share of its movable bytes the figures may be wrong; 0.0 after a full reading.

    The cgroup's charges state no error: they are taken as they are, and read in full before acting.
    """
    return worker.residency.error_share if worker.residency is not None else 0.0


def _is_remote(
    finding: Finding, policy: PlacementPolicy, memory: WorkerMemory, unsure: float
) -> bool:
    """Say whether memory is to be moved: more of it than to leave as it is, or the rest of a move.

    A move that was broken off is brought to its end, which lies beyond where it would be begun.
    What a sample leaves open counts as remote: a full reading is to tell.
    """
    if finding.locality is None:
        return False
    locality = finding.locality - unsure
    remote_bytes = finding.remote_bytes + unsure * finding.movable_bytes
    if memory.unfinished and remote_bytes >= FINISHED_BYTES:
        return locality < FINISHED_LOCALITY
    return locality < policy.min_locality and remote_bytes >= max(1, policy.min_remote_bytes)


def _bind(
    worker: Worker,
    home: Home,
    finding: Finding,
    snapshot: Snapshot,
    policy: PlacementPolicy,
    *,
    remote: bool,
) -> frozenset[int] | None:
    """Return the CPUs to bind to; None where affinity is left alone.

    A pin or a cpuset is the user's: memory follows it. Otherwise threads that could leave their
    home are bound when they are away, when memory moves (it would follow them off again), or when
    the worker is large enough for the policy to care. Threads that numad-py has bound elsewhere
    come along.
    """
    if home.source in {HomeSource.PIN, HomeSource.CPUSET}:
        return None
    cpus = snapshot.topology.cpus_of(home.nodes)
    cpus = (cpus - policy.reserved_cpus) or cpus
    wanted = cpus & user_mask(worker, snapshot.topology)
    # Also where numad-py has bound them to less than their home has become.
    unbound = any(
        t.affinity is not None
        and (mask := worker.first_masks.get(t.tid, t.affinity) & wanted)
        and t.affinity != mask
        for t in worker.threads
    )
    if not unbound:
        return None
    away = finding.run_locality is not None and finding.run_locality < RUN_LOCALITY
    if remote or away or finding.movable_bytes >= policy.min_remote_bytes:
        return wanted
    return None
