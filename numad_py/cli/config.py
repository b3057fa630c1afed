"""``check-config``: what the daemon would make of a policy file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from numad_py.cli.common import Verbs, add_config, add_json, add_roots, print_json, privileged
from numad_py.errors import NumadError, PolicyError, UsageError
from numad_py.kernel import users
from numad_py.kernel.sysfs import SysFs
from numad_py.model.text import printable
from numad_py.model.topology import Topology
from numad_py.policy.absent import absent
from numad_py.policy.load import DEFAULT_PATH, defaults, load
from numad_py.policy.schema import Policy
from numad_py.serve.plain import counted


def add_verbs(verbs: Verbs) -> None:
    """Add ``check-config``."""
    parser = verbs.add_parser(
        "check-config",
        help="read the policy and say what is wrong with it",
        description="Read the policy and say what is wrong with it, by file, line and key; where "
        "all is well, list the rules, and note CPUs, nodes and users that this machine does not "
        "have. Where no file is named and none is there, list those that are built in.",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help=f"default: {DEFAULT_PATH}")
    add_config(parser)
    add_roots(parser)
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
    named = arguments.file if arguments.file is not None else arguments.config
    none_there = named is None and _none_there()
    try:
        policy = defaults() if none_there else load(named, privileged=privileged())
    except PolicyError as error:
        if not arguments.json:
            for problem in error.problems:
                print(printable(problem), file=sys.stderr)
            return error.exit_code
        print_json({"schema": 1, "ok": False, "problems": list(error.problems)})
        return error.exit_code
    notes = _not_here(policy, arguments.sysfs)
    for note in notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    if arguments.json:
        print_json(
            {
                "schema": 1,
                "ok": True,
                "files": [] if none_there else list(policy.sources),
                "mode": policy.daemon.mode.value,
                "rules": [{"name": r.name, "origin": r.origin} for r in policy.rules],
                "excludes": [{"name": r.name, "origin": r.origin} for r in policy.excludes],
                "notes": notes,
            }
        )
        return 0
    print(_no_file() if none_there else f"ok: {', '.join(policy.sources)}")
    _print_rules(policy)
    return 0


def _not_here(policy: Policy, sysfs: str) -> list[str]:
    """Return what the policy names and this machine has not; it may be for another one."""
    try:
        topology = SysFs(sysfs).topology()
    except NumadError as error:
        # Only a policy that names any such thing would have been compared.
        named = absent(policy, Topology(()), users.exists)
        return [f"not compared with this machine: {error}"] if named else []
    return absent(policy, topology, users.exists)


def _none_there() -> bool:
    """Say whether there is neither the usual file nor a drop-in beside it.

    A folder that cannot be read may hold some: then reading it is to say so.
    """
    main = Path(DEFAULT_PATH)
    try:
        return not os.path.lexists(main) and not any((main.parent / "conf.d").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _no_file() -> str:
    folder = Path(DEFAULT_PATH).parent
    return (
        f"no policy file: looked for {DEFAULT_PATH} and {folder}/conf.d/*.toml\n"
        "The built-in defaults below hold for verbs that only look (status, plan, explain).\n"
        "The daemon wants a file: copy config/numad-py.toml of the distribution to\n"
        f"{DEFAULT_PATH}, or name one with --config FILE."
    )


def _print_rules(policy: Policy) -> None:
    rules = counted(len(policy.rules), "rule")
    print(f"mode {policy.daemon.mode.value}, {rules}, first match wins:")
    for rule in policy.rules:
        print(f"  {rule.name:<24} {rule.origin}")
    for rule in policy.excludes:
        print(f"  not {rule.name:<20} {rule.origin}")
