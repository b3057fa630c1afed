"""A rule that places as numad does, to be set beside our own on the same trace.

Of numad's behaviour (its manual, and how it is seen to behave) it copies:

- Processes under 300 MB or half a CPU are left alone.
- One process at a time: those never placed come first, the largest CPU x memory before the others;
  the placed ones follow in the same order. Each is placed by what is free at that moment, whatever
  the others want, and nothing else is done until its memory has been moved.
- The nodes with the most free memory x free CPUs that hold the process, at 85 % utilisation, are
  its own: what it has there itself counts as free for it, and a quarter more. One that is larger
  than a node takes the roomiest and those that are nearest to it.
- It is left where it is if it is bound there already and 90 % of its memory is local.
- A process that was placed is not looked at again for 300 s. There is nothing else that keeps it:
  neither a clear gain nor what its way there has cost.
- Masks that users set are overwritten; of cpusets and replicas it knows nothing.

Left out, in its favour: its mix-up of node numbers, and that it drags shared memory along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from numad_py.decide.findings import diagnose
from numad_py.model.plan import (
    Decision,
    DecisionState,
    Home,
    HomeSource,
    MemoryMove,
    Plan,
    Reason,
    Verdict,
    WorkerMemory,
)
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.policy.schema import Policy

LEAST_BYTES = 300 << 20
LEAST_CPUS = 0.5
UTILISATION = 0.85
LOCALITY = 0.9
PAUSE_S = 300.0
PASS_S = 5.0
"""It looks again so soon after it has moved something."""
OWN = 1.25
"""What a byte of its own counts on a node, beside a free one."""
MARGIN_BYTES = 100 << 20
"""Left free on a node."""


@dataclass
class _Free:
    """What nodes have left in this pass."""

    memory: dict[int, int]
    cpus: dict[int, float]


def decide(snapshot: Snapshot, policy: Policy, state: DecisionState) -> tuple[Plan, DecisionState]:
    """Place some processes, one after the other, and leave the others alone."""
    memories = {worker.id: state.of(worker.id) for worker in snapshot.workers}
    acts: dict[WorkerId, tuple[frozenset[int], tuple[MemoryMove, ...]]] = {}
    passes = max(1, int(policy.daemon.interval_s // PASS_S))
    if not any(memory.moving for memory in memories.values()):
        free = _free(snapshot)
        for worker in _in_order(snapshot, memories):
            home, moves = _placed(snapshot, worker, memories[worker.id], free)
            memory = replace(memories[worker.id], acted_at_s=snapshot.at_s)
            if home is not None:
                memory = replace(
                    memory, home=Home(home, HomeSource.PLANNER, "most is free there"), moving=True
                )
                acts[worker.id] = home, moves
            memories[worker.id] = memory
            if len(acts) >= passes:
                break
    decisions = tuple(
        _decision(snapshot, w, memories[w.id], acts.get(w.id)) for w in snapshot.workers
    )
    return Plan(snapshot.cycle, decisions), replace(state, workers=memories)


def _free(snapshot: Snapshot) -> _Free:
    return _Free(
        {s.node: s.free_bytes + s.reclaimable_bytes for s in snapshot.node_states},
        {
            s.node: len(snapshot.topology.cpus_of([s.node])) - (s.busy_cpus or 0.0)
            for s in snapshot.node_states
        },
    )


def _in_order(snapshot: Snapshot, memories: Mapping[WorkerId, WorkerMemory]) -> list[Worker]:
    """Return who is to be looked at, in order."""
    due = [
        worker
        for worker in snapshot.workers
        if worker.demand_cpus > LEAST_CPUS
        and sum(_held(worker).values()) > LEAST_BYTES
        and not _lately(memories[worker.id], snapshot.at_s)
    ]
    return sorted(
        due,
        key=lambda w: (
            memories[w.id].home is not None,
            -w.demand_cpus * sum(_held(w).values()),
            w.label,
        ),
    )


def _lately(memory: WorkerMemory, now_s: float) -> bool:
    return memory.acted_at_s is not None and now_s - memory.acted_at_s < PAUSE_S


def _held(worker: Worker) -> Mapping[int, int]:
    found = worker.residency
    return {} if found is None else found.by_node(mobility=Mobility.MOVABLE)


def _placed(
    snapshot: Snapshot, worker: Worker, memory: WorkerMemory, free: _Free
) -> tuple[frozenset[int] | None, tuple[MemoryMove, ...]]:
    """Return the nodes that a process is to be bound to, and its moves; None where it stays."""
    held = _held(worker)
    total = sum(held.values())
    home = _roomiest(snapshot, worker, free)
    remote = {node: size for node, size in held.items() if size and node not in home}
    local = 1 - sum(remote.values()) / total
    if memory.home is not None and memory.home.nodes == home and local >= LOCALITY:
        return None, ()
    moves = []
    for source, size in sorted(remote.items()):
        left = size
        for target in sorted(home, key=lambda n: (-free.memory[n], n)):
            part = min(left, max(0, free.memory[target]))
            if part:
                moves.append(MemoryMove(source, target, part))
                free.memory[target] -= part
                free.memory[source] += part
                left -= part
    for node, share in worker.run_share.items():
        free.cpus[node] += share * worker.demand_cpus
    for node in home:
        free.cpus[node] -= worker.demand_cpus / len(home)
    return home, tuple(moves)


def _roomiest(snapshot: Snapshot, worker: Worker, free: _Free) -> frozenset[int]:
    topology, held = snapshot.topology, _held(worker)
    nodes = {node.id: node for node in topology.nodes if node.has_cpu and node.has_memory}
    room = {n: min(nodes[n].memory_bytes, free.memory[n] + OWN * held.get(n, 0)) for n in nodes}
    idle = {
        n: max(0.01, free.cpus[n] + worker.run_share.get(n, 0.0) * worker.demand_cpus)
        for n in nodes
    }
    best = max(nodes, key=lambda n: (room[n] * idle[n], -n))
    wanted = sum(held.values()) / UTILISATION
    home: list[int] = []
    for node in sorted(nodes, key=lambda n: (topology.distance(best, n), -room[n] * idle[n], n)):
        home.append(node)
        wanted -= max(0, room[node] - MARGIN_BYTES)
        if wanted <= 0:
            break
    return frozenset(home)


def _decision(
    snapshot: Snapshot,
    worker: Worker,
    memory: WorkerMemory,
    act: tuple[frozenset[int], tuple[MemoryMove, ...]] | None,
) -> Decision:
    verdict, reason = Verdict.REST, Reason.HOME
    bind: frozenset[int] | None = None
    moves: tuple[MemoryMove, ...] = ()
    if act is not None:
        home, moves = act
        verdict, bind = Verdict.ACT, snapshot.topology.cpus_of(home)
        reason = Reason.REMOTE_MEMORY if moves else Reason.REMOTE_THREADS
    return Decision(
        id=f"{snapshot.cycle}:{worker.label}",
        worker=worker.id,
        label=worker.label,
        rule=worker.rule,
        verdict=verdict,
        reason=reason,
        why="as numad",
        finding=diagnose(worker, memory.home, memory),
        bind_cpus=bind,
        moves=moves,
    )
