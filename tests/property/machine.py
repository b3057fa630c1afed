"""Machines of the strategies as snapshots and policies, and what carrying out a plan makes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

from numad_py.decide.remember import remember
from numad_py.model.machine import NodeState
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision, DecisionState, Plan, Verdict
from numad_py.model.residency import Mobility, Residency, ResidencyEntry
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker, WorkerId
from numad_py.model.topology import Node, Topology
from numad_py.policy.schema import PlacementPolicy, Policy, Rule
from tests.property.strategies import MIB, Machine, WorkerPart

AT_S = 1000.0
ABSENT = 99


def cpus_of(machine: Machine, places: Iterable[int]) -> frozenset[int]:
    """Return the CPUs of nodes by place; their numbers do not hang on node ids."""
    return frozenset(8 * p + i for p in places for i in range(machine.nodes[p].cpus))


def policy_of(machine: Machine, ids: Sequence[int]) -> Policy:
    """Return a policy with a rule for each worker."""
    rules = []
    for i, worker in enumerate(machine.workers):
        nodes = None if worker.rule_nodes is None else frozenset(ids[p] for p in worker.rule_nodes)
        if machine.absent_rule and not i:
            nodes = frozenset({ABSENT})
        rules.append(Rule(name=f"r{i}", origin=f"policy.toml:{i}", nodes=nodes))
    reserved = frozenset(8 * p for p in machine.reserved if machine.nodes[p].cpus)
    return Policy(placement=PlacementPolicy(reserved_cpus=reserved), rules=tuple(rules))


def snapshot_of(machine: Machine, ids: Sequence[int]) -> Snapshot:
    """Return the machine as seen with these node ids.

    Sizes are such that no tie is left for ids to break: the free bytes of any two sets of nodes
    differ, and so do a worker's bytes on any two nodes.
    """
    pairs = dict(zip(combinations(range(len(ids)), 2), machine.distances, strict=False))
    nodes, states = [], []
    for place, part in enumerate(machine.nodes):
        distances = {
            ids[other]: 10 if other == place else pairs[min(place, other), max(place, other)]
            for other in range(len(ids))
        }
        total = part.memory_mib * MIB
        free = total * part.free_share // 16 + (4096 << place if total else 0)
        cache = (total - min(total, free)) * part.cache_share // 16
        nodes.append(Node(ids[place], cpus_of(machine, [place]), total, distances))
        states.append(NodeState(ids[place], total, free, cache // MIB * MIB))
    topology = Topology(tuple(sorted(nodes, key=lambda n: n.id)))
    return Snapshot(
        cycle=1,
        at_s=AT_S,
        topology=topology,
        node_states=tuple(sorted(states, key=lambda s: s.node)),
        workers=tuple(
            _worker(machine, ids, i, part, topology) for i, part in enumerate(machine.workers)
        ),
    )


def _worker(
    machine: Machine, ids: Sequence[int], i: int, part: WorkerPart, topology: Topology
) -> Worker:
    pid = 100 * (i + 1)
    cpuset = None if part.cpuset is None else cpus_of(machine, part.cpuset) or None
    every = cpuset or topology.cpus
    threads = tuple(
        Thread(
            tid=pid + t,
            start_ticks=5000,
            # The kernel keeps masks within the cpuset.
            affinity=every if places is None else cpus_of(machine, places) & every or every,
            last_cpu=0,
            cpu_ticks=100,
        )
        for t, places in enumerate(part.threads)
    )
    runs = [ids[p] for p in part.runs_on if machine.nodes[p].cpus]
    return Worker(
        id=WorkerId(pid, 5000),
        label=f"r{i}/0",
        rule=f"r{i}",
        comm="server",
        user="root",
        cgroup=None,
        threads=threads,
        cpuset_cpus=cpuset,
        memory=MemoryStatus(None if part.mems is None else frozenset(ids[p] for p in part.mems)),
        residency=_residency(machine, ids, part) if part.readable else None,
        run_share={node: runs.count(node) / len(runs) for node in sorted(set(runs))}
        if len(runs) in {1, 2, 4}
        else {},
        demand_cpus=part.demand * 0.9375,
        age_s=500.0,
        problem=None if part.readable else "not readable",
    )


def _residency(machine: Machine, ids: Sequence[int], part: WorkerPart) -> Residency:
    entries = [
        ResidencyEntry(ids[place], kind, mobility, units * 10 * MIB + (place + 1) * 40960)
        for (place, kind, mobility), units in part.resident.items()
        if machine.nodes[place].memory_mib
    ]
    return Residency(
        entries=tuple(sorted(entries, key=lambda e: (e.node, e.kind.value, e.mobility.value))),
        read_at_s=AT_S,
        policies=("bind:0",) if any(e.mobility is Mobility.POLICY for e in entries) else (),
    )


def acted(plan: Plan) -> list[Decision]:
    """Return the decisions that are to be carried out."""
    return [d for d in plan.decisions if d.verdict is Verdict.ACT]


def carry_out(snapshot: Snapshot, plan: Plan, at_s: float) -> Snapshot:
    """Return the machine as it is when every move has been made and every thread been bound."""
    decisions = {d.worker: d for d in acted(plan)}
    change: dict[int, int] = {}
    for decision in decisions.values():
        for move in decision.moves:
            change[move.source] = change.get(move.source, 0) + move.move_bytes
            change[move.target] = change.get(move.target, 0) - move.move_bytes
    done = replace(
        snapshot,
        workers=tuple(
            _after(w, decisions[w.id], snapshot.topology) if w.id in decisions else w
            for w in snapshot.workers
        ),
        node_states=tuple(
            replace(s, free_bytes=max(0, s.free_bytes + change.get(s.node, 0)))
            for s in snapshot.node_states
        ),
    )
    return later(done, at_s)


def later(snapshot: Snapshot, at_s: float) -> Snapshot:
    """Return the machine when it is looked at again, in full, and nothing else has changed."""
    return replace(
        snapshot,
        cycle=snapshot.cycle + 1,
        at_s=at_s,
        workers=tuple(
            replace(w, residency=replace(w.residency, read_at_s=at_s)) if w.residency else w
            for w in snapshot.workers
        ),
    )


def _after(worker: Worker, decision: Decision, topology: Topology) -> Worker:
    assert worker.residency is not None
    sizes = {(e.node, e.kind, e.mobility): e.resident_bytes for e in worker.residency.entries}
    for move in decision.moves:
        left = move.move_bytes
        for node, kind, mobility in list(sizes):
            if node == move.source and mobility is Mobility.MOVABLE:
                part = min(left, sizes[node, kind, mobility])
                sizes[node, kind, mobility] -= part
                there = (move.target, kind, mobility)
                sizes[there] = sizes.get(there, 0) + part
                left -= part
        assert not left, "more moved than there is"
    residency = replace(
        worker.residency,
        entries=tuple(
            ResidencyEntry(*key, size)
            for key, size in sorted(sizes.items(), key=lambda i: (i[0][0], i[0][1], i[0][2]))
            if size
        ),
    )
    if decision.bind_cpus is None:
        return replace(worker, residency=residency)
    own = {t.tid: t.affinity or frozenset() for t in worker.threads}
    users = {**own, **worker.first_masks}
    threads = tuple(_bound(t, decision.bind_cpus, users[t.tid]) for t in worker.threads)
    home = min(topology.nodes_of(decision.bind_cpus))
    return replace(
        worker,
        residency=residency,
        threads=threads,
        first_masks={t.tid: users[t.tid] for t in threads if t.affinity != users[t.tid]},
        run_share={home: 1.0} if worker.run_share else {},
    )


def _bound(thread: Thread, cpus: frozenset[int], users: frozenset[int]) -> Thread:
    """Return a thread as ``bind`` of act/affinity.py leaves it: within its user's mask."""
    return replace(thread, affinity=users & cpus or thread.affinity)


def outcomes(plan: Plan, at_s: float) -> list[Outcome]:
    """Return what is told of a plan that was carried out in whole."""
    return [
        Outcome(d, End.DONE, at_s, 1.0, moved={(m.source, m.target): m.move_bytes for m in d.moves})
        for d in acted(plan)
    ]


def remembered(state: DecisionState, plan: Plan, at_s: float) -> DecisionState:
    """Return the state when all of a plan has been carried out."""
    return remember(state, outcomes(plan, at_s), at_s)
