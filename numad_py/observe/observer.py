"""One look at the whole machine: kernel readings into a Snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from numad_py.errors import Malformed, RightsError, Vanished
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.devices import CharDevices, DeviceUse
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.resctrl import ResctrlFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.outcome import Outcome
from numad_py.model.snapshot import (
    FirstMasks,
    Snapshot,
    Thread,
    Worker,
    WorkerId,
)
from numad_py.model.topology import Topology
from numad_py.observe.bandwidth import BandwidthMeter
from numad_py.observe.devices import Devices
from numad_py.observe.discovery import Census, Discovery, Found
from numad_py.observe.endpoint import Endpoints, GuardLook
from numad_py.observe.glance import Glance
from numad_py.observe.interference import NAMED
from numad_py.observe.limits import Limits, LimitsSeen
from numad_py.observe.machine import Machine
from numad_py.observe.readings import NodesOf, Readings, Subject
from numad_py.observe.scan import Reading, Scanner
from numad_py.observe.segments import merge
from numad_py.observe.threads import Threads, ThreadsSeen
from numad_py.policy.schema import Policy

DeviceNames = Callable[[Iterable[str]], Mapping[str, str]]
"""Vendor and model in words by PCI address, as far as they are known."""


def none_narrowed(_worker: WorkerId, _threads: tuple[Thread, ...]) -> Mapping[int, frozenset[int]]:
    """Say that every mask is the user's: what a look without a journal assumes."""
    return {}


def no_names(_addresses: Iterable[str]) -> Mapping[str, str]:
    """Name no device: what a look at another machine's files can tell."""
    return {}


@dataclass(frozen=True)
class Closer:
    """Who is to be looked at closely."""

    in_full: frozenset[WorkerId]
    """Their memory is to be read in full: a decision hangs on it."""
    confirmed: frozenset[WorkerId]
    """They are to be acted on by what is known of their masks and limits."""


@dataclass(frozen=True)
class _Seen:
    """A worker before its memory is looked at."""

    found: Found
    threads: ThreadsSeen
    limits: LimitsSeen
    problem: str | None


class Observer:
    """Looks again and again; remembers what rates and labels need, and what is seldom read anew."""

    def __init__(
        self,
        procfs: ProcFs,
        sysfs: SysFs,
        cgroupfs: CgroupFs,
        policy: Policy,
        first_masks: FirstMasks = none_narrowed,
        *,
        nodes_of: NodesOf | None = None,
        device_names: DeviceNames = no_names,
        endpoints: Endpoints | None = None,
    ) -> None:
        """Look at these roots.

        Args:
            procfs: the machine's processes.
            sysfs: its nodes and devices.
            cgroupfs: its cpusets and memory controller.
            policy: which processes are workers, and what looking may cost.
            first_masks: tells our masks from the user's pins.
            nodes_of: asks the kernel where pages are; None where these are another machine's files.
            device_names: names PCI devices, which only the machine itself can.
            endpoints: reads the metrics that rules guard; None where these are another machine's
                files, and for a single look.
        """
        self._procfs = procfs
        self._sysfs = sysfs
        self._first_masks = first_masks
        self._device_names = device_names
        self._endpoints = endpoints
        self._discovery = Discovery(procfs, policy, NAMED)
        self._machine = Machine(procfs, sysfs)
        self._limits = Limits(procfs, cgroupfs, policy.placement.loading_limit_s)
        self._threads = Threads(procfs)
        self._devices = Devices(DeviceUse(procfs.root), CharDevices(sysfs.root))
        self._bandwidth = BandwidthMeter(procfs, ResctrlFs(f"{sysfs.root}/fs/resctrl"))
        self.scanner = Scanner(Readings(procfs, cgroupfs, nodes_of), policy.scan)
        self._topology: Topology | None = None
        self._execed_at_s: dict[WorkerId, float] = {}
        """When a worker was seen to have become another program."""
        self._cycle = 0

    def use(self, policy: Policy) -> None:
        """Go on by another policy."""
        self._discovery.use(policy)
        self.scanner.use(policy.scan)
        self._limits.loading_limit_s = policy.placement.loading_limit_s
        if self._endpoints is not None:
            self._endpoints.use(policy)

    def topology_changed(self) -> bool:
        """Read the topology anew at the next look; say whether that is news.

        And what the kernel grants each worker: a mask or a cpuset that was left without a CPU or a
        node has become another one.
        """
        known, self._topology = self._topology, None
        if known is not None:
            self._threads.masks_changed()
            self._limits.changed()
        return known is not None

    def masks_changed(self) -> None:
        """Read every affinity mask anew at the next look: numad-py has changed some."""
        self._threads.masks_changed()

    def learn(self, outcome: Outcome) -> None:
        """Take over what was measured after a move; read anew what it may have changed."""
        if outcome.moved or outcome.after is not None:
            self.scanner.accept(outcome.decision.worker, outcome.after)
        if outcome.moved:
            for user in outcome.decision.other_users:
                self.scanner.outdate(user)
        if outcome.threads_bound or outcome.threads_given_back:
            self.masks_changed()

    def glance(self, between: Callable[[], None] = lambda: None) -> Glance:
        """Return what every look begins with; a whole one goes on from it.

        ``between`` is called before each process; what it raises ends the look.
        """
        self._cycle += 1
        now_s = self._procfs.uptime_s()
        topology = self._current_topology()
        machine = self._machine.look(now_s, topology)
        if machine.cpus_changed:
            # An event may have been lost.
            self.topology_changed()
            topology = self._current_topology()
        census = self._discovery.look(now_s, machine.forks, between)
        return Glance(self._cycle, now_s, topology, machine, census)

    def observe(
        self, between: Callable[[], None] = lambda: None, glance: Glance | None = None
    ) -> Snapshot:
        """Return what the machine looks like now.

        A worker that ends while it is read is left out; one that cannot be read stays, with its
        ``problem``.

        Args:
            between: called before each process and reading; what it raises ends the look.
            glance: to go on from; None: begin with one.
        """
        glance = glance or self.glance(between)
        now_s, topology, machine = glance.at_s, glance.topology, glance.machine
        census = glance.census
        if census.execed:
            self._forget(census, now_s)
        seen = []
        for found in census.workers:
            between()
            if (worker := self._see(found, topology, now_s)) is not None:
                seen.append(worker)
        readings = self.scanner.look(
            (_subject(s) for s in seen if s.problem is None), now_s, between
        )
        workers = tuple(self._worker(s, readings.get(s.found.id), now_s, topology) for s in seen)
        if self._endpoints is not None:
            guards = self._endpoints.look({w.rule for w in workers})
            workers = tuple(_with_guard(w, guards.get(w.rule)) for w in workers)
        self._forget_except(frozenset(w.id for w in workers))
        return Snapshot(
            cycle=glance.cycle,
            at_s=now_s,
            topology=topology,
            node_states=machine.node_states,
            workers=workers,
            segments=merge(workers),
            pressure=machine.pressure,
            interferences=self._machine.interferences(now_s, census.named),
            unmatched=census.unmatched,
            deferred=census.deferred,
            passed_over=census.passed_over,
            vanished=self._procfs.vanished,
            malformed=self._procfs.malformed,
        )

    def look_closer(
        self,
        snapshot: Snapshot,
        wanted: Closer,
        between: Callable[[], None] = lambda: None,
    ) -> Snapshot:
        """Return the snapshot with a closer look at the workers on which a decision hangs.

        Memory is read in full as far as that may be. Of who may then be acted on, masks and limits
        are read as well: those of the snapshot may be a minute old, and its user may have changed
        them since. Who has ended is left out; who cannot be read has a ``problem`` and no figures,
        so that nothing is done about it.
        """
        workers = []
        for worker in snapshot.workers:
            seen: Worker | None = worker
            confirmed = worker.id in wanted.confirmed
            if worker.id in wanted.in_full:
                between()
                subject = Subject(worker.id, worker.memory, worker.cgroup)
                reading = self.scanner.closer(subject, snapshot.at_s, between)
                if reading is not None:
                    seen = replace(worker, residency=reading.residency, problem=reading.problem)
                    confirmed = True
            if confirmed and seen is not None:
                between()
                seen = self._confirm(seen, snapshot)
            if seen is not None:
                workers.append(seen)
        return replace(snapshot, workers=tuple(workers), segments=merge(workers))

    def _confirm(self, worker: Worker, snapshot: Snapshot) -> Worker | None:
        """Return a worker with its masks and limits as they are now; None where it has ended."""
        try:
            limits = self._limits.confirm(worker.id, snapshot.at_s)
            threads = self._threads.confirm(worker.id, snapshot.at_s, snapshot.topology)
        except Vanished:
            return None
        except (Malformed, RightsError) as error:
            return replace(worker, residency=None, problem=str(error))
        return replace(
            worker,
            threads=threads.threads,
            run_share=threads.run_share,
            cpuset_cpus=limits.cpuset_cpus,
            memory=limits.memory,
            first_masks=self._first_masks(worker.id, threads.threads),
        )

    def _forget(self, census: Census, now_s: float) -> None:
        """Forget what is known of workers that have become another program: memory is new."""
        self._forget_except(frozenset(found.id for found in census.workers) - census.execed)
        for worker in census.execed:
            self._execed_at_s[worker] = now_s

    def _current_topology(self) -> Topology:
        """Return the topology, read anew where nodes came or went: an event may have been lost."""
        known = self._topology
        if known is None or known.node_ids != self._sysfs.online():
            known = self._sysfs.topology()
            names = self._device_names([device.address for device in known.devices])
            devices = [replace(d, name=names.get(d.address)) for d in known.devices]
            known = replace(known, devices=tuple(devices))
            self._topology = known
        return known

    def _see(self, found: Found, topology: Topology, now_s: float) -> _Seen | None:
        threads, limits, problem = ThreadsSeen(()), LimitsSeen(), None
        try:
            limits = self._limits.look(found, now_s)
            threads = self._threads.look(found.id, found.stat, now_s, topology)
        except Vanished:
            return None
        except (Malformed, RightsError) as error:
            problem = str(error)
        return _Seen(found, threads, limits, problem)

    def _worker(
        self, seen: _Seen, reading: Reading | None, now_s: float, topology: Topology
    ) -> Worker:
        found, threads = seen.found, seen.threads
        execed_at_s = self._execed_at_s.get(found.id)
        age_s = now_s - (execed_at_s or found.id.start_ticks / self._procfs.clock_ticks)
        devices = self._devices.look(found.id, found.stat, now_s, age_s, topology)
        return Worker(
            id=found.id,
            label=found.label,
            rule=found.rule,
            comm=found.comm,
            user=found.user,
            cgroup=found.cgroup,
            threads=threads.threads,
            cpuset_cpus=seen.limits.cpuset_cpus,
            memory=seen.limits.memory,
            residency=reading.residency if reading is not None else None,
            run_share=threads.run_share,
            demand_cpus=threads.demand_cpus,
            age_s=age_s,
            problem=seen.problem or (reading.problem if reading is not None else None),
            first_masks=self._first_masks(found.id, threads.threads),
            bandwidth=self._bandwidth.look(found.id, now_s),
            thp_bytes=reading.thp_bytes if reading is not None else None,
            devices=devices.addresses,
            devices_unsure=devices.unsure,
            execed_at_s=execed_at_s,
        )

    def _forget_except(self, alive: frozenset[WorkerId]) -> None:
        self._limits.forget_except(alive)
        self._threads.forget_except(alive)
        self._bandwidth.forget_except(alive)
        self._devices.forget_except(alive)
        self.scanner.forget_except(alive)
        if self._execed_at_s:
            self._execed_at_s = {k: v for k, v in self._execed_at_s.items() if k in alive}


def _with_guard(worker: Worker, look: GuardLook | None) -> Worker:
    if look is None:
        return worker
    return replace(worker, guard=look.reading, guard_problem=look.problem)


def _subject(seen: _Seen) -> Subject:
    return Subject(seen.found.id, seen.limits.memory, seen.found.cgroup)
