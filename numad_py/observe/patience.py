"""Calls that may never come back, such as those to a file system whose server has gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
WORN_S = 1.0
"""For so long is waited once a call did not come back: what hangs, hangs for all."""


class Patience:
    """Makes calls in threads of their own, and leaves behind one that takes too long."""

    def __init__(self, limit_s: float) -> None:
        """Wait for so long, as long as every call comes back."""
        self._limit_s = limit_s

    def call(self, function: Callable[[], _T]) -> _T:
        """Return what a function returns, or raise what it raises.

        One that is left behind keeps no process from ending.

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
        thread.join(self._limit_s)
        if raised:
            raise raised[0]
        if not returned:
            msg = f"no answer within {self._limit_s:g} s"
            self._limit_s = min(self._limit_s, WORN_S)
            raise TimeoutError(msg)
        return returned[0]
