"""Room promised to processes to come, until they are there: at most so many, each for a while."""

from __future__ import annotations

from dataclasses import dataclass, replace

from numad_py.model.advice import Advice, Reservation

MOST = 1024
"""Whoever asks in a loop must not fill our memory."""


@dataclass(frozen=True)
class Reservations:
    """Those that are alive, oldest first; replaced, never changed."""

    alive: tuple[Reservation, ...] = ()
    last_id: int = 0

    def at(self, now_s: float) -> Reservations:
        """Return those that have not ended by then (time since boot)."""
        return replace(self, alive=tuple(r for r in self.alive if now_s < r.until_s))

    def without(self, name: str | None) -> Reservations:
        """Return all but the one of that name; None is no name."""
        if name is None:
            return self
        return replace(self, alive=tuple(r for r in self.alive if r.name != name))

    def add(self, advice: Advice, name: str | None, until_s: float) -> Reservations:
        """Return them with one more, which is the last; one of the same name goes."""
        one = Reservation(
            self.last_id + 1, name, advice.bytes_by_node, advice.cpus_by_node, until_s
        )
        return Reservations((*self.without(name).alive, one), one.id)

    @property
    def full(self) -> bool:
        """Whether there can be no more."""
        return len(self.alive) >= MOST

    def taken_bytes(self) -> dict[int, int]:
        """Return what is promised, by node."""
        taken: dict[int, int] = {}
        for reservation in self.alive:
            for node, size in reservation.bytes_by_node.items():
                taken[node] = taken.get(node, 0) + size
        return taken

    def taken_cpus(self) -> dict[int, float]:
        """Return the CPUs that are promised, by node."""
        taken: dict[int, float] = {}
        for reservation in self.alive:
            for node, cpus in reservation.cpus_by_node.items():
                taken[node] = taken.get(node, 0.0) + cpus
        return taken
