"""What several verbs share: options, the rooms they look through, printing."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numad_py.act.actuator import read_ours
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.observe.observer import Observer, Ours, nothing_ours
from numad_py.policy.load import DEFAULT_PATH, defaults, load
from numad_py.policy.schema import Policy

Verbs = Any
"""What ``add_subparsers`` returns; argparse keeps the class to itself."""


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"policy file (default: {DEFAULT_PATH})", default=None
    )


def add_roots(parser: argparse.ArgumentParser) -> None:
    """Add ``--procfs`` and ``--sysfs``."""
    parser.add_argument(
        "--procfs", metavar="DIR", default="/proc", help="where proc is mounted (default: /proc)"
    )
    parser.add_argument(
        "--sysfs", metavar="DIR", default="/sys", help="where sysfs is mounted (default: /sys)"
    )


def is_live(arguments: argparse.Namespace) -> bool:
    """Say whether the look goes at this machine itself, so that its daemon can be asked."""
    return bool(arguments.procfs == "/proc" and arguments.sysfs == "/sys")


def privileged() -> bool:
    """Say whether a policy that others can write would lend them our rights."""
    return os.geteuid() == 0


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
    procfs = ProcFs(arguments.procfs, f"{arguments.sysfs}/fs/cgroup")
    ours: Ours = nothing_ours
    if is_live(arguments):
        ours = read_ours(Path(policy.daemon.state_dir), procfs)
    return Observer(
        procfs,
        SysFs(arguments.sysfs),
        CgroupFs(f"{arguments.sysfs}/fs/cgroup"),
        policy,
        ours,
    )


def print_json(document: Mapping[str, Any]) -> None:
    """Print one document, keys in the order in which they were put."""
    print(json.dumps(document, indent=2, ensure_ascii=False))
