"""The best nodes for a process that is not there yet: as few as hold it, near and little used.

====================================================  ================================
more CPUs or memory than all nodes have for it        none, and how much they have
some have room, and unused CPUs                       the fewest that do; of several sets the
                                                      cheapest, of equal ones the least full
some have room, but none so many unused CPUs          the fewest with room, the least busy
====================================================  ================================

Nodes are those with memory and a CPU that is not reserved. The cost is the solver's: distance
between the nodes, and slow memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress

from numad_py.decide import advise_words as words
from numad_py.decide.advise_sets import NodeSet, Room, sets_of, weigh
from numad_py.decide.places import capacity_cpus, places_of
from numad_py.decide.reservations import Reservations
from numad_py.model.advice import Advice, NoAdvice, Request
from numad_py.model.plan import Plan, Reason
from numad_py.model.snapshot import Snapshot
from numad_py.model.topology import Node
from numad_py.policy.schema import PlacementPolicy


def advise(
    snapshot: Snapshot,
    policy: PlacementPolicy,
    request: Request,
    reserved: Reservations | None = None,
    coming: Mapping[int, int] | None = None,
) -> Advice | NoAdvice:
    """Return the best nodes, or why there are none.

    Args:
        snapshot: the machine.
        policy: headroom, reserved CPUs, what an SMT sibling is worth.
        request: what will be started.
        reserved: promised to others, those that have ended left out.
        coming: bytes by node that workers are about to bring there.
    """
    reserved = reserved or Reservations()
    every = NodeSet(_rooms(snapshot, policy, request, reserved, coming or {}))
    if (why := words.refusal(every, request, policy, reserved)) is not None:
        return NoAdvice(why, len(every.cpus), every.room_bytes)
    fitting, others, crowded = _fewest(every.rooms, request)
    weighed = weigh(fitting, every, request)
    best = weighed[0].nodes
    return Advice(
        nodes=best.ids,
        cpus=best.cpus,
        bytes_by_node=best.split_bytes(request),
        cpus_by_node=best.split_cpus(request),
        crowded=crowded,
        reasons=tuple(words.reasons(every, weighed, request, reserved, crowded=crowded)),
        alternatives=words.alternatives(weighed, others, request),
    )


def coming_bytes(plan: Plan) -> dict[int, int]:
    """Return what workers bring to their homes now or next, by node."""
    coming: dict[int, int] = {}
    for decision in plan.decisions:
        home = decision.finding.home
        if decision.moves:
            for move in decision.moves:
                coming[move.target] = coming.get(move.target, 0) + move.move_bytes
        elif decision.reason in {Reason.MOVING, Reason.QUEUED} and home is not None:
            each = decision.finding.remote_bytes // len(home.nodes)
            for node in home.nodes:
                coming[node] = coming.get(node, 0) + each
    return coming


def _rooms(
    snapshot: Snapshot,
    policy: PlacementPolicy,
    request: Request,
    reserved: Reservations,
    coming: Mapping[int, int],
) -> tuple[Room, ...]:
    """Return the nodes that come into question, in the order of places."""
    states = {state.node: state for state in snapshot.node_states}
    topology = snapshot.topology
    nodes = {node.id: _within(node, request) for node in topology.nodes}
    promised = reserved.taken_cpus()
    used, busy_known = dict(promised), set()
    for before, node in zip(topology.nodes, nodes.values(), strict=True):
        state = states.get(node.id)
        if state is not None and state.busy_cpus is not None and before.cpus:
            busy_known.add(node.id)
            share = len(node.cpus) / len(before.cpus)
            used[node.id] = used.get(node.id, 0.0) + state.busy_cpus * share
    taken = reserved.taken_bytes()
    places = places_of(
        replace(snapshot, topology=replace(topology, nodes=tuple(nodes.values()))),
        policy,
        taken_bytes={id_: taken.get(id_, 0) + coming.get(id_, 0) for id_ in topology.node_ids},
        foreign_cpus=used,
    )
    return tuple(
        Room(
            place=place,
            cpus=node.cpus - policy.reserved_cpus,
            worth_cpus=capacity_cpus(node, policy),
            used_cpus=used.get(node.id, 0.0),
            total_bytes=states[node.id].total_bytes if node.id in states else 0,
            busy_known=node.id in busy_known,
            promised_cpus=promised.get(node.id, 0.0),
        )
        for place, node in ((place, nodes[place.id]) for place in places)
        if node.has_memory and node.cpus - policy.reserved_cpus
    )


def _within(node: Node, request: Request) -> Node:
    """Return a node less what the process may not use of it."""
    if request.within_cpus is not None:
        node = replace(node, cpus=node.cpus & request.within_cpus)
    if request.within_nodes is not None and node.id not in request.within_nodes:
        node = replace(node, memory_bytes=0)
    return node


def _fewest(rooms: Sequence[Room], request: Request) -> tuple[list[NodeSet], list[NodeSet], bool]:
    """Return the smallest sets that hold it, others of that size, and whether CPUs lack there.

    All nodes together must have what it asks for.
    """
    enough: list[NodeSet] = []
    others: list[NodeSet] = []
    most = len(rooms)
    for count in range(1, len(rooms) + 1):
        sets = sets_of(rooms, count)
        if not enough:
            enough = [s for s in sets if s.has(request)]
            others = [s for s in sets if not s.has(request)]
            # More nodes than it keeps CPUs busy would only pull it apart.
            most = max(count, request.cpus)
        if enough and count > most:
            break
        fits = [s.has(request) and s.has_unused(request) for s in sets]
        if any(fits):
            lacking = (not fit for fit in fits)
            return list(compress(sets, fits)), list(compress(sets, lacking)), False
    return enough, others, True
