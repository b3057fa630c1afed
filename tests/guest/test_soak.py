"""A minute of what ``make soak`` does for an hour."""

from __future__ import annotations

import random

from tests.guest.machine import Machine
from tests.guest.marks import in_full, on_guest
from tests.guest.workers import Workers
from tests.soak.soak import GROWTH_BYTES, Held, Soak, grown

SECONDS = 60


@in_full
@on_guest("bookworm-n4c8")
def test_nothing_grows_where_workers_come_and_go(guest: Machine, workers: Workers) -> None:
    """Memory, threads and descriptors are the same when they are gone; who stays has its masks."""
    soak = Soak(guest, workers, random.Random(1))  # noqa: S311 - the same workers each time
    assert soak.run(SECONDS) == []


def test_growth_is_seen() -> None:
    """A descriptor, a thread or a MiB more in the last third is told of; what came early is not.

    Nor is a descriptor that one look of several finds, and the next does not.
    """
    quiet = Held(20 << 20, 5, 12)
    early = Held(10 << 20, 4, 11)
    assert grown([early, quiet, quiet]) == []
    assert len(grown([early, quiet, Held(20 << 20, 6, 13)])) == 2
    assert len(grown([early, quiet, Held((20 << 20) + GROWTH_BYTES + 1, 5, 12)])) == 1
    passing = Held(20 << 20, 5, 13)
    assert grown([early] * 3 + [quiet] * 3 + [quiet, passing, quiet]) == []
    assert len(grown([early] * 3 + [quiet] * 3 + [quiet, passing, passing])) == 1
