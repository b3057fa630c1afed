"""Looking again in the middle of a long move: its user may place the worker by hand meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from numad_py.act.ranges import Range, Seen
from numad_py.act.spans import Span, gaps, merged
from numad_py.kernel import clock
from numad_py.model.cpulist import format_list
from numad_py.model.snapshot import WorkerId

AGAIN_S = 10.0
"""While a move goes on its threads' masks are looked at so often, and its areas at most so."""
MOST_SHARE = 0.05
"""Of the time that a move takes for looking at its areas: numa_maps costs 10 to 35 ms for each GiB
of small pages."""

Masks = Mapping[int, frozenset[int]]
"""Affinity by thread id."""


class PlacedByUser(Exception):  # noqa: N818 - no error: it ends a move, and says why
    """The worker's user has placed it by hand since the move began; the message says how."""


@dataclass
class Lookout:
    """Watches a worker while its memory is moved."""

    worker: WorkerId
    look: Callable[[], Seen]
    """Returns its areas as they are now."""
    masks: Callable[[], Masks]
    _before: Masks = field(default_factory=dict)
    _masks_at_s: float = 0.0
    """When to look at the masks again."""
    _areas_at_s: float = 0.0

    def begin(self) -> tuple[Range, ...]:
        """Take the masks and the areas down as they are when the move begins."""
        self._before = self.masks()
        return self._areas().ranges

    def again(self, left: Callable[[], Sequence[Range]]) -> tuple[Range, ...] | None:
        """Return the areas anew where it is time to; None: it is not.

        Args:
            left: returns what is still to be moved.

        Raises:
            PlacedByUser: its user has placed it by hand.
            Vanished: it ended.
        """
        now_s = clock.monotonic_s()
        if now_s < self._masks_at_s:
            return None
        self._require_threads()
        if now_s < self._areas_at_s:
            return None
        seen = self._areas()
        _require_unbound(seen, left())
        return seen.ranges

    def _areas(self) -> Seen:
        began_s = clock.monotonic_s()
        seen = self.look()
        now_s = clock.monotonic_s()
        self._masks_at_s = now_s + AGAIN_S
        self._areas_at_s = now_s + max(AGAIN_S, (now_s - began_s) / MOST_SHARE)
        return seen

    def _require_threads(self) -> None:
        """See to it that most threads, and the main one, may still run where they could.

        Whoever widened a mask, or pinned a few threads of many, has not placed the worker. A thread
        born since has its creator's mask: it could run where any of them could.
        """
        now = self.masks()
        self._masks_at_s = clock.monotonic_s() + AGAIN_S
        anywhere = frozenset[int]().union(*self._before.values())
        away = [
            tid for tid, mask in now.items() if mask.isdisjoint(self._before.get(tid, anywhere))
        ]
        if self.worker.pid in away or 2 * len(away) > len(now):
            cpus = format_list(frozenset().union(*(now[tid] for tid in away)))
            msg = (
                f"its threads were pinned elsewhere since the move began (CPUs {cpus}): "
                "what is left of its memory stays where it is"
            )
            raise PlacedByUser(msg)


def _require_unbound(seen: Seen, left: Sequence[Range]) -> None:
    """See to it that most of what is left is not bound.

    A library that binds a buffer of its own has not placed the worker: that area is left out.
    """
    waiting = merged((found.start, found.end) for found in left)
    bound_bytes, first = 0, None
    for start, end, policy in seen.bound:
        apart_bytes = sum(high - low for low, high in gaps(waiting, start, end))
        if apart_bytes < end - start:
            bound_bytes += end - start - apart_bytes
            first = first or f"{policy}, from address {start:x}"
    if first and 2 * bound_bytes > sum(end - start for start, end in waiting):
        msg = (
            f"memory of it was bound since the move began ({first}): what is left stays where it is"
        )
        raise PlacedByUser(msg)


def open_ranges(
    ranges: Iterable[Range], walked: Sequence[Span], *, sure_from: int | None
) -> list[Range]:
    """Return what of these was not walked over, where any of it may still be remote.

    Args:
        ranges: as they are now.
        walked: in order and apart.
        sure_from: the address up to which an area was walked over in which all that was remote has
            moved: what is remote lies behind it. None: something has stayed there.
    """
    found: list[Range] = []
    for whole in ranges:
        for start, end in gaps(walked, whole.start, whole.end):
            part = whole.part(start, end, sure=start == sure_from)
            if part.remote_bytes:
                found.append(part)
    return found
