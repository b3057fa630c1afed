"""What happens to the daemon between two cycles, as it comes into its mailbox."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from numad_py.kernel import clock


@dataclass(frozen=True)
class Stop:
    """Somebody wants the daemon to end."""

    why: str


@dataclass(frozen=True)
class Wake:
    """Something happened that is worth a cycle now."""

    why: str
    topology: bool = False


@dataclass(frozen=True)
class Command:
    """A verb from the control socket, and where its answer goes."""

    verb: str
    arguments: Mapping[str, object]
    answer: Future[object]


Event = Stop | Wake | Command


def handle_until(
    due_s: float,
    mailbox: queue.SimpleQueue[Event],
    handle: Callable[[Event], float],
    turn: Callable[[], None],
    turn_every_s: float | None,
) -> None:
    """Handle events until a time, or sooner where one asks for it.

    Args:
        due_s: by the monotonic clock.
        mailbox: where events come in.
        handle: does what one asks for, and returns by when this is to return at the latest.
        turn: called while nothing comes in.
        turn_every_s: so often at least; None: once, at the end.
    """
    while (left_s := due_s - clock.monotonic_s()) > 0:
        slice_s = left_s if turn_every_s is None else min(left_s, turn_every_s)
        try:
            event = mailbox.get(timeout=slice_s)
        except queue.Empty:
            turn()
            continue
        due_s = min(due_s, handle(event))
    # Whatever else has come by now is served before the same cycle.
    with contextlib.suppress(queue.Empty):
        while True:
            handle(mailbox.get_nowait())
