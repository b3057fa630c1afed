"""The first part of each look: nodes, and who the workers are. Mostly it is all that is needed."""

from __future__ import annotations

from dataclasses import dataclass

from numad_py.model.topology import Topology
from numad_py.observe.discovery import Census
from numad_py.observe.judged import Found
from numad_py.observe.kept import resized
from numad_py.observe.machine import MachineSeen

CALM_S = 15.0
"""A whole look is taken at least so often."""


@dataclass(frozen=True)
class Glance:
    """What every look begins with."""

    cycle: int
    """Number of the look, from 1."""
    at_s: float
    """Time since boot."""
    topology: Topology
    machine: MachineSeen
    census: Census

    def changed_since(self, whole: Glance) -> bool:
        """Say whether a whole look would tell more than the last one did, or is due.

        It would where nodes, devices or CPUs came or went, where a worker came, ended, became
        another program, grew or shrank, or has more or fewer threads.
        """
        if self.at_s - whole.at_s >= CALM_S or self.topology is not whole.topology:
            return True
        now, before = self.census, whole.census
        if self.machine.cpus_changed or now.execed or len(now.workers) != len(before.workers):
            return True
        return any(map(_differs, before.workers, now.workers))


def _differs(before: Found, now: Found) -> bool:
    if now.id != before.id or now.label != before.label:
        return True
    if now.stat.num_threads != before.stat.num_threads:
        return True
    return resized(before.stat.resident_bytes, now.stat.resident_bytes)
