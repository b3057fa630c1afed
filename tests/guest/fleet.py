"""All guests that a run of tests uses, one after the other."""

from __future__ import annotations

from tests.guest.machine import Machine
from tests.guest.project import install


class Fleet:
    """Guests by name, ``release-topology``, such as ``bookworm-n4c8``.

    One at a time: two cores emulate one machine of eight CPUs, not four.
    """

    def __init__(self) -> None:
        """Boot nothing yet."""
        self._guests: dict[str, Machine] = {}

    def get(self, name: str) -> Machine:
        """Return a guest with the project installed; the others are ended.

        Automatic NUMA balancing is off in it: what comes home is numad-py's doing.

        Raises:
            GuestError: it did not come up.
        """
        if name not in self._guests:
            self.close()
            release, _, topology = name.partition("-")
            self._guests[name] = Machine(release, topology).__enter__()
            install(self._guests[name])
            self._guests[name].run("sysctl -q kernel.numa_balancing=0")
        return self._guests[name]

    def close(self) -> None:
        """End what runs."""
        while self._guests:
            self._guests.popitem()[1].__exit__(None, None, None)
