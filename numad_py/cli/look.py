"""``status`` and ``plan``: what the daemon sees, or what a look of our own sees."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, cast

from numad_py.cli.common import (
    LOOKS_WITHOUT,
    Verbs,
    add_config,
    add_json,
    add_roots,
    print_json,
    print_text,
)
from numad_py.cli.control import daemon_asked
from numad_py.errors import RightsError
from numad_py.serve.control import NotRunning, call
from numad_py.serve.render import render_plan, render_status
from numad_py.serve.report import CycleReport
from numad_py.serve.status import plan_document, status_document

Document = Mapping[str, Any]


def add_verbs(verbs: Verbs) -> None:
    """Add ``status`` and ``plan``."""
    _add(verbs, "status", "nodes, workers, where their memory lies and why", status)
    _add(verbs, "plan", "what would be done now, and why", plan)


def _add(verbs: Verbs, verb: str, text: str, function: Callable[[argparse.Namespace], int]) -> None:
    parser = verbs.add_parser(verb, help=text)
    parser.add_argument(
        "--direct", action="store_true", help="look at the machine, do not ask the daemon"
    )
    add_config(parser, LOOKS_WITHOUT)
    add_roots(parser)
    add_json(parser)
    parser.set_defaults(call=function)


def status(arguments: argparse.Namespace) -> int:
    """Print nodes and workers."""
    return _show(
        arguments, "status", lambda report: status_document(report, source="direct"), render_status
    )


def plan(arguments: argparse.Namespace) -> int:
    """Print the decisions."""
    return _show(
        arguments, "plan", lambda report: plan_document(report, source="direct"), render_plan
    )


def _show(
    arguments: argparse.Namespace,
    verb: str,
    document_of: Callable[[CycleReport], Document],
    render: Callable[[Document], str],
) -> int:
    document = from_daemon(arguments, verb)
    if document is None:
        from numad_py.cli.direct import look  # noqa: PLC0415 - asking a daemon needs no rooms

        document = document_of(look(arguments))
    if arguments.json:
        print_json(document)
    else:
        print_text(render(document))
    return 0


def from_daemon(arguments: argparse.Namespace, verb: str) -> Document | None:
    """Return the daemon's document; None where a look of our own is asked for or needed."""
    socket = daemon_asked(arguments)
    if socket is None:
        return None
    try:
        return cast("Document", call(socket, verb))
    except (NotRunning, RightsError):
        return None
