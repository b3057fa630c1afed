"""``pause``, ``resume`` and ``reload``: verbs that a running daemon carries out.

And how any verb finds the daemon: ``--config`` names it, by the file that it runs by.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from numad_py.cli.common import CHANGES_DAEMON, Verbs, add_config, add_json, is_live, print_json
from numad_py.errors import NumadError, PolicyError, RightsError
from numad_py.model.text import printable
from numad_py.policy.load import load, runtime_dir_of
from numad_py.policy.schema import DaemonPolicy, Policy
from numad_py.serve.control import SOCKET, NotRunning, call


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs of a running daemon."""
    for verb, text in (
        ("pause", "let no worker be touched until resume; stops within a chunk"),
        ("resume", "go on after pause"),
        ("reload", "read the policy again; a bad one is refused and the earlier one stands"),
    ):
        parser = verbs.add_parser(verb, help=text)
        add_config(parser, CHANGES_DAEMON)
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
        return socket_of(load(config, known_servers=False))
    except NumadError:
        if config is not None:
            raise
        # A bad or absent policy must not keep anybody from reaching the service that runs.
        return _socket_in(DaemonPolicy().runtime_dir)


def socket_of(policy: Policy) -> Path:
    """Return where a daemon listens that runs by a policy."""
    return _socket_in(policy.daemon.runtime_dir)


def _socket_in(runtime_dir: str) -> Path:
    return Path(runtime_dir) / SOCKET


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
        status = _status(path)
    except (NotRunning, RightsError):
        return None
    if runs_by(status, config):
        _note_changes(status, config)
        return path
    files = ", ".join(status["policy"]["files"])
    _say(f"the daemon on {path} runs by {files}; looking by {config} without it")
    return None


def change(config: str | None, verb: str) -> dict[str, Any]:
    """Let the daemon do what a verb asks for, and return its answer.

    A file that is named is that of the daemon that is meant: one that runs by another file, and
    has the same socket, is not touched.

    Raises:
        PolicyError: the file that was named is absent or has mistakes, and no daemon that runs by
            it is found all the same.
        NotRunning: nobody listens there.
        NumadError: the daemon there runs by another file, or cannot say yet by which.
    """
    if config is None:
        return cast("dict[str, Any]", call(socket_path(), verb))
    try:
        path = socket_path(config)
    except PolicyError:
        # What was typed into its policy since must not keep anybody from stopping a daemon.
        found = _socket_in_spite_of_mistakes(config)
        if found is None:
            raise
        path = found
    status = _status(path)
    if not runs_by(status, config):
        main = str(status["policy"]["files"][0])
        msg = (
            f"the daemon on {path} runs by {main}, not by {config}; nothing was changed; "
            f"to have it changed: {with_config(f'numad-py {verb}', main)}"
        )
        raise NumadError(msg)
    return cast("dict[str, Any]", call(path, verb))


def with_config(command: str, config: str | None) -> str:
    """Return a command to be typed next, which finds the same daemon."""
    return command if config is None else f"{command} --config {shlex.quote(config)}"


def _socket_in_spite_of_mistakes(config: str) -> Path | None:
    """Return where the daemon listens that runs by a file that is no good any more, or is gone."""
    path = _socket_in(runtime_dir_of(config))
    try:
        return path if runs_by(_status(path), config) else None
    except NumadError:
        return None


def _status(path: Path) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", call(path, "status"))


def runs_by(status: Mapping[str, Any], config: str) -> bool:
    """Say whether a file is the main one of a daemon, which it names first; by whichever path.

    A drop-in is a part of the policy, and says something else when it is read alone.
    """
    main = str(status["policy"]["files"][0])
    return os.path.realpath(config) == os.path.realpath(main)


def _note_changes(status: Mapping[str, Any], config: str) -> None:
    """Say where the files are not those any more that the daemon has loaded."""
    files = status["policy"]["files"]
    loaded = {os.path.realpath(file): file for file in files}
    try:
        now = {os.path.realpath(f): f for f in load(files[0], known_servers=False).sources}
        changed = [
            file
            for real, file in (loaded | now).items()
            if (real in loaded) != (real in now)
            or Path(real).stat().st_mtime > status["policy_loaded_at"]
        ]
    except (NumadError, OSError):
        # They are being written just now, or lie where we have no right to look.
        return
    if changed:
        _say(
            f"written since the daemon loaded its policy: {', '.join(changed)}; what is new there "
            f"holds after {with_config('numad-py reload', config)}"
        )


def _say(what: str) -> None:
    print(f"numad-py: {printable(what)}", file=sys.stderr)


def ask(arguments: argparse.Namespace) -> int:
    """Send the verb and print the answer."""
    answer = change(arguments.config, arguments.verb)
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
