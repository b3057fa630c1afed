"""CPU time of a look at which processes are workers, against psutil and numad."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psutil

from numad_py.kernel.procfs import ProcFs
from numad_py.observe.discovery import Discovery
from numad_py.policy.schema import Policy
from tests.bench.load import crowd
from tests.bench.native import Load, compared
from tests.bench.table import Figure, Row

CROWDS = (100, 1_000, 5_000)
INTERVAL_S = 5.0
"""What the clock is said to have gone on from look to look."""
OLD_S = 3600.0
"""What the youngest process is said to be old: nobody is watched closely for having just begun."""
SETTLING_LOOKS = 120
"""Before the first value: ten minutes, so that what follows on the first look is done."""
LOOKS = 24
"""In one value: two minutes, so that whatever is done slowly is in it."""
VALUES = 5
NUMAD_SETTLE_S = 60
"""Before the first window against numad. Each process was looked at twice by then; the next look at
it, when it is some two minutes old, is in the windows."""
NUMAD_WINDOW_S = 28
NUMAD_WINDOWS = 3
ATTRIBUTES = ["pid", "name", "cmdline", "username", "cpu_times"]


def rows() -> Iterator[Row]:
    """Compare the first look, a look after a fork, and a look after nothing; then whole cycles."""
    for count in CROWDS:
        with crowd(count):
            yield from _rows(f"{count:,} idle processes")
    # All at once, so that the largest crowd, too, has the time that it takes to be called idle.
    loads = [Load(count, 0, NUMAD_SETTLE_S, NUMAD_WINDOW_S, NUMAD_WINDOWS) for count in CROWDS]
    for load, found in zip(loads, compared(loads), strict=True):
        case = f"{load.idle:,} idle processes: whole cycle"
        yield Row("discovery", case, found.ours, found.theirs, "ms", note=found.note)


def _rows(case: str) -> Iterator[Row]:
    _iterate()
    theirs = Figure.of(_cpu_ms(_iterate) for _ in range(VALUES))
    note = f"CPU; theirs: a second psutil.process_iter({', '.join(ATTRIBUTES)})"
    first = Figure.of(_cpu_ms(Looks().first) for _ in range(VALUES))
    yield Row("discovery", f"{case}: first look", first, theirs, "ms", note=note)
    looks = Looks()
    looks.first()
    looks.settle()
    for what, look in (("after a fork", looks.forks), ("nothing new", looks.nothing)):
        ours = Figure.of(_cpu_ms(look) / LOOKS for _ in range(VALUES))
        yield Row("discovery", f"{case}: {what}", ours, theirs, "ms", note=note)


class Looks:
    """A discovery over this machine, whose processes are all said to be old by now."""

    def __init__(self) -> None:
        """Look at nothing yet."""
        procfs = ProcFs()
        self._discovery = Discovery(procfs, Policy())
        self._now_s = procfs.uptime_s() + OLD_S
        self._forks = procfs.machine_stat().forks or 0

    def first(self) -> None:
        """Look until every process is judged."""
        while self._discovery.look(self._now_s, self._forks).deferred:
            self._now_s += INTERVAL_S

    def settle(self) -> None:
        """Look on, until a look is like the one before."""
        for _ in range(SETTLING_LOOKS):
            self._look()

    def nothing(self) -> None:
        """Look, each time as though no process had been made meanwhile.

        What others make on this machine is left out: the kernel's count is held, not read.
        """
        for _ in range(LOOKS):
            self._look()

    def forks(self) -> None:
        """Look, each time as though a process had come and gone meanwhile."""
        for _ in range(LOOKS):
            self._forks += 1
            self._look()

    def _look(self) -> None:
        self._now_s += INTERVAL_S
        self._discovery.look(self._now_s, self._forks)


def _iterate() -> list[dict[str, object]]:
    return [process.info for process in psutil.process_iter(ATTRIBUTES)]


def _cpu_ms(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return (time.thread_time() - began) * 1e3
