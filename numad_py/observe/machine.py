"""The machine apart from its workers: nodes, CPU use, pressure, and who else interferes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from numad_py.errors import NumadError
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.machine import Interference, NodeState, Pressure
from numad_py.model.topology import Topology
from numad_py.observe.interference import interferences

DETAILS_S = 15.0
"""So old may a node's huge pages and allocations become; its memory is read in each look."""
SETTINGS_S = 60.0
"""So old may what is known of the kernel's settings become."""


@dataclass(frozen=True)
class MachineSeen:
    """The machine at one moment."""

    node_states: tuple[NodeState, ...]
    pressure: Pressure
    forks: int | None
    """Processes and threads made since boot; None where the kernel does not say."""
    cpus_changed: bool = False
    """Whether other CPUs are online than at the last look."""


class Machine:
    """Remembers what rates need."""

    def __init__(self, procfs: ProcFs, sysfs: SysFs) -> None:
        """Start with nothing seen."""
        self._procfs = procfs
        self._sysfs = sysfs
        self._states: Mapping[int, NodeState] = {}
        self._detailed_at_s = float("-inf")
        self._busy: tuple[float, Mapping[int, int]] | None = None
        self._settings: tuple[float, Mapping[str, int], tuple[Interference, ...]] | None = None

    def look(self, now_s: float, topology: Topology) -> MachineSeen:
        """Return nodes, pressure and the fork count.

        Args:
            now_s: time since boot.
            topology: tells which CPUs are a node's.
        """
        states = self._node_states(now_s, topology)
        forks, cpus_changed = None, False
        try:
            stat = self._procfs.machine_stat()
        except NumadError:
            # Discovery lists each time then; CPU use is not known.
            self._busy = None
        else:
            forks = stat.forks
            if self._busy is not None and now_s > self._busy[0]:
                # Of CPUs that are offline /proc/stat has no line (show_stat, fs/proc/stat.c).
                cpus_changed = self._busy[1].keys() != stat.busy_ticks.keys()
                since_s = now_s - self._busy[0]
                busy = _busy_cpus(self._busy[1], stat.busy_ticks, topology)
                ticks = self._procfs.clock_ticks * since_s
                states = tuple(
                    replace(s, busy_cpus=busy[s.node] / ticks if s.node in busy else None)
                    for s in states
                )
            self._busy = (now_s, stat.busy_ticks)
        return MachineSeen(states, self._procfs.pressure(), forks, cpus_changed)

    def _node_states(self, now_s: float, topology: Topology) -> tuple[NodeState, ...]:
        before = self._states
        if now_s - self._detailed_at_s >= DETAILS_S:
            before, self._detailed_at_s = {}, now_s
        ids = topology.node_ids
        self._states = {node: self._sysfs.node_state(node, before.get(node)) for node in ids}
        return tuple(self._states.values())

    def interferences(self, now_s: float, named: Mapping[str, int]) -> tuple[Interference, ...]:
        """Return what interferes; settings are read once in SETTINGS_S.

        Args:
            now_s: time since boot.
            named: pid by name of the processes that interfere, as discovery saw them.
        """
        known = self._settings
        if known is None or known[1] != named or now_s - known[0] >= SETTINGS_S:
            known = (now_s, named, interferences(self._procfs, named))
            self._settings = known
        return known[2]


def _busy_cpus(
    before: Mapping[int, int], now: Mapping[int, int], topology: Topology
) -> dict[int, int]:
    """Return the ticks that each node's CPUs were busy; CPUs that came online meanwhile are new."""
    return {
        node.id: sum(max(0, now[c] - before[c]) for c in node.cpus if c in now and c in before)
        for node in topology.nodes
        if node.has_cpu
    }
