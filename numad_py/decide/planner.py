"""All workers together: the placement problem of this moment, solved, and the homes that follow.

Workers whose home is given take their room and their CPUs first: they are items that stay. So are
workers that are being moved, and those that are still loading, with room to grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from numad_py.decide.constraints import Bars, bars_of, constraints_of
from numad_py.decide.home import Given, device_shares, user_mask
from numad_py.decide.huge import with_made_pages
from numad_py.decide.places import places_of, usable_cpus
from numad_py.decide.reservations import Reservations
from numad_py.decide.sizes import (
    fixed_by_node,
    huge_by_size,
    movable_by_node,
    ordinary_by_node,
)
from numad_py.decide.solver.problem import Item, Place, Problem, Solution
from numad_py.decide.solver.solve import solve
from numad_py.decide.watch import loading
from numad_py.model.cpulist import format_list
from numad_py.model.plan import (
    Alternative,
    DecisionState,
    Home,
    HomeSource,
    Placed,
    Placing,
    WorkerMemory,
)
from numad_py.model.quantity import format_bytes
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.policy.schema import PlacementPolicy, Policy, Rule

MOST_CROWDED = 1.5
"""So many times the CPUs of a node may those that live there want before some are moved away."""
AGAIN_S = 60.0
"""So often all are placed anew, though nothing has happened: demand and room change slowly."""
AWAY_SHARE = 0.01
"""A worker with no more of its memory elsewhere is at home."""
YOUNG_S = 120.0
"""A worker of this age has shown how busy it is."""
LEAST_BUSY = 0.1
"""What a remote byte of an idle worker counts, against one of a busy one."""


def place(
    snapshot: Snapshot,
    policy: Policy,
    state: DecisionState,
    given: Mapping[WorkerId, Given],
    promised: Reservations,
) -> Placing:
    """Return a home for each worker that is free to be given one, as far as there is one.

    An earlier placing stands for AGAIN_S while the same workers are there and all are at home.

    Args:
        snapshot: the machine.
        policy: limits.
        state: earlier homes, what refused to move, and who is being moved.
        given: by worker, the home or the obstacle that rule, pin, cpuset or devices give; only
            workers that are named here take part.
        promised: what is still to come of reservations.
    """
    free = [w for w in snapshot.workers if w.id in given and given[w.id] == Given()]
    homes = {key: said.home.nodes if said.home else None for key, said in given.items()}
    if not free:
        return Placing(snapshot.at_s, {}, homes)
    before = state.placing
    if before is not None and before.given == homes and _stands(before, free, snapshot, state):
        return before
    taking = [w for w in snapshot.workers if w.id in given and given[w.id].obstacle is None]
    snapshot = with_made_pages(snapshot, policy)
    bars = {w.id: bars_of(w, state.of(w.id), snapshot, policy.placement) for w in free}
    made = _Items(snapshot, policy)
    items = [made.of(w, state.of(w.id), given[w.id], bars.get(w.id)) for w in taking]
    places = places_of(snapshot, policy.placement, foreign_cpus=state.others_cpus)
    growth = {w.label: _growth(w, state.of(w.id), policy.placement, snapshot.at_s) for w in free}
    items = _kept_while_loading(items, places, growth)
    places = _less_promised(_as_crowded(places, items), items, promised.taken_cpus())
    solution = solve(Problem(places, tuple(items)))
    placed = {
        worker.id: _beside(
            _placed(worker, item, solution, state, bars[worker.id]), bars[worker.id], promised
        )
        for worker, item in zip(taking, items, strict=True)
        if worker.id in bars
    }
    return Placing(snapshot.at_s, placed, homes)


def _stands(
    before: Placing, free: Sequence[Worker], snapshot: Snapshot, state: DecisionState
) -> bool:
    """Say whether nothing has happened since that calls for placing anew."""
    if snapshot.at_s - before.at_s >= AGAIN_S or before.workers.keys() != {w.id for w in free}:
        return False
    online = set(snapshot.topology.node_ids)
    for worker in free:
        home, memory = before.workers[worker.id].home, state.of(worker.id)
        if home is None or memory.moving or not home.nodes <= online:
            return False
        mems = worker.memory.mems_allowed
        if mems is not None and not home.nodes <= mems:
            return False
        movable = movable_by_node(worker, memory.refused)
        away = sum(size for node, size in movable.items() if node not in home.nodes)
        if away > AWAY_SHARE * sum(movable.values()):
            return False
    return True


def _as_crowded(places: Sequence[Place], items: Sequence[Item]) -> tuple[Place, ...]:
    """Return the places with CPUs for those who live there, up to MOST_CROWDED times as many.

    Who has been placed is not moved on for a little more demand than there are CPUs.
    """
    living = _living_cpus(items)
    return tuple(
        replace(
            place, cpus=max(place.cpus, min(living.get(place.id, 0.0), MOST_CROWDED * place.cpus))
        )
        for place in places
    )


def _less_promised(
    places: Sequence[Place], items: Sequence[Item], promised: Mapping[int, float]
) -> tuple[Place, ...]:
    """Return the places less the CPUs that are promised to processes to come.

    Nobody who lives there is moved on for a promise.
    """
    living = _living_cpus(items)
    return tuple(
        replace(
            place,
            cpus=max(
                min(place.cpus, living.get(place.id, 0.0)),
                place.cpus - promised.get(place.id, 0.0),
            ),
        )
        for place in places
    )


def _living_cpus(items: Sequence[Item]) -> dict[int, float]:
    """Return the CPUs that those who have been placed want, by node."""
    living: dict[int, float] = {}
    for item in items:
        for node in item.home or ():
            living[node] = living.get(node, 0.0) + item.cpus / len(item.home or ())
    return living


class _Items:
    """Makes items of the workers of a snapshot."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self._snapshot = snapshot
        self._policy = policy.placement
        self._rules = {rule.name: rule for rule in policy.rules}
        self._usable: dict[frozenset[int], dict[int, float]] = {}
        """By mask: most workers have the same."""

    def of(self, worker: Worker, memory: WorkerMemory, given: Given, bars: Bars | None) -> Item:
        """Return an item; without bars, one that stays at the home that it is given."""
        home = given.home or memory.home
        demand = memory.demand_cpus if memory.demand_cpus is not None else worker.demand_cpus
        item = Item(
            key=worker.label,
            bytes_by_node=ordinary_by_node(worker, memory.refused),
            huge=huge_by_size(worker, memory.refused),
            fixed_by_node=fixed_by_node(worker, memory.refused),
            cpus=demand,
            busy=busyness(worker, demand),
            home=home.nodes if home is not None else None,
            apart=apart(worker, self._rules.get(worker.rule)),
            keep=given.home is not None or (memory.moving and home is not None),
        )
        if bars is None:
            return item
        return replace(
            item,
            allowed=bars.allowed,
            home=bars.earlier if not item.keep else item.home,
            needs_cpus=max(demand, memory.most_cpus),
            usable_cpus=self._usable_by(user_mask(worker, self._snapshot.topology)),
            run_cpus={node: share * demand for node, share in worker.run_share.items()},
            device_nodes=device_shares(worker, self._snapshot.topology),
        )

    def _usable_by(self, mask: frozenset[int]) -> dict[int, float]:
        if mask not in self._usable:
            self._usable[mask] = usable_cpus(mask, self._snapshot, self._policy)
        return self._usable[mask]


def _growth(
    worker: Worker, memory: WorkerMemory, policy: PlacementPolicy, now_s: float
) -> int | None:
    """Return the bytes that a worker may yet grow by until it counts as loaded; None: it does."""
    if loading(memory, worker, policy, now_s) is None:
        return None
    return int(memory.growth_bytes_per_s * policy.settle_s)


def _kept_while_loading(
    items: Sequence[Item], places: Sequence[Place], growth: Mapping[str, int | None]
) -> list[Item]:
    """Return the items, with room at home for what those will need that are still loading.

    As far as there is room beside those that stay in any case; where even what it has by now finds
    none, an item is placed as all others.
    """
    room = {place.id: place.room_bytes for place in places}

    def take(nodes: frozenset[int], size: int) -> None:
        for node in nodes & room.keys():
            room[node] -= size

    def remote(item: Item, home: frozenset[int]) -> int:
        return sum(size for node, size in item.bytes_by_node.items() if node not in home)

    for item in items:
        if item.keep and item.home:
            take(item.home, remote(item, item.home))
    found = []
    for item in items:
        more, home = growth.get(item.key), item.home
        if more is not None and not item.keep and home and home <= item.allowed & room.keys():
            coming = remote(item, home)
            left = sum(max(0, room[node]) for node in home) - coming
            if left >= 0:
                more = min(more, left)
                take(home, coming + more)
                item = replace(item, keep=True, coming_bytes=more)  # noqa: PLW2901
        found.append(item)
    return found


def busyness(worker: Worker, demand_cpus: float) -> float:
    """Return what a remote byte of a worker counts, 0..1; how busy a young one will be is open."""
    if worker.age_s < YOUNG_S:
        return 1.0
    return max(LEAST_BUSY, min(1.0, demand_cpus))


def apart(worker: Worker, rule: Rule | None) -> str | None:
    """Return the group of which no two are to have one home; None: it may be with anybody."""
    if rule is None or rule.spread is None:
        return None
    return rule.name if rule.spread == "rule" else f"{rule.name} {worker.cgroup}"


def _placed(
    worker: Worker, item: Item, solution: Solution, state: DecisionState, bars: Bars
) -> Placed:
    nodes = solution.homes[worker.label]
    alternatives = tuple(solution.alternatives.get(worker.label, ()))
    constraints = constraints_of(worker, item, bars, alternatives, solution)
    cost = solution.costs.get(worker.label)
    if nodes is None:
        return Placed(None, alternatives, constraints)
    before = state.of(worker.id).home
    if before is not None and before.nodes == nodes and before.source is HomeSource.PLANNER:
        # Its reason stands: that it lies there already would say nothing.
        return Placed(before, alternatives, constraints, cost)
    home = Home(nodes, HomeSource.PLANNER, _why(nodes, item, alternatives))
    return Placed(home, alternatives, constraints, cost)


def _beside(placed: Placed, bars: Bars, promised: Reservations) -> Placed:
    """Return what was chosen, with a word on what is promised, where that may have shaped it."""
    taken = {n: size for n, size in promised.taken_bytes().items() if size and n in bars.allowed}
    could = {n for a in placed.alternatives if a.barred_by is None for n in a.home}
    nodes = taken.keys() - could - (placed.home.nodes if placed.home else set())
    if not nodes:
        return placed
    words = f"{format_bytes(sum(taken[n] for n in nodes))} of node {format_list(nodes)} is reserved"
    return replace(placed, constraints=(*placed.constraints, f"{words} for processes to come"))


def _why(nodes: frozenset[int], item: Item, alternatives: tuple[Alternative, ...]) -> str:
    there = sum(size for node, size in item.movable_by_node.items() if node in nodes)
    total = sum(item.movable_by_node.values())
    possible = 1 + sum(1 for a in alternatives if a.barred_by is None)
    first = f"cheapest of {possible} choices" if possible > 1 else "the only choice"
    if not there:
        return f"{first}; none of its {format_bytes(total)} lies there yet"
    return (
        f"{first}: {format_bytes(there)} of its {format_bytes(total)} "
        f"lies on node {format_list(nodes)} already"
    )
