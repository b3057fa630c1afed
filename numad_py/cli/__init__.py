"""The command line: one module per group of verbs; parse, call, print."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

import numad_py
from numad_py.errors import NumadError
from numad_py.model.text import printable

EPILOG = """\
exit codes: 0 done, 1 failed, 2 usage, 3 nothing fits, 77 a right is missing, 78 bad configuration
files: /etc/numad-py/numad-py.toml, then /etc/numad-py/conf.d/*.toml by name
"""
GROUPS = {
    "run": ("run",),
    "look": ("status", "plan"),
    "explain": ("explain",),
    "advise": ("advise",),
    "control": ("pause", "resume", "reload"),
    "config": ("check-config",),
    "undo": ("restore",),
    "doctor": ("doctor",),
    "cache": ("cache",),
    "record": ("record",),
    "replay": ("replay",),
}
"""Modules of this package, each with its verbs, in the order of the help text."""


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of every verb, or of a verb's group alone.

    A verb loads its own module only: asking a running daemon must not cost what running one does.
    """
    parser = argparse.ArgumentParser(
        prog="numad-py",
        description="Keeps inference workers, their memory and threads on the same NUMA nodes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"numad-py {numad_py.__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    wanted = [group for group, names in GROUPS.items() if verb in names] or list(GROUPS)
    for group in wanted:
        importlib.import_module(f"numad_py.cli.{group}").add_verbs(verbs)
    for name, of_verb in verbs.choices.items():
        of_verb.set_defaults(of_verb=(name, of_verb))
    return parser


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for; what makes no sense ends with the usage of its verb."""
    arguments, odd = build_parser(words[0] if words else None).parse_known_args(words)
    if odd:
        verb, parser = arguments.of_verb
        said = f"unrecognized arguments: {' '.join(odd)}"
        if verb in GROUPS["look"] and not odd[0].startswith("-"):
            said += f"; {verb} shows all workers; it takes no pid or name (explain does)"
        parser.error(said)
    return arguments


def _mend_streams() -> None:
    """Make output possible in every environment: closed streams, and encodings without a letter."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - for good
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    _mend_streams()
    words = sys.argv[1:] if argv is None else argv
    arguments = _parse(words)
    code = 0
    try:
        code = arguments.call(arguments)
        sys.stdout.flush()
    except NumadError as error:
        for line in str(error).splitlines():
            print(f"numad-py: {printable(line)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader (head, less) has had enough; nothing is wrong. What the buffer still holds must
        # go somewhere: the interpreter writes it at exit, and fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return code
