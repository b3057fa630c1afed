"""A guarded worker on a simulated machine, whose latency hangs on where its memory lies.

Time goes in steps of 5 s, as cycles do; a reading comes with each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from numad_py.decide.decisions import decide
from numad_py.decide.remember import remember
from numad_py.model.cycle import Cycle
from numad_py.model.guard import GuardMemory, GuardReading
from numad_py.model.outcome import End, Outcome
from numad_py.model.plan import Decision, DecisionState, Plan, Reason, WorkerMemory
from numad_py.model.snapshot import Snapshot, Worker
from numad_py.policy.schema import GuardPolicy, Policy, Rule
from numad_py.replay.simulate import Simulation
from tests.unit.test_stability import MIB, START, machine, worker

STEP_S = 5.0
UNDONE_AT = 13
"""Cycles until a move is taken back: 30 s before it, one to move, 30 s after it."""
BOUNDS = (0.1, 0.2, 0.4, 0.8, 1.6)
GUARD = GuardPolicy("http://127.0.0.1:8000/metrics", "latency_seconds")
"""With all the defaults."""

Latency = Callable[[int], float]
"""Of each request, by the node on which most of the worker's memory lies."""


def worse_on_0(node: int) -> float:
    """Return what a request takes where the new home is the wrong one."""
    return 0.5 if node == 0 else 0.15


def better_on_0(node: int) -> float:
    """Return what it takes where all is as it should be."""
    return 0.15 if node == 0 else 0.5


def alike(_node: int) -> float:
    """Return what it takes where nodes make no difference."""
    return 0.15


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


def state_of(run: Run) -> GuardMemory:
    """Return what is remembered of the first worker."""
    return run.simulation.state.of(run.worker().id).guard


def seen_after(mib: int) -> Worker:
    """Return the worker after its move."""
    return worker("x/0", {0: mib}, age_s=3600.0)


def acted(
    mib: int,
    *,
    moved: dict[tuple[int, int], int] | None = None,
    moved_shared: dict[tuple[int, int], int] | None = None,
    threads_bound: int = 1,
) -> DecisionState:
    """Return the state after a move from node 1 to 0, with a window of before and of after.

    Latency is worse after it; nobody has looked at that yet.
    """
    server = Server(worse_on_0)
    *earlier, last = windows(server, 1000.0, 1)
    seen = worker("x/0", {1: mib}, age_s=3600.0, guard=last)
    known = WorkerMemory(guard=GuardMemory(readings=tuple(earlier)))
    state = replace(START, workers={seen.id: known})
    plan, state = decide(machine(seen, at_s=1030.0), policy(), state)
    (decision,) = plan.decisions
    assert decision.reason is Reason.REMOTE_MEMORY
    outcome = Outcome(
        decision,
        End.DONE,
        1030.0,
        1.0,
        threads_bound=threads_bound,
        moved={(1, 0): mib * MIB} if moved is None else moved,
        moved_shared=moved_shared or {},
    )
    state = remember(state, [outcome], 1035.0)
    memory = state.of(seen.id)
    guard = replace(memory.guard, readings=windows(server, 1035.0, 0))
    return replace(state, workers={seen.id: replace(memory, guard=guard)})


def windows(server: Server, from_s: float, node: int) -> tuple[GuardReading, ...]:
    """Return the readings of 30 s while the memory lies on a node."""
    found = (server.step(from_s + STEP_S * i, node) for i in range(7))
    return tuple(reading for reading in found if reading is not None)


def judge(state: DecisionState, snapshot: Snapshot) -> tuple[tuple[Decision, ...], DecisionState]:
    """Return what is decided now."""
    plan, state = decide(snapshot, policy(), state)
    return plan.decisions, state
