"""What the undo journal holds, and how that stands in a line of JSON."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numad_py.model.cpulist import format_list, parse_list
from numad_py.model.snapshot import WorkerId

_MOST_PIDS = 1 << 22
"""PID_MAX_LIMIT (include/linux/threads.h)."""

MOST_CPUS = 1 << 22
"""CPUs that different masks of one journal may name together."""

VALUES = frozenset({"kernel.numa_balancing"})
"""Settings whose value is changed: root gives back what the service has written here, and no
other."""


@dataclass(frozen=True)
class ThreadMasks:
    """One thread's mask before, and the mask that numad-py set."""

    start_ticks: int
    before: frozenset[int]
    ours: frozenset[int]
    """Empty where the thread was left alone."""


@dataclass(frozen=True)
class Entry:
    """All that is to be undone for one worker."""

    worker: WorkerId
    label: str
    decision: str
    threads: Mapping[int, ThreadMasks] = field(default_factory=dict)
    earlier: frozenset[frozenset[int]] = frozenset()
    """Masks set before these; a thread may still have one where binding anew was cut short."""

    @functools.cached_property
    def set_masks(self) -> frozenset[frozenset[int]]:
        """Every mask that numad-py has set on a thread of this worker."""
        return self.earlier | {masks.ours for masks in self.threads.values() if masks.ours}

    @functools.cached_property
    def first_mask(self) -> frozenset[int]:
        """The worker's own mask: that of the main thread, else of all together."""
        main = self.threads.get(self.worker.pid)
        if main is not None:
            return main.before
        return frozenset().union(*(masks.before for masks in self.threads.values()))

    @functools.cached_property
    def _before(self) -> Mapping[frozenset[int], frozenset[frozenset[int]]]:
        """First masks by the mask that was set."""
        found: dict[frozenset[int], set[frozenset[int]]] = {}
        for masks in self.threads.values():
            found.setdefault(masks.ours, set()).add(masks.before)
        return {ours: frozenset(before) for ours, before in found.items()}

    def inherited(self, mask: frozenset[int]) -> frozenset[int]:
        """Return the first mask for a thread born since, which has one of ours from its creator.

        Its creator's, where all that have this mask had the same one before; else the worker's.
        """
        before = self._before.get(mask, frozenset())
        return next(iter(before)) if len(before) == 1 else self.first_mask

    def tells(self, tid: int, masks: ThreadMasks) -> bool:
        """Say whether a thread's masks follow from what is here already.

        Those of a thread that is not here do where its first mask is the worker's own: it has that
        whatever is added later.
        """
        known = self.threads.get(tid)
        if known is not None and known.start_ticks == masks.start_ticks:
            return known == masks
        return (
            self.worker.pid in self.threads
            and masks.ours in self.set_masks
            and masks.before == self.first_mask == self.inherited(masks.ours)
        )

    def followed_by(self, entry: Entry, living: Collection[int] | None = None) -> Entry:
        """Return what is to be undone with a later entry of the worker.

        Args:
            entry: the later one.
            living: ids of the threads that there are; of others only what newer threads may have
                inherited is kept. None: not known.
        """
        # The first mask is the user's, unless it has set another since; a look that does not know
        # the journal would see ours.
        threads = {
            tid: replace(masks, before=old.before)
            if (old := self.threads.get(tid))
            and old.start_ticks == masks.start_ticks
            and old.ours
            and masks.before in self.set_masks
            else masks
            for tid, masks in entry.threads.items()
        }
        merged = {
            tid: masks
            for tid, masks in self.threads.items()
            if living is None or tid in living or tid == self.worker.pid
        } | threads
        pairs = {(masks.before, masks.ours) for masks in merged.values()}
        for tid, masks in self.threads.items():
            if tid not in merged and (masks.before, masks.ours) not in pairs:
                pairs.add((masks.before, masks.ours))
                merged[tid] = masks
        return replace(entry, threads=merged, earlier=self.set_masks | entry.earlier)


@dataclass(frozen=True)
class Change:
    """A kernel setting that numad-py has changed."""

    name: str
    before: int
    ours: int
    """What it was set to."""


@dataclass(frozen=True)
class Growth:
    """Huge pages that were added to a pool for the time of a move, to be taken off again."""

    page_bytes: int
    target: int
    """The node whose pool has them."""
    wanted: int
    """Pages that were to be added; it may have got fewer."""
    pools: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """By node, of the target and of those that pages leave: persistent pages as numad-py has left
    them (before the growth, after it, or after giving some back), and free ones before it."""
    got: int | None = None
    """Pages that are to be taken off; None: not known (an earlier version wrote it down, or nothing
    was asked for yet)."""
    under_way: tuple[int, int] | None = None
    """A node whose pool is being set, and how many persistent pages it is to have."""

    @property
    def name(self) -> str:
        """What the journal knows it by."""
        return f"huge pages of {self.page_bytes >> 10} kB on node {self.target}"

    def begun(self, earlier: Growth | None = None) -> Growth:
        """Return it while its pages are being added.

        Args:
            earlier: a growth of the pool that is not yet given back, and settled: both are one.
        """
        now, _ = self.pools[self.target]
        growth = replace(self, got=0, under_way=(self.target, now + self.wanted))
        # Where somebody else has set the pool since, it is left at that.
        if earlier is None or earlier.got is None or earlier.pools[self.target][0] != now:
            return growth
        # What was free before either stands, unless somebody else has set that pool since.
        stands = {
            node: counts
            for node, counts in earlier.pools.items()
            if node not in self.pools or counts[0] == self.pools[node][0]
        }
        pools = {**self.pools, **stands}
        return replace(growth, wanted=earlier.got + self.wanted, got=earlier.got, pools=pools)

    def settled(self, persistent: Mapping[int, int]) -> Growth:
        """Return it after the write that was under way, which may not have come to be.

        Args:
            persistent: pages by node as they are now, of the node that was written to at least.
        """
        if self.got is None or self.under_way is None:
            return self
        node, asked = self.under_way
        before, free = self.pools[node]
        now = persistent[node]
        if not min(before, asked) <= now <= max(before, asked):
            # Somebody else has set it since: taken off is taken off, and it is left at that.
            now = min(before, asked)
        got, pools = self.got + now - before, {**self.pools, node: (now, free)}
        return replace(self, got=got, pools=pools, under_way=None)


def record_of(entry: Entry, boot_id: str) -> dict[str, Any]:
    """Return the record of a worker's entry."""
    return {
        "v": 1,
        "boot_id": boot_id,
        "pid": entry.worker.pid,
        "start_ticks": entry.worker.start_ticks,
        "label": entry.label,
        "decision": entry.decision,
        "threads": {
            str(tid): [masks.start_ticks, format_list(masks.before), format_list(masks.ours)]
            for tid, masks in entry.threads.items()
        },
        "earlier": sorted(format_list(mask) for mask in entry.earlier),
    }


class MaskReader:
    """Reads the masks of one journal, each of them once, and no more than a machine can have.

    The file lies in a folder of the service, and root reads it, too.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[str, frozenset[int]] = {}
        self._left = MOST_CPUS

    def __call__(self, text: str) -> frozenset[int]:
        """Return the CPUs of a mask.

        Raises:
            ValueError: it is none, or all of them together name too many CPUs.
        """
        mask = self._known.get(text)
        if mask is None:
            if self._left <= 0:
                msg = "the masks name more CPUs than any machine's workers have"
                raise ValueError(msg)
            mask = parse_list(text)
            self._left -= len(mask)
            self._known[text] = mask
        return mask


def entry_of(
    record: Mapping[str, Any], parse: Callable[[str], frozenset[int]] = parse_list
) -> Entry:
    """Return the worker's entry of a record.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none of this version.
    """
    _check_version(record)
    if not 0 < record["pid"] <= _MOST_PIDS:
        msg = "not a pid"
        raise ValueError(msg)
    return Entry(
        worker=WorkerId(int(record["pid"]), int(record["start_ticks"])),
        label=str(record["label"]),
        decision=str(record["decision"]),
        threads={
            int(tid): ThreadMasks(int(start), parse(before), parse(ours))
            for tid, (start, before, ours) in record["threads"].items()
        },
        earlier=frozenset(parse(mask) for mask in record.get("earlier", ())),
    )


def setting_record(setting: Change | Growth, boot_id: str) -> dict[str, Any]:
    """Return the record of a kernel setting."""
    record: dict[str, Any] = {"v": 1, "boot_id": boot_id, "setting": setting.name}
    if isinstance(setting, Change):
        return {**record, "before": setting.before, "ours": setting.ours}
    return {
        **record,
        "page_bytes": setting.page_bytes,
        "target": setting.target,
        "wanted": setting.wanted,
        "pools": {str(node): list(counts) for node, counts in setting.pools.items()},
        "got": setting.got,
        "under_way": setting.under_way,
    }


def setting_of(record: Mapping[str, Any]) -> Change | Growth:
    """Return the kernel setting of a record.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none of this version.
    """
    _check_version(record)
    if "ours" in record:
        if record["setting"] not in VALUES:
            msg = "not a setting that numad-py changes"
            raise ValueError(msg)
        return Change(str(record["setting"]), int(record["before"]), int(record["ours"]))
    return Growth(
        page_bytes=int(record["page_bytes"]),
        target=int(record["target"]),
        wanted=int(record["wanted"]),
        pools={int(n): (int(pages), int(free)) for n, (pages, free) in record["pools"].items()},
        # An earlier version wrote neither.
        got=None if (got := record.get("got")) is None else int(got),
        under_way=_under_way(record.get("under_way")),
    )


def _under_way(found: Sequence[int] | None) -> tuple[int, int] | None:
    if found is None:
        return None
    node, pages = found
    return int(node), int(pages)


def _check_version(record: Mapping[str, Any]) -> None:
    if record["v"] != 1:
        msg = "not a record of this version"
        raise ValueError(msg)
