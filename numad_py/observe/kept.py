"""Whether an earlier full reading of a worker stands beside a later sample, and as what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from numad_py.model.residency import Confirmation, Mobility, Residency, Source, entries_of
from numad_py.observe.estimate import spread

CHANGED_SHARE = 0.05
"""A reading no longer stands when the worker has grown or shrunk by this share of its size."""
CHANGED_BYTES = 8 << 20
"""And by so much at least, whatever share of it that is."""
SAME_SHARE = 0.005
"""A sample agrees with a full reading within its error, and within so much in any case."""
SURE_SHARE = 0.03
"""A sample that may be wrong by more confirms nothing."""


def resized(before_bytes: int, now_bytes: int) -> bool:
    """Say whether a worker has grown or shrunk so much that what was read of it stands no more."""
    return abs(now_bytes - before_bytes) >= max(CHANGED_BYTES, CHANGED_SHARE * before_bytes)


def kept(full: Residency | None, sampled: Residency | None) -> Residency | None:
    """Return an earlier full reading where a sample finds it unchanged, else the sample.

    Who has grown or shrunk a little since is as large as the kernel says now.

    Args:
        full: as it was read, whatever was made of it since: many small changes add up.
        sampled: its bytes are the kernel's totals (``estimate.residency``).
    """
    if full is None or sampled is None or not full.full or sampled.source is not Source.SAMPLE:
        return sampled
    error = max(SAME_SHARE, sampled.error_share)
    if error > SURE_SHARE:
        return sampled
    for mobility in (None, Mobility.MOVABLE):
        was, is_ = full.by_node(mobility=mobility), sampled.by_node(mobility=mobility)
        size = sum(was.values())
        if abs(sum(is_.values()) - size) > CHANGED_SHARE * size or furthest(was, is_) > error:
            return sampled
    size, now = full.total_bytes(), sampled.total_bytes()
    entries = full.entries
    if abs(now - size) > SAME_SHARE * size:
        keyed = {(e.node, e.kind, e.mobility, e.page_bytes): e.resident_bytes for e in entries}
        entries = entries_of(spread(now, keyed))
    confirmed = Confirmation(Source.SAMPLE, sampled.read_at_s, error)
    segments = full.segments or sampled.segments
    return replace(full, entries=entries, confirmed=confirmed, segments=segments)


def furthest(one: Mapping[int, int], other: Mapping[int, int]) -> float:
    """Return by how much the share of any node differs; 0.0 where either is empty."""
    first, second = sum(one.values()), sum(other.values())
    if not first or not second:
        return 0.0
    nodes = {*one, *other}
    return max(abs(one.get(n, 0) / first - other.get(n, 0) / second) for n in nodes)


def moved(one: Mapping[int, int], other: Mapping[int, int]) -> int:
    """Return by how many bytes the node that changed most did."""
    return max((abs(one.get(n, 0) - other.get(n, 0)) for n in {*one, *other}), default=0)
