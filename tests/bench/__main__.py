"""``python -m tests.bench [SUBJECT...]``: all subjects, or those that are named."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.bench.table import NotHere, Row, State, head

SUBJECTS = ("start", "discovery", "sampling", "quiet", "placing", "settling", "moving", "weeks")
"""Modules of this package, imported when their turn comes: a broken one is a row that failed."""
LONG = ("moving", "weeks")
"""Only where they are named: they take twenty minutes and more."""
ROOT = Path(__file__).parents[2]
INTERRUPTED = 130


def main() -> int:
    """Measure, print, write; return 1 where a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("subject", nargs="*", help=", ".join(SUBJECTS))
    parser.add_argument("--json", type=Path, help="where to write (default: bench/DATE.json)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.subject if name not in SUBJECTS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: there are {', '.join(SUBJECTS)}")
    began = time.strftime("%Y-%m-%dT%H%M%S")
    path = arguments.json or ROOT / "bench" / f"{began}.json"
    print(head(), flush=True)
    found: list[Row] = []
    complete = False
    # A time limit from outside ends it as Ctrl-C does: with what there is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for row in measured(arguments.subject or [s for s in SUBJECTS if s not in LONG]):
            found.append(row)
            print(row.lines(), flush=True)
        complete = True
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        write(path, began, found, complete=complete)
    return 1 if any(row.state is State.FAILED for row in found) else 0


def measured(subjects: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of some subjects; one that fails is a row, and the others go on."""
    for name in subjects:
        try:
            rows: Callable[[], Iterator[Row]] = import_module(f"tests.bench.{name}").rows
            yield from rows()
        except NotHere as why:
            yield Row(name, "", note=f"not measured: {why}", state=State.NOT_HERE)
        except Exception as error:  # noqa: BLE001 - whatever it was, the others are to be measured
            traceback.print_exc()
            yield Row(name, "", note=f"failed: {error}", state=State.FAILED)


def write(path: Path, began: str, rows: Sequence[Row], *, complete: bool) -> None:
    """Write what there is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "schema": 1,
        "began": began,
        "complete": complete,
        "machine": machine(),
        "rows": [row.document() for row in rows],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nwritten to {path}")


def machine() -> dict[str, Any]:
    """Return where this was measured; a row with ``where`` was measured in that guest."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or None,
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    sys.exit(main())
