"""Files and shared segments that workers map: on the machine once, whoever maps them."""

from __future__ import annotations

from collections.abc import Iterable

from numad_py.model.residency import SegmentId, SegmentPart
from numad_py.model.snapshot import Segment, Worker


def merge(workers: Iterable[Worker]) -> tuple[Segment, ...]:
    """Return what workers map, each segment once, largest first.

    Of a segment that several have resident, each node counts with the most that any of them has
    there: they map the same page cache, each as much of it as it has touched.
    """
    parts: dict[SegmentId, list[tuple[str, SegmentPart]]] = {}
    for worker in workers:
        for part in worker.residency.segments if worker.residency is not None else ():
            parts.setdefault(part.id, []).append((worker.label, part))
    segments = []
    for segment_id, users in parts.items():
        by_node: dict[int, int] = {}
        for _, part in users:
            for node, size in part.bytes_by_node:
                by_node[node] = max(size, by_node.get(node, 0))
        first = users[0][1]
        labels = tuple(sorted(label for label, _ in users))
        mapmax = max(part.mapmax for _, part in users)
        segments.append(Segment(segment_id, first.path, first.kind, by_node, labels, mapmax))
    segments.sort(key=lambda segment: (-segment.resident_bytes, segment.id))
    return tuple(segments)
