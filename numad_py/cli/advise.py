"""``advise``: the best nodes for a process that is not there yet, as numad's ``-w`` prints them."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, cast

from numad_py.cli.common import (
    LOOKS_WITHOUT,
    Verbs,
    add_config,
    add_json,
    add_roots,
    is_live,
    print_json,
)
from numad_py.cli.control import daemon_asked
from numad_py.errors import NothingFits, RightsError, UsageError
from numad_py.kernel import start
from numad_py.kernel.procfs import ProcFs
from numad_py.model.advice import Request
from numad_py.model.cpulist import format_list, parse_list
from numad_py.model.text import printable
from numad_py.policy.units import parse_bytes
from numad_py.serve.advice import (
    LONGEST_NAME,
    MOST_BYTES,
    MOST_CPUS,
    request_arguments,
)
from numad_py.serve.control import NotRunning, call

_ASKED = re.compile(r"^([0-9]{1,7})(?::(.*))?$", re.ASCII)
_PLAIN_MIB = re.compile(r"^[0-9]{1,15}$", re.ASCII)

Document = dict[str, Any]


def add_verbs(verbs: Verbs) -> None:
    """Add ``advise``."""
    parser = verbs.add_parser(
        "advise",
        help="the best nodes for a process that is not there yet",
        description="Print the best nodes for a process that will keep NCPUS CPUs busy and take "
        "SIZE of memory, as numad -w does. The daemon reserves them for a while; exit code 3 where "
        "nothing fits.",
    )
    parser.add_argument(
        "asked",
        metavar="NCPUS[:SIZE]",
        type=parse_asked,
        help='CPUs, and memory in MiB or with a unit, "4:8GiB"',
    )
    parser.add_argument("--cpus", action="store_true", help="print the CPUs of these nodes")
    parser.add_argument(
        "--name",
        metavar="NAME",
        type=_name,
        help="name of the reservation; an earlier one of that name is replaced",
    )
    parser.add_argument(
        "--direct", action="store_true", help="look at the machine, do not ask the daemon"
    )
    add_config(parser, LOOKS_WITHOUT)
    add_roots(parser)
    add_json(parser)
    parser.add_argument(
        "--run",
        metavar="COMMAND ...",
        nargs=argparse.REMAINDER,
        help="start it on the CPUs of these nodes; must come last",
    )
    parser.set_defaults(call=advise)
    _leave_command_alone(parser)


def _leave_command_alone(parser: argparse.ArgumentParser) -> None:
    """Take all that stands behind ``--run`` as it is.

    argparse would take it for options of ours where it looks like them, and stop at ``--``.
    """
    parse = parser.parse_known_args

    def parse_known_args(
        args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        ours = list(args or ())
        if "--run" not in ours:
            return parse(ours, namespace)
        at = ours.index("--run")
        found, left = parse(ours[:at], namespace)
        found.run = ours[at + 1 :]
        return found, left

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign, assignment]


def parse_asked(text: str) -> Request:
    """Return the request of ``NCPUS[:SIZE]``.

    >>> parse_asked("4:8GiB").size_bytes == parse_asked("4:8192").size_bytes
    True

    Raises:
        ArgumentTypeError: it is none, with what to write.
    """
    match = _ASKED.match(text)
    if match is None:
        msg = f'{text!r} is not NCPUS[:SIZE]; write 4, 4:8192 (MiB) or "4:8GiB"'
        raise argparse.ArgumentTypeError(msg)
    cpus, size = int(match[1]), match[2]
    if not 0 < cpus <= MOST_CPUS:
        msg = f"no process keeps {match[1]} CPUs busy; ask for 1 to {MOST_CPUS}"
        raise argparse.ArgumentTypeError(msg)
    if size is None:
        return Request(cpus)
    if not size.strip():
        msg = f'{text!r} ends before the size; write {cpus}, or {cpus}:8192 (MiB), or "{cpus}:8GiB"'
        raise argparse.ArgumentTypeError(msg)
    try:
        size_bytes = int(size) << 20 if _PLAIN_MIB.match(size) else parse_bytes(size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if size_bytes > MOST_BYTES:
        msg = f"{size!r} is more memory than any machine has"
        raise argparse.ArgumentTypeError(msg)
    return Request(cpus, size_bytes)


def _name(text: str) -> str:
    if not 0 < len(text) <= LONGEST_NAME or not text.isprintable():
        msg = f"{text!r} is not a name of 1 to {LONGEST_NAME} printable characters"
        raise argparse.ArgumentTypeError(msg)
    return text


def advise(arguments: argparse.Namespace) -> int:
    """Print where it fits best, or start it there."""
    request: Request = arguments.asked
    command = _command(arguments)
    if command is not None:
        cpus, nodes = start.own_cpus(), ProcFs().memory(os.getpid()).mems_allowed
        request = Request(request.cpus, request.size_bytes, cpus, nodes)
    document = _from_daemon(arguments, request)
    if document is None:
        document = _direct(arguments, request)
    if arguments.json:
        print_json(document)
        return 0 if document["fits"] else NothingFits.exit_code
    if not document["fits"]:
        raise NothingFits(document["why"])
    if document["crowded"]:
        _note("the CPUs are in use; these nodes are the least busy")
    if command is not None:
        start.become(command, parse_list(document["cpus"]))
    print(document["cpus"] if arguments.cpus else format_list(document["nodes"]))
    return 0


def _command(arguments: argparse.Namespace) -> list[str] | None:
    """Return the command to be started; None where none is.

    Raises:
        UsageError: there is no command, or something else is asked for beside it.
        NumadError: there is no such program.
    """
    command: list[str] | None = arguments.run
    if command is None:
        return None
    command = command[1:] if command[:1] == ["--"] else command
    if not command:
        msg = "--run wants a command behind it"
        raise UsageError(msg)
    if arguments.json or arguments.cpus:
        msg = "--run prints nothing, so that --json and --cpus have no use with it"
        raise UsageError(msg)
    if not is_live(arguments):
        msg = "--run starts it on this machine; --procfs and --sysfs show another"
        raise UsageError(msg)
    start.require_program(command[0])
    return command


def _from_daemon(arguments: argparse.Namespace, request: Request) -> Document | None:
    """Return the daemon's answer; None where a look of our own is asked for or needed."""
    socket = daemon_asked(arguments)
    if socket is None:
        return None
    asked = request_arguments(request)
    if arguments.name is not None:
        asked["name"] = arguments.name
    try:
        return cast("Document", call(socket, "advise", **asked))
    except (NotRunning, RightsError):
        return None


def _direct(arguments: argparse.Namespace, request: Request) -> Document:
    # Asking a daemon needs no rooms.
    from numad_py.advisor import answer_directly  # noqa: PLC0415
    from numad_py.cli.direct import policy_for_look  # noqa: PLC0415
    from numad_py.kernel.sysfs import SysFs  # noqa: PLC0415

    policy = policy_for_look(arguments.config)
    procfs, sysfs = ProcFs(arguments.procfs), SysFs(arguments.sysfs)
    document = answer_directly(request, procfs, sysfs, policy)
    if document["fits"]:
        _note(
            "no daemon was asked, so nothing is reserved: who asks next may be told the same nodes"
        )
    return document


def _note(text: str) -> None:
    print(f"numad-py: {printable(text)}", file=sys.stderr)
