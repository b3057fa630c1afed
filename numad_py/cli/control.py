"""``pause``, ``resume`` and ``reload``: verbs that a running daemon carries out.

And where any verb finds the daemon: ``--config`` names it, by the file that it runs by.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from numad_py.cli.common import FINDS_DAEMON, Verbs, add_config, add_json, is_live, print_json
from numad_py.errors import NumadError, RightsError
from numad_py.model.text import printable
from numad_py.policy.load import load
from numad_py.policy.schema import DaemonPolicy
from numad_py.serve.control import NotRunning, call


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs of a running daemon."""
    for verb, text in (
        ("pause", "let no worker be touched until resume; stops within a chunk"),
        ("resume", "go on after pause"),
        ("reload", "read the policy again; a bad one is refused and the earlier one stands"),
    ):
        parser = verbs.add_parser(verb, help=text)
        add_config(parser, FINDS_DAEMON)
        add_json(parser)
        parser.set_defaults(call=ask, verb=verb)


def socket_path(config: str | None = None) -> Path:
    """Return where the daemon listens: the policy's runtime_dir, else the usual place.

    Args:
        config: the file that was named; None: that of the service.

    Raises:
        PolicyError: the file that was named is absent or has mistakes. It says which daemon is
            meant, so that another one must not be asked instead.
    """
    try:
        runtime_dir = load(config, known_servers=False).daemon.runtime_dir
    except NumadError:
        if config is not None:
            raise
        # A bad or absent policy must not keep anybody from reaching the service that runs.
        runtime_dir = DaemonPolicy().runtime_dir
    return Path(runtime_dir) / "control.sock"


def daemon_asked(arguments: argparse.Namespace) -> Path | None:
    """Return the socket of the daemon that a look is to ask; None: look at the machine itself.

    A file that is named is that of a daemon to be asked, or one to be tried. So a daemon that runs
    by another file is not asked: its answers would pass for those of the file.

    Raises:
        PolicyError: the file that was named is absent or has mistakes.
        NumadError: the daemon that it names cannot answer yet.
    """
    if arguments.direct or not is_live(arguments):
        return None
    path, config = socket_path(arguments.config), arguments.config
    if config is None:
        return path
    try:
        files = cast("dict[str, Any]", call(path, "status"))["policy"]["files"]
    except (NotRunning, RightsError):
        return None
    if _same_file(config, files):
        return path
    said = f"the daemon on {path} runs by {', '.join(files)}; looking by {config} without it"
    print(f"numad-py: {printable(said)}", file=sys.stderr)
    return None


def _same_file(config: str, files: Iterable[str]) -> bool:
    """Say whether a file is among those of a daemon, by whichever path."""
    return os.path.realpath(config) in {os.path.realpath(file) for file in files}


def ask(arguments: argparse.Namespace) -> int:
    """Send the verb and print the answer."""
    answer = cast("dict[str, Any]", call(socket_path(arguments.config), arguments.verb))
    if arguments.json:
        print_json({"schema": 1, **answer})
        return 0
    if arguments.verb == "reload":
        print("policy loaded: " + ", ".join(answer["files"]))
        if answer["needs_restart"]:
            print("at a restart only: " + ", ".join(answer["needs_restart"]))
    else:
        print("paused" if answer["paused"] else "running")
    return 0
