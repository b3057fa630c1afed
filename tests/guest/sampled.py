"""Samples of real layouts against every page counted; runs alone in a guest, as root.

usage: sampled.py SEED LAYOUTS MIB

Lays out memory of its own over the nodes in LAYOUTS ways, by moving each page where it is to be,
and prints a JSON object a line for each node that has pages: by how much the sample errs in its
share, and whether that lies within the interval that the sample states. Automatic NUMA balancing
must be off: it moves pages meanwhile, and Linux 6.1 says of those that it has marked that there are
none.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import sys
from array import array
from collections import Counter
from pathlib import Path

from numad_py.kernel.syscalls import Syscalls
from numad_py.model.cpulist import parse_list
from numad_py.model.residency import BASE_PAGE_BYTES, Kind, Mobility, wilson
from numad_py.observe.sample import Area, sample

MADV_NOHUGEPAGE = 15
FAMILIES = ("local", "one-percent", "one-percent-at-end", "halves", "striped", "blocks", "shuffled")


def layout(  # noqa: PLR0911 - one a family
    family: str, pages: int, nodes: int, rng: random.Random
) -> array[int]:
    """Return the node of each page."""
    home, away = rng.sample(range(nodes), 2)
    few = max(1, pages // 100)
    if family == "one-percent":
        remote = set(rng.sample(range(pages), few))
        return array("i", (away if page in remote else home for page in range(pages)))
    if family == "one-percent-at-end":
        return array("i", [home] * (pages - few) + [away] * few)
    if family == "halves":
        cut = rng.randrange(pages // 4, 3 * pages // 4)
        return array("i", [home] * cut + [away] * (pages - cut))
    if family == "striped":
        stride = rng.choice((1, 2, 3, 16))
        return array("i", (page // stride % nodes for page in range(pages)))
    if family == "blocks":
        size = 1 << rng.randrange(4, 10)
        of = [rng.randrange(nodes) for _ in range(pages // size + 1)]
        return array("i", (of[page // size] for page in range(pages)))
    if family == "shuffled":
        weights = [rng.random() for _ in range(nodes)]
        return array("i", rng.choices(range(nodes), weights, k=pages))
    return array("i", [home] * pages)


def main() -> None:
    """Lay out, sample, count, compare."""
    seed, layouts, mib = map(int, sys.argv[1:])
    calls, pid = Syscalls(), os.getpid()
    nodes = 1 + max(parse_list(Path("/sys/devices/system/node/has_memory").read_text()))
    memory = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(MADV_NOHUGEPAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    addresses = array("Q", range(start, start + len(memory), BASE_PAGE_BYTES))
    for offset in range(0, len(memory), BASE_PAGE_BYTES):
        memory[offset] = 1
    areas = [Area(start, start + len(memory), BASE_PAGE_BYTES, Kind.ANON, Mobility.MOVABLE)]
    for number in range(layouts):
        rng = random.Random(seed + number)  # noqa: S311
        family = FAMILIES[number % len(FAMILIES)]
        wanted = layout(family, len(addresses), nodes, rng)
        for node in range(nodes):
            there = array("Q", (a for a, n in zip(addresses, wanted, strict=True) if n == node))
            if there:
                calls.move_pages(pid, there, array("i", [node]) * len(there))
        true = Counter(calls.move_pages_query(pid, addresses))
        if min(true) < 0:
            sys.exit(f"layout {number}: not all pages are resident: {dict(true)}")
        drawn = sample(areas, lambda asked: calls.move_pages_query(pid, asked), rng)
        for node in sorted(true):
            share, found = true[node] / len(addresses), drawn.shares.get(node, 0.0)
            low, high = wilson(found, drawn.effective)
            told = {"error": abs(found - share), "held": low <= share <= high}
            print(json.dumps({"layout": number, "family": family, "node": node, **told}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
