"""Guests as fixtures; tests name theirs with ``on_guest("bookworm-n4c8")``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.guest.fleet import Fleet
from tests.guest.machine import Machine
from tests.guest.workers import Workers


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """Return the guests of this run; they end with it."""
    guests = Fleet()
    yield guests
    guests.close()


@pytest.fixture(scope="session")
def guest(request: pytest.FixtureRequest, fleet: Fleet) -> Machine:
    """Return the guest of that name; pytest runs all tests of one guest together."""
    return fleet.get(request.param)


@pytest.fixture
def workers(guest: Machine) -> Iterator[Workers]:
    """Start workers in the guest; afterwards they and the daemon are gone, the policy as shipped.

    Nothing a test did outlives it: the journal is empty, CPUs are online.
    """
    started = Workers(guest)
    yield started
    guest.run(
        "systemctl stop numad-py; systemctl reset-failed numad-py; "
        "rm -rf /etc/numad-py/conf.d/* /run/systemd/system/numad-py.service.d; "
        "install -m 644 /opt/numad-py/config/numad-py.toml /etc/numad-py/; "
        "systemctl daemon-reload",
        check=False,
    )
    started.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the guest tests out where NUMAD_PY_NO_GUEST is set, and say so."""
    if not os.environ.get("NUMAD_PY_NO_GUEST"):
        return
    for item in items:
        if item.get_closest_marker("guest"):
            item.add_marker(pytest.mark.skip(reason="NUMAD_PY_NO_GUEST is set"))
