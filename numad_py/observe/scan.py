"""Whose memory is looked at when, and how closely.

=========================  =====================================================================
what is due                is read how
=========================  =====================================================================
nothing: young, same size  not at all
old, but its own cgroup    not at all: the figures are confirmed by memory.numa_stat
is charged the same
small, or huge pages       numa_maps: no dearer than a sample
anything else              a sample; where it agrees with an earlier full reading, that one stands
no right to sample         memory.numa_stat, where the cgroup is the worker's own
sample not to be trusted   numa_maps, as far as ``[scan] longest_hold`` allows
a decision hangs on it     the same
=========================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from numad_py.kernel.clock import thread_cpu_s
from numad_py.model.residency import Confirmation, Kind, Mobility, Residency, Source
from numad_py.model.snapshot import WorkerId
from numad_py.observe.budget import Budget
from numad_py.observe.kept import CHANGED_SHARE, SAME_SHARE, furthest, kept, moved, resized
from numad_py.observe.pauses import as_long_again
from numad_py.observe.readings import Looked, Readings, Subject, by_cgroup, left_out, thp_bytes
from numad_py.policy.schema import ScanPolicy

CHEAP_S = 0.002
"""numa_maps is read rather than a sample where it is expected to take no longer than this."""
SMALL_PART = 0.25
"""The areas of a worker are kept where reading it takes more than this part of that."""
FULL_S_PER_BYTE = 0.010 / (1 << 30)
"""CPU time of reading numa_maps before one has been measured here: 10 ms a GiB of small pages."""
TYPICAL_BYTES = 1 << 30
"""What reading a worker of that size took is expected of others too; of a small one it is mostly
its libraries."""
CHARGE_SHARE = 0.01
"""Charges of a cgroup are the same while none of its nodes changed by more of what can be moved."""
CONFIRMED_TIMES = 20
"""So many intervals may pass on the word of the cgroup alone."""
CGROUP_SHARE = 0.05
"""So far beyond a sample's error may it lie from the cgroup's charges; more is disagreement."""
THIN_SHARE = 0.1
"""A sample that may be wrong by more is of no use, where a full reading may be had."""
LONGEST_PAUSES = 16
"""Full readings of one worker that bring nothing are asked for ever more seldom, at most in so many
intervals."""


@dataclass(frozen=True)
class Reading:
    """What is known of a worker's memory."""

    residency: Residency | None
    problem: str | None
    tried_at_s: float
    resident_bytes: int | None = None
    """Its size in whole when it was read."""
    charged: Mapping[int, int] | None = None
    """Bytes by node that its own cgroup was charged for when it was read."""
    thp_bytes: int | None = None
    again_at_s: float = 0.0
    """Where there are no figures: not tried again before."""
    since_s: float | None = None
    """Since when readings find the same."""
    counted: Residency | None = None
    """The full reading on which the figures rest, as it was; None where they are as they were."""
    outdated: bool = False
    """Somebody has moved memory that it maps: it is due whatever its age."""


@dataclass(frozen=True)
class _Asked:
    """When a worker was last to be read in full because a decision hung on it, and how long not."""

    at_s: float
    pause_s: float


class Scanner:
    """Keeps figures of each worker's memory within ``[scan]``, biggest expected gain first."""

    def __init__(self, readings: Readings, policy: ScanPolicy) -> None:
        """Start with nothing read."""
        self._readings = readings
        self._policy = policy
        self._known: dict[WorkerId, Reading] = {}
        self._s_per_byte: dict[WorkerId, float] = {}
        """What reading a worker in full took, by its size."""
        self._typical_s_per_byte = FULL_S_PER_BYTE
        self._asked: dict[WorkerId, _Asked] = {}
        self._budget = Budget(policy.cpu_share)
        self.counts: dict[Source, int] = dict.fromkeys(Source, 0)
        """Readings since the start, by how they were made."""
        self.cpu_s: dict[Source, float] = dict.fromkeys(Source, 0.0)
        """CPU time that they took."""

    def use(self, policy: ScanPolicy) -> None:
        """Keep to another budget from now on."""
        self._policy = policy
        self._budget.cpu_share = policy.cpu_share

    def accept(self, worker: WorkerId, residency: Residency | None) -> None:
        """Take a measurement that somebody else has made, after a move; None: there is none."""
        known = self._known.pop(worker, None)
        self._asked.pop(worker, None)
        if residency is not None:
            if known is not None and known.residency is not None and not residency.segments:
                residency = replace(residency, segments=known.residency.segments)
            thp = known.thp_bytes if known is not None else None
            self._known[worker] = Reading(residency, None, residency.read_at_s, thp_bytes=thp)

    def outdate(self, worker: WorkerId) -> None:
        """Have a worker read at the next look: memory that it shares has been moved."""
        if (known := self._known.get(worker)) is not None:
            self._known[worker] = replace(known, outdated=True)

    def forget_except(self, workers: frozenset[WorkerId]) -> None:
        """Drop what is known of workers that ended."""
        self._known = {k: v for k, v in self._known.items() if k in workers}
        self._s_per_byte = {k: v for k, v in self._s_per_byte.items() if k in workers}
        self._asked = {k: v for k, v in self._asked.items() if k in workers}
        self._readings.forget_except(workers)

    def look(
        self, subjects: Iterable[Subject], now_s: float, between: Callable[[], None]
    ) -> dict[WorkerId, Reading]:
        """Return what is known of each worker's memory, read anew where that is due.

        A worker of which nothing is known is read even beyond the budget, but for the bound on one
        look; others wait their turn.

        Args:
            subjects: all workers.
            now_s: time since boot.
            between: called before each reading; what it raises ends the look.
        """
        self._budget.begin(now_s)
        subjects = list(subjects)
        due = [subject for subject in subjects if not self._stands(subject, now_s)]
        due.sort(key=lambda subject: self._gain(subject, now_s), reverse=True)
        for subject in due:
            known = self._known.get(subject.id)
            unknown = known is None or known.residency is None
            if self._budget.exhausted or not (unknown or self._budget.granted):
                continue
            between()
            self._known[subject.id] = self._read(subject, now_s, between)
        waits = Reading(None, "its memory is read in one of the next cycles", now_s)
        return {subject.id: self._known.get(subject.id, waits) for subject in subjects}

    def closer(self, subject: Subject, now_s: float, between: Callable[[], None]) -> Reading | None:
        """Read a worker in full because a decision hangs on it; None where it must wait its turn.

        Its turn comes even where the budget is overspent, but not in each look, and more seldom
        while it brings nothing; routine looks pay for it. Where it cannot be read in full its
        figures stay, and say why.
        """
        known, asked = self._known.get(subject.id), self._asked.get(subject.id)
        if known is None or known.residency is None or self._budget.exhausted:
            return None
        if asked is not None and now_s < asked.at_s + asked.pause_s:
            return None
        pause_s = self._policy.interval_s
        if asked is not None:
            pause_s = min(2 * asked.pause_s, LONGEST_PAUSES * self._policy.interval_s)
        self._asked[subject.id] = _Asked(now_s, pause_s)
        why_not = self._barred(subject)
        if why_not is None:
            looked = self._full(subject, now_s, between)
            why_not = looked.problem
            if looked.residency is not None:
                charges, thp = self._charges(subject, now_s)
                known = Reading(
                    looked.residency,
                    left_out(looked.residency),
                    now_s,
                    resident_bytes=subject.memory.resident_bytes,
                    charged=charges.by_node() if charges is not None else None,
                    thp_bytes=thp,
                    since_s=_since_s(known, looked.residency, now_s),
                )
        if why_not is not None and known.residency is not None:
            known = replace(known, residency=replace(known.residency, no_full_reading=why_not))
        self._known[subject.id] = known
        return known

    # When

    def _stands(self, subject: Subject, now_s: float) -> bool:
        """Say whether what is known of a worker still holds."""
        known = self._known.get(subject.id)
        if known is None or known.residency is None:
            return known is not None and now_s < known.again_at_s
        if known.outdated:
            return False
        size = subject.memory.resident_bytes
        if known.resident_bytes is None:
            # A measurement made after a move: from now on changes count against this size.
            known = replace(known, resident_bytes=size)
            self._known[subject.id] = known
        before = known.resident_bytes
        if size is not None and before is not None and resized(before, size):
            return False
        if now_s - _looked_at_s(known) < self._pause_s(known):
            return True
        return self._confirmed_by_cgroup(subject, known, now_s)

    def _pause_s(self, known: Reading) -> float:
        """Return how long figures stand without another look; longer, once one changed nothing."""
        since_s = known.tried_at_s if known.since_s is None else known.since_s
        return as_long_again(_looked_at_s(known) - since_s, self._policy.interval_s)

    def _confirmed_by_cgroup(self, subject: Subject, known: Reading, now_s: float) -> bool:
        """Say whether its own cgroup is charged as it was when the worker was read."""
        overdue_s = CONFIRMED_TIMES * self._policy.interval_s
        if not known.charged or known.residency is None or now_s - known.tried_at_s > overdue_s:
            return False
        charges, _ = self._charges(subject, now_s)
        if charges is None:
            return False
        movable = known.residency.total_bytes(mobility=Mobility.MOVABLE)
        if moved(known.charged, charges.by_node()) > CHARGE_SHARE * movable:
            return False
        confirmed = Confirmation(Source.NUMA_STAT, now_s, CHARGE_SHARE)
        residency = replace(known.residency, confirmed=confirmed)
        self._known[subject.id] = replace(known, residency=residency)
        return True

    def _gain(self, subject: Subject, now_s: float) -> tuple[bool, float]:
        """Return what reading a worker promises for each second that it costs.

        That is its bytes times the age of its figures. Unknown workers come before all others, the
        largest first.
        """
        size = subject.memory.resident_bytes or 0
        known = self._known.get(subject.id)
        if known is None or known.residency is None:
            return True, size
        cost_s = CHEAP_S if self._readings.can_sample else CHEAP_S + self._full_s(subject)
        return False, size * (now_s - _looked_at_s(known)) / cost_s

    # How

    def _read(self, subject: Subject, now_s: float, between: Callable[[], None]) -> Reading:
        before = self._known.get(subject.id)
        charges, thp = self._charges(subject, now_s)
        again_at_s, counted = now_s, None
        if not self._readings.can_sample or self._full_s(subject) <= CHEAP_S:
            looked = self._full(subject, now_s, between)
        else:
            confirms = before is not None and before.residency is not None and before.residency.full
            looked = self._count(self._readings.sample(subject, now_s, light=confirms))
            doubt = self._doubt(subject, looked, charges)
            barred = self._barred(subject)
            if doubt and barred is None:
                looked = self._full(subject, now_s, between)
            elif looked.doubt:
                looked = Looked(None, f"{doubt}, and {barred}")
                again_at_s = now_s + self._policy.interval_s
            full = before.counted or before.residency if before is not None else None
            found = kept(full, looked.residency)
            counted = full if found is not looked.residency else None
            looked = replace(looked, residency=found)
        if looked.no_right and charges is not None:
            looked = Looked(charges)
        return Reading(
            residency=looked.residency,
            problem=looked.problem or left_out(looked.residency),
            tried_at_s=now_s,
            resident_bytes=subject.memory.resident_bytes,
            charged=charges.by_node() if charges is not None else None,
            thp_bytes=thp,
            again_at_s=again_at_s,
            since_s=_since_s(before, looked.residency, now_s),
            counted=counted,
        )

    def _charges(self, subject: Subject, now_s: float) -> tuple[Residency | None, int | None]:
        """Return what its own cgroup is charged for, and its bytes in transparent huge pages."""
        began_s = thread_cpu_s()
        stat = self._readings.own_cgroup(subject, now_s)
        charges = by_cgroup(stat, subject.memory, now_s) if stat is not None else None
        cost_s = thread_cpu_s() - began_s
        self._budget.spend(cost_s)
        if charges is not None:
            self.counts[Source.NUMA_STAT] += 1
            self.cpu_s[Source.NUMA_STAT] += cost_s
        return charges, thp_bytes(stat) if stat is not None else None

    def _doubt(self, subject: Subject, looked: Looked, charges: Residency | None) -> str | None:
        """Say why a sample is not enough, in words; None where it is."""
        if looked.residency is None or looked.doubt:
            return looked.doubt
        if subject.memory.hugetlb_bytes and not self._readings.knows_areas(subject.id):
            return "its huge pages cannot be told from its maps"
        if looked.residency.error_share > THIN_SHARE:
            return "its pages lie too thin for a sample"
        if charges is not None:
            apart = furthest(_anon(looked.residency), _anon(charges))
            if apart > CGROUP_SHARE + looked.residency.error_share:
                return f"sample and cgroup differ by {100 * apart:.0f} points"
        return None

    def _full(self, subject: Subject, now_s: float, between: Callable[[], None]) -> Looked:
        # Of who is this small nothing is sampled, unless it grows.
        keep = self._readings.can_sample and self._full_s(subject) > CHEAP_S * SMALL_PART
        found = self._readings.full(subject, now_s, between, keep_areas=keep)
        looked = self._count(found)
        residency = looked.residency
        if residency is not None and (size := residency.total_bytes()):
            self._s_per_byte[subject.id] = residency.cost_s / size
            if size >= TYPICAL_BYTES:
                self._typical_s_per_byte = residency.cost_s / size
        return looked

    def _count(self, looked: Looked) -> Looked:
        if looked.residency is not None:
            source, cost_s = looked.residency.source, looked.residency.cost_s
            self.counts[source] += 1
            self.cpu_s[source] += cost_s
            self._budget.spend(cost_s)
        return looked

    def _full_s(self, subject: Subject) -> float:
        """Return how long reading a worker's numa_maps is expected to take."""
        size = subject.memory.resident_bytes
        if size is None:
            return 0.0
        return size * self._s_per_byte.get(subject.id, self._typical_s_per_byte)

    def _barred(self, subject: Subject) -> str | None:
        """Say why a worker may not be read in full; None where it may."""
        expected_s, longest_s = self._full_s(subject), self._policy.longest_hold_s
        if expected_s <= longest_s:
            return None
        return (
            f"reading it in full would keep it from mapping memory for some {expected_s:.1f} s; "
            f"[scan] longest_hold is {longest_s:g} s"
        )


def _since_s(before: Reading | None, found: Residency | None, now_s: float) -> float:
    """Return since when a worker's memory lies as it does."""
    if before is None or before.residency is None or found is None:
        return now_s
    was, is_ = before.residency.by_node(), found.by_node()
    size = sum(was.values())
    error = max(SAME_SHARE, found.error_share, before.residency.error_share)
    if abs(sum(is_.values()) - size) > CHANGED_SHARE * size or furthest(was, is_) > error:
        return now_s
    return before.tried_at_s if before.since_s is None else before.since_s


def _looked_at_s(known: Reading) -> float:
    residency = known.residency
    if residency is None or residency.confirmed is None:
        return known.tried_at_s
    return max(known.tried_at_s, residency.confirmed.at_s)


def _anon(residency: Residency) -> Mapping[int, int]:
    return residency.by_node(kind=Kind.ANON)
