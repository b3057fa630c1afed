"""Which masks are numad-py's, and what threads had before."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from numad_py.act.journal import Entry, ThreadMasks
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.model.snapshot import Thread, WorkerId

Granted = Callable[[WorkerId], frozenset[int] | None]
"""Returns the CPUs that a worker's cpuset grants it now; None where that is not known."""


def granted_by(procfs: ProcFs, cgroups: CgroupFs) -> Granted:
    """Return what tells that, by the cgroup that a worker is in."""

    def granted(worker: WorkerId) -> frozenset[int] | None:
        cgroup = procfs.cgroup(worker.pid)
        return cgroups.cpuset_cpus(cgroup) if cgroup is not None else None

    return granted


def not_known(_worker: WorkerId) -> None:
    """Return that it is not known."""


def first_masks(
    worker: WorkerId,
    entry: Entry | None,
    threads: Sequence[Thread],
    granted: Granted = not_known,
) -> dict[int, frozenset[int]]:
    """Return the masks that threads had before numad-py narrowed them, by thread id.

    Only of threads whose mask is one that numad-py has set: another one is its user's, set since. A
    thread born since has inherited such a mask from its creator. What a cpuset that was narrowed
    since has left of our mask is ours as well (``set_cpus_allowed_ptr`` with ``user_cpus_ptr``,
    kernel/sched/core.c, Linux 6.2); before that kernel such threads get the whole of the cpuset,
    which pins them to nothing else. Where it has left nothing, threads have the whole cpuset, and
    the kernel remembers our mask: it would have it again once the cpuset is widened.
    """
    if entry is None or entry.worker != worker:
        return {}
    # Once for all: a user may have pinned each of thousands to a CPU of its own.
    granted = functools.cache(granted)
    found: dict[int, frozenset[int]] = {}
    for t in threads:
        if t.affinity is None:
            continue
        known = entry.threads.get(t.tid)
        if known is not None and known.start_ticks != t.start_ticks:
            known = None
        if (ours := _ours(t.affinity, entry, known, granted)) is not None:
            found[t.tid] = known.before if known and known.ours else entry.inherited(ours)
    return found


def _ours(
    mask: frozenset[int], entry: Entry, known: ThreadMasks | None, granted: Granted
) -> frozenset[int] | None:
    """Return the mask that numad-py has set where this is it, or what a cpuset left of it."""
    if mask in entry.set_masks:
        return mask
    left_alone = known is not None and not known.ours
    wider = [ours for ours in entry.set_masks if mask < ours]
    apart = [ours for ours in entry.set_masks if not left_alone and not mask & ours]
    if not (wider or apart) or (cpuset := granted(entry.worker)) is None:
        return None
    may_be = [ours for ours in wider if ours & cpuset == mask]
    if not may_be and mask == cpuset:
        may_be = apart
    if known is not None and known.ours in may_be:
        return known.ours
    return min(may_be, key=sorted, default=None)
