"""CPU time of placing workers together, how it grows, and how good the answer is."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import mean

from numad_py.decide.solver.problem import Item, Place, Problem
from numad_py.decide.solver.solve import solve
from tests.bench.table import Figure, Row
from tests.property.brute_force import (
    ROUNDED,
    brute_force,
    carried_out,
    homes_of,
    objective,
)

GIB = 1 << 30
VALUES = 5
ITEMS = (16, 32, 64, 128, 256, 512)
NODES = (2, 4, 8, 16)
TARGETS = {(256, 8): 100.0, (64, 4): 10.0}
"""Milliseconds by items and nodes."""
SMALL = 500


def rows() -> Iterator[Row]:
    """Time the two sizes that have targets, then the growth; then compare with brute force."""
    for (items, nodes), target_ms in TARGETS.items():
        for name, made in CASES.items():
            yield _timed(items, nodes, name, made).below(target_ms)
    for items in ITEMS:
        for name, made in CASES.items():
            if (items, 8) not in TARGETS:
                yield _timed(items, 8, name, made)
    for nodes in NODES:
        for name, made in CASES.items():
            if (256, nodes) not in TARGETS:
                yield _timed(256, nodes, name, made)
    yield from _quality()


def _timed(items: int, nodes: int, name: str, made: Callable[[int, int, int], Problem]) -> Row:
    """Time one problem of each seed: the figure to go by is that of the middle one."""
    found = []
    for seed in range(VALUES):
        problem = made(items, nodes, seed)
        gc.collect()
        began = time.thread_time()
        solve(problem)
        found.append((time.thread_time() - began) * 1e3)
    case = f"{items} workers on {nodes} nodes: {name}"
    return Row("placing", case, Figure.of(found), unit="ms", note=f"CPU; {VALUES} machines")


def wanting(items: int, nodes: int, seed: int, full: float = 0.75) -> Problem:
    """Return a machine so full on which nobody has a home yet and memory lies anywhere."""
    random_ = random.Random(seed)  # noqa: S311 - no secret
    sizes = [max(1, int(random_.paretovariate(1.2) * 64)) << 20 for _ in range(items)]
    node_bytes = int(sum(sizes) / full / nodes)
    sizes = [min(size, int(1.4 * node_bytes)) for size in sizes]
    held = dict.fromkeys(range(nodes), 0)
    made = []
    for at, size in enumerate(sizes):
        where = sorted(held, key=lambda n: (held[n], n))
        parts = random_.choice([1, 1, 1, 2, nodes])
        by_node: dict[int, int] = {}
        first = where[: max(1, len(where) // 2)]
        for node in random_.sample(first, min(parts, len(first))):
            by_node[node] = min(size // parts, max(0, node_bytes - held[node]))
        left = size - sum(by_node.values())
        for node in where:
            part = min(left, max(0, node_bytes - held[node] - by_node.get(node, 0)))
            by_node[node] = by_node.get(node, 0) + part
            left -= part
        for node, part in by_node.items():
            held[node] += part
        made.append(
            Item(
                key=f"w{at:03d}",
                bytes_by_node={node: part for node, part in by_node.items() if part},
                cpus=round(0.25 * random_.paretovariate(1.5), 3),
                busy=random_.uniform(0.1, 1.0),
                allowed=frozenset(range(nodes)),
                apart=f"g{at % 8}" if at % 16 < 1 else None,
            )
        )
    cpus = sum(item.cpus for item in made) / nodes * 1.3
    places = tuple(
        Place(
            n,
            node_bytes - held[n],
            cpus,
            {o: 10 if o == n else 12 if 2 * o // nodes == 2 * n // nodes else 21 for o in held},
        )
        for n in held
    )
    return Problem(places, tuple(made))


def quiet(items: int, nodes: int, seed: int) -> Problem:
    """Return the same machine with all that was wanted done: nobody has a reason to move."""
    problem = wanting(items, nodes, seed)
    for _ in range(3):
        problem = carried_out(problem, solve(problem))
    return problem


def tight(items: int, nodes: int, seed: int) -> Problem:
    """Return a machine that is 97 % full, with fewer CPUs than are wanted."""
    problem = wanting(items, nodes, seed, full=0.97)
    return replace(problem, places=tuple(replace(p, cpus=p.cpus / 1.5) for p in problem.places))


CASES: dict[str, Callable[[int, int, int], Problem]] = {
    "quiet": quiet,
    "wanting": wanting,
    "tight": tight,
}


def _quality() -> Iterator[Row]:
    """Compare seeded small problems with the best answer there is."""
    ratios, worse = [], 0
    for seed in range(SMALL):
        problem = _small(seed)
        solution = solve(problem)
        found, best = objective(problem, homes_of(problem, solution)), brute_force(problem)
        worse += found[:-1] != best[:-1]
        ratios.append((found[-1] + ROUNDED) / (best[-1] + ROUNDED))
    case = f"{SMALL} small machines: cost by the best"
    note = f"brute force over all answers; limits kept less well than could be: {worse} times"
    yield Row("placing", f"{case}, mean", Figure.of([mean(ratios)]), note=note).below(1.01)
    yield Row("placing", f"{case}, worst", Figure.of([max(ratios)]), note=note).below(1.05)


def _small(seed: int) -> Problem:
    """Return up to 3 nodes and 6 workers in whole GiB."""
    random_ = random.Random(seed)  # noqa: S311 - no secret
    nodes = random_.randint(2, 3)
    places = tuple(
        Place(
            n,
            random_.choice([1, 2, 3, 5, 8]) * GIB,
            random_.choice([1.0, 2.0, 4.0]),
            {o: 10 if o == n else 12 if o + n == 1 else 21 for o in range(nodes)},
        )
        for n in range(nodes)
    )
    items = tuple(
        Item(
            key=f"w{at}",
            bytes_by_node={n: random_.choice([0, 0, 1, 2, 3]) * GIB for n in range(nodes)},
            cpus=random_.choice([0.0, 0.5, 1.0, 2.0]),
            busy=random_.choice([0.1, 0.5, 1.0]),
            allowed=frozenset(range(nodes)),
            home=random_.choice([None, frozenset({random_.randrange(nodes)})]),
            apart=random_.choice([None, None, "g"]),
        )
        for at in range(random_.randint(2, 6))
    )
    return Problem(places, items)
