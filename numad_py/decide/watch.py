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
MOST_S = 3600.0
"""Time constant in which the most CPUs that a worker kept busy are forgotten: a home is as wide as
what comes again."""
FULL = 0.95
"""A bound worker that keeps this share of its CPUs busy may want more than these."""


FIRST_REFUSED_S = 600.0
"""What refused to move is tried again after so long, and after twice as long each further time,"""
MOST_REFUSED_S = 86_400.0
"""up to so long: pages of a driver or of RDMA may be unpinned one day, and each try costs."""


def watch(memory: WorkerMemory, worker: Worker, now_s: float) -> WorkerMemory:
    """Return what is known of a worker after this look."""
    execed_at_s, seen_at_s = worker.execed_at_s, memory.seen_at_s
    if execed_at_s is not None and seen_at_s is not None and seen_at_s < execed_at_s:
        memory = _of_another_program(memory)
    if _refused_long_ago(memory, now_s):
        memory = replace(memory, refused={}, stuck=(), retry_refused=True)
    size = worker.memory.resident_bytes or 0
    grown_at_s, largest = memory.grown_at_s, memory.largest_bytes
    growth = memory.growth_bytes_per_s
    if size >= largest + max(GREW_BYTES, GREW_SHARE * largest):
        # The first look says nothing of growth.
        if memory.seen_at_s is not None:
            grown_at_s = now_s
            growth = (size - largest) / max(1.0, now_s - memory.seen_at_s)
        largest = size
    # What it did before the first look counts from its birth: starting up is no demand that lasts.
    since_s = worker.age_s if memory.seen_at_s is None else now_s - memory.seen_at_s
    demand = lasting(memory.demand_cpus or 0.0, wanted_cpus(worker), since_s)
    return replace(
        memory,
        largest_bytes=largest,
        grown_at_s=grown_at_s,
        growth_bytes_per_s=growth,
        demand_cpus=demand,
        most_cpus=max(demand, memory.most_cpus * math.exp(-max(0.0, since_s) / MOST_S)),
        seen_at_s=now_s,
    )


def _of_another_program(memory: WorkerMemory) -> WorkerMemory:
    """Return what still holds of a process that has become another program since it was last seen.

    Where it is, and when it was last moved: its memory is new, and so is what it does.
    """
    return WorkerMemory(
        home=memory.home,
        acted_at_s=memory.acted_at_s,
        moving=memory.moving,
        retry_refused=True,
        left_at_s=memory.left_at_s,
    )


def wanted_cpus(worker: Worker) -> float:
    """Return the CPUs that a worker would keep busy if it had as many as its user grants it.

    One that numad-py has bound shows no more than it has. Where it uses all of that, its threads
    count, by how evenly they have used CPU time so far: n equally busy ones and many idle ones
    make n.
    """
    shown = worker.demand_cpus
    if not worker.first_masks or shown < FULL * len(worker.allowed_cpus):
        return shown
    ticks = [thread.cpu_ticks for thread in worker.threads]
    threads = sum(ticks) ** 2 / max(1, sum(tick * tick for tick in ticks))
    return max(shown, min(threads, len(frozenset().union(*worker.first_masks.values()))))


def _refused_long_ago(memory: WorkerMemory, now_s: float) -> bool:
    if memory.refused_at_s is None or memory.moving or not (memory.refused or memory.stuck):
        return False
    pause_s = min(MOST_REFUSED_S, FIRST_REFUSED_S * 2.0 ** min(memory.refusals - 1, 16))
    return now_s - memory.refused_at_s >= pause_s


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
