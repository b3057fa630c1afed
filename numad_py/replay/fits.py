"""Whether the parts of a described machine go together: each by itself is right already.

What no machine can be is refused: a simulation of it would give figures that mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from numad_py.model.cpulist import format_list
from numad_py.model.quantity import format_bytes
from numad_py.model.topology import LOCAL_DISTANCE
from numad_py.replay.machine import Arrival, Machine

MOST_SCENES = 1_000_000

Problem = Callable[[tuple[str | int, ...], str], None]
"""Takes the path of a key and what is wrong with it."""


def hold_together(machine: Machine, problem: Problem) -> None:
    """Say what each by itself is right, but not all together."""
    if not machine.nodes:
        problem((), "no [[node]]: a machine has at least one")
    if machine.duration_s / machine.interval_s > MOST_SCENES:
        problem(("duration",), f"more than {MOST_SCENES} intervals; shorten it or lengthen these")
    _nodes(machine, problem)
    _distances(machine, problem)
    names = [worker.name for worker in machine.workers]
    for i, worker in enumerate(machine.workers):
        if worker.name in names[:i]:
            problem(("worker", i, "name"), f"{worker.name!r} is taken; count makes more of one")
        _places(i, worker, machine, problem)
        _cpus(i, worker, machine, problem)
        _times(i, worker, machine, problem)
    _memory(machine, problem)


def _nodes(machine: Machine, problem: Problem) -> None:
    ids = [node.id for node in machine.nodes]
    seen: set[int] = set()
    for i, node in enumerate(machine.nodes):
        if node.id in ids[:i]:
            problem(("node", i, "id"), f"node {node.id} is there already; give it another id")
        if both := seen & node.cpus:
            problem(
                ("node", i, "cpus"),
                f"CPU {min(both)} belongs to another node already; a CPU has one node",
            )
        seen |= node.cpus
        if node.used_bytes > node.memory_bytes:
            problem(
                ("node", i, "used"),
                f"{format_bytes(node.used_bytes)} are more than its memory of "
                f"{format_bytes(node.memory_bytes)}; lower it",
            )
    if ids and not seen:
        problem(("node", 0), 'no node has a CPU; write cpus = "0-15"')
    if ids and not any(node.memory_bytes for node in machine.nodes):
        problem(("node", 0, "memory"), 'no node has any; write memory = "64GiB"')


def _distances(machine: Machine, problem: Problem) -> None:
    """Hold what the kernel demands of a table of distances, and that a way is as long back.

    Itself is 10 away from a node (slit_valid, drivers/acpi/numa/srat.c).
    """
    ids = [node.id for node in machine.nodes]
    told: dict[tuple[int, int], int] = {}
    for i, node in enumerate(machine.nodes):
        if node.distances is None:
            continue
        path = ("node", i, "distances")
        if len(node.distances) != len(ids):
            problem(
                path,
                f"{len(node.distances)} of them, but one to each of the {len(ids)} nodes is "
                "needed, in the order in which they stand here",
            )
            continue
        for other, distance in zip(ids, node.distances, strict=True):
            back = told.get((other, node.id))
            if other == node.id and distance != LOCAL_DISTANCE:
                problem(
                    path,
                    f"{distance} from node {node.id} to itself; the one in place {i + 1} is to be "
                    f"{LOCAL_DISTANCE}",
                )
            elif back is not None and back != distance:
                problem(
                    path,
                    f"{distance} from node {node.id} to node {other}, but {back} back; give both "
                    "the same",
                )
            told[node.id, other] = distance


def _places(i: int, worker: Arrival, machine: Machine, problem: Problem) -> None:
    nodes = {node.id: node for node in machine.nodes}
    for key, named in (("nodes", worker.nodes), ("run", worker.run)):
        if absent := sorted(set(named) - nodes.keys()):
            problem(
                ("worker", i, key),
                f"there is no node {absent[0]}; there are: {format_list(nodes) or 'none'}",
            )
    bare = [n for n in worker.nodes if n in nodes and not nodes[n].memory_bytes]
    if bare:
        problem(("worker", i, "nodes"), f"node {bare[0]} has no memory; name one that has some")
    idle = [n for n in worker.run if n in nodes and not nodes[n].cpus]
    if idle:
        problem(("worker", i, "run"), f"node {idle[0]} has no CPU; name one that has some")


def _cpus(i: int, worker: Arrival, machine: Machine, problem: Problem) -> None:
    every = frozenset().union(*(node.cpus for node in machine.nodes))
    runs = frozenset().union(*(node.cpus for node in machine.nodes if node.id in worker.run))
    mine = every
    if worker.pin is not None:
        mine = worker.pin & every
        if lost := worker.pin - every:
            problem(
                ("worker", i, "pin"),
                f"no node has CPU {format_list(lost)}; there are: {format_list(every) or 'none'}",
            )
            return
        if runs and not runs & mine:
            problem(
                ("worker", i, "pin"),
                f"it has no CPU of node {format_list(worker.run)}, where its threads run; let pin "
                "and run agree",
            )
            return
    if runs:
        mine &= runs
    if mine and worker.cpus > len(mine):
        problem(
            ("worker", i, "cpus"),
            f"it cannot keep {worker.cpus:g} CPUs busy where it may run on {len(mine)} "
            f"({format_list(mine)}); lower it",
        )
    if worker.threads is not None and worker.cpus > worker.threads:
        problem(
            ("worker", i, "threads"),
            f"{worker.threads} cannot keep {worker.cpus:g} CPUs busy; one thread keeps one",
        )


def _times(i: int, worker: Arrival, machine: Machine, problem: Problem) -> None:
    if worker.arrive_s > machine.duration_s:
        problem(
            ("worker", i, "arrive"),
            f"{worker.name!r} would never come: {worker.arrive_s:g} s is after the end at "
            f"{machine.duration_s:g} s; let it come earlier, or set a longer duration",
        )
    last_s = worker.arrive_s + (worker.count - 1) * worker.every_s
    if worker.arrive_s <= machine.duration_s < last_s:
        problem(
            ("worker", i, "every"),
            f"the last of {worker.count} {worker.name!r} would never come: {last_s:g} s is after "
            f"the end at {machine.duration_s:g} s; let fewer come, or sooner after one another, or "
            "set a longer duration",
        )
    if worker.grow_to_bytes is not None and not worker.grow_bytes_per_s:
        problem(
            ("worker", i, "grow_to"),
            f"{worker.name!r} would never grow: it has no grow; write how fast, as in "
            'grow = "10MiB/s", or leave grow_to out',
        )


# Memory


def _memory(machine: Machine, problem: Problem) -> None:
    """Hold the memory of the workers, one by one and all that are there, against that of nodes."""
    room = sum(max(0, node.memory_bytes - node.used_bytes) for node in machine.nodes)
    has = f"the nodes have {format_bytes(room)} for it"
    alone = False
    for i, worker in enumerate(machine.workers):
        first_s, last_s = worker.arrive_s, machine.duration_s
        if first_s > last_s:
            # Said already; it has no age.
            continue
        age_s = min(last_s - first_s, last_s if worker.stay_s is None else worker.stay_s)
        if worker.at(0.0) > room:
            alone = True
            size = format_bytes(worker.size_bytes)
            problem(("worker", i, "size"), f"{size} are too much: {has}; lower it")
        elif (most := worker.at(age_s)) > room:
            alone = True
            key = "grow" if worker.grow_to_bytes is None else "grow_to"
            problem(
                ("worker", i, key),
                f"it would have {format_bytes(most)} after {age_s:g} s: {has}; set a lower grow_to",
            )
    if alone or not machine.workers:
        return
    at_s, most = _peak(machine)
    if most > room:
        problem(
            ("worker", 0, "size"),
            f"after {at_s:g} s all workers together have {format_bytes(most)}: the nodes have "
            f"{format_bytes(room)} for them; have fewer, smaller or shorter ones",
        )


def _peak(machine: Machine) -> tuple[float, int]:
    """Return when the workers have most together, and how much.

    Memory grows evenly between two events, so that most is had at one of them: before anybody
    goes, or at the end.
    """
    changes = sorted(_changes(machine))
    now_s = held = slope = 0.0
    peak = 0.0, 0
    for at_s, order, more, steeper in changes:
        if at_s > machine.duration_s:
            break
        held += slope * (at_s - now_s)
        now_s = at_s
        if order == _GOES:
            peak = max(peak, (now_s, int(held)), key=lambda one: one[1])
        held, slope = held + more, slope + steeper
        peak = max(peak, (now_s, int(held)), key=lambda one: one[1])
    held += slope * (machine.duration_s - now_s)
    return max(peak, (machine.duration_s, int(held)), key=lambda one: one[1])


_GOES, _STOPS, _COMES = range(3)
"""Who goes makes room for who comes at the same time."""


def _changes(machine: Machine) -> Iterator[tuple[float, int, float, float]]:
    """Yield the time of each change, what it is, and by how much size and growth change then."""
    for what in machine.workers:
        most = what.grow_to_bytes
        grows_s = float("inf")
        if what.grow_bytes_per_s and most is not None:
            grows_s = max(0, most - what.size_bytes) / what.grow_bytes_per_s
        stay_s = float("inf") if what.stay_s is None else what.stay_s
        for ordinal in range(what.count):
            came_s = what.arrive_s + ordinal * what.every_s
            yield came_s, _COMES, float(what.size_bytes), float(what.grow_bytes_per_s)
            if grows_s < stay_s:
                yield came_s + grows_s, _STOPS, 0.0, -float(what.grow_bytes_per_s)
            if stay_s < float("inf"):
                grown = what.size_bytes + what.grow_bytes_per_s * min(grows_s, stay_s)
                steep = float(what.grow_bytes_per_s) if grows_s >= stay_s else 0.0
                yield came_s + stay_s, _GOES, -float(grown), -steep
