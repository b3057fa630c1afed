"""The reasons of decisions as sentences, for people who know servers and not NUMA."""

from __future__ import annotations

from collections.abc import Sequence

from numad_py.decide.moves import Shortage
from numad_py.model.cpulist import format_list
from numad_py.model.plan import Finding, Home, MemoryMove, Part, Shared
from numad_py.model.quantity import format_bytes
from numad_py.model.residency import Residency
from numad_py.model.snapshot import Worker

_MOST_NAMED = 3
_MOST_SHARED = 2


def one_node() -> str:
    """Say that there is nowhere to move to."""
    return "only one node has memory: there is nothing to move"


def mempolicy(residency: Residency) -> str:
    """Say that the user bound the memory."""
    policies = ", ".join(residency.policies)
    return f"its user placed its memory ({policies}); that is not undone"


def no_home(finding: Finding, constraints: Sequence[str] = ()) -> str:
    """Say that no node would do, and what bars it from some, which need not be lack of room."""
    barred = f" ({'; '.join(constraints)})" if constraints else ""
    return (
        "no node with CPUs and memory that it may use can take its "
        f"{format_bytes(finding.movable_bytes)}{barred}"
    )


def remote(finding: Finding) -> str:
    """Say how much is remote."""
    home = format_list(finding.home.nodes) if finding.home else "?"
    return (
        f"{format_bytes(finding.remote_bytes)} of its {format_bytes(finding.movable_bytes)} "
        f"lies off its home node {home}"
    )


def paused(finding: Finding) -> str:
    """Say that somebody said pause."""
    return f"{remote(finding)}; paused (numad-py resume)"


def measuring(finding: Finding, residency: Residency, unsure: float | None) -> str:
    """Say that a cheap look is not enough to act on; ``unsure``: it is about remote memory."""
    what = "its threads are free to leave, or away"
    if unsure is not None:
        what = f"by a {residency.source.value} {remote(finding)}"
        what += f", give or take {100 * unsure:.1f} points" if unsure else ""
    then = residency.no_full_reading or "its memory is read in full before anything is done"
    return f"{what}; {then}"


def cooldown(finding: Finding, left_s: float) -> str:
    """Say how long it is left alone."""
    return f"{remote(finding)}; acted on lately, left alone for {left_s:.0f} s more"


def loading(finding: Finding, calm_s: float) -> str:
    """Say that it is still growing."""
    return f"{remote(finding)}; it is still loading: it grew {calm_s:.0f} s ago"


def queued(finding: Finding, after: Sequence[str]) -> str:
    """Say who moves first."""
    first = ", ".join(after[:_MOST_NAMED])
    more = f" and {len(after) - _MOST_NAMED} more" if len(after) > _MOST_NAMED else ""
    return f"{remote(finding)}; its turn comes after {first}{more}"


def named(labels: Sequence[str]) -> str:
    """Return labels as they stand in a sentence."""
    if len(labels) > _MOST_NAMED:
        return f"{', '.join(labels[:_MOST_NAMED])} and {len(labels) - _MOST_NAMED} more"
    return " and ".join(part for part in (", ".join(labels[:-1]), *labels[-1:]) if part)


def with_shared(why: str, shared: Sequence[Shared], least_bytes: int) -> str:
    """Add what becomes of shared memory, of the larger files and segments.

    Those with less than ``least_bytes`` away are named only where they are moved.
    """
    told = [s for s in shared if s.away_bytes >= least_bytes or s.part is Part.CARRIES]
    said = [f"{format_bytes(s.away_bytes)} of {s.path} {s.why}" for s in told[:_MOST_SHARED]]
    if len(told) > _MOST_SHARED:
        said.append(f"{len(told) - _MOST_SHARED} more that it shares: see numad-py explain")
    return "; ".join((why, *said))


def no_room(
    finding: Finding, nodes: frozenset[int], short: Shortage | None, kept_bytes: int = 0
) -> str:
    """Say how much room the home has, and how much of it is kept for processes to come."""
    said = _no_room(finding, nodes, short)
    if not kept_bytes:
        return said
    return f"{said}; {format_bytes(kept_bytes)} of it is reserved for processes to come"


def _no_room(finding: Finding, nodes: frozenset[int], short: Shortage | None) -> str:
    where = f"{remote(finding)}, and node {format_list(nodes)}"
    have = format_bytes(short.room_bytes if short is not None else 0)
    if short is None or short.huge_bytes is None:
        return f"{where} has room for {have} above its headroom"
    if short.made:
        return (
            f"{where} has room for {have} in {format_bytes(short.huge_bytes)} huge pages (free "
            "ones, and those that its memory has room for above its headroom); "
            f"{format_bytes(short.coming_bytes)} of them would come"
        )
    return (
        f"{where} has {have} free in its pool of {format_bytes(short.huge_bytes)} huge pages, and "
        f"{format_bytes(short.coming_bytes)} of them would come; for more, add to nr_hugepages of "
        'that node, or set [migration] hugetlb = "reserve"'
    )


def below(finding: Finding) -> str:
    """Say that so little is not worth a move."""
    return f"{remote(finding)}: too little to act on"


def immovable(size: int) -> str:
    """Say that what is remote cannot be moved, and what helps."""
    return (
        f"{format_bytes(size)} off its home cannot be moved (pinned, or shared with other "
        "processes); restart it under its affinity to place them"
    )


def at_home(finding: Finding) -> str:
    """Say that all is well."""
    if finding.home is None or not finding.movable_bytes:
        return "it has no memory to move"
    return f"all that can be moved is on its home node {format_list(finding.home.nodes)}"


def act(
    worker: Worker,
    finding: Finding,
    home: Home,
    bind: frozenset[int] | None,
    moves: Sequence[MemoryMove],
) -> str:
    """Say what is wrong, where home is and why, and what is done."""
    wrong = []
    if finding.remote_bytes:
        wrong.append(remote(finding))
    if finding.run_locality is not None and finding.run_locality < 1:
        wrong.append(f"its threads run {1 - finding.run_locality:.0%} of their time elsewhere")
    elif bind and worker.allowed_cpus < bind:
        wrong.append("its threads are bound to fewer CPUs than its home has by now")
    elif bind:
        wrong.append("its threads are free to leave")
    done = [
        f"moving {format_bytes(m.move_bytes)} from node {m.source} to node {m.target}"
        for m in moves
    ]
    if bind:
        done.insert(0, f"binding {_threads(len(worker.threads))} to CPUs {format_list(bind)}")
    return (
        f"{', '.join(wrong)}; home is node {format_list(home.nodes)}: {home.why}; {', '.join(done)}"
    )


def _threads(count: int) -> str:
    return "its one thread" if count == 1 else f"{count} threads"
