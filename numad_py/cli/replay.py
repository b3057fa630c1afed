"""``replay``: a recording or a described machine run through policies, and what comes of it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from numad_py.cli.common import Verbs, add_config, add_json, print_json, print_text
from numad_py.cli.direct import policy_for_look
from numad_py.replay.runs import Progress, replay_file
from numad_py.serve.render_replay import render_replay

EVERY_S = 1.0
"""A terminal is shown no more often how far a replay has come."""


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
    with shown_on(sys.stderr) as progress:
        document = replay_file(
            Path(arguments.file), lambda: policy_for_look(None), new, progress=progress
        )
    if arguments.json:
        print_json(document)
    else:
        print_text(render_replay(document))
    return 0


@contextlib.contextmanager
def shown_on(
    stream: TextIO, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress | None]:
    """Lend what shows how far a replay has come, on one line; None where there is no terminal."""
    if not stream.isatty():
        yield None
        return
    line = _Line(stream.fileno(), clock)
    try:
        yield line.show
    finally:
        line.clear()


class _Line:
    """Written over, and gone at the end; a replay that is done at once never shows it."""

    def __init__(self, fd: int, clock: Callable[[], float]) -> None:
        self._fd = fd
        self._clock = clock
        self._last_s = clock()
        self._width = 0

    def show(self, done: int, of_all: int) -> None:
        now_s = self._clock()
        if now_s - self._last_s < EVERY_S:
            return
        self._last_s = now_s
        line = f"cycle {done} of {of_all}"
        self._width = len(line)
        self._write(f"\r{line}")

    def clear(self) -> None:
        if self._width:
            # A terminal puts ^C behind what is shown.
            self._write(f"\r{'':{self._width + len('^C')}}\r")

    def _write(self, text: str) -> None:
        # Unbuffered, so that nothing is left for the end where the terminal has gone.
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode())
