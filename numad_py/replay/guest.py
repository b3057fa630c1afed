"""One worker of a simulated machine: where its bytes lie and its threads run by now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from numad_py.model.residency import (
    Kind,
    Mobility,
    Residency,
    ResidencyEntry,
    SegmentId,
    SegmentPart,
    entries_of,
)
from numad_py.model.snapshot import Thread, Worker
from numad_py.model.topology import Topology

What = tuple[Kind, int]
"""Kind and size of page of movable bytes."""


def pool_of(what: What) -> int | None:
    """Return the size of page of the pool of huge pages that bytes are of; None: of none."""
    kind, page_bytes = what
    return page_bytes if kind is Kind.HUGETLB else None


def movable_of(residency: Residency) -> dict[What, dict[int, int]]:
    """Return movable bytes by node, by what they are."""
    found: dict[What, dict[int, int]] = {}
    for entry in residency.entries:
        if entry.mobility is Mobility.MOVABLE:
            found.setdefault((entry.kind, entry.page_bytes), {})[entry.node] = entry.resident_bytes
    return found


@dataclass
class Guest:
    """A worker whose movable bytes and threads are where the simulation has brought them.

    Its size, its demand and what cannot be moved are those of ``seen``; as long as that is the same
    value from scene to scene, a cycle costs it next to nothing.
    """

    seen: Worker
    """As the scene has it now."""
    born_s: float
    """Time since boot."""
    held: dict[What, dict[int, int]]
    """Movable bytes by node, by what they are."""
    threads: tuple[Thread, ...]
    first_masks: Mapping[int, frozenset[int]]
    run_share: Mapping[int, float]
    relocated: Mapping[SegmentId, Mapping[int, int]]
    """Where files and segments that several map are by now, by where they are seen: the world's."""
    bound: frozenset[int] | None = None
    """CPUs that numad-py has bound it to; None where it has not."""
    residency: Residency | None = None
    """Made anew when bytes have moved."""

    @classmethod
    def arrived(
        cls,
        worker: Worker,
        at_s: float,
        relocated: Mapping[SegmentId, Mapping[int, int]] | None = None,
    ) -> Guest:
        """Return one that has just been seen, without its memory; masks of ours stay on it."""
        narrowed = [t.affinity for t in worker.threads if t.tid in worker.first_masks]
        return cls(
            seen=worker,
            born_s=at_s - worker.age_s,
            held={},
            threads=worker.threads,
            first_masks=worker.first_masks,
            run_share=worker.run_share,
            relocated=relocated if relocated is not None else {},
            bound=frozenset().union(*(mask for mask in narrowed if mask)) if narrowed else None,
        )

    def bytes_on(self, node: int) -> int:
        """Return movable bytes on a node."""
        return sum(by_node.get(node, 0) for by_node in self.held.values())

    def pools_on(self, node: int) -> dict[int | None, int]:
        """Return movable bytes on a node by the pool they are of, in the order of moving."""
        found: dict[int | None, int] = {}
        for what, by_node in self.held.items():
            if size := by_node.get(node, 0):
                found[pool_of(what)] = found.get(pool_of(what), 0) + size
        return found

    def shift(self, source: int, target: int, size: int, pool: int | None = None) -> None:
        """Have so many movable bytes of a pool on another node; not more than there are."""
        for what, by_node in self.held.items():
            part = min(size, by_node.get(source, 0)) if pool_of(what) == pool else 0
            if part:
                by_node[source] -= part
                by_node[target] = by_node.get(target, 0) + part
                size -= part
        self.residency = None

    def bind(self, cpus: frozenset[int], topology: Topology) -> int:
        """Narrow the masks of its threads to these CPUs; return of how many."""
        self.bound = cpus
        self._masks(topology)
        return len(self.first_masks)

    def unbind(self) -> int:
        """Give its threads their users' masks back; return of how many."""
        count, self.bound = len(self.first_masks), None
        self.threads = tuple(
            replace(t, affinity=self.first_masks.get(t.tid, t.affinity)) for t in self.threads
        )
        self.first_masks = {}
        self.run_share = self.seen.run_share
        return count

    def follow(self, seen: Worker, topology: Topology) -> None:
        """Take threads and run share from a later look at it, masks of ours on top."""
        changed = seen.threads != self.seen.threads
        self.seen = seen
        if self.bound is not None:
            if changed or bool(seen.run_share) != bool(self.run_share):
                self._masks(topology)
            return
        if changed:
            # What was narrowed when this was recorded is not narrowed here.
            self.threads = tuple(
                replace(t, affinity=seen.first_masks[t.tid]) if t.tid in seen.first_masks else t
                for t in seen.threads
            )
        if not seen.first_masks:
            self.run_share = seen.run_share

    def _masks(self, topology: Topology) -> None:
        known: dict[frozenset[int], frozenset[int]] = {}
        threads, first = [], {}
        for thread in self.seen.threads:
            users = self.seen.first_masks.get(thread.tid, thread.affinity)
            if users is None or self.bound is None:
                threads.append(thread)
                continue
            # Within its user's mask, as act binds; one that has none of these CPUs is left alone.
            mask = known.setdefault(users, users & self.bound or users)
            threads.append(replace(thread, affinity=mask))
            if mask != users:
                first[thread.tid] = users
        self.threads, self.first_masks = tuple(threads), first
        if self.seen.run_share:
            self.run_share = run_share((t.affinity for t in threads), topology)

    def measured(self, at_s: float) -> Residency | None:
        """Return where its bytes are; None where the scene could not tell how many there are."""
        if self.residency is None and self.seen.residency is not None:
            self.residency = self._residency(self.seen.residency, at_s)
        return self.residency

    def worker(self, at_s: float) -> Worker:
        """Return it as a look finds it now."""
        return replace(
            self.seen,
            threads=self.threads,
            residency=self.measured(at_s),
            run_share=self.run_share,
            age_s=at_s - self.born_s,
            first_masks=self.first_masks,
            bandwidth=None,  # was measured where its memory is no longer
        )

    def _residency(self, seen: Residency, at_s: float) -> Residency:
        """Return where its bytes are, counted in full: the simulation knows each."""
        segments = tuple(_at(part, self.relocated.get(part.id)) for part in seen.segments)
        fixed: dict[tuple[int, Kind, Mobility, int], int] = {
            (e.node, e.kind, e.mobility, e.page_bytes): e.resident_bytes
            for e in seen.entries
            if e.mobility is not Mobility.MOVABLE
        }
        for was, is_ in zip(seen.segments, segments, strict=True):
            _relocate(fixed, was, is_)
        stays = entries_of(fixed)
        moved = entries_of(
            {
                (node, kind, Mobility.MOVABLE, page_bytes): size
                for (kind, page_bytes), by_node in self.held.items()
                for node, size in by_node.items()
            }
        )
        return Residency(
            entries=tuple(sorted((*stays, *moved), key=_place)) if stays else moved,
            read_at_s=at_s,
            policies=seen.policies,
            segments=segments,
        )


def _at(part: SegmentPart, places: Mapping[int, int] | None) -> SegmentPart:
    """Return a worker's part of a segment where it is by now."""
    if not places:
        return part
    total, shared = dict(part.bytes_by_node), dict(part.shared_by_node)
    moved: dict[int, int] = {}
    for node, size in part.shared_by_node:
        place = places.get(node, node)
        moved[place] = moved.get(place, 0) + size
        total[node] -= size
        total[place] = total.get(place, 0) + size
    if moved == shared:
        return part
    return replace(
        part,
        bytes_by_node=tuple(sorted((n, size) for n, size in total.items() if size)),
        shared_by_node=tuple(sorted(moved.items())),
    )


def _relocate(
    sizes: dict[tuple[int, Kind, Mobility, int], int], was: SegmentPart, is_: SegmentPart
) -> None:
    """Change bytes by node, kind, mobility and size of page as a part of a segment has moved."""
    before, after = dict(was.shared_by_node), dict(is_.shared_by_node)
    of_pages = [p for _, kind, how, p in sizes if kind is was.kind and how is Mobility.SHARED]
    for node in {*before, *after} if of_pages else ():
        key = node, was.kind, Mobility.SHARED, min(of_pages)
        sizes[key] = max(0, sizes.get(key, 0) + after.get(node, 0) - before.get(node, 0))


def run_share(masks: Iterable[frozenset[int] | None], topology: Topology) -> dict[int, float]:
    """Return how threads that keep every CPU of their masks equally busy run on the nodes."""
    total: dict[int, float] = {}
    by_mask: dict[frozenset[int], int] = {}
    for mask in masks:
        if mask is not None and (online := mask & topology.cpus):
            by_mask[online] = by_mask.get(online, 0) + 1
    count = sum(by_mask.values())
    for mask, threads in by_mask.items():
        for node in topology.nodes:
            if here := len(node.cpus & mask):
                total[node.id] = total.get(node.id, 0.0) + threads / count * here / len(mask)
    return total


def _place(entry: ResidencyEntry) -> tuple[int, str, str, int]:
    return entry.node, entry.kind.value, entry.mobility.value, entry.page_bytes
