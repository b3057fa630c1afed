"""Advice for a process that is not there yet, and reservations, on machines made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from numad_py.advisor import Advisor
from numad_py.decide.advise import advise, coming_bytes
from numad_py.decide.advise_sets import share_out
from numad_py.decide.reservations import MOST, Reservations
from numad_py.model.advice import Advice, NoAdvice, Request
from numad_py.model.machine import NodeState
from numad_py.model.plan import (
    Decision,
    Finding,
    Home,
    HomeSource,
    MemoryMove,
    Plan,
    Reason,
    Verdict,
)
from numad_py.model.snapshot import Snapshot, WorkerId
from numad_py.model.topology import Node, Performance, Topology
from numad_py.policy.schema import DaemonPolicy, PlacementPolicy, Policy
from tests.unit.seen import report

GIB = 1 << 30
POLICY = PlacementPolicy(headroom=0.0)


@dataclass(frozen=True)
class N:
    """A node of 16 GiB, all of it free unless said otherwise."""

    id: int
    cpus: Sequence[int]
    free_gib: float = 16
    total_gib: int = 16
    busy: float | None = 0.0
    near: Mapping[int, int] = field(default_factory=dict)
    """Distances to others; 20 where not given."""
    cores: Sequence[frozenset[int]] = ()
    bandwidth: int | None = None


def machine(*nodes: N) -> Snapshot:
    """Return a look at these nodes."""
    topology = Topology(
        tuple(
            Node(
                n.id,
                frozenset(n.cpus),
                n.total_gib * GIB,
                {m.id: 10 if m.id == n.id else n.near.get(m.id, 20) for m in nodes},
                cores=tuple(n.cores),
                performance=Performance(read_bandwidth_mib_s=n.bandwidth) if n.bandwidth else None,
            )
            for n in nodes
        )
    )
    states = tuple(
        NodeState(n.id, n.total_gib * GIB, int(n.free_gib * GIB), 0, busy_cpus=n.busy)
        for n in nodes
    )
    return Snapshot(3, 1000.0, topology, states, ())


def advised(
    seen: Snapshot,
    cpus: int,
    gib: float = 0,
    policy: PlacementPolicy = POLICY,
    reserved: Reservations | None = None,
) -> Advice:
    """Return advice where there must be some."""
    found = advise(seen, policy, Request(cpus, int(gib * GIB)), reserved)
    assert isinstance(found, Advice), found
    assert sum(found.bytes_by_node.values()) == int(gib * GIB)
    assert sum(found.cpus_by_node.values()) == pytest.approx(cpus)
    return found


def refused(seen: Snapshot, request: Request, policy: PlacementPolicy = POLICY) -> NoAdvice:
    """Return why there is none."""
    found = advise(seen, policy, request)
    assert isinstance(found, NoAdvice), found
    return found


def sockets(*free_gib: float, busy: Sequence[float] = (0, 0, 0, 0)) -> Snapshot:
    """Return two sockets of two nodes of 4 CPUs, 11 apart within a socket and 21 between."""
    near = {0: {1: 11}, 1: {0: 11}, 4: {5: 11}, 5: {4: 11}}
    return machine(
        *(
            N(
                id_,
                range(4 * at, 4 * at + 4),
                free_gib[at],
                busy=busy[at],
                near={other: near[id_].get(other, 21) for other in near if other != id_},
            )
            for at, id_ in enumerate(near)
        )
    )


# One node


def test_the_least_used_node_is_taken_and_named_by_its_id() -> None:
    """Ids with holes are ids, not positions."""
    seen = machine(N(0, (0, 1), 4), N(3, (2, 3), 12), N(8, (4, 5), 8))
    assert advised(seen, 2, 2).nodes == {3}
    assert advised(seen, 2, 2).cpus == {2, 3}
    assert advised(seen, 2, 2).bytes_by_node == {3: 2 * GIB}


def test_a_busy_node_is_passed_over_for_an_idle_one_with_less_memory() -> None:
    """CPU need counts: the roomiest node has no unused CPU."""
    seen = machine(N(0, range(4), 16, busy=3.5), N(1, range(4, 8), 6))
    assert advised(seen, 2, 4).nodes == {1}


def test_neither_cpuless_nor_memoryless_nodes_are_advised() -> None:
    """However much memory or CPU they have."""
    seen = machine(
        N(0, (), 512, 512), N(1, range(32), 0, 0), N(2, (40, 41), 4, 4), N(3, (), 512, 512)
    )
    assert advised(seen, 2, 1).nodes == {2}
    why = refused(seen, Request(3, GIB))
    assert (why.most_cpus, why.most_bytes) == (2, 4 * GIB)
    assert refused(seen, Request(1, 5 * GIB)).most_bytes == 4 * GIB


def test_reserved_cpus_are_neither_counted_nor_named() -> None:
    """A node that has no others is no place for a process."""
    policy = replace(POLICY, reserved_cpus=frozenset({0, 1, 2}))
    seen = machine(N(0, (0, 1), 16), N(1, (2, 3, 4), 8), N(2, (5, 6, 7), 4))
    assert advised(seen, 1, 1, policy).nodes == {1}
    assert advised(seen, 1, 1, policy).cpus == {3, 4}
    assert advised(seen, 3, 1, policy).nodes == {2}
    why = refused(seen, Request(6), policy)
    assert why.why == (
        "6 CPUs are asked for, but nodes 1-2 have 5, reserved ones (0-2) left out; "
        "ask for 5 at most"
    )


def test_headroom_is_no_room() -> None:
    """Of 16 GiB free 10 % stay free."""
    policy = replace(POLICY, headroom=0.1)
    seen = machine(N(0, (0, 1)))
    assert advised(seen, 1, 14, policy).nodes == {0}
    assert refused(seen, Request(1, 15 * GIB), policy).why == (
        "15.0 GiB asked for, but node 0 has room for 14.4 GiB: 10% of each node stays free"
    )


def test_slow_memory_is_taken_last() -> None:
    """An emptier node whose firmware rates its memory at a third is the second choice."""
    seen = machine(N(0, (0, 1), 8, bandwidth=90_000), N(1, (2, 3), 16, bandwidth=30_000))
    assert advised(seen, 1, 4).nodes == {0}
    assert advised(seen, 1, 10).nodes == {1}


def test_siblings_are_no_whole_cpus() -> None:
    """Four threads of two cores are worth less than four cores elsewhere."""
    pairs = (frozenset({0, 1}), frozenset({2, 3}))
    seen = machine(N(0, range(4), 16, cores=pairs), N(1, range(4, 8), 8))
    assert advised(seen, 4, 1).nodes == {1}


# Several nodes


def test_memory_that_no_node_holds_gets_two_near_ones() -> None:
    """The smallest set, of the same socket, with the memory in equal parts."""
    found = advised(sockets(16, 16, 16, 16), 2, 24)
    assert found.nodes == {0, 1}
    assert found.bytes_by_node == {0: 12 * GIB, 1: 12 * GIB}
    assert "one node would have room for 16.0 GiB at most" in found.reasons
    assert found.alternatives[0].nodes == {4, 5}


def test_where_two_near_nodes_are_taken_the_other_socket_is_advised() -> None:
    """Two emptier nodes of different sockets are farther apart, and so the second choice."""
    found = advised(sockets(16, 2, 12, 12), 2, 18)
    assert found.nodes == {4, 5}
    apart = next(other for other in found.alternatives if other.nodes == {0, 4})
    assert (apart.fits, apart.why) == (True, "farther apart, distance 21, not 11")
    uneven = next(other for other in found.alternatives if other.nodes == {0, 1})
    assert uneven.why == "more of its memory would lie beside other CPUs than its own"
    taken = next(
        other for other in advised(sockets(16, 2, 12, 12), 2, 20).alternatives if not other.fits
    )
    assert taken.nodes == {0, 1}
    assert taken.why == "room for 18.0 GiB only"


def test_cpus_that_no_node_has_unused_get_more_nodes() -> None:
    """Memory would fit one; busy CPUs of a node are not there for it."""
    found = advised(sockets(16, 16, 16, 16, busy=(0, 3, 2, 2)), 4, 1)
    assert found.nodes == {0}
    found = advised(sockets(16, 16, 16, 16, busy=(3, 3, 2, 1)), 4, 1)
    assert found.nodes == {4, 5}
    assert not found.crowded
    assert "one node would have about 3.0 unused CPUs at most" in found.reasons


def test_one_thread_is_not_given_two_nodes_for_the_sake_of_idle_cpus() -> None:
    """Halves of a CPU on two nodes are no CPU."""
    seen = machine(N(0, (0,), busy=0.9), N(1, (1,), busy=0.8))
    found = advised(seen, 1, 1)
    assert found.nodes == {1}
    assert found.crowded


def test_busy_cpus_are_shared_where_there_are_no_others() -> None:
    """As many CPUs exist: the least busy nodes with room are advised, and it is said."""
    seen = machine(N(0, range(4), 16, busy=4), N(1, range(4, 8), 8, busy=3.5), N(2, (8,), 1))
    found = advised(seen, 4, 4)
    assert found.nodes == {1}
    assert found.crowded
    assert "nowhere 4 CPUs are unused: of those with room the least busy" in found.reasons


def test_idle_cpus_and_free_memory_of_different_nodes_are_no_place() -> None:
    """Half busy nodes with both are better than one of each kind, whose memory would be remote."""
    seen = machine(
        N(0, range(4), 16, busy=4),
        N(1, range(4, 8), 0.5, busy=0),
        N(2, range(8, 12), 6, busy=2),
        N(3, range(12, 16), 6, busy=2),
    )
    assert advised(seen, 4, 8).nodes == {2, 3}


def test_a_large_machine_is_looked_at_in_part_and_still_answered() -> None:
    """32 nodes have four thousand million sets; sixteen near ones are found among them."""
    near = {i: {j: 12 for j in range(32) if i // 16 == j // 16} for i in range(32)}
    nodes = [N(i, (i,), 16 if i > 15 else 15, near=near[i]) for i in range(32)]
    assert advised(machine(*nodes), 16, 16 * 14).nodes == set(range(16, 32))
    assert advised(machine(*nodes), 16, 16 * 31).nodes == set(range(32))


def test_renumbering_the_nodes_renumbers_the_advice() -> None:
    """Nothing hangs on what a node is called."""
    seen = sockets(16, 2, 12, 12)
    names = {0: 7, 1: 2, 4: 9, 5: 11}
    nodes = tuple(
        replace(
            node,
            id=names[node.id],
            distances={names[other]: d for other, d in node.distances.items()},
        )
        for node in seen.topology.nodes
    )
    states = tuple(replace(state, node=names[state.node]) for state in seen.node_states)
    other = replace(seen, topology=Topology(nodes), node_states=states)
    for cpus, gib in ((2, 18), (1, 1), (6, 20), (4, 12)):
        expected = {names[node] for node in advised(seen, cpus, gib).nodes}
        assert advised(other, cpus, gib).nodes == expected


# Nothing fits


def test_what_fits_nowhere_is_told_the_most_that_would() -> None:
    """More CPUs than there are, more memory than all have room for, and no node at all."""
    seen = sockets(4, 4, 4, 4)
    why = refused(seen, Request(17))
    assert why == NoAdvice(
        "17 CPUs are asked for, but nodes 0-1,4-5 have 16; ask for 16 at most", 16, 16 * GIB
    )
    assert advised(seen, 16, 16).nodes == {0, 1, 4, 5}
    assert "have room for 16.0 GiB" in refused(seen, Request(1, 16 * GIB + 1)).why
    nothing = refused(machine(N(0, (), 16)), Request(1))
    assert nothing == NoAdvice("no node has both memory and a CPU that is not reserved", 0, 0)


def test_only_what_the_caller_may_use_counts() -> None:
    """Its own mask and cpuset bound what is advised, and the CPUs of it."""
    seen = sockets(16, 16, 16, 16)
    within = Request(2, GIB, frozenset({5, 6, 8, 9}), frozenset({1, 5}))
    found = advise(seen, POLICY, within)
    assert isinstance(found, Advice)
    assert found.nodes == {1}
    assert found.cpus == {5, 6}
    assert (
        "that this process may use" in refused(seen, replace(within, within_nodes=frozenset())).why
    )


# Reservations


def reserve(
    reserved: Reservations, seen: Snapshot, cpus: int, gib: float, until_s: float = 1120.0
) -> tuple[frozenset[int], Reservations]:
    """Return what a caller is told, and the reservations after it."""
    found = advised(seen, cpus, gib, reserved=reserved)
    return found.nodes, reserved.add(found, None, until_s)


def test_callers_one_after_another_get_rooms_of_their_own() -> None:
    """Four of 12 GiB get four nodes, the fifth is told how much is reserved."""
    seen, reserved, told = sockets(16, 16, 16, 16), Reservations(), []
    for _ in range(4):
        nodes, reserved = reserve(reserved, seen, 3, 12)
        told.append(nodes)
    assert sorted(map(sorted, told)) == [[0], [1], [4], [5]]
    nothing = advise(seen, POLICY, Request(1, 17 * GIB), reserved)
    assert isinstance(nothing, NoAdvice)
    assert nothing.why.endswith("and 48.0 GiB reserved for others")
    assert nothing.most_bytes == 16 * GIB


def test_callers_that_ask_for_cpus_alone_are_kept_apart_too() -> None:
    """And where all is promised, the least promised is advised, crowded."""
    seen, reserved = machine(N(0, range(4)), N(1, range(4, 8))), Reservations()
    first, reserved = reserve(reserved, seen, 4, 0)
    second, reserved = reserve(reserved, seen, 3, 0)
    assert first == {0}
    assert second == {1}
    third = advised(seen, 4, 0, reserved=reserved)
    assert third.nodes == {1}
    assert third.crowded
    assert any("reserved is left out: 7 CPUs on node 0-1" in said for said in third.reasons)


def test_an_expired_reservation_holds_nothing() -> None:
    """Alive until its time, gone at it."""
    seen = machine(N(0, (0, 1)), N(1, (2, 3)))
    nodes, reserved = reserve(Reservations(), seen, 2, 12, until_s=1060.0)
    assert advised(seen, 2, 12, reserved=reserved.at(1059.9)).nodes != nodes
    assert advised(seen, 2, 12, reserved=reserved.at(1060.0)).nodes == nodes
    assert reserved.at(1060.0).alive == ()


def test_a_reservation_of_the_same_name_is_replaced() -> None:
    """Its own earlier room is free to whoever asks again; those without a name stay."""
    advice = advised(machine(N(0, (0, 1))), 2, 12)
    reserved = Reservations().add(advice, "vm", 1120.0).add(advice, None, 1120.0)
    assert reserved.without("vm").taken_bytes() == {0: 12 * GIB}
    again = reserved.add(advice, "vm", 1130.0)
    assert [(one.id, one.name, one.until_s) for one in again.alive] == [
        (2, None, 1120.0),
        (3, "vm", 1130.0),
    ]
    assert again.without(None) == again


def test_there_are_so_many_reservations_at_most() -> None:
    """Full at the last, and not before."""
    advice = advised(machine(N(0, (0, 1))), 1)
    reserved = Reservations()
    for _ in range(MOST):
        assert not reserved.full
        reserved = reserved.add(advice, None, 1120.0)
    assert reserved.full


def test_a_reservation_lasts_until_the_next_look_at_least() -> None:
    """With hours between looks, what was started on it two minutes ago is not seen yet."""
    seen = report(machine(N(0, (0, 1)), N(1, (2, 3))))
    for interval_s, lasts_s in ((5.0, 120.0), (3600.0, 3600.0)):
        policy = Policy(daemon=DaemonPolicy(interval_s=interval_s))
        told = Advisor().answer({"cpus": 1}, seen, policy)
        assert told["reservation"]["expires_in_seconds"] == lasts_s


def test_what_workers_are_about_to_bring_is_no_room() -> None:
    """Moves decided upon by their target, moves under way by what is still remote."""

    def decision(reason: Reason, remote: int, *moves: MemoryMove) -> Decision:
        worker = WorkerId(10, 5)
        home = Home(frozenset({0, 1}), HomeSource.PLANNER, "because")
        finding = Finding(worker, "x/0", home, remote, remote, 0, 0.0, 1.0)
        verdict = Verdict.ACT if moves else Verdict.WAIT
        return Decision("3:x/0", worker, "x/0", "x", verdict, reason, "", finding, moves=moves)

    coming = coming_bytes(
        Plan(
            3,
            (
                decision(Reason.REMOTE_MEMORY, 3 * GIB, MemoryMove(2, 0, 3 * GIB)),
                decision(Reason.MOVING, 4 * GIB),
                decision(Reason.COOLDOWN, 5 * GIB),
            ),
        )
    )
    assert coming == {0: 5 * GIB, 1: 2 * GIB}
    found = advise(
        machine(N(0, (0, 1), 8), N(2, (2, 3), 6)), POLICY, Request(1, 4 * GIB), None, coming
    )
    assert isinstance(found, Advice)
    assert found.nodes == {2}


def test_shares_are_alike_within_their_limits() -> None:
    """What a small limit leaves goes to the others; nothing is above its limit."""
    assert share_out(9, [1, 10, 10]) == [1, 4, 4]
    assert share_out(9, [1, 2, 3]) == [1, 2, 3]
    assert share_out(0, [1, 2]) == [0, 0]
