"""One look at the whole machine: kernel readings into a Snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from numad_py.errors import Malformed, RightsError, Vanished
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.residency import Residency
from numad_py.model.snapshot import FirstMasks, MemoryStatus, Snapshot, Thread, Worker, WorkerId
from numad_py.model.topology import Topology
from numad_py.observe.discovery import Discovery, Found
from numad_py.observe.rates import Ticks, demand_cpus, run_share, spent, ticks_of
from numad_py.observe.scan import Reading, Scanner
from numad_py.policy.schema import Policy

DeviceNames = Callable[[Iterable[str]], Mapping[str, str]]
"""Vendor and model in words by PCI address, as far as they are known."""


def none_narrowed(_worker: WorkerId, _threads: tuple[Thread, ...]) -> Mapping[int, frozenset[int]]:
    """Say that every mask is the user's: what a look without a journal assumes."""
    return {}


def no_names(_addresses: Iterable[str]) -> Mapping[str, str]:
    """Name no device: what a look at another machine's files can tell."""
    return {}


class Observer:
    """Looks again and again; remembers just what rates and labels need."""

    def __init__(
        self,
        procfs: ProcFs,
        sysfs: SysFs,
        cgroupfs: CgroupFs,
        policy: Policy,
        first_masks: FirstMasks = none_narrowed,
        *,
        device_names: DeviceNames = no_names,
    ) -> None:
        """Look at these roots.

        Args:
            procfs: the machine's processes.
            sysfs: its nodes and devices.
            cgroupfs: its cpusets.
            policy: which processes are workers, and what looking may cost.
            first_masks: tells our masks from the user's pins.
            device_names: names PCI devices, which only the machine itself can.
        """
        self._procfs = procfs
        self._sysfs = sysfs
        self._cgroupfs = cgroupfs
        self._first_masks = first_masks
        self._device_names = device_names
        self._discovery = Discovery(procfs, policy)
        self.scanner = Scanner(procfs, policy.scan)
        self._topology: Topology | None = None
        self._before: dict[WorkerId, tuple[float, Ticks]] = {}
        self._cycle = 0

    def use(self, policy: Policy) -> None:
        """Go on by another policy."""
        self._discovery.use(policy)
        self.scanner.use(policy.scan)

    def topology_changed(self) -> bool:
        """Read the topology anew at the next look; say whether that is news."""
        known, self._topology = self._topology, None
        return known is not None

    def accept(self, worker: WorkerId, residency: Residency) -> None:
        """Take over a measurement made after a move."""
        self.scanner.accept(worker, residency)

    def observe(self, between_workers: Callable[[], None] = lambda: None) -> Snapshot:
        """Return what the machine looks like now.

        ``between_workers`` is called before each of them; what it raises ends the look.

        A worker that ends while it is read is left out; one that cannot be read stays, with its
        ``problem``.
        """
        self._cycle += 1
        now_s = self._procfs.uptime_s()
        if self._topology is None:
            self._topology = self._read_topology()
        census = self._discovery.look(now_s, between_workers)
        self.scanner.begin()
        workers = []
        for found in census.workers:
            between_workers()
            if (worker := self._worker(found, self._topology, now_s)) is not None:
                workers.append(worker)
        alive = frozenset(w.id for w in workers)
        self._before = {k: v for k, v in self._before.items() if k in alive}
        self.scanner.forget_except(alive)
        return Snapshot(
            cycle=self._cycle,
            at_s=now_s,
            topology=self._topology,
            node_states=self._sysfs.node_states(),
            workers=tuple(workers),
            unmatched=census.unmatched,
            passed_over=census.passed_over,
            vanished=self._procfs.vanished,
            malformed=self._procfs.malformed,
        )

    def _read_topology(self) -> Topology:
        topology = self._sysfs.topology()
        names = self._device_names([device.address for device in topology.devices])
        devices = [replace(d, name=names.get(d.address)) for d in topology.devices]
        return replace(topology, devices=tuple(devices))

    def _worker(self, found: Found, topology: Topology, now_s: float) -> Worker | None:
        pid = found.id.pid
        threads: tuple[Thread, ...] = ()
        memory = MemoryStatus()
        try:
            threads = self._procfs.threads(pid)
            memory = self._procfs.memory(pid)
            reading = self.scanner.reading(found.id, now_s, memory.resident_bytes)
        except Vanished:
            return None
        except (Malformed, RightsError) as error:
            reading = Reading(None, str(error), now_s)
        age_s = now_s - found.id.start_ticks / self._procfs.clock_ticks
        since_s, before = self._before.get(found.id, (now_s - age_s, {}))
        ticks = spent(before, threads)
        self._before[found.id] = (now_s, ticks_of(threads))
        return Worker(
            id=found.id,
            label=found.label,
            rule=found.rule,
            comm=found.comm,
            user=found.user,
            cgroup=found.cgroup,
            threads=threads,
            cpuset_cpus=self._cgroupfs.cpuset_cpus(found.cgroup) if found.cgroup else None,
            memory=memory,
            residency=reading.residency,
            run_share=run_share(ticks, threads, topology),
            demand_cpus=demand_cpus(ticks, now_s - since_s, self._procfs.clock_ticks),
            age_s=age_s,
            problem=reading.problem,
            first_masks=self._first_masks(found.id, threads),
        )
