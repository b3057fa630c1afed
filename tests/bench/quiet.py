"""CPU time of a cycle in which nothing is to be done, against numad's, in a guest of four nodes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.bench.table import Figure, NotHere, Row
from tests.guest.daemon import Service
from tests.guest.fleet import Fleet
from tests.guest.image import GuestError, check_tools
from tests.guest.machine import Machine
from tests.guest.project import build_crowd
from tests.guest.workers import Workers

GUEST = "bookworm-n4c8"
IDLE = 1_000
WORKERS = 16
SIZE = "64MiB"
INTERVAL_S = 5
YOUNG_S = 30
"""After this what is done in the first cycles only is done; numad, which is first, needs less."""
SETTLE_S = 120
"""After so much more each process, about two minutes old at the start, was looked at twice: so old
and older is a crowd that is called idle."""
NUMAD_SETTLE_S = 15
WINDOW_S = 28
"""And until the next rest: half a minute, in which is all that comes round by then."""
WINDOWS = 3
LIMIT = 0.5
NUMAD_LOG = "/var/log/numad.log"
NUMAD = f"numad -v -H 0 -i {INTERVAL_S}:{INTERVAL_S}"
"""Logs at level info, which is where a cycle can be seen; leaves khugepaged as it is."""
CYCLES = "python3 /opt/load/probe.py metrics | grep ^numad_py_cycles_total"
NUMAD_CYCLES = f"grep -c 'Processes: ' {NUMAD_LOG}"


def rows() -> Iterator[Row]:
    """Measure one after the other, under the same load."""
    if os.environ.get("NUMAD_PY_NO_GUEST"):
        why = "NUMAD_PY_NO_GUEST is set"
        raise NotHere(why)
    try:
        check_tools()
    except GuestError as error:
        raise NotHere(str(error)) from None
    with contextlib.ExitStack() as stack:
        fleet = Fleet()
        stack.callback(fleet.close)
        guest = fleet.get(GUEST)
        if guest.run("command -v numad", check=False).returncode:
            why = f"{GUEST} has no numad"
            raise NotHere(why)
        stack.callback(_load(guest).stop)
        theirs, note = _numad(guest)
        case = f"{IDLE:,} processes, {WORKERS} workers"
        where = f"{GUEST}, Linux {guest.out('uname -r').strip()}"
        young, ours = _numad_py(guest)
        yield Row("quiet", case, ours, theirs, "ms", note=note, where=where).at_most(LIMIT)
        case = "the same, just started"
        note = "ours: half a minute after its start, when it has looked at each process once"
        yield Row("quiet", case, young, theirs, "ms", note=note, where=where)


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


def _numad_py(guest: Machine) -> tuple[Figure, Figure]:
    """Return our figures, soon after the start and when all has settled."""
    service = Service(guest)
    service.configure(f'[daemon]\ninterval = "{INTERVAL_S}s"\n')
    service.start()
    try:
        figures = []
        for wait_s, windows in ((YOUNG_S, 1), (SETTLE_S, WINDOWS)):
            guest.run(f"sleep {wait_s}", timeout=wait_s + 60)
            figures.append(_cpu_ms(guest, service.show("MainPID"), CYCLES, windows))
        said = service.show("StatusText")
        if f"{WORKERS} of {WORKERS} workers at home, 0 moving" not in said:
            msg = f"numad-py has more to do than to look: {said}"
            raise RuntimeError(msg)
    finally:
        service.stop()
    return figures[0], figures[1]


def _numad(guest: Machine) -> tuple[Figure, str]:
    """Return numad's figure and what it looked at; it must have looked at every process."""
    guest.run(f"rm -f {NUMAD_LOG}; {NUMAD}; sleep {NUMAD_SETTLE_S}")
    pid = guest.out("cat /var/run/numad.pid").strip()
    try:
        figure = _cpu_ms(guest, pid, NUMAD_CYCLES, WINDOWS)
        log = guest.out(f"cat {NUMAD_LOG}")
    finally:
        guest.run(
            f"kill {pid}; for i in $(seq 100); do [ -e /proc/{pid} ] || break; sleep 0.1; done"
        )
    seen = [int(number) for number in re.findall(r"Processes: (\d+)", log)]
    if min(seen) < IDLE + WORKERS:
        msg = f"numad looked at {min(seen)} processes only"
        raise RuntimeError(msg)
    moved = log.count("Advising pid")
    return figure, (
        f"CPU a cycle; theirs: {NUMAD}, which read the stat of "
        f"{min(seen)} to {max(seen)} processes in each cycle and moved {moved}; of those "
        "below 300 MB it reads nothing else"
    )


def _cpu_ms(guest: Machine, pid: str, cycles: str, times: int) -> Figure:
    """Return CPU time by cycle, a value a window."""
    command = f"python3 /opt/load/spent.py {pid} {WINDOW_S} {times} {shlex.quote(cycles)}"
    answer = guest.out(command, timeout=times * (WINDOW_S + 130))
    windows = [json.loads(line) for line in answer.splitlines()]
    return Figure.of(1e3 * window["cpu_s"] / window["cycles"] for window in windows)
