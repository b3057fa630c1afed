"""``restore``: give back the affinity masks and kernel settings that numad-py has changed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from numad_py.act.affinity import granted_by, restore_all
from numad_py.act.journal import NAME, Journal
from numad_py.act.settings import Keeper
from numad_py.cli.common import CHANGES_DAEMON, Verbs, add_config, add_json, print_json
from numad_py.cli.control import change, with_config
from numad_py.cli.direct import policy_for_look
from numad_py.errors import NumadError, RightsError
from numad_py.kernel import rights
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.settings import Settings
from numad_py.kernel.syscalls import Syscalls
from numad_py.policy.schema import LogFormat
from numad_py.serve.control import NotRunning
from numad_py.serve.logs import configure
from numad_py.serve.plain import counted


def add_verbs(verbs: Verbs) -> None:
    """Add ``restore``."""
    parser = verbs.add_parser(
        "restore",
        help="give every affinity mask back",
        description="Give every thread the affinity mask back that it had before numad-py narrowed "
        "it, and the kernel its settings. A running daemon does it and pauses; without one the "
        "journal is used.",
    )
    add_config(parser, CHANGES_DAEMON)
    add_json(parser)
    parser.set_defaults(call=restore)


def restore(arguments: argparse.Namespace) -> int:
    """Ask the daemon, or do it from the journal where none runs."""
    try:
        answer = change(arguments.config, "restore")
        workers, settings, by = int(answer["restored"]), answer.get("settings", ()), "daemon"
    except NotRunning:
        (workers, settings), by = _from_journal(arguments.config), "journal"
    if arguments.json:
        told = {"restored": workers, "settings": list(settings), "by": by}
        print_json({"schema": 1, **told})
        return 0
    if by == "daemon":
        resume = with_config("numad-py resume", arguments.config)
        print(f"{_given_back(workers)}; the daemon is paused ({resume})")
    else:
        print(_given_back(workers))
    for text in settings:
        print(text)
    return 0


def _given_back(workers: int) -> str:
    return f"{counted(workers, 'worker')} given back their affinity"


def _from_journal(config: str | None) -> tuple[int, Sequence[str]]:
    """Return how many workers got masks back, and what became of kernel settings.

    Raises:
        RightsError: a right is missing.
        NumadError: not all could be given back; what could be is.
    """
    policy = policy_for_look(config)
    procfs = ProcFs()
    configure("warning", LogFormat.AUTO)
    folder = Path(policy.daemon.state_dir)
    try:
        if not (folder / NAME).exists():
            return 0, ()
    except PermissionError:
        msg = f"no right to {folder}: run it as root, or start the daemon and be in its group"
        raise RightsError(msg) from None
    journal = Journal(folder, procfs.boot_id() or "unknown", to_undo=True)
    try:
        if journal.entries():
            rights.require(("CAP_SYS_NICE",))
        granted = granted_by(procfs, CgroupFs("/sys/fs/cgroup"))
        workers = restore_all(journal, procfs, Syscalls(), granted)
        keeper = Keeper(Settings(), journal)
        settings = keeper.give_back()
        if problems := keeper.told().problems:
            raise NumadError("; ".join(problems.values()))
        if left := [entry.label for entry in journal.entries()]:
            msg = f"{_given_back(workers)}, but not {', '.join(left)}; see above"
            raise NumadError(msg)
    finally:
        journal.close()
    return workers, settings
