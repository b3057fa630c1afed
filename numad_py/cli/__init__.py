"""The command line: one module per group of verbs; parse, call, print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numad_py
from numad_py.cli import config, control, doctor, look, run, undo
from numad_py.errors import NumadError

EPILOG = """\
exit codes: 0 done, 1 failed, 2 usage, 77 a right is missing, 78 bad configuration
files: /etc/numad-py/numad-py.toml, then /etc/numad-py/conf.d/*.toml by name
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb."""
    parser = argparse.ArgumentParser(
        prog="numad-py",
        description="Keeps inference workers, their memory and threads on the same NUMA nodes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"numad-py {numad_py.__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for group in (run, look, control, config, undo, doctor):
        group.add_verbs(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.call(arguments)
    except NumadError as error:
        for line in str(error).splitlines():
            print(f"numad-py: {line}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader (head, less) has had enough; nothing is wrong.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    return code
