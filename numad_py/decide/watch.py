"""What is learnt of a worker from look to look: whether it still grows, and how busy it is."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from numad_py.decide.places import foreign_cpus
from numad_py.model.plan import DecisionState, WorkerMemory
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.policy.schema import PlacementPolicy

GREW_SHARE = 0.02
"""More than this share beyond the largest it ever was is growth,"""
GREW_BYTES = 16 << 20
"""and so many bytes at least."""
DEMAND_S = 60.0
"""Time constant of the demand for CPUs: placing goes by what lasts."""


def watch(memory: WorkerMemory, worker: Worker, now_s: float) -> WorkerMemory:
    """Return what is known of a worker after this look."""
    size = worker.memory.resident_bytes or 0
    grown_at_s, largest = memory.grown_at_s, memory.largest_bytes
    if size >= largest + max(GREW_BYTES, GREW_SHARE * largest):
        # The first look says nothing of growth.
        grown_at_s = now_s if memory.seen_at_s is not None else None
        largest = size
    # What it did before the first look counts from its birth: starting up is no demand that lasts.
    since_s = worker.age_s if memory.seen_at_s is None else now_s - memory.seen_at_s
    return replace(
        memory,
        largest_bytes=largest,
        grown_at_s=grown_at_s,
        demand_cpus=lasting(memory.demand_cpus or 0.0, worker.demand_cpus, since_s),
        seen_at_s=now_s,
    )


def watch_others(
    state: DecisionState, snapshot: Snapshot, placed: Collection[WorkerId]
) -> DecisionState:
    """Return the state with the CPUs that others than these keep busy, as far as it lasts."""
    now = foreign_cpus(snapshot, placed)
    since_s = 0.0 if state.others_at_s is None else snapshot.at_s - state.others_at_s
    others = {
        node: lasting(state.others_cpus.get(node, 0.0), busy, since_s) for node, busy in now.items()
    }
    return replace(state, others_cpus=others, others_at_s=snapshot.at_s)


def lasting(before: float, now: float, since_s: float) -> float:
    """Return a mean in which the last DEMAND_S or so weigh."""
    weight = math.exp(-max(0.0, since_s) / DEMAND_S)
    return weight * before + (1 - weight) * now


def loading(
    memory: WorkerMemory, worker: Worker, policy: PlacementPolicy, now_s: float
) -> float | None:
    """Return for how long a worker has not grown while it counts as loading; None: it does not."""
    if memory.grown_at_s is None or worker.age_s >= policy.loading_limit_s:
        return None
    calm_s = now_s - memory.grown_at_s
    return calm_s if calm_s < policy.settle_s else None
