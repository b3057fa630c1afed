"""``record``: what the daemon sees and does, or looks of our own, into a file."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numad_py
from numad_py.cli.common import (
    LOOKS_WITHOUT,
    Verbs,
    add_config,
    add_json,
    add_roots,
    print_json,
)
from numad_py.cli.control import daemon_asked
from numad_py.errors import Malformed, NumadError, RightsError
from numad_py.kernel import clock
from numad_py.kernel.procfs import ProcFs
from numad_py.model.codec import decode, encode
from numad_py.model.cycle import Cycle
from numad_py.model.quantity import format_bytes
from numad_py.policy.schema import Policy
from numad_py.policy.units import parse_duration
from numad_py.replay.recording import Header, Recorder
from numad_py.serve.control import NotRunning, call
from numad_py.serve.plain import counted

POLL_S = 1.0
"""The daemon is asked so often; it keeps some cycles meanwhile."""
RESTART_S = 30.0
"""A daemon that does not answer is waited for so long: it may be restarting."""

Encoded = dict[str, Any]


def add_verbs(verbs: Verbs) -> None:
    """Add ``record``."""
    parser = verbs.add_parser(
        "record",
        help="write what is seen, decided and done into a file, for replay",
        description="Record the daemon's cycles as they happen, or looks of our own where none "
        "runs; those change nothing. Ends with Ctrl-C.",
    )
    parser.add_argument("file", metavar="FILE", help="new file; packed where it ends in .gz")
    parser.add_argument("--cycles", metavar="N", type=_count, help="end after so many cycles")
    parser.add_argument(
        "--for", metavar="TIME", type=_duration, dest="for_s", help='end after so long, "10min"'
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--direct", action="store_true", help="look at the machine, do not ask the daemon"
    )
    add_config(parser, LOOKS_WITHOUT)
    add_roots(parser)
    add_json(parser)
    parser.set_defaults(call=record)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        msg = f"{text!r} is not a number of cycles"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def record(arguments: argparse.Namespace) -> int:
    """Write cycles until somebody says stop, or a limit is met."""
    end_s = float("inf") if arguments.for_s is None else clock.monotonic_s() + arguments.for_s
    source = _daemon(arguments) or _looks(arguments)
    recorder = Recorder(Path(arguments.file), source.header, force=arguments.force)
    what = "the daemon's cycles" if source.header.source == "daemon" else "looks of our own"
    print(f"numad-py: recording {what}; Ctrl-C ends it", file=sys.stderr)
    try:
        with _stopped() as stop:
            for cycle in source.cycles(end_s, stop):
                recorder.write(cycle)
                if recorder.cycles == arguments.cycles:
                    break
    finally:
        recorder.close()
    _tell(arguments, recorder, source)
    return 0


@contextlib.contextmanager
def _stopped() -> Iterator[threading.Event]:
    """Have Ctrl-C and SIGTERM set an event instead: no line is to be broken off in the middle."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _tell(arguments: argparse.Namespace, recorder: Recorder, source: _Source) -> None:
    if arguments.json:
        print_json(
            {
                "schema": 1,
                "file": arguments.file,
                "source": source.header.source,
                "cycles": recorder.cycles,
                "missed_cycles": source.missed,
                "bytes": recorder.written_bytes,
            }
        )
        return
    missed = f", {source.missed} missed" if source.missed else ""
    size = format_bytes(recorder.written_bytes)
    print(f"{counted(recorder.cycles, 'cycle')}{missed}, {size}: {arguments.file}")


class _Source:
    """Where cycles come from."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.missed = 0
        """Cycles that were over before they were asked for."""

    def cycles(self, end_s: float, stop: threading.Event) -> Iterator[Encoded]:
        """Yield encoded cycles until a time of the clock for durations, or an event."""
        raise NotImplementedError


# The daemon


class _Daemon(_Source):
    """The daemon's cycles, also over a restart: it counts them anew then."""

    def __init__(self, header: Header, path: Path, poll_s: float, start: str) -> None:
        super().__init__(header)
        self._path = path
        self._poll_s = poll_s
        self._start = start
        self._last: int | None = None
        """Number of the last cycle that was taken; None: there was none yet."""
        self._look: int | None = None
        """Which of the daemon's whole looks that was: glances are no cycles to record."""
        self._answered_at_s = clock.monotonic_s()

    def cycles(self, end_s: float, stop: threading.Event) -> Iterator[Encoded]:
        while clock.monotonic_s() < end_s and not stop.is_set():
            for look, cycle in self._newer():
                self.missed += look - self._look - 1 if self._look is not None else 0
                self._last, self._look = int(cycle["snapshot"]["cycle"]), look
                yield cycle
            stop.wait(max(0.0, min(self._poll_s, end_s - clock.monotonic_s())))

    def _newer(self) -> list[tuple[int, Encoded]]:
        """Return the cycles after the last one, or none while the daemon restarts.

        Raises:
            NotRunning: it has not come back within RESTART_S.
        """
        try:
            answer = cast("dict[str, Any]", call(self._path, "record", after=self._last or 0))
        except NotRunning:
            if clock.monotonic_s() - self._answered_at_s > RESTART_S:
                raise
            return []
        self._answered_at_s = clock.monotonic_s()
        if (start := str(answer.get("start"))) != self._start:
            # Its first cycles are gone: until now it did not know that somebody records.
            self._start, self._last, self._look = start, 0, 0
            print(
                "numad-py: the daemon was restarted: its cycles count from 1 again, and those "
                "until now are missed. The policy in the file is the one it had before",
                file=sys.stderr,
            )
            return []
        return list(zip(answer["looks"], answer["cycles"], strict=True))


def _daemon(arguments: argparse.Namespace) -> _Source | None:
    """Return the daemon as a source; None where a look of our own is asked for or needed."""
    path = daemon_asked(arguments)
    if path is None:
        return None
    try:
        answer = cast("dict[str, Any]", call(path, "record"))
    except (NotRunning, RightsError):
        return None
    try:
        policy = decode(Policy, answer["policy"])
        start = str(answer.get("start"))
        _ = answer["looks"]
    except (Malformed, KeyError) as error:
        msg = f"the daemon is of another version ({answer.get('version')}): {error}; restart it"
        raise NumadError(msg) from None
    header = Header(answer["version"], "daemon", policy, ProcFs().boot_id())
    return _Daemon(header, path, min(POLL_S, answer["interval_s"] / 2), start)


# Looks of our own


class _Looks(_Source):
    def __init__(self, header: Header, look: Callable[[], Cycle]) -> None:
        super().__init__(header)
        self._look = look

    def cycles(self, end_s: float, stop: threading.Event) -> Iterator[Encoded]:
        interval_s = self.header.policy.daemon.interval_s
        due_s = clock.monotonic_s()
        while due_s < end_s and not stop.is_set():
            yield encode(self._look())
            due_s += interval_s
            stop.wait(max(0.0, min(due_s, end_s) - clock.monotonic_s()))


def _looks(arguments: argparse.Namespace) -> _Source:
    # Asking a daemon needs no rooms.
    from numad_py.cli.direct import policy_for_look  # noqa: PLC0415
    from numad_py.cli.looks import Looker  # noqa: PLC0415

    policy = policy_for_look(arguments.config)
    looker = Looker(arguments, policy)
    boot_id = ProcFs(arguments.procfs).boot_id()
    return _Looks(Header(numad_py.__version__, "direct", policy, boot_id), looker.look)
