"""How a test names the guests on which it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., None])


def on_guest(*names: str) -> Callable[[Test], Test]:
    """Run a test on each of these guests, named ``release-topology``."""

    def mark(test: Test) -> Test:
        marked: Test = pytest.mark.parametrize("guest", names, indirect=True)(test)
        guest: Test = pytest.mark.guest(marked)
        return guest

    return mark
