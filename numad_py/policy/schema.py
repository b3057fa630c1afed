"""The policy as frozen values. Defaults here are the defaults; the shipped file repeats them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

MIB = 1 << 20
GIB = 1 << 30


class Mode(str, Enum):
    """How far the daemon goes."""

    OBSERVE = "observe"
    """Measure only."""
    ADVISE = "advise"
    """Also plan, and say what it would do."""
    ACT = "act"
    """Do it."""


class OnStop(str, Enum):
    """What becomes of the affinity masks when the daemon stops."""

    RESTORE = "restore"
    KEEP = "keep"


class LogFormat(str, Enum):
    """How log lines look; AUTO is console on a terminal and JSON elsewhere."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class Method(str, Enum):
    """The system call that moves memory."""

    MOVE_PAGES = "move_pages"
    MIGRATE_PAGES = "migrate_pages"


class AutoNuma(str, Enum):
    """What becomes of the kernel's own balancing (kernel.numa_balancing)."""

    LEAVE = "leave"
    OFF = "off"
    """It is switched off while the daemon acts."""


class HugeTlb(str, Enum):
    """Which huge pages (hugetlb) a move may take on its target."""

    FREE = "free"
    """Those that are free there."""
    RESERVE = "reserve"
    """More are made; as many go where pages are left."""


class SharedPages(str, Enum):
    """What becomes of files and shared segments that several workers map."""

    LEAVE = "leave"
    """They stay where they are."""
    USERS = "users"
    """They are moved for all their users, where these are workers that have the same home."""


@dataclass(frozen=True)
class DaemonPolicy:
    """``[daemon]``."""

    mode: Mode = Mode.ACT
    interval_s: float = 5.0
    """Key ``interval``: time from one cycle to the next."""
    on_stop: OnStop = OnStop.RESTORE
    state_dir: str = "/var/lib/numad-py"
    runtime_dir: str = "/run/numad-py"


@dataclass(frozen=True)
class LogPolicy:
    """``[log]``."""

    level: str = "info"
    """debug, info, warning or error."""
    format: LogFormat = LogFormat.AUTO


@dataclass(frozen=True)
class MetricsPolicy:
    """``[metrics]``."""

    listen: str = "127.0.0.1:10465"
    """``host:port``, ``[v6]:port``; empty: no exposition."""
    max_workers: int = 128
    """Workers with series of their own; the others are only counted."""


@dataclass(frozen=True)
class ScanPolicy:
    """``[scan]``: what looking at workers' memory may cost."""

    interval_s: float = 15.0
    """Key ``interval``: how old a worker's residency may become before it is looked at again."""
    cpu_share: float = 0.02
    """Share of one CPU that reading may take, over all workers."""
    longest_hold_s: float = 3.0
    """Key ``longest_hold``: a worker is not read in full where that is expected to take longer."""


@dataclass(frozen=True)
class PlacementPolicy:
    """``[placement]``: when a worker is touched at all."""

    min_locality: float = 0.95
    """Left alone at or above this share of movable bytes on the home nodes."""
    min_remote_bytes: int = 32 * MIB
    """Key ``min_remote``: left alone below so many remote bytes."""
    headroom: float = 0.05
    """Share of a node's memory that stays free."""
    cooldown_s: float = 60.0
    """Key ``cooldown``: pause after acting on a worker."""
    reserved_cpus: frozenset[int] = frozenset()
    """CPUs to which no worker is bound, ``"0-1"``."""
    smt_share: float = 0.3
    """What a core's second thread is worth, as a share of a core."""
    settle_s: float = 10.0
    """Key ``settle``: a worker that has grown within this time is still loading, and left alone."""
    loading_limit_s: float = 600.0
    """Key ``loading_limit``: one that is older is not taken to be loading, however it grows."""
    no_way_back_s: float = 600.0
    """Key ``no_way_back``: a node that a worker was moved away from is not its home for so long."""
    moved_per_cycle_bytes: int = 16 * GIB
    """Key ``moved_per_cycle``: no more bytes are set in motion in one cycle, but one worker is."""
    follow_devices: bool = True
    """Whether the nodes of a worker's accelerators are its home, where nothing else gives one."""
    reserve_s: float = 120.0
    """Key ``reserve``: how long what ``advise`` told is kept for its caller; 0: not at all."""


@dataclass(frozen=True)
class MigrationPolicy:
    """``[migration]``: how memory is moved."""

    method: Method = Method.MOVE_PAGES
    longest_chunk_s: float = 0.05
    """Key ``longest_chunk``: a chunk is made so large that moving it takes about this long."""
    chunk_bytes: int = 64 * MIB
    """Key ``chunk``: the most bytes in one chunk; stopping waits for one at most."""
    rate_bytes_per_s: int | None = GIB
    """Key ``rate``, ``"1GiB"`` a second; ``"unlimited"`` is None."""
    duty: float = 1.0
    """Share of the time that moving may take, the rest are pauses; 1.0: no pauses."""
    cpu_pressure: float = 0.5
    """While tasks wait for a CPU for more than this share of the time, and none is idle on which we
    may run, duty is a quarter of it."""
    memory_pressure: float = 0.1
    """While the machine or the worker's cgroup waits for memory for more than this share of the
    time, nothing is moved; from half of it on, at a quarter of duty."""
    migrate_pages_limit_bytes: int = 256 * MIB
    """Key ``migrate_pages_limit``: larger workers are moved by move_pages even where method says
    migrate_pages, since that call can neither be paced nor stopped."""
    autonuma: AutoNuma = AutoNuma.LEAVE
    """Whether the kernel's own balancing is switched off while the daemon acts."""
    hugetlb: HugeTlb = HugeTlb.FREE
    """Which huge pages a move may take."""


@dataclass(frozen=True)
class GuardPolicy:
    """``[rule.guard]``: a latency metric that decides whether a move stays."""

    url: str
    """``http://HOST:PORT/PATH`` of a Prometheus endpoint."""
    metric: str
    """A histogram, without ``_bucket``, or a gauge; the less the better."""
    labels: tuple[tuple[str, str], ...] = ()
    """Label and value that the series must have, sorted."""
    quantile: float = 0.95
    """Of a histogram, as a share."""
    worse: float = 0.2
    """A move that makes it worse by more than this share is taken back."""
    window_s: float = 30.0
    """Key ``window``: how long it is measured before a move, and after it."""
    pause_s: float = 3600.0
    """Key ``pause``: before the next try after taking one back; doubled each time, up to a day."""
    allow_remote: bool = False
    """Whether ``url`` may be on another machine."""


@dataclass(frozen=True)
class Rule:
    """``[[rule]]`` or ``[[exclude]]``: all keys given must match, any pattern of a list will do."""

    name: str
    origin: str
    """``file:line`` or ``built-in``."""
    comm: tuple[re.Pattern[str], ...] = ()
    """Regular expressions, searched for in the command name."""
    exe: tuple[re.Pattern[str], ...] = ()
    """Regular expressions, searched for in the path of the executable."""
    cmdline: tuple[re.Pattern[str], ...] = ()
    """Regular expressions, searched for in the arguments joined by blanks."""
    user: tuple[str, ...] = ()
    """User names or numeric ids."""
    unit: tuple[str, ...] = ()
    """Globs on the systemd unit, ``vllm@*.service``."""
    cgroup: tuple[str, ...] = ()
    """Globs on the cgroup path, ``/kubepods.slice/*``."""
    container: tuple[str, ...] = ()
    """Globs on the container id as it stands in the cgroup path; ``"*"``: any container."""
    nodes: frozenset[int] | None = None
    """Home nodes; None: pin, cpuset or planner decide. Rules only."""
    spread: str | None = None
    """``rule``: its workers are kept on distinct nodes; ``cgroup``: those of one cgroup are, as the
    ranks of one server. None: they may share. Rules only."""
    shared: SharedPages = SharedPages.LEAVE
    """What several workers map. Rules only."""
    files: bool = True
    """Whether pages of mapped files, such as weights, are moved. Rules only."""
    guard: GuardPolicy | None = None
    """Its own latency, which decides whether a move stays. Rules only."""


@dataclass(frozen=True)
class DiscoveryPolicy:
    """``[discovery]``."""

    known_servers: bool = True
    """Whether the rules for well-known inference servers apply after the file's own."""


@dataclass(frozen=True)
class Policy:
    """Everything that can be configured."""

    daemon: DaemonPolicy = field(default_factory=DaemonPolicy)
    log: LogPolicy = field(default_factory=LogPolicy)
    metrics: MetricsPolicy = field(default_factory=MetricsPolicy)
    discovery: DiscoveryPolicy = field(default_factory=DiscoveryPolicy)
    scan: ScanPolicy = field(default_factory=ScanPolicy)
    placement: PlacementPolicy = field(default_factory=PlacementPolicy)
    migration: MigrationPolicy = field(default_factory=MigrationPolicy)
    rules: tuple[Rule, ...] = ()
    """First match wins; the built-in ones stand last."""
    excludes: tuple[Rule, ...] = ()
    """Win over every rule."""
    sources: tuple[str, ...] = ()
    """Files that were read, in order."""


def fixed_at_start(started: Policy, new: Policy) -> list[str]:
    """Return the keys that differ from those of the start, which stay in force until the end."""
    keys = (
        ("daemon", "state_dir"),
        ("daemon", "runtime_dir"),
        ("metrics", "listen"),
        ("metrics", "max_workers"),
    )
    return [
        f"{table}.{key}"
        for table, key in keys
        if getattr(getattr(started, table), key) != getattr(getattr(new, table), key)
    ]
