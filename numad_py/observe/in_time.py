"""Calls that may never come back, such as those to a file system whose server has gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
ANSWER_S = 20.0
"""What takes longer is taken not to come back."""


def in_time(function: Callable[[], _T], limit_s: float = ANSWER_S) -> _T:
    """Return what a function returns, called in a thread of its own, or raise what it raises.

    One that takes too long is left behind. The process can end meanwhile wherever the call can be
    killed; one to a FUSE server that has taken it and hangs cannot (``request_wait_answer``,
    fs/fuse/dev.c).

    Raises:
        TimeoutError: it took too long.
    """
    returned: list[_T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(function())
        except BaseException as error:  # noqa: BLE001 - raised by who waits for it
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if raised:
        raise raised[0]
    if not returned:
        msg = f"no answer within {limit_s:g} s"
        raise TimeoutError(msg)
    return returned[0]
