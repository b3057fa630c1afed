"""``replay``: a recording or a described machine run through policies, and what comes of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from numad_py.cli.common import Verbs, add_config, add_json, print_json, print_text
from numad_py.cli.direct import policy_for_look
from numad_py.replay.runs import replay_file
from numad_py.serve.render_replay import render_replay


def add_verbs(verbs: Verbs) -> None:
    """Add ``replay``."""
    parser = verbs.add_parser(
        "replay",
        help="run a recording or a described machine through a policy, on a simulated kernel",
        description="Run what was recorded, or a machine described in a TOML file, through the "
        "policy it was recorded under (a described one: the present policy) and through that of "
        "--config, on a simulated kernel, and compare. Nothing on this machine is touched.",
    )
    parser.add_argument("file", metavar="FILE", help="a recording, or a machine's description")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(call=replay)


def replay(arguments: argparse.Namespace) -> int:
    """Print the runs side by side."""
    new = None if arguments.config is None else policy_for_look(arguments.config)
    document = replay_file(Path(arguments.file), lambda: policy_for_look(None), new)
    if arguments.json:
        print_json(document)
    else:
        print_text(render_replay(document))
    return 0
