"""What is said of advice: why these nodes, why not others, why none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from numad_py.decide.advise_sets import NodeSet, Weighed
from numad_py.decide.reservations import Reservations
from numad_py.model.advice import OtherNodes, Request
from numad_py.model.cpulist import format_list
from numad_py.model.quantity import format_bytes
from numad_py.policy.schema import PlacementPolicy

ALTERNATIVES = 3
"""So many other sets are told of that would have held it, and as many that would not."""


def refusal(
    every: NodeSet, request: Request, policy: PlacementPolicy, reserved: Reservations
) -> str | None:
    """Return why it fits nowhere; None where it fits."""
    if not every.rooms:
        within = request.within_cpus is not None or request.within_nodes is not None
        there = " that this process may use" if within else ""
        return f"no node{there} has both memory and a CPU that is not reserved"
    if request.cpus > len(every.cpus):
        left_out = f", reserved ones ({format_list(policy.reserved_cpus)}) left out"
        return (
            f"{_cpus(request.cpus)} asked for, but {_nodes(every)} {_has(every)} "
            f"{len(every.cpus)}{left_out if policy.reserved_cpus else ''}; "
            f"ask for {len(every.cpus)} at most"
        )
    if request.size_bytes > every.room_bytes:
        promised = sum(reserved.taken_bytes().get(node, 0) for node in every.ids)
        also = f" and {format_bytes(promised)} reserved for others" if promised else ""
        return (
            f"{format_bytes(request.size_bytes)} asked for, but {_nodes(every)} {_has(every)} "
            f"room for {format_bytes(every.room_bytes)}: {policy.headroom:.0%} of each node "
            f"stays free{also}"
        )
    return None


def reasons(
    every: NodeSet,
    weighed: Sequence[Weighed],
    request: Request,
    reserved: Reservations,
    *,
    crowded: bool,
) -> Iterator[str]:
    """Yield why the best of these sets was taken, a sentence each."""
    best = weighed[0].nodes
    yield (
        f"{_nodes(best)} {_has(best)} room for {format_bytes(best.room_bytes)} and about "
        f"{best.idle_cpus:.1f} unused CPUs of {len(best.cpus)}"
    )
    if len(best.rooms) > 1:
        yield _fewer(every, len(best.rooms) - 1, request)
    if len(weighed) > 1:
        best_of = f"of {len(weighed)} choices the best"
        yield f"{best_of}; the next, {_nodes(weighed[1].nodes)}: {_worse(weighed[0], weighed[1])}"
    if crowded:
        yield f"nowhere {_cpus(request.cpus)} unused: of those with room the least busy"
    if not all(room.busy_known for room in every.rooms):
        yield "how busy the CPUs are is not known yet"
    if reserved.alive:
        taken = reserved.taken_cpus()
        yield (
            f"what others have reserved is left out: "
            f"{_count(round(sum(taken.values())))} on node {format_list(taken)}"
        )


def alternatives(
    weighed: Sequence[Weighed], others: Sequence[NodeSet], request: Request
) -> tuple[OtherNodes, ...]:
    """Return other sets of the same size, those first that would have held it."""
    best, *rest = weighed
    found = [OtherNodes(w.nodes.ids, True, _worse(best, w)) for w in rest[:ALTERNATIVES]]
    found += [OtherNodes(s.ids, False, _lack(s, request)) for s in others[:ALTERNATIVES]]
    return tuple(found)


def _worse(best: Weighed, other: Weighed) -> str:
    """Return what speaks against a set that would do as well."""
    if other.lacking_steps > best.lacking_steps:
        return _busier(best.nodes, other.nodes)
    if other.cost > best.cost:
        if other.nodes.distance > best.nodes.distance:
            return f"farther apart, distance {other.nodes.distance}, not {best.nodes.distance}"
        if other.uneven > best.uneven:
            return "more of its memory would lie beside other CPUs than its own"
        return "slower memory, or on the whole farther apart"
    if other.rank > best.rank:
        # The fuller of both counts; where that is alike, the other.
        whats = {
            "CPUs": (other.full_cpus, best.full_cpus),
            "memory": (other.full_memory, best.full_memory),
        }
        what, (fuller, full) = max(whats.items(), key=lambda item: item[1][0] - item[1][1])
        return f"{what} would be fuller, {fuller:.0%}, not {full:.0%}"
    return "just as good"


def _busier(best: NodeSet, other: NodeSet) -> str:
    idle, most = f"{other.idle_cpus:.1f}", f"{best.idle_cpus:.1f}"
    if other.idle_cpus < best.idle_cpus and idle != most:
        return f"busier, about {idle} unused CPUs, not {most}"
    return "more of its threads would share a core"


def _lack(nodes: NodeSet, request: Request) -> str:
    """Return what a set of nodes lacks to hold it."""
    if nodes.room_bytes < request.size_bytes:
        return f"room for {format_bytes(nodes.room_bytes)} only"
    if len(nodes.cpus) < request.cpus:
        return f"{_count(len(nodes.cpus))} only"
    return f"about {nodes.idle_cpus:.1f} unused CPUs only"


def _fewer(every: NodeSet, count: int, request: Request) -> str:
    """Return why fewer nodes would not do, by the best that so many have."""
    few = "one node" if count == 1 else f"{count} nodes"
    roomy = sorted((room.place.room_bytes for room in every.rooms), reverse=True)
    if (most := sum(roomy[:count])) < request.size_bytes:
        return f"{few} would have room for {format_bytes(most)} at most"
    if (cpus := sum(sorted((len(r.cpus) for r in every.rooms), reverse=True)[:count])) < (
        request.cpus
    ):
        return f"{few} would have {_count(cpus)} at most"
    unused = sorted((room.idle_cpus for room in every.rooms), reverse=True)
    if (idle := sum(unused[:count])) < request.cpus:
        return f"{few} would have about {idle:.1f} unused CPUs at most"
    return f"{few} would have the memory or the CPUs, but not both"


def _nodes(nodes: NodeSet) -> str:
    return f"{'node' if len(nodes.ids) == 1 else 'nodes'} {format_list(nodes.ids)}"


def _cpus(count: int) -> str:
    return f"{_count(count)} {'is' if count == 1 else 'are'}"


def _count(cpus: int) -> str:
    return "1 CPU" if cpus == 1 else f"{cpus} CPUs"


def _has(nodes: NodeSet) -> str:
    return "has" if len(nodes.ids) == 1 else "have"
