"""Findings, decisions and the state that decisions are made from.

A finding says what is wrong, a decision what is done about it and why, also where that is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from numad_py.model.advice import Reservation
from numad_py.model.guard import GuardMemory, Judgement
from numad_py.model.residency import SegmentId
from numad_py.model.snapshot import WorkerId


class HomeSource(str, Enum):
    """Where a worker's home nodes come from, in order of precedence."""

    RULE = "rule"
    PIN = "pin"
    CPUSET = "cpuset"
    DEVICE = "device"
    PLANNER = "planner"


@dataclass(frozen=True)
class Home:
    """Where a worker belongs."""

    nodes: frozenset[int]
    source: HomeSource
    why: str
    """One sentence, for people."""


@dataclass(frozen=True)
class Finding:
    """What stands between a worker and its home, in numbers."""

    worker: WorkerId
    label: str
    home: Home | None
    """None where no home could be found; the decision's reason says why."""
    movable_bytes: int
    """Resident bytes that may be moved, less those that refused to earlier."""
    remote_bytes: int
    """Movable bytes that do not lie on the home nodes."""
    immovable_bytes: int
    """Resident bytes shared with others, under a user's mempolicy, or that refused earlier."""
    locality: float | None
    """1 - remote / movable; None where nothing is movable."""
    run_locality: float | None
    """Share of its CPU time that it spent on the home nodes; None where it did not run."""
    shared_bytes: int | None = None
    """Of the immovable: what other processes map too; less than its residency has as shared where
    it moves some of that for all. None: as its residency has it."""
    left_bytes: int = 0
    """Of the immovable: what its rule leaves alone, or another of its users moves for all."""


class Verdict(str, Enum):
    """What is to happen to a worker in this cycle."""

    ACT = "act"
    """Bind threads, move memory, or both."""
    REST = "rest"
    """Nothing to do: it is home, or as good as."""
    WAIT = "wait"
    """Something to do, but not now."""
    REFUSE = "refuse"
    """Something to do that must not or cannot be done."""


class Reason(str, Enum):
    """Why a verdict was reached. Values are label values of metrics: keep them stable."""

    REMOTE_MEMORY = "remote-memory"
    """act: memory on other nodes than home."""
    REMOTE_THREADS = "remote-threads"
    """act: threads free to run away from home."""
    GUARD_UNDO = "guard-undo"
    """act: a move made its latency worse, and is taken back."""
    HOME = "home"
    """rest: all of it is where it belongs."""
    BELOW_THRESHOLD = "below-threshold"
    """rest: some of it is remote, less than the policy cares for."""
    ONE_NODE = "one-node"
    """rest: the machine has one node with memory; nothing to move."""
    LOADING = "loading"
    """wait: it is still growing: it has just started."""
    QUEUED = "queued"
    """wait: its turn to move comes after others', of this cycle or an earlier one."""
    COOLDOWN = "cooldown"
    """wait: acted on lately."""
    MOVING = "moving"
    """wait: a move is under way."""
    PAUSED = "paused"
    """wait: somebody said pause."""
    UNREADABLE = "unreadable"
    """wait: its memory could not be read; the problem is in the text."""
    MEASURING = "measuring"
    """wait: a cheap look says that there is something to do; it is read in full before that."""
    GUARDING = "guarding"
    """wait: its latency is measured, before a move or after it."""
    GUARD_PAUSE = "guard-pause"
    """wait: a move of it was taken back lately."""
    MEMPOLICY = "mempolicy"
    """refuse: its user bound its memory."""
    NO_ROOM = "no-room"
    """refuse: the home nodes have no headroom for it."""
    NO_HOME = "no-home"
    """refuse: no node is allowed that has both CPUs and memory, or the rule names absent ones."""
    IMMOVABLE = "immovable"
    """refuse: what is remote refused to move earlier, or is shared."""


class Limit(str, Enum):
    """What keeps a worker from a home."""

    ALLOWED = "allowed"
    """A node of it is not allowed to it."""
    MEMORY = "memory"
    """The others leave too little room there, or it never could hold the worker."""
    CPUS = "cpus"
    """More CPUs would be wanted than there are."""
    APART = "apart"
    """One of its group is there already."""
    ORDER = "order"
    """There is room in the end, but no order of moves in which each finds room."""


@dataclass(frozen=True)
class Cost:
    """What a home costs a worker, as if it were so many bytes on another node."""

    remote: int = 0
    """Bytes that cannot be moved, by their distance from the nearest home node."""
    spread: int = 0
    """Its own bytes on several nodes, by the distance between these."""
    slow: int = 0
    """Bytes on memory that is slower than the fastest."""
    device: int = 0
    """Distance of its devices from the nearest home node."""
    moving: int = 0
    """Bytes to be moved, by distance."""
    switching: int = 0
    """The home is not the earlier one."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.remote + self.spread + self.slow + self.device + self.moving + self.switching


@dataclass(frozen=True)
class Alternative:
    """Another home that a worker could have had while the others keep theirs."""

    home: frozenset[int]
    dearer: int
    """How much more it costs, in bytes; below 0 where a limit bars a cheaper home."""
    barred_by: Limit | None = None
    """None where only the cost speaks against it."""


@dataclass(frozen=True)
class MemoryMove:
    """Bytes to bring from one node to another."""

    source: int
    target: int
    move_bytes: int


class Part(str, Enum):
    """What a worker has to do with the move of a file or segment that it shares."""

    CARRIES = "carries"
    """It moves it for all its users."""
    WAITS = "waits"
    """Another of its users moves it, or has to be moved first."""
    STAYS = "stays"
    """It must not be moved, or would not."""


@dataclass(frozen=True)
class Shared:
    """A file or shared segment away from the home of a worker that maps it together with others."""

    id: SegmentId
    path: str
    away_bytes: int
    """What lies off the worker's home nodes, as far as it maps it."""
    users: tuple[WorkerId, ...]
    """The workers that map it, in order of their labels."""
    part: Part
    why: str
    """For people: what becomes of it, after "512 MiB of /path"."""


@dataclass(frozen=True)
class Decision:
    """What is done about one worker in one cycle, and why."""

    id: str
    """``cycle:label``; the same in log, journal and status. A daemon that starts counts anew."""
    worker: WorkerId
    label: str
    rule: str
    verdict: Verdict
    reason: Reason
    why: str
    """One or two sentences with the numbers, for people."""
    finding: Finding
    bind_cpus: frozenset[int] | None = None
    """CPUs to which each thread's mask is narrowed; None leaves affinity alone."""
    moves: tuple[MemoryMove, ...] = ()
    retry_refused: bool = False
    """Whether ranges that refused earlier are tried again."""
    shared: tuple[Shared, ...] = ()
    """Of the files and segments that it shares, those away from its home; the largest first. Only
    where its rule says that such are to be moved."""
    leave_files: bool = False
    """Whether pages of mapped files are left where they are."""
    alternatives: tuple[Alternative, ...] = ()
    """Other homes of a worker whose home was planned, cheapest first."""
    constraints: tuple[str, ...] = ()
    """What shaped the choice of its home, in words."""
    cost: Cost | None = None
    """What its home costs; None where it was not planned."""
    give_back: bool = False
    """Whether its threads get the masks back that they had before numad-py narrowed them."""
    judgement: Judgement | None = None
    """What its guard has last found about a move, in this cycle or an earlier one."""

    @property
    def move_bytes(self) -> int:
        """Bytes to be moved in all."""
        return sum(move.move_bytes for move in self.moves)

    @property
    def carried(self) -> tuple[Shared, ...]:
        """What it moves for all its users."""
        return tuple(shared for shared in self.shared if shared.part is Part.CARRIES)

    @property
    def other_users(self) -> frozenset[WorkerId]:
        """Who else maps what it moves for all."""
        return frozenset(u for shared in self.carried for u in shared.users) - {self.worker}


@dataclass(frozen=True)
class Plan:
    """Every decision of a cycle, one for each worker, sorted by label."""

    cycle: int
    decisions: tuple[Decision, ...]

    @property
    def to_measure(self) -> frozenset[WorkerId]:
        """Workers on which a decision hangs that a sample is not enough for."""
        return frozenset(d.worker for d in self.decisions if d.reason is Reason.MEASURING)

    @property
    def judgements(self) -> tuple[tuple[Decision, Judgement], ...]:
        """What guards have found in this cycle."""
        found = ((d, d.judgement) for d in self.decisions if d.judgement is not None)
        return tuple((d, j) for d, j in found if j.cycle == self.cycle)

    @property
    def to_act(self) -> frozenset[WorkerId]:
        """Workers about which something is to be done."""
        return frozenset(d.worker for d in self.decisions if d.verdict is Verdict.ACT)


@dataclass(frozen=True)
class Placed:
    """What placing all workers together brought for one of them."""

    home: Home | None
    alternatives: tuple[Alternative, ...] = ()
    constraints: tuple[str, ...] = ()
    cost: Cost | None = None


@dataclass(frozen=True)
class Placing:
    """Where the workers went that were free to be placed, and beside whom."""

    at_s: float
    workers: Mapping[WorkerId, Placed]
    given: Mapping[WorkerId, frozenset[int] | None]
    """Homes that were given, of all that took part; None: it was free."""


@dataclass(frozen=True)
class WorkerMemory:
    """What is remembered of a worker between cycles."""

    home: Home | None = None
    acted_at_s: float | None = None
    """When it was last acted on (time since boot); the cooldown counts from here."""
    moving: bool = False
    """Handed to the mover, outcome not known yet."""
    refused: Mapping[int, int] = field(default_factory=dict)
    """Bytes by node that would not move the last time (shared, pinned, busy)."""
    refused_at_s: float | None = None
    """When some of it last refused."""
    refusals: int = 0
    """How often in a row some of it refused: it is tried again after ever longer pauses."""
    retry_refused: bool = False
    """What refused is to be tried again with the next move."""
    stuck: tuple[SegmentId, ...] = ()
    """What it shares and was to move for all, and would not move; tried again as what refused."""
    unfinished: bool = False
    """A move was begun and broken off by us: it is to be brought to its end."""
    attempts: int = 0
    """Moves in a row that brought less than half of what was planned."""
    left_at_s: Mapping[int, float] = field(default_factory=dict)
    """When it was moved away from a node, by node."""
    largest_bytes: int = 0
    """The largest that it was seen to be."""
    grown_at_s: float | None = None
    """When it was last seen to have grown; None where it never was."""
    growth_bytes_per_s: float = 0.0
    """How fast it grew then."""
    demand_cpus: float | None = None
    """CPUs that it keeps busy, over the last minute or so."""
    most_cpus: float = 0.0
    """The most that this was; slowly forgotten."""
    seen_at_s: float | None = None
    """When it was last looked at."""
    queued_at_s: float | None = None
    """Since when it has been waiting for its turn to move; None where it does not."""
    guard: GuardMemory = field(default_factory=GuardMemory)
    """What is known of its latency, where its rule names a guard."""


@dataclass(frozen=True)
class DecisionState:
    """All that deciding remembers; frozen, replaced after each cycle."""

    workers: Mapping[WorkerId, WorkerMemory] = field(default_factory=dict)
    paused: bool = False
    others_cpus: Mapping[int, float] = field(default_factory=dict)
    """CPUs that others than the workers to be placed keep busy, by node, over the last minute."""
    others_at_s: float | None = None
    placing: Placing | None = None
    """The last one."""
    reserved: tuple[Reservation, ...] = ()
    """What is promised to processes to come, oldest first."""

    def of(self, worker: WorkerId) -> WorkerMemory:
        """Return what is remembered of a worker; empty for a new one."""
        return self.workers.get(worker, WorkerMemory())
