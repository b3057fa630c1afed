"""What several verbs share: options and printing."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from typing import Any

from numad_py.kernel import rights
from numad_py.model.text import printable
from numad_py.policy.load import DEFAULT_PATH

Verbs = Any
"""What ``add_subparsers`` returns; argparse keeps the class to itself."""


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_config(parser: argparse.ArgumentParser, use: str = "") -> None:
    """Add ``--config``.

    Args:
        parser: of the verb.
        use: what the verb does with the file beyond reading it, such as ``FINDS_DAEMON``.
    """
    text = f"policy file (default: {DEFAULT_PATH})" + (f"; {use}" if use else "")
    parser.add_argument("--config", metavar="FILE", help=text, default=None)


FINDS_DAEMON = "the daemon that runs by it is asked, at its daemon.runtime_dir"
CHANGES_DAEMON = f"{FINDS_DAEMON}; one that runs by another file is left as it is"
LOOKS_WITHOUT = f"{FINDS_DAEMON}; where none does, the machine is looked at by it"


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
    roots = os.path.normpath(arguments.procfs), os.path.normpath(arguments.sysfs)
    return roots == ("/proc", "/sys")


def privileged() -> bool:
    """Say whether a policy that others can write would lend them our rights."""
    return os.geteuid() == 0 or bool(rights.effective_capabilities())


def print_json(document: Mapping[str, Any]) -> None:
    """Print one document, keys in the order in which they were put.

    In ASCII: the name of a process may hold bytes that no encoding has.
    """
    print(json.dumps(document, indent=2))


def print_text(text: str) -> None:
    """Print for people."""
    print(printable(text, keep="\n"))
