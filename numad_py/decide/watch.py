"""What is learnt of a worker from look to look: whether it still grows, and how busy it is."""

from __future__ import annotations

import math
from dataclasses import replace

from numad_py.model.plan import WorkerMemory
from numad_py.model.snapshot import Worker
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
    demand = worker.demand_cpus
    if memory.demand_cpus is not None and memory.seen_at_s is not None:
        weight = math.exp(-max(0.0, now_s - memory.seen_at_s) / DEMAND_S)
        demand = weight * memory.demand_cpus + (1 - weight) * demand
    return replace(
        memory,
        largest_bytes=largest,
        grown_at_s=grown_at_s,
        demand_cpus=demand,
        seen_at_s=now_s,
    )


def loading(
    memory: WorkerMemory, worker: Worker, policy: PlacementPolicy, now_s: float
) -> float | None:
    """Return for how long a worker has not grown while it counts as loading; None: it does not."""
    if memory.grown_at_s is None or worker.age_s >= policy.loading_limit_s:
        return None
    calm_s = now_s - memory.grown_at_s
    return calm_s if calm_s < policy.settle_s else None
