"""The guests of a subject, or why there are none here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tests.bench.table import NotHere
from tests.guest.fleet import Fleet
from tests.guest.image import GuestError, check_tools


@contextlib.contextmanager
def guests() -> Iterator[Fleet]:
    """Hand out guests by name, one at a time; they end with the block.

    Raises:
        NotHere: there are to be none, or a tool that makes them is missing.
    """
    if os.environ.get("NUMAD_PY_NO_GUEST"):
        why = "NUMAD_PY_NO_GUEST is set"
        raise NotHere(why)
    try:
        check_tools()
    except GuestError as error:
        raise NotHere(str(error)) from None
    with contextlib.closing(Fleet()) as fleet:
        yield fleet
