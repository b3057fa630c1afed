"""A look of our own at the machine, where no daemon is asked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from numad_py.act.actuator import read_first_masks
from numad_py.cli.common import is_live, privileged
from numad_py.cycle import look_and_decide
from numad_py.errors import RightsError
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs, is_own
from numad_py.kernel.syscalls import Syscalls
from numad_py.kernel.sysfs import SysFs
from numad_py.kernel.udev import pci_names
from numad_py.model.plan import DecisionState
from numad_py.model.snapshot import FirstMasks
from numad_py.observe.observer import Observer, no_names, none_narrowed
from numad_py.policy.load import DEFAULT_PATH, defaults, load
from numad_py.policy.schema import LogFormat, Policy
from numad_py.serve.logs import configure
from numad_py.serve.report import CycleReport


def policy_for_look(path: str | None) -> Policy:
    """Return the policy for a verb that changes nothing.

    A machine on which nothing is configured yet is looked at by the built-in policy, and told so.
    """
    if path is None and not Path(DEFAULT_PATH).exists():
        print(f"numad-py: no {DEFAULT_PATH}; using the built-in policy", file=sys.stderr)
        return defaults()
    return load(path, privileged=privileged())


def observer_for(arguments: argparse.Namespace, policy: Policy) -> Observer:
    """Return an observer of the roots that were asked for.

    On the live machine the journal tells the masks that the daemon has set from the users' pins.
    """
    procfs = ProcFs(arguments.procfs)
    cgroups = CgroupFs(f"{arguments.sysfs}/fs/cgroup")
    first_masks: FirstMasks = none_narrowed
    if is_live(arguments):
        first_masks = read_first_masks(Path(policy.daemon.state_dir), procfs, cgroups)
    return Observer(
        procfs,
        SysFs(arguments.sysfs),
        cgroups,
        policy,
        first_masks,
        nodes_of=Syscalls().nodes_of if is_own(arguments.procfs) else None,
        device_names=pci_names if is_live(arguments) else no_names,
    )


def look(arguments: argparse.Namespace) -> CycleReport:
    """Look once and decide, as a first cycle would; nothing is remembered or changed.

    Raises:
        RightsError: there are workers, and none of them may be looked at.
    """
    policy = policy_for_look(arguments.config)
    configure("warning", LogFormat.AUTO)
    observer = observer_for(arguments, policy)
    snapshot, decided, _ = look_and_decide(observer, policy, lambda _: DecisionState())
    report = CycleReport.of_one_look(snapshot, decided, policy)
    refuse_if_blind(report)
    return report


def refuse_if_blind(report: CycleReport) -> None:
    """Say so where there are workers and no right to see any of them.

    Raises:
        RightsError: that is so.
    """
    workers = report.snapshot.workers
    problems = [w.problem for w in workers if w.residency is None and w.problem]
    if workers and len(problems) == len(workers) and all("CAP_" in p for p in problems):
        raise RightsError(problems[0])
