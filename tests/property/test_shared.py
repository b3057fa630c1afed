"""Properties of moving what several workers map, over users of any sort."""

from __future__ import annotations

from collections import Counter

from hypothesis import example, given

from numad_py.decide.decisions import decide
from numad_py.model.machine import NodeState
from numad_py.model.plan import Decision, DecisionState, Part, Plan, Verdict, WorkerMemory
from numad_py.model.residency import (
    Kind,
    Mobility,
    Residency,
    SegmentId,
    SegmentPart,
    entries_of,
)
from numad_py.model.snapshot import MemoryStatus, Snapshot, Thread, Worker, WorkerId
from numad_py.model.topology import Node, Topology
from numad_py.observe.segments import merge
from numad_py.policy.schema import Policy, Rule, SharedPages
from tests.property.strategies import MIB, SharerPart, rooms_gib, sharers, strangers

FILES = (SegmentId("08:01", 1), SegmentId("08:01", 2))
AT_S, GIB = 1000.0, 1 << 30


def part_of(file: int, by_node: tuple[int, int], mapmax: int) -> SegmentPart:
    """Return what a worker maps of a file; others map each page of it where anybody else does."""
    on = tuple((node, size * MIB) for node, size in enumerate(by_node) if size)
    return SegmentPart(FILES[file], f"/{file}", Kind.FILE, on, on if mapmax > 1 else (), mapmax)


def machine(
    parts: list[SharerPart], unknown: tuple[int, ...], room_gib: int
) -> tuple[Snapshot, Policy, DecisionState]:
    """Return two nodes with these workers, a rule for each, and who of them is being moved."""
    users = [sum(any(part.files[file]) for part in parts) + unknown[file] for file in (0, 1)]
    workers, memories, rules = [], {}, []
    for i, part in enumerate(parts):
        sizes = {(n, Kind.ANON, Mobility.MOVABLE, 4096): s * MIB for n, s in enumerate(part.own)}
        segments = tuple(part_of(file, part.files[file], users[file]) for file in (0, 1))
        segments = tuple(segment for segment in segments if segment.bytes_by_node)
        for segment in segments:
            mobility = Mobility.SHARED if segment.mapmax > 1 else Mobility.MOVABLE
            for node, size in segment.bytes_by_node:
                key = node, Kind.FILE, mobility, 4096
                sizes[key] = sizes.get(key, 0) + size
        workers.append(
            Worker(
                id=WorkerId(100 + i, 5),
                label=f"r{i}/0",
                rule=f"r{i}",
                comm="server",
                user="root",
                cgroup=None,
                threads=(Thread(100 + i, 5, frozenset({part.home}), part.home, 1),),
                cpuset_cpus=None,
                memory=MemoryStatus(),
                residency=Residency(entries_of(sizes), read_at_s=AT_S, segments=segments),
                run_share={part.home: 1.0},
                demand_cpus=0.5,
                age_s=900.0,
            )
        )
        shared = SharedPages.USERS if part.willing else SharedPages.LEAVE
        rules.append(Rule(f"r{i}", "x:1", nodes=frozenset({part.home}), shared=shared))
        if part.moving:
            memories[workers[-1].id] = WorkerMemory(moving=True)
    nodes = tuple(Node(i, frozenset({i}), 16 * GIB, {i: 10, 1 - i: 20}) for i in (0, 1))
    states = tuple(NodeState(i, 16 * GIB, room_gib * GIB, 0) for i in (0, 1))
    snapshot = Snapshot(1, AT_S, Topology(nodes), states, tuple(workers), merge(workers))
    return snapshot, Policy(rules=tuple(rules)), DecisionState(workers=memories)


def carriers(plan: Plan) -> list[tuple[Decision, SegmentId]]:
    """Return who is to move which file for all."""
    acting = (d for d in plan.decisions if d.verdict is Verdict.ACT)
    return [(d, shared.id) for d in acting for shared in d.carried]


@given(sharers, strangers, rooms_gib)
@example([SharerPart(1, (0, 0), ((300, 0), (0, 0)), willing=True, moving=False)] * 2, (1, 0), 4)
def test_nothing_moves_that_an_unknown_or_unwilling_process_maps(
    parts: list[SharerPart], unknown: tuple[int, ...], room_gib: int
) -> None:
    """Whoever maps what is moved is a worker that wants it, and belongs on the same node."""
    plan, _ = decide(*machine(parts, unknown, room_gib))
    for decision, file in carriers(plan):
        assert not unknown[FILES.index(file)]
        users = [part for part in parts if any(part.files[FILES.index(file)])]
        assert all(part.willing for part in users)
        assert len({part.home for part in users}) == 1
        assert {move.target for move in decision.moves} == {users[0].home}


@given(sharers, strangers, rooms_gib)
def test_a_file_has_one_mover_at_a_time(
    parts: list[SharerPart], unknown: tuple[int, ...], room_gib: int
) -> None:
    """No two carry it in one cycle, nor in the next; nor does one while another user is moved."""
    snapshot, policy, state = machine(parts, unknown, room_gib)
    plan, state = decide(snapshot, policy, state)
    first = carriers(plan)
    assert max(Counter(file for _, file in first).values(), default=1) == 1
    again, _ = decide(snapshot, policy, state)
    assert not {file for _, file in first} & {file for _, file in carriers(again)}
    moving = {f"r{i}/0" for i, part in enumerate(parts) if part.moving}
    for _, file in first:
        users = {f"r{i}/0" for i, part in enumerate(parts) if any(part.files[FILES.index(file)])}
        assert not users & moving


@given(sharers, strangers, rooms_gib)
def test_what_is_shared_is_counted_once(
    parts: list[SharerPart], unknown: tuple[int, ...], room_gib: int
) -> None:
    """All moves together are own memory and each file once, within the room of each node."""
    snapshot, policy, state = machine(parts, unknown, room_gib)
    plan, _ = decide(snapshot, policy, state)
    room = {s.node: s.room_bytes(policy.placement.headroom) for s in snapshot.node_states}
    coming: Counter[int] = Counter()
    for decision, part in zip(plan.decisions, parts, strict=True):
        away = 1 - part.home
        own = part.own[away] * MIB
        own += sum(
            f[away] * MIB
            for f, n in zip(part.files, mappings(parts, unknown), strict=True)
            if n == 1
        )
        carried = sum(shared.away_bytes for shared in decision.carried)
        if decision.verdict is Verdict.ACT:
            assert decision.move_bytes in {0, own + carried}
            for move in decision.moves:
                coming[move.target] += move.move_bytes
        if not any(shared.part is Part.CARRIES for shared in decision.shared):
            assert decision.move_bytes in {0, own}
        finding = decision.finding
        total = snapshot.workers[plan.decisions.index(decision)].residency
        assert total is not None
        assert finding.movable_bytes + finding.immovable_bytes == total.total_bytes()
        assert (finding.shared_bytes or 0) + finding.left_bytes == finding.immovable_bytes
    assert all(size <= room[node] for node, size in coming.items())


def mappings(parts: list[SharerPart], unknown: tuple[int, ...]) -> list[int]:
    """Return how many processes map each file."""
    return [sum(any(part.files[file]) for part in parts) + unknown[file] for file in (0, 1)]
