"""How a test names the guests on which it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., None])

in_full = pytest.mark.skipif(
    not os.environ.get("NUMAD_PY_FULL"), reason="takes minutes; NUMAD_PY_FULL=1 has it run"
)
"""Of tests on a guest that `make test` has no time for."""


def on_guest(*names: str) -> Callable[[Test], Test]:
    """Run a test on each of these guests, named ``release-topology``."""

    def mark(test: Test) -> Test:
        marked: Test = pytest.mark.parametrize("guest", names, indirect=True)(test)
        guest: Test = pytest.mark.guest(marked)
        return guest

    return mark
