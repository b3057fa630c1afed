"""The mailbox between two cycles: nothing is lost, and no wait outlasts its time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from numad_py.events import Mailbox, Stop, Wake, handle_until
from numad_py.kernel import clock

WITHIN_S = 20.0


def within(call: Callable[[], None]) -> bool:
    """Say whether a call comes back in time; one that does not is left to its thread."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(WITHIN_S)
    return not thread.is_alive()


def test_a_wait_whose_time_is_up_at_once_comes_back() -> None:
    """Also right after an event, when the bell is still free: a rest below zero is no wait at all.

    SimpleQueue.get waits without end here, until Python 3.12.
    """

    def waits() -> None:
        for _ in range(20_000):
            mailbox = Mailbox()
            assert mailbox.get(1e-9) is None
            mailbox.put(Wake("x"))
            assert mailbox.get(1e-9) == Wake("x")
            assert mailbox.get(1e-9) is None

    assert within(waits)


def test_events_come_in_the_order_in_which_they_were_put() -> None:
    """Whoever puts them, and while they are taken out."""
    mailbox = Mailbox()

    def put(name: int) -> None:
        for i in range(500):
            mailbox.put(Wake(f"{name}:{i}"))

    putters = [threading.Thread(target=put, args=(name,)) for name in range(4)]
    for putter in putters:
        putter.start()
    taken: list[str] = []
    while len(taken) < 2000 and (event := mailbox.get(WITHIN_S)) is not None:
        assert isinstance(event, Wake)
        taken.append(event.why)
    for putter in putters:
        putter.join()
    assert mailbox.get(0.0) is None
    for name in range(4):
        assert [w for w in taken if w[0] == str(name)] == [f"{name}:{i}" for i in range(500)]


def test_a_signal_handler_may_put_in_the_middle_of_a_wait() -> None:
    """SIGTERM finds the main thread waiting: it is told at once."""
    mailbox = Mailbox()

    def put(_number: int, _frame: FrameType | None) -> None:
        mailbox.put(Stop("SIGUSR1"))

    before = signal.signal(signal.SIGUSR1, put)
    try:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        began_s = time.monotonic()
        assert mailbox.get(WITHIN_S) == Stop("SIGUSR1")
        assert time.monotonic() - began_s < WITHIN_S / 2
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_events_are_handled_until_the_time_or_until_one_asks_for_sooner() -> None:
    """What else has come by then is served too, and while nothing comes the loop turns."""
    mailbox = Mailbox()
    handled: list[object] = []
    turns: list[float] = []

    def handle(event: object) -> float:
        handled.append(event)
        return clock.monotonic_s() if event == Wake("now") else float("inf")

    def until(seconds: float) -> float:
        began_s = clock.monotonic_s()
        due_s = began_s + seconds
        handle_until(due_s, mailbox, handle, lambda: turns.append(clock.monotonic_s()), 0.02)
        return clock.monotonic_s() - began_s

    assert 0.1 <= until(0.1) < WITHIN_S
    assert len(turns) >= 2
    for why in ("later", "now", "and this"):
        mailbox.put(Wake(why))
    assert until(WITHIN_S) < WITHIN_S / 2
    assert handled == [Wake("later"), Wake("now"), Wake("and this")]


def test_a_storm_of_events_does_not_put_the_cycle_off() -> None:
    """What comes while events are handled waits for the next time."""
    mailbox = Mailbox()
    handled = []

    def handle(event: object) -> float:
        handled.append(event)
        mailbox.put(Wake("more"))
        return float("inf")

    mailbox.put(Wake("first"))
    handle_until(clock.monotonic_s(), mailbox, handle, lambda: None, None)
    assert handled == [Wake("first")]
    assert len(mailbox) == 1
