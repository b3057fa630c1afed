"""Contenders that bring workers' memory home, and one run of a contender in a guest."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.guest.machine import Machine

ROOT = Path(__file__).parents[2]
FOLDER = "/opt/load"
MOST_WORKERS_THREADS = 6
"""Of three workers that have two each."""
SAID = 8
"""Last lines of the log of a numad-py that did not get all home, which are shown."""
SURELY_HOME = 0.985
"""Of all pages at the end, where a sample has shown 99 % before."""
FULL_SPEED = """\
rate = "unlimited"
duty = "100%"
longest_chunk = "1s"
chunk = "256MiB"
cpu_pressure = "100%"
"""


def nice_of(unit: str) -> int:
    """Return the nice value that a unit gives its processes."""
    found = re.search(r"^Nice=(-?\d+)$", unit, re.MULTILINE)
    return int(found[1]) if found is not None else 0


def shipped_nice() -> int:
    """Return that of numad-py's own: so it is measured. The others come with none."""
    return nice_of((ROOT / "systemd/numad-py.service").read_text())


@dataclass(frozen=True)
class Contender:
    """One way to bring memory home."""

    title: str
    program: str
    """What measure_moves.py calls it."""
    migration: str = ""
    """Keys of ``[migration]``, of numad-py."""


NOTHING = Contender("nothing", "nothing")
MIGRATEPAGES = Contender("migratepages", "migratepages")
PACED = Contender("numad-py, paced", "numad-py")
"""As it is shipped."""
UNPACED = Contender("numad-py, unpaced", "numad-py", FULL_SPEED)
AUTONUMA = Contender("AutoNUMA", "autonuma")
NUMAD = Contender("numad", "numad")
CONTENDERS = (NOTHING, MIGRATEPAGES, PACED, UNPACED, AUTONUMA, NUMAD)


@dataclass(frozen=True)
class Busy:
    """How much the workers do."""

    title: str
    threads: int
    """Of each worker."""
    pause_ms: int
    """Of each thread between two passes."""


CALM, FULL = "calm", "full"


def loads(host_cpus: int, guest_cpus: int) -> dict[str, Busy]:
    """Return what workers do on a machine that has CPUs to spare, and on one that has not.

    Where the guest has no CPU for each thread, or the host for each of the guest's and one more,
    "to spare" can only mean that the workers rest so long between passes that those and the one
    that moves find a real one each.
    """
    roomy = host_cpus > guest_cpus > MOST_WORKERS_THREADS
    return {
        CALM: Busy("CPUs to spare", 2, 20 if roomy else 300),
        FULL: Busy("no CPU to spare", 4 if roomy else 2, 0),
    }


@dataclass(frozen=True)
class Scenario:
    """Workers on the wrong nodes, and how long they are looked at."""

    thp: str
    """``never``: 4 KiB pages; ``always``: transparent huge pages."""
    busy: Busy
    sizes: tuple[str, ...] = ("512MiB", "768MiB", "1GiB")
    quiet_s: float = 15.0
    limit_s: float = 90.0

    @property
    def pages(self) -> str:
        """Name the pages in a row."""
        return "4 KiB pages" if self.thp == "never" else "THP"

    @property
    def title(self) -> str:
        """Name it in a row."""
        return f"{self.pages}, {self.busy.title}"


@dataclass(frozen=True)
class Run:
    """What one contender did in one scenario."""

    seconds: float | None
    """Until 99 % of each worker's memory was local; None: not within the limit."""
    window_s: float
    """How long it was watched."""
    worst_ms: float
    """The longest pass of any worker meanwhile."""
    stall: float
    """The largest, over the workers, of the longest pass by the p99 of its own quiet passes."""
    p99_stall: float
    """The same of the p99 meanwhile."""
    quiet_p99_ms: float
    """Of the worker that stalled most."""
    own_cpu_s: float
    """Of the contender's processes, user and kernel."""
    others_cpu_s: float
    """Of all others but the workers, beyond the quiet window's rate."""
    workers_kernel_cpu_s: float
    """Of the workers in the kernel, beyond what their passes take in the quiet window."""
    work: float
    """Passes a second that the workers made meanwhile, as a share of those in the quiet window."""
    busy_cpus: float
    """That were busy in the quiet window."""
    kept: bool
    """Whether every worker may run where its user bound it, and nowhere else."""

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Run:
        """Take what measure_moves.py printed.

        Raises:
            RuntimeError: a worker made no pass in the quiet window: it is too short.
        """
        workers = found["workers"]
        if not all(worker["quiet"] for worker in workers):
            msg = f"no pass within the quiet window of {found['quiet_s']:.0f} s"
            raise RuntimeError(msg)
        moved = [worker for worker in workers if worker["moving"]]
        stalls = [w["moving"]["worst"] / w["quiet"]["p99"] for w in moved]
        most = moved[stalls.index(max(stalls))]
        # Each page was asked for at the end: a sample may have been wrong.
        home = [w["seconds"] for w in workers if w["share"] >= SURELY_HOME and w["seconds"]]
        return cls(
            seconds=max(home) if len(home) == len(workers) else None,
            window_s=found["window_s"],
            worst_ms=max(worker["moving"]["worst"] for worker in moved),
            stall=max(stalls),
            p99_stall=max(w["moving"]["p99"] / w["quiet"]["p99"] for w in moved),
            quiet_p99_ms=most["quiet"]["p99"],
            own_cpu_s=found["own_cpu_s"],
            others_cpu_s=_others_s(found),
            workers_kernel_cpu_s=_workers_kernel_s(found),
            work=_work(found),
            busy_cpus=found["quiet"]["all_s"] / found["quiet_s"],
            kept=all(worker["kept_its_cpus"] for worker in workers),
        )

    @property
    def at_least_s(self) -> float:
        """The time it took; where it did not end, that for which it was watched."""
        return self.window_s if self.seconds is None else self.seconds

    def words(self) -> str:
        """Say it in a note."""
        time = (
            f"not within {self.window_s:.0f} s" if self.seconds is None else f"{self.seconds:.1f} s"
        )
        pins = "" if self.kept else ", moved threads from where their user bound them"
        return (
            f"{time}, worst pass {self.worst_ms:.0f} ms, at most {self.stall:.1f} times a worker's "
            f"quiet p99 ({self.quiet_p99_ms:.0f} ms), p99 {self.p99_stall:.1f} times, its own CPU "
            f"{self.own_cpu_s:.1f} s, of others {self.others_cpu_s:+.1f} s, of the workers in the "
            f"kernel {self.workers_kernel_cpu_s:+.1f} s, passes at {self.work:.0%} of the quiet "
            f"rate{pins}"
        )


def _others_s(found: Mapping[str, Any]) -> float:
    """Return what neither workers nor contender took, beyond the rate of the quiet window."""
    quiet_s, moving_s = (found[at]["all_s"] - found[at]["workers_s"] for at in ("quiet", "moving"))
    rate = quiet_s / found["quiet_s"]
    return float(moving_s - found["own_cpu_s"] - rate * found["window_s"])


def _workers_kernel_s(found: Mapping[str, Any]) -> float:
    """Return what the workers took in the kernel beyond what their passes take there else.

    Automatic balancing works in their faults; and whoever unmaps pages lets them fault.
    """
    by_pass = found["quiet"]["workers_kernel_s"] / max(1, _passes(found, "quiet"))
    return float(found["moving"]["workers_kernel_s"] - by_pass * _passes(found, "moving"))


def _work(found: Mapping[str, Any]) -> float:
    """Return the rate of passes while memory moved, by that of the quiet window."""
    quiet = _passes(found, "quiet") / found["quiet_s"]
    return float(_passes(found, "moving") / found["window_s"] / quiet)


def _passes(found: Mapping[str, Any], window: str) -> int:
    return sum(worker[window]["passes"] for worker in found["workers"] if worker[window])


def put(guest: Machine) -> None:
    """Lay the programs that measure into a guest."""
    guest.run(f"mkdir -p {FOLDER}/tests/guest && touch {FOLDER}/tests/__init__.py")
    for name in ("__init__", "probe", "passes", "measure_moves", "alternate_moves", "shootdowns"):
        guest.put(ROOT / f"tests/guest/{name}.py", f"{FOLDER}/tests/guest/{name}.py")


def run(guest: Machine, contender: Contender, scenario: Scenario) -> Run:
    """Let one contender have a go at a scenario."""
    limit_s = scenario.limit_s if contender is not NOTHING else scenario.quiet_s
    words = [
        contender.program,
        *_worker_options(scenario, scenario.sizes),
        *("--quiet-s", f"{scenario.quiet_s:g}", "--limit-s", f"{limit_s:g}"),
        *("--migration", contender.migration),
        *("--numad-py", f"nice -n {shipped_nice()} numad-py"),
    ]
    timeout_s = scenario.quiet_s + limit_s + 240
    text = guest.out(
        f"cd {FOLDER} && python3 -m tests.guest.measure_moves {shlex.join(words)}",
        timeout=timeout_s,
    )
    found = json.loads(text)
    made = Run.of(found)
    if made.seconds is None:
        for line in found["said"][-SAID:]:
            print(f"    {contender.title} said: {line}", file=sys.stderr)
    return made


def alternate(
    guest: Machine,
    ways: Iterable[Mapping[str, float | None] | None],
    scenario: Scenario,
    rounds: int,
) -> list[dict[str, Any]]:
    """Move the scenario's first worker to and fro in several ways; return each move."""
    words = [
        json.dumps(list(ways)),
        *_worker_options(scenario, scenario.sizes[:1]),
        *("--quiet-s", f"{scenario.quiet_s:g}", "--rounds", str(rounds)),
    ]
    return _lines(guest, "alternate_moves", words)


def shoot_down(guest: Machine, scenario: Scenario, rounds: int) -> list[dict[str, Any]]:
    """Move the first worker's memory while workers run, and while they do not; return each move."""
    words = [*_worker_options(scenario, scenario.sizes), "--rounds", str(rounds)]
    return _lines(guest, "shootdowns", words)


def _lines(guest: Machine, script: str, words: Iterable[str]) -> list[dict[str, Any]]:
    command = f"cd {FOLDER} && python3 -m tests.guest.{script} {shlex.join(words)}"
    return [json.loads(line) for line in guest.out(command, timeout=900).splitlines()]


def _worker_options(scenario: Scenario, sizes: Iterable[str]) -> list[str]:
    options = [word for size in sizes for word in ("--size", size)]
    options += ["--load", f"{FOLDER}/numaload", "--thp", scenario.thp]
    busy = scenario.busy
    return [*options, "--threads", str(busy.threads), "--pause-ms", str(busy.pause_ms)]
