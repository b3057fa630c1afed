"""Advice for a process that is not there yet, on machines made by hand."""

from __future__ import annotations

from dataclasses import replace

from numad_py.decide.advise import advise
from numad_py.decide.advise_sets import share_out
from numad_py.model.advice import Advice, NoAdvice, Request
from numad_py.model.topology import Topology
from tests.unit.advised import GIB, POLICY, N, advised, machine, refused, sockets

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
    found = advised(seen, 4, 1)
    assert found.nodes == {1}
    assert found.alternatives[0].why == "more of its threads would share a core"


def test_siblings_are_cpus_that_can_be_asked_for() -> None:
    """An idle node of two cores has the four CPUs that are asked for: no second node is needed."""
    nodes = [
        N(i, range(4 * i, 4 * i + 4), cores=[frozenset({4 * i + j, 4 * i + j + 2}) for j in (0, 1)])
        for i in (0, 1)
    ]
    found = advised(machine(*nodes), 4, 8)
    assert found.nodes == {0}
    assert not found.crowded
    assert found.reasons[0] == "node 0 has room for 16.0 GiB and about 4.0 unused CPUs of 4"
    assert advised(machine(*nodes), 5, 8).nodes == {0, 1}
    busy = [replace(nodes[0], busy=1.0), nodes[1]]
    assert advised(machine(*busy), 4, 8).nodes == {1}


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


def test_shares_are_alike_within_their_limits() -> None:
    """What a small limit leaves goes to the others; nothing is above its limit."""
    assert share_out(9, [1, 10, 10]) == [1, 4, 4]
    assert share_out(9, [1, 2, 3]) == [1, 2, 3]
    assert share_out(0, [1, 2]) == [0, 0]
