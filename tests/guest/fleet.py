"""All guests that a run of tests needs, booted at once and ended as soon as each is done with."""

from __future__ import annotations

from collections.abc import Iterable

from tests.guest.machine import Machine
from tests.guest.project import install


class Fleet:
    """Guests by name, ``release-topology``, such as ``bookworm-n4c8``.

    Booting is what one core does: two boots take hardly longer than one, and a booted guest that
    waits costs next to nothing.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Begin to boot them all."""
        self._booting: dict[str, Machine] = {}
        self._ready: dict[str, Machine] = {}
        try:
            for name in names:
                release, _, topology = name.partition("-")
                self._booting[name] = Machine(release, topology)
                self._booting[name].start()
        except BaseException:
            self.close()
            raise

    def get(self, name: str) -> Machine:
        """Return a guest with the project installed.

        Automatic NUMA balancing is off in it: what comes home is numad-py's doing.

        Raises:
            GuestError: it did not come up.
        """
        if name in self._booting:
            # The others wait for their turn in any case; leave both cores to the boots until then.
            for other in self._booting.values():
                other.wait()
            self._ready.update(self._booting)
            self._booting.clear()
        guest = self._ready[name]
        install(guest)
        guest.run("sysctl -q kernel.numa_balancing=0")
        return guest

    def end(self, name: str) -> None:
        """End one guest."""
        for guests in (self._booting, self._ready):
            if name in guests:
                guests.pop(name).__exit__(None, None, None)

    def close(self) -> None:
        """End all that are left."""
        for name in (*self._booting, *self._ready):
            self.end(name)
