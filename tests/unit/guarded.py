"""A guarded worker on a simulated machine, whose latency hangs on where its memory lies.

Time goes in steps of 5 s, as cycles do; a reading comes with each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from numad_py.model.cycle import Cycle
from numad_py.model.guard import GuardReading
from numad_py.model.plan import Plan, Reason
from numad_py.model.snapshot import Worker
from numad_py.policy.schema import GuardPolicy, Policy, Rule
from numad_py.replay.simulate import Simulation
from tests.unit.test_stability import machine, worker

STEP_S = 5.0
BOUNDS = (0.1, 0.2, 0.4, 0.8, 1.6)
GUARD = GuardPolicy("http://127.0.0.1:8000/metrics", "latency_seconds")
"""With all the defaults."""

Latency = Callable[[int], float]
"""Of each request, by the node on which most of the worker's memory lies."""


def policy(guard: GuardPolicy | None = GUARD) -> Policy:
    """Return one whose rule wants its workers on node 0, and guards them."""
    return Policy(rules=(Rule("x", "test", nodes=frozenset({0}), guard=guard),))


def histogram(at_s: float, counts: list[float], metric: str = "latency_seconds") -> GuardReading:
    """Return a reading of a histogram; counts by bucket, not added up, the last without bound."""
    so_far = [sum(counts[: i + 1]) for i in range(len(counts))]
    buckets = tuple(zip(BOUNDS, so_far, strict=False))
    return GuardReading(at_s, metric, buckets=buckets, count=so_far[-1])


@dataclass
class Server:
    """Answers so many requests a step, and tells how long they took."""

    latency: Latency
    requests: int = 10
    silent: bool = False
    counts: list[float] = field(default_factory=lambda: [0.0] * (len(BOUNDS) + 1))

    def step(self, at_s: float, node: int) -> GuardReading | None:
        """Answer, and return what its endpoint tells then."""
        took_s = self.latency(node)
        place = next((i for i, bound in enumerate(BOUNDS) if took_s <= bound), len(BOUNDS))
        self.counts[place] += self.requests
        return None if self.silent else histogram(at_s, self.counts)


@dataclass
class Run:
    """Cycles, one after the other, and what was said in each."""

    server: Server
    policy: Policy = field(default_factory=policy)
    labels: tuple[str, ...] = ("x/0",)
    at_s: float = 1000.0
    cycles: list[Cycle] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with all memory on node 1."""
        self.simulation = Simulation(self.policy)
        self.workers = [worker(label, {1: 1000}, age_s=3600.0) for label in self.labels]

    def node_of(self, label: str = "x/0") -> int:
        """Return where most of a worker's memory lies."""
        if not self.cycles:
            return 1
        residency = self.worker(label).residency
        assert residency is not None
        by_node = residency.by_node()
        return max(by_node, key=lambda node: by_node[node])

    def worker(self, label: str = "x/0") -> Worker:
        """Return a worker as the last cycle saw it."""
        return next(w for w in self.cycles[-1].snapshot.workers if w.label == label)

    def step(self, count: int = 1) -> list[Reason]:
        """Go through some cycles; return what was said of the first worker."""
        said = []
        for _ in range(count):
            reading = self.server.step(self.at_s, self.node_of())
            problem = None if reading else "it does not answer"
            seen = [replace(w, guard=reading, guard_problem=problem) for w in self.workers]
            scene = replace(machine(*seen, at_s=self.at_s), cycle=len(self.cycles) + 1)
            self.cycles.append(self.simulation.step(scene))
            said.append(self.cycles[-1].said[0].reason)
            self.at_s += STEP_S
        return said

    def until(self, reason: Reason, within: int = 40) -> int:
        """Go on until something is said; return how many cycles that took."""
        for count in range(1, within + 1):
            if self.step()[0] is reason:
                return count
        said = [c.said[0].reason.value for c in self.cycles[-within:]]
        msg = f"{reason.value} was not said within {within} cycles: {said}"
        raise AssertionError(msg)
