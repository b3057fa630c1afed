"""What happens to the daemon between two cycles, as it comes into its mailbox."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
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


class Mailbox:
    """Events in the order in which they came; one thread takes them out.

    Not queue.SimpleQueue: until Python 3.12 its ``get`` with a timeout waits without end where the
    time is up between two steps of it, as it may be after SIGSTOP or with some microseconds left
    (``_queue_SimpleQueue_get_impl``, Modules/_queuemodule.c, takes a rest below zero for no limit).
    """

    def __init__(self) -> None:
        """Start with none."""
        self._events: deque[Event] = deque()
        self._bell = threading.Lock()
        """Free where something may have come since it was last waited for."""

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._events)

    def put(self, event: Event) -> None:
        """Add one; any thread may, and a signal handler in the middle of ``get``."""
        self._events.append(event)
        with contextlib.suppress(RuntimeError):  # somebody else has rung
            self._bell.release()

    def get(self, timeout_s: float) -> Event | None:
        """Take the oldest; wait so long for one, None where none comes."""
        until_s = clock.monotonic_s() + timeout_s
        while not self._events:
            left_s = until_s - clock.monotonic_s()
            # A negative timeout would be none.
            if left_s <= 0 or not self._bell.acquire(timeout=left_s):
                return None
        return self._events.popleft()


def handle_until(
    due_s: float,
    mailbox: Mailbox,
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
        event = mailbox.get(slice_s)
        if event is None:
            turn()
        else:
            due_s = min(due_s, handle(event))
    # Whatever else has come by now is served before the same cycle; what comes meanwhile is not,
    # or a storm of events would put it off for good.
    for _ in range(len(mailbox)):
        if (event := mailbox.get(0.0)) is not None:
            handle(event)
