"""What one contender costs workers whose memory it brings home; runs alone, as root, on 2+ nodes.

usage: python3 -m tests.guest.measure_moves CONTENDER --load FILE [--size 512MiB]...
                        [--thp never] [--threads 2] [--pause-ms 50] [--quiet-s 10]
                        [--limit-s 90] [--migration TOML]

Needs the standard library and what it starts: the load generator (numaload.c, built) and the
contender, which is one of nothing, autonuma, numad, migratepages, numad-py. Starts a worker for
each --size: bound by its user to the CPUs of one node, its memory on the next. Measures a quiet
window, lets the contender begin, and watches until 99 % of each worker's memory is on the nodes
that it may run on, or until the limit. Prints a JSON object: times in seconds, passes in ms.

A daemon was there before: it is started first, held by SIGSTOP once it is ready, and let go.
Where pages are is asked for by a sample, since numa_maps would hold up the worker (mmap_lock);
every page is asked for once, when all is over.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.guest.passes import parse_passes, with_open, within

WANTED_SHARE = 0.99
SAMPLES = 1024
LOOK_S = 0.25
GRACE_S = 2.0
"""So long passes that were under way at the end may take to be logged."""
READY_S = 60.0
END_S = 60.0
"""numad cannot be ended while it moves."""
MOVE_PAGES = {"x86_64": 279, "aarch64": 239}
LARGE_BYTES = 16 << 20
"""Areas from this size on are a worker's memory, the others are its program's."""
NUMAD = ("numad", "-v", "-H", "0", "-i", "5:5")
BALANCING = Path("/proc/sys/kernel/numa_balancing")
POLICY = """\
[daemon]
state_dir = "{folder}/state"
runtime_dir = "{folder}/run"
[log]
format = "json"
[metrics]
listen = ""
[migration]
{migration}
"""


# Nodes and workers


def cpus_by_node() -> dict[int, list[int]]:
    """Return the CPUs of each node that has both CPUs and memory."""
    root = Path("/sys/devices/system/node")
    nodes = parse_list((root / "has_memory").read_text())
    cpus = {node: parse_list((root / f"node{node}/cpulist").read_text()) for node in nodes}
    return {node: of_node for node, of_node in cpus.items() if of_node}


def parse_list(text: str) -> list[int]:
    """Return the numbers of a list such as 0-1,4."""
    parts = [part.partition("-") for part in text.strip().split(",") if part]
    return [n for low, _, high in parts for n in range(int(low), int(high or low) + 1)]


@dataclass
class Worker:
    """A process whose memory is elsewhere than its CPUs."""

    size: str
    home: int
    away: int
    log: Path
    process: subprocess.Popen[bytes]
    mask: frozenset[int]
    pages: array[int] = field(default_factory=lambda: array("Q"))
    """Address of each page of its memory."""
    local_s: float | None = None
    """When it was all local, after the contender began."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def find_pages(self) -> None:
        """Learn where its memory is, as far as it has touched it."""
        found = array("Q")
        for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            low, high = (int(word, 16) for word in line.split()[0].split("-"))
            if high - low >= LARGE_BYTES:
                found.extend(range(low, high, 4096))
        nodes = zip(found, nodes_of(self.pid, found), strict=True)
        self.pages = array("Q", (page for page, node in nodes if node >= 0))

    def masks(self) -> list[frozenset[int]]:
        """Return the CPUs that each thread may use."""
        tids = [int(path.name) for path in Path(f"/proc/{self.pid}/task").iterdir()]
        return [frozenset(os.sched_getaffinity(tid)) for tid in tids]

    def local_share(self, samples: int) -> float:
        """Return the share of so many pages, evenly chosen, on nodes that it may run on.

        Linux 6.1 says of pages that automatic balancing has marked that there are none: they count
        as remote until the worker comes by.
        """
        may = frozenset().union(*self.masks())
        near = {node for node, cpus in cpus_by_node().items() if may.intersection(cpus)}
        asked = self.pages[:: max(1, len(self.pages) // samples)]
        return sum(node in near for node in nodes_of(self.pid, asked)) / len(asked)


def nodes_of(pid: int, addresses: array[int]) -> array[int]:
    """Return the node of each page, or a negative errno (move_pages(2) without nodes)."""
    status = array("i", [-1]) * len(addresses)
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    numbers = (MOVE_PAGES[platform.machine()], pid, len(addresses))
    pointers = (addresses.buffer_info()[0], None, status.buffer_info()[0])
    if call(*map(ctypes.c_long, numbers), *map(ctypes.c_void_p, pointers), ctypes.c_int(0)):
        raise OSError(ctypes.get_errno(), "move_pages")
    return status


@contextlib.contextmanager
def scene() -> Iterator[tuple[list[Worker], Path]]:
    """Hand out a list whose workers end with the block, and a folder that goes with it."""
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory(prefix="moves-") as folder:
        try:
            yield workers, Path(folder)
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()


def start_workers(options: argparse.Namespace, folder: Path, workers: list[Worker]) -> None:
    """Start a worker a size, under a name that the shipped policy knows, and wait for them.

    Each goes into the list at once: whoever has it ends them, also when this fails.
    """
    cpus = cpus_by_node()
    nodes = sorted(cpus)
    for i, size in enumerate(options.size):
        home, away = nodes[i % len(nodes)], nodes[(i + 1) % len(nodes)]
        words = [
            *("llama-server", "--size", size, "--memory-nodes", str(away), "--thp", options.thp),
            *("--cpus", ",".join(map(str, cpus[home])), "--threads", str(options.threads)),
            *("--write-share", "0.5", "--churn", "--pause-ms", str(options.pause_ms)),
            *("--log", f"{folder}/passes-{i}", "--ready", f"{folder}/ready-{i}"),
        ]
        process = subprocess.Popen(
            words, executable=options.load.resolve(), stdin=subprocess.DEVNULL
        )
        mask = frozenset(cpus[home])
        workers.append(Worker(size, home, away, folder / f"passes-{i}", process, mask))
    end = time.monotonic() + READY_S
    for i, worker in enumerate(workers):
        ready = folder / f"ready-{i}"
        while not (ready.exists() and ready.read_text()):
            if time.monotonic() > end or worker.process.poll() is not None:
                sys.exit(f"worker {i} did not become ready; see above")
            time.sleep(0.1)
        worker.find_pages()


# Contenders: each is there before the workers are, and leaves nothing behind


@dataclass(frozen=True)
class Contender:
    """What brings memory home."""

    begin: Callable[[Sequence[Worker]], object] = lambda _workers: None
    cpu_s: Callable[[], float] = lambda: 0.0
    """CPU time of its processes so far."""
    log: Path | None = None
    ended: Callable[[], bool] = lambda: False
    """Whether a daemon is there no more."""


@contextlib.contextmanager
def autonuma(_options: argparse.Namespace, _folder: Path) -> Iterator[Contender]:
    """Have the kernel balance by itself, as it does by default."""
    try:
        yield Contender(begin=lambda _workers: BALANCING.write_text("1"))
    finally:
        BALANCING.write_text("0")


@contextlib.contextmanager
def migratepages(_options: argparse.Namespace, _folder: Path) -> Iterator[Contender]:
    """Call the command once for each worker, one after the other."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(workers: Sequence[Worker]) -> None:
        calls = [f"migratepages {worker.pid} {worker.away} {worker.home}" for worker in workers]
        started.append(subprocess.Popen(["sh", "-c", "; ".join(calls)], stdout=sys.stderr))

    def cpu_s() -> float:
        for process in started:
            process.wait()
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    yield Contender(begin, cpu_s)


@contextlib.contextmanager
def numad_py(options: argparse.Namespace, folder: Path) -> Iterator[Contender]:
    """Have numad-py by the shipped policy, with what --migration says laid over it."""
    config, log = folder / "policy.toml", folder / "numad-py.log"
    config.write_text(POLICY.format(folder=folder, migration=options.migration))
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as notified:
        notified.bind(f"{folder}/notify")
        notified.settimeout(READY_S)
        words = [*options.numad_py.split(), "run", "--config", str(config)]
        environ = {**os.environ, "NOTIFY_SOCKET": f"{folder}/notify"}
        with log.open("wb") as out:
            process = subprocess.Popen(words, env=environ, stdout=out, stderr=out)
        try:
            while b"READY=1" not in notified.recv(4096):
                pass
        except TimeoutError:
            process.kill()
            sys.exit(f"numad-py did not become ready:\n{log.read_text()}")
    yield from held(process.pid, log)
    process.wait()


@contextlib.contextmanager
def numad(_options: argparse.Namespace, _folder: Path) -> Iterator[Contender]:
    """Have the real numad, which makes a daemon of itself, and has looked once."""
    subprocess.run(NUMAD, check=True, timeout=READY_S)
    time.sleep(2)
    yield from held(int(Path("/var/run/numad.pid").read_text()), None)


def held(pid: int, log: Path | None) -> Iterator[Contender]:
    """Hold a daemon until it is to begin; end it afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield Contender(
            lambda _workers: os.kill(pid, signal.SIGCONT),
            lambda: sum(cpu_of(pid)),
            log,
            lambda: stat_of(pid)[0] == "Z",
        )
    finally:
        end = time.monotonic() + END_S
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGTERM)
            while stat_of(pid)[0] != "Z" and time.monotonic() < end:
                time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)


Start = Callable[[argparse.Namespace, Path], contextlib.AbstractContextManager[Contender]]
CONTENDERS: dict[str, Start] = {
    "nothing": lambda _options, _folder: contextlib.nullcontext(Contender()),
    "autonuma": autonuma,
    "migratepages": migratepages,
    "numad": numad,
    "numad-py": numad_py,
}


# Measuring


def stat_of(pid: int) -> list[str]:
    """Return the fields of a process's stat from its state on (proc_pid_stat(5), field 3)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_of(pid: int) -> tuple[float, float]:
    """Return user and system time of a process, of its ended threads as well."""
    user, system = (int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in stat_of(pid)[11:13])
    return user, system


def used(workers: Sequence[Worker]) -> dict[str, float]:
    """Return CPU time so far: of all tasks, of the workers, and of these in the kernel.

    Of all tasks by /proc/schedstat (show_schedstat, kernel/sched/stats.c), in ns: /proc/stat counts
    ticks, and of those a virtual CPU that has to wait for a real one gets few.
    """
    lines = Path("/proc/schedstat").read_text().splitlines()
    of_workers = [cpu_of(worker.pid) for worker in workers]
    return {
        "all_s": sum(int(line.split()[7]) for line in lines if line.startswith("cpu")) / 1e9,
        "workers_s": sum(map(sum, of_workers)),
        "workers_kernel_s": sum(kernel_s for _, kernel_s in of_workers),
    }


def watch(workers: Sequence[Worker], began_s: float, limit_s: float) -> float:
    """Note when each worker's memory was local; return when all was over."""
    while True:
        for worker in workers:
            if worker.local_s is None and worker.local_share(SAMPLES) >= WANTED_SHARE:
                worker.local_s = time.monotonic() - began_s
        now_s = time.monotonic()
        if now_s - began_s >= limit_s or all(worker.local_s is not None for worker in workers):
            return now_s
        time.sleep(LOOK_S)


def measure(options: argparse.Namespace, folder: Path, workers: list[Worker]) -> dict[str, Any]:
    """Run the scenario under the contender; the workers that it starts go into the list."""
    BALANCING.write_text("0")
    with CONTENDERS[options.contender](options, folder) as contender:
        start_workers(options, folder, workers)
        time.sleep(1)
        at_s, before = time.monotonic(), used(workers)
        time.sleep(options.quiet_s)
        began_s, between, own_s = time.monotonic(), used(workers), contender.cpu_s()
        contender.begin(workers)
        ended_s = watch(workers, began_s, options.limit_s)
        after, own_s = used(workers), contender.cpu_s() - own_s
        time.sleep(GRACE_S)
        lines = contender.log.read_text().splitlines() if contender.log is not None else []
        if contender.ended():
            sys.exit("\n".join([f"{options.contender} has ended by itself:", *lines]))
        return {
            "contender": options.contender,
            "migration": options.migration,
            "kernel": platform.release(),
            "quiet_s": began_s - at_s,
            "window_s": ended_s - began_s,
            "own_cpu_s": own_s,
            "quiet": {name: between[name] - before[name] for name in before},
            "moving": {name: after[name] - between[name] for name in before},
            "workers": [told(w, options, (at_s, began_s, ended_s)) for w in workers],
            "said": [json.loads(line) for line in lines if line.startswith("{")],
        }


def told(
    worker: Worker, options: argparse.Namespace, at_s: tuple[float, float, float]
) -> dict[str, Any]:
    """Return what became of one worker."""
    passes = parse_passes(worker.log.read_text())
    passes = with_open(passes, options.pause_ms / 1e3, time.monotonic())
    return {
        "size": worker.size,
        "home": worker.home,
        "seconds": worker.local_s,
        "share": worker.local_share(len(worker.pages)),
        "kept_its_cpus": all(mask == worker.mask for mask in worker.masks()),
        "quiet": within(passes, at_s[0], at_s[1]),
        "moving": within(passes, at_s[1], at_s[2]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("--load", type=Path, required=True, help="numaload, built")
    parser.add_argument("--size", action="append", help="of one worker; several times")
    parser.add_argument("--thp", choices=["never", "always"], default="never")
    parser.add_argument("--threads", type=int, default=2, help="of each worker")
    parser.add_argument("--pause-ms", type=int, default=50, help="of a thread between two passes")
    parser.add_argument("--quiet-s", type=float, default=10.0)
    parser.add_argument("--limit-s", type=float, default=90.0)
    parser.add_argument("--migration", default="", help="keys of [migration] for numad-py, TOML")
    parser.add_argument("--numad-py", default="numad-py", help="the command that numad-py is")
    options = parser.parse_args()
    options.size = options.size or ["512MiB", "768MiB", "1GiB"]
    if options.contender in {"numad", "migratepages"} and shutil.which(options.contender) is None:
        sys.exit(f"there is no {options.contender} here")
    with scene() as (workers, folder):
        print(json.dumps(measure(options, folder, workers)))


if __name__ == "__main__":
    main()
