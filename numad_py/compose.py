"""Builds the rooms of a daemon from a policy, starts what runs beside the cycle, and ends it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import structlog

from numad_py.act.actuator import Actuator, DryActuator
from numad_py.act.by_mode import ByMode
from numad_py.act.journal import Journal
from numad_py.act.real import RealActuator
from numad_py.daemon import Daemon
from numad_py.errors import NumadError
from numad_py.events import Mailbox, Wake
from numad_py.kernel import rights
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs, is_own
from numad_py.kernel.syscalls import Syscalls
from numad_py.kernel.sysfs import SysFs
from numad_py.kernel.udev import TopologyEvents, pci_names
from numad_py.observe.endpoint import Endpoints
from numad_py.observe.observer import Observer, no_names
from numad_py.policy.load import load
from numad_py.policy.schema import Mode, Policy
from numad_py.serve.control import SOCKET, ControlServer
from numad_py.serve.http import MetricsServer
from numad_py.serve.metrics import make_registry, render
from numad_py.serve.notify import Notifier

log = structlog.get_logger(__name__)


def build_actuator(
    policy: Policy,
    procfs: ProcFs,
    sysfs: SysFs,
    cgroups: CgroupFs,
    mailbox: Mailbox,
    *,
    dry: bool,
) -> Actuator:
    """Return the doer: one that goes by the policy's mode, or one that never touches anything.

    Raises:
        NumadError: in mode ``act``, when the journal cannot be kept; without it nothing may be
            changed. A daemon that only looks does without.
    """
    dry_actuator = DryActuator(procfs.uptime_s)
    if dry:
        return dry_actuator
    try:
        journal = Journal(Path(policy.daemon.state_dir), procfs.boot_id() or "unknown")
    except NumadError as error:
        if policy.daemon.mode is Mode.ACT:
            raise
        log.warning("no journal: mode act will need a restart", error=str(error))
        return dry_actuator
    real = RealActuator(
        policy,
        procfs,
        sysfs,
        cgroups,
        Syscalls(),
        journal,
        on_outcome=lambda: mailbox.put(Wake("a move has ended")),
    )
    return ByMode(real, dry_actuator, real.keeper, policy)


def build_daemon(
    policy: Policy,
    *,
    config: str | None,
    mode: Mode | None = None,
    dry: bool,
    procfs_root: str,
    sysfs_root: str,
    privileged: bool,
) -> Daemon:
    """Return a daemon over these roots; ``mode`` overrides the policy's, also after a reload."""
    procfs = ProcFs(procfs_root)
    sysfs = SysFs(sysfs_root)
    if is_own(procfs_root) and sysfs_root == "/sys":
        procfs.keep_open()
        sysfs.keep_open()
    mailbox = Mailbox()
    cgroups = CgroupFs(f"{sysfs_root}/fs/cgroup")
    actuator = build_actuator(policy, procfs, sysfs, cgroups, mailbox, dry=dry)
    observer = Observer(
        procfs,
        sysfs,
        cgroups,
        policy,
        actuator.first_masks,
        nodes_of=Syscalls().nodes_of if is_own(procfs_root) else None,
        device_names=pci_names if sysfs_root == "/sys" else no_names,
        endpoints=Endpoints(policy) if is_own(procfs_root) else None,
    )

    def load_policy() -> Policy:
        new = with_mode(load(config, privileged=privileged), mode)
        if new.daemon.mode is Mode.ACT and not dry and policy.daemon.mode is not Mode.ACT:
            rights.require(rights.USES)
            if isinstance(actuator, DryActuator):
                msg = "mode act needs a restart: there was no journal when the daemon started"
                raise NumadError(msg)
        return new

    return Daemon(
        policy,
        observer,
        actuator,
        load_policy=load_policy,
        notifier=Notifier.from_environ(),
        mailbox=mailbox,
        dry_run=dry,
    )


def with_mode(policy: Policy, mode: Mode | None) -> Policy:
    """Return the policy with another mode, where one is given."""
    if mode is None:
        return policy
    return replace(policy, daemon=replace(policy.daemon, mode=mode))


@contextlib.contextmanager
def serving(daemon: Daemon) -> Iterator[None]:
    """Run what stands beside the cycle: signals, control socket, metrics, topology events.

    A control socket that cannot be made (no right to the directory, when somebody tries the daemon
    by hand) is said and done without; a metrics port that is taken is an error, since a scrape
    would reach somebody else.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, daemon.on_signal)
    reached_at: dict[str, str | None] = {"socket": None, "metrics": None}
    with contextlib.ExitStack() as stack:
        control = ControlServer(Path(daemon.policy.daemon.runtime_dir) / SOCKET, daemon.handle)
        try:
            control.start()
        except OSError as error:
            log.warning(
                "no control socket: status, pause and reload cannot reach this daemon",
                path=str(control.path),
                error=str(error),
            )
        else:
            stack.callback(control.stop)
            reached_at["socket"] = str(control.path)
        if daemon.policy.metrics.listen:
            registry = make_registry(
                lambda: (daemon.seen(), daemon.totals), daemon.policy.metrics.max_workers
            )
            metrics = MetricsServer(
                daemon.policy.metrics.listen,
                lambda accept: render(registry, accept),
                daemon.healthy,
            )
            metrics.start()
            stack.callback(metrics.stop)
            reached_at["metrics"] = metrics.address
        events = TopologyEvents(lambda why: daemon.mailbox.put(Wake(why, topology=True)))
        try:
            events.start()
        except (OSError, NumadError, ImportError) as error:
            log.warning("no device events: hotplug shows after a restart only", error=str(error))
        else:
            stack.callback(events.stop)
        daemon.reached_at = reached_at
        yield
