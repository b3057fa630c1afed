"""``check-config``: what the daemon would make of a policy file."""

from __future__ import annotations

import argparse
import sys

from numad_py.cli.common import Verbs, add_config, add_json, print_json, privileged
from numad_py.errors import PolicyError, UsageError
from numad_py.model.text import printable
from numad_py.policy.load import DEFAULT_PATH, load


def add_verbs(verbs: Verbs) -> None:
    """Add ``check-config``."""
    parser = verbs.add_parser("check-config", help="read the policy and say what is wrong with it")
    parser.add_argument("file", nargs="?", metavar="FILE", help=f"default: {DEFAULT_PATH}")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(call=check)


def check(arguments: argparse.Namespace) -> int:
    """Print every problem, or what was read.

    Raises:
        UsageError: two files are named.
    """
    if arguments.file is not None and arguments.config is not None:
        msg = "name one policy file: check-config FILE, or check-config --config FILE"
        raise UsageError(msg)
    try:
        policy = load(arguments.file or arguments.config, privileged=privileged())
    except PolicyError as error:
        if not arguments.json:
            for problem in error.problems:
                print(printable(problem), file=sys.stderr)
            return error.exit_code
        print_json({"schema": 1, "ok": False, "problems": list(error.problems)})
        return error.exit_code
    if arguments.json:
        print_json(
            {
                "schema": 1,
                "ok": True,
                "files": list(policy.sources),
                "mode": policy.daemon.mode.value,
                "rules": [{"name": r.name, "origin": r.origin} for r in policy.rules],
                "excludes": [{"name": r.name, "origin": r.origin} for r in policy.excludes],
            }
        )
        return 0
    print(f"ok: {', '.join(policy.sources)}")
    print(f"mode {policy.daemon.mode.value}, {len(policy.rules)} rules, first match wins:")
    for rule in policy.rules:
        print(f"  {rule.name:<24} {rule.origin}")
    for rule in policy.excludes:
        print(f"  not {rule.name:<20} {rule.origin}")
    return 0
