"""Rounds of workers that come and go, and what the service holds once they are gone again."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.workers import Workers

POLICY = (
    '[daemon]\ninterval = "1s"\n[scan]\ninterval = "2s"\n'
    '[placement]\ncooldown = "1s"\nsettle = "1s"\n'
    '[migration]\nrate = "64MiB/s"\nlongest_chunk = "20ms"\n'
)
STAYS = "stays"
"""One worker that lives from the beginning to the end."""
WORKERS_A_ROUND = 5
QUIET_S = 3
"""After the last one has gone, so that at least two cycles have seen that."""
GROWTH_BYTES = 1 << 20
"""Between two quiet moments: what an interpreter's arenas may do. 1 KiB kept for each worker is
beyond it after some 1,000."""
LOOK = (
    "p=$(systemctl show --value -p MainPID numad-py); "
    "awk '/^VmRSS/ {print $2} /^Threads/ {print $2}' /proc/$p/status; ls /proc/$p/fd | wc -l"
)
POKES = (
    "numad-py status",
    "numad-py plan",
    "numad-py explain $(cat /run/load/stays)",
    "numad-py pause && numad-py resume",
    "numad-py advise 1:64",
    "systemctl reload numad-py",
    "python3 /opt/load/probe.py metrics",
)


@dataclass(frozen=True)
class Held:
    """What the service holds in a quiet moment."""

    resident_bytes: int
    threads: int
    descriptors: int


@dataclass
class Soak:
    """One run of it."""

    guest: Machine
    workers: Workers
    random: random.Random
    say: Callable[[str], None] = print
    held: list[Held] = field(default_factory=list)
    """After each round."""
    came: int = 0
    """Workers so far."""

    def __post_init__(self) -> None:
        """Start nothing yet."""
        self.service = Service(self.guest)

    def run(self, seconds: float) -> list[str]:
        """Go on for so long, three rounds at least; return what is wrong, a sentence each."""
        self.service.configure(POLICY)
        self.workers.start(STAYS, self._options())
        self.workers.wait_ready()
        before = self.workers.masks(STAYS)
        self.service.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(self.held) < 3:
            self._round()
            self.held.append(self._look())
            self.say(f"round {len(self.held)}, {self.came} workers so far: {self.held[-1]}")
        wrong = [*grown(self.held), *self._said()]
        self.service.stop()
        if not self.workers.alive(STAYS) or self.workers.masks(STAYS) != before:
            wrong.append("the worker that stayed is not as it was")
        if self.guest.out("cat /var/lib/numad-py/journal.jsonl"):
            wrong.append("the journal is not empty after the stop")
        return wrong

    def _round(self) -> None:
        """Let some come, disturb some, and let all go but one."""
        names = []
        for _ in range(WORKERS_A_ROUND):
            self.came += 1
            names.append(f"s{self.came}")
            self.workers.start(names[-1], self._options())
            if self.random.random() < 0.5:
                self._wait(0, 1)
        self.guest.run(f"{self.random.choice(POKES)} >/dev/null")
        self.workers.wait_ready()
        self._wait(1, 4)
        for name in names:
            how = self.random.choice(("KILL", "TERM", "STOP"))
            self.guest.run(f"systemctl kill --signal={how} load-{name}")
            self._wait(0, 1)
        self.guest.run(f"{self.random.choice(POKES)} >/dev/null")
        units = " ".join(f"load-{name}.service" for name in names)
        self.guest.run(f"systemctl kill --signal=KILL {units} 2>/dev/null", check=False)
        for name in names:
            del self.workers.pids[name]
        self.guest.run(f"sleep {QUIET_S}")

    def _options(self) -> str:
        """Return those of a worker that is away from home, of one kind or another."""
        node = self.random.randrange(4)
        size = self.random.choice((16, 40, 64, 96))
        cpus = self.random.choice(("--cpus", "--start-cpus"))
        threads = self.random.choice((1, 2, 8))
        where = f"--memory-nodes {node} {cpus} {self.random.randrange(8)}"
        return f"--size {size}MiB {where} --threads {threads} --churn --pause-ms 500"

    def _wait(self, least_s: float, most_s: float) -> None:
        time.sleep(self.random.uniform(least_s, most_s))

    def _look(self) -> Held:
        kib, threads, descriptors = map(int, self.guest.out(LOOK).split())
        return Held(kib * 1024, threads, descriptors)

    def _said(self) -> list[str]:
        """Return what the service says of itself that it should not."""
        metrics = self.workers.metrics()
        never = ("numad_py_failed_cycles_total", "numad_py_reload_failures_total")
        wrong = [f"{name} is {metrics[name]:.0f}" for name in never if metrics[name]]
        if metrics['numad_py_moves_total{end="done"}'] < len(self.held):
            wrong.append("there were fewer moves than rounds: this tells nothing")
        known = [worker["worker"] for worker in self.service.status()["workers"]]
        if len(known) != 1:
            wrong.append(f"one worker is there, and it tells of {known}")
        if self.service.show("NRestarts") != "0":
            wrong.append("it was started again")
        if any("exception" in line for line in self.service.log()):
            wrong.append("its log has an exception")
        return wrong


def grown(held: Sequence[Held]) -> list[str]:
    """Return what has grown from the second to the last third of a soak, a sentence each.

    The first third is where pools and caches fill. By the median: one look in a hundred falls into
    a cycle, and finds a file of /proc open that is closed a moment later.
    """
    third = len(held) // 3
    middle, last = held[third : 2 * third], held[-third:]
    wrong = []
    for name in ("threads", "descriptors"):
        before = statistics.median_low([getattr(each, name) for each in middle])
        after = statistics.median_low([getattr(each, name) for each in last])
        if after > before:
            wrong.append(f"{after} {name} in the last third, {before} in the one before")
    growth = statistics.median(each.resident_bytes for each in last)
    growth -= statistics.median(each.resident_bytes for each in middle)
    if growth > GROWTH_BYTES:
        wrong.append(f"{growth / 1024:.0f} KiB more in the last third than in the one before")
    return wrong
