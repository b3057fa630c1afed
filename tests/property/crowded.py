"""Placement problems of machines that are nearly full, out of a seed."""

from __future__ import annotations

import random

from numad_py.decide.solver.problem import Item, Place, Problem

GIB = 1 << 30


def crowd(seed: int) -> Problem:
    """Return 4-8 nodes, nearly full, with 20-60 workers of sizes from a heavy tail."""
    rng = random.Random(seed)  # noqa: S311 - not to be secret
    nodes = range(rng.randint(4, 8))
    room = dict.fromkeys(nodes, 64 * GIB)
    items = []
    for at in range(rng.randint(20, 60)):
        left = int(min(90, rng.paretovariate(1.1)) * GIB)
        held = {}
        for node in rng.sample(nodes, rng.randint(1, 4)):
            held[node] = min(room[node], rng.randint(0, left))
            room[node] -= held[node]
            left -= held[node]
        item = Item(
            key=f"w{at:02}",
            bytes_by_node=held,
            fixed_by_node={rng.choice(nodes): rng.randint(0, GIB)},
            coming_bytes=rng.choice([0, 0, 0, GIB]),
            cpus=rng.choice([0.1, 0.5, 2.0]),
            busy=rng.random(),
            allowed=frozenset(rng.sample(nodes, rng.randint(2, len(nodes)))),
            home=rng.choice([None, frozenset({max(held, key=held.__getitem__)})]),
            apart=rng.choice([None, None, None, "a", "b"]),
        )
        items.append(item)
    hops = {a: {b: 10 if a == b else 12 + 9 * (a // 2 != b // 2) for b in nodes} for a in nodes}
    places = [Place(node, room[node] // rng.randint(1, 4), 8.0, hops[node]) for node in nodes]
    return Problem(tuple(places), tuple(items))
