"""CPU time of a cycle in which nothing is to be done, against numad's, here and in a guest."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.bench.guests import guests
from tests.bench.native import SIZE, Load, compared
from tests.bench.table import Figure, NotHere, Row, State
from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.numad import COMMAND, INTERVAL_S, LOG, Numad
from tests.guest.project import build_crowd
from tests.guest.workers import Workers

GUEST = "bookworm-n4c8"
IDLE = 1_000
WORKERS = 16
SETTLE_S = 330
"""After this each process, a minute or two old at the start, was looked at when twice and four
times as old, all of them at nearly the same time, and then is not for a quarter of an hour."""
HERE_SETTLE_S = 190
"""The same on this machine, where a process is only seconds old at the start: it is looked at when
some 10, 30 and 130 s old, and then not for minutes."""
WINDOW_S = 58
"""And until the next rest: a minute, in which is all that comes round where nothing changes."""
WINDOWS = 3
LIMIT = 0.5
CYCLES = "python3 /opt/load/probe.py metrics | grep ^numad_py_cycles_total"
NUMAD_CYCLES = f"grep -c 'Processes: ' {LOG}"


def rows() -> Iterator[Row]:
    """Measure on this machine, which tells of CPU time, then where there are nodes."""
    yield _here()
    yield from _in_guest()


def _here() -> Row:
    """Compare natively; where that cannot be, the guest is still to be measured."""
    case = f"{IDLE:,} processes, {WORKERS} workers, on this machine"
    try:
        (found,) = compared([Load(IDLE, WORKERS, HERE_SETTLE_S, WINDOW_S, WINDOWS)])
    except NotHere as why:
        return Row("quiet", case, note=f"not measured: {why}", state=State.NOT_HERE)
    return Row("quiet", case, found.ours, found.theirs, "ms", note=found.note).at_most(LIMIT)


def _in_guest() -> Iterator[Row]:
    """Measure both under the same load."""
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(guests())
        guest = fleet.get(GUEST)
        if guest.run("command -v numad", check=False).returncode:
            why = f"{GUEST} has no numad"
            raise NotHere(why)
        stack.callback(_load(guest).stop)
        ours, theirs, note = _both(guest)
        case = f"{IDLE:,} processes, {WORKERS} workers"
        where = f"{GUEST}, Linux {guest.out('uname -r').strip()}"
        yield Row("quiet", case, ours, theirs, "ms", note=note, where=where).at_most(LIMIT)


def _load(guest: Machine) -> Workers:
    """Start idle processes, and workers that are at home with memory and pins."""
    guest.put(build_crowd(), "/opt/load/crowd")
    guest.put(Path(__file__).parent / "spent.py", "/opt/load/spent.py")
    guest.run(f"systemd-run --quiet --collect --unit=load-crowd /opt/load/crowd {IDLE}")
    workers = Workers(guest)
    nodes = len(guest.topology.nodes)
    per_node = guest.topology.cpus // nodes
    for i in range(WORKERS):
        node = i % nodes
        cpus = f"{node * per_node}-{(node + 1) * per_node - 1}"
        where = f"--memory-nodes {node} --cpus {cpus}"
        workers.start(f"w{i}", f"--size {SIZE} --pause-ms 3000 {where}")
    workers.wait_ready()
    return workers


def _both(guest: Machine) -> tuple[Figure, Figure, str]:
    """Return our figure, numad's, and what it looked at, which must be every process.

    Both run at once and are measured over the same windows: whatever else slows this machine down
    slows both. Nothing is to be done, so that they do not get into each other's way.
    """
    service = Service(guest)
    service.configure(f'[daemon]\ninterval = "{INTERVAL_S}s"\n')
    numad = Numad(guest)
    try:
        service.start()
        guest.run(f"sleep {SETTLE_S}", timeout=SETTLE_S + 60)
        ours, theirs = _cpu_ms(guest, (service.show("MainPID"), CYCLES), (numad.pid, NUMAD_CYCLES))
        log = numad.log()
        said = service.show("StatusText")
    finally:
        service.stop()
        numad.stop()
    if f"{WORKERS} of {WORKERS} workers at home, 0 moving" not in said:
        msg = f"numad-py has more to do than to look: {said}"
        raise RuntimeError(msg)
    seen = [int(number) for number in re.findall(r"Processes: (\d+)", log)]
    if min(seen) < IDLE + WORKERS:
        msg = f"numad looked at {min(seen)} processes only"
        raise RuntimeError(msg)
    moved = log.count("Advising pid")
    note = (
        f"CPU a cycle; theirs: {COMMAND}, which read the stat of "
        f"{min(seen)} to {max(seen)} processes in each cycle and moved {moved}; of those "
        "below 300 MB it reads nothing else"
    )
    return ours, theirs, note


def _cpu_ms(guest: Machine, *watched: tuple[str, str]) -> list[Figure]:
    """Return CPU time by cycle of each (pid, command that counts its cycles), a value a window."""
    begun = [
        f"python3 /opt/load/spent.py {pid} {WINDOW_S} {WINDOWS} {shlex.quote(cycles)} "
        f">/tmp/spent.{pid} & "
        for pid, cycles in watched
    ]
    guest.run(f"{''.join(begun)} wait", timeout=WINDOWS * (WINDOW_S + 130))
    figures = []
    for pid, _ in watched:
        windows = [json.loads(x) for x in guest.out(f"cat /tmp/spent.{pid}").splitlines()]
        if len(windows) != WINDOWS:
            msg = f"{len(windows)} of {WINDOWS} windows of process {pid} were measured"
            raise RuntimeError(msg)
        figures.append(Figure.of(1e3 * window["cpu_s"] / window["cycles"] for window in windows))
    return figures
