"""Where a worker's memory lies, what of it can be moved, and how sure that is, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from numad_py.model.quantity import format_bytes
from numad_py.model.residency import Kind, Source
from numad_py.serve.plain import age, share

NOTABLE_SHARE = 0.01
"""Less than this of a worker's memory is not worth a word."""

_KINDS = {
    Kind.ANON.value: "of its own",
    Kind.FILE.value: "of mapped files",
    Kind.SHMEM.value: "of shared memory",
    Kind.HUGETLB.value: "in huge pages",
}
_STUCK = (
    ("shared_bytes", "other processes use it too"),
    ("policy_bytes", "its user has told the kernel where it is to lie"),
    ("left_bytes", "its rule leaves files alone, or another worker moves it for all that use it"),
    ("refused_bytes", "it would not move when that was tried"),
)
_LOOKS = {
    Source.NUMA_MAPS.value: "every page of it was counted",
    Source.SAMPLE.value: "some thousands of its pages were looked at, drawn at random",
    Source.NUMA_STAT.value: "they are what its cgroup is charged for, which is rough",
}

Entry = Mapping[str, Any]


def memory(worker: Entry) -> Iterator[str]:
    """Return paragraphs on a worker's memory, from its document."""
    resident = worker["resident_bytes"]
    if resident is None:
        yield f"It could not be read: {worker['problem'] or 'nobody has looked yet'}."
        return
    by_node = {node: sum(kinds.values()) for node, kinds in resident.items()}
    total = sum(by_node.values())
    if not total:
        yield "It has no memory yet."
        return
    yield f"It has {format_bytes(total)} in memory:"
    for node, kinds in resident.items():
        if by_node[node]:
            parts = ", ".join(f"{format_bytes(n)} {_KINDS[kind]}" for kind, n in kinds.items())
            yield f"- node {node}: {parts}"
    yield " ".join((*_movable(worker, total), *_traffic(worker["bandwidth"])))
    yield " ".join(_figures(worker["figures"]))


def _movable(worker: Entry, total: int) -> Iterator[str]:
    movable = worker["movable_bytes"]
    if movable is None or not worker["figures"]["mobility_known"]:
        yield "Which of it can be moved is not known yet."
    elif movable >= total:
        yield "All of it can be moved."
    else:
        yield f"{format_bytes(movable) if movable else 'None'} of it can be moved."
        for key, why in _STUCK:
            if worker.get(key):
                yield f"{format_bytes(worker[key])} cannot: {why}."
    if (worker["pinned_bytes"] or 0) >= NOTABLE_SHARE * total:
        yield (
            f"Devices have {format_bytes(worker['pinned_bytes'])} of it pinned, which cannot be "
            "moved either."
        )
    if (worker["swapped_bytes"] or 0) >= NOTABLE_SHARE * total:
        yield f"Another {format_bytes(worker['swapped_bytes'])} are swapped out to disk."


def _traffic(traffic: Entry | None) -> Iterator[str]:
    if traffic is not None and traffic["total_bytes_per_s"]:
        away = 1 - traffic["local_bytes_per_s"] / traffic["total_bytes_per_s"]
        yield f"{share(max(0.0, away))} of what it reads and writes there goes to another node."


def _figures(figures: Entry) -> Iterator[str]:
    old = figures["age_seconds"]
    made = f"from {age(old)} ago" if old >= 1 else "new"
    yield f"These figures are {made}: {_look(figures)}."
    if (confirmed := figures["confirmed"]) is not None:
        yield (
            f"{age(confirmed['age_seconds'])} ago they were checked, and found unchanged: "
            f"{_look(confirmed)}."
        )
    if figures["no_full_reading"]:
        yield f"{figures['no_full_reading'][:1].upper()}{figures['no_full_reading'][1:]}."


def _look(look: Entry) -> str:
    words = _LOOKS[look["source"]]
    if look["error"]:
        words += f", so that a node's share may be off by {100 * look['error']:.1f} points"
    return words
