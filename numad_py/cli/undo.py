"""``restore``: give back the affinity masks that numad-py has narrowed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

from numad_py.act.affinity import restore_all
from numad_py.act.journal import NAME, Journal
from numad_py.cli.common import Verbs, add_config, add_json, print_json
from numad_py.cli.control import socket_path
from numad_py.cli.direct import policy_for_look
from numad_py.errors import NumadError, RightsError
from numad_py.kernel import rights
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.policy.schema import LogFormat
from numad_py.serve.control import NotRunning, call
from numad_py.serve.logs import configure


def add_verbs(verbs: Verbs) -> None:
    """Add ``restore``."""
    parser = verbs.add_parser(
        "restore",
        help="give every affinity mask back",
        description="Give every thread the affinity mask back that it had before numad-py narrowed "
        "it. A running daemon does it and pauses; without one the journal is used.",
    )
    add_config(parser)
    add_json(parser)
    parser.set_defaults(call=restore)


def restore(arguments: argparse.Namespace) -> int:
    """Ask the daemon, or do it from the journal where none runs."""
    try:
        answer = cast("dict[str, Any]", call(socket_path(arguments.config), "restore"))
        workers, by = int(answer["restored"]), "daemon"
    except NotRunning:
        workers, by = _from_journal(arguments.config), "journal"
    if arguments.json:
        print_json({"schema": 1, "restored": workers, "by": by})
    elif by == "daemon":
        print(
            f"{workers} workers given back their affinity; the daemon is paused (numad-py resume)"
        )
    else:
        print(f"{workers} workers given back their affinity")
    return 0


def _from_journal(config: str | None) -> int:
    policy = policy_for_look(config)
    procfs = ProcFs()
    configure("warning", LogFormat.AUTO)
    folder = Path(policy.daemon.state_dir)
    try:
        if not (folder / NAME).exists():
            return 0
    except PermissionError:
        msg = f"no right to {folder}: run it as root, or start the daemon and be in its group"
        raise RightsError(msg) from None
    journal = Journal(folder, procfs.boot_id() or "unknown", to_undo=True)
    try:
        if journal.entries():
            rights.require(("CAP_SYS_NICE",))
        workers = restore_all(journal, procfs, Syscalls())
        if left := [entry.label for entry in journal.entries()]:
            msg = (
                f"{workers} workers given back their affinity, but not {', '.join(left)}; see above"
            )
            raise NumadError(msg)
    finally:
        journal.close()
    return workers
