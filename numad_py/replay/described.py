"""A machine described in a small TOML file.

::

    duration = "30min"        # how long to look; interval = "5s" is the default

    [[node]]
    id = 0                    # ids may have holes
    cpus = "0-15"             # default: none, a node of memory alone
    memory = "64GiB"
    used = "2GiB"             # by others; default 0
    distances = [10, 21]      # to each node in this order, and back as far; default 10 and 20

    [[worker]]
    name = "llama"            # the rule it goes by; workers are called llama/0, llama/1, ...
    size = "8GiB"             # movable memory when it comes
    nodes = [1]               # first touched here, in equal parts
    run = [0]                 # its threads run here; default: nodes
    cpus = 4                  # CPUs that it keeps busy; default 1
    threads = 8               # default: as many as cpus
    pin = "0-7"               # mask that its user set; default: every CPU
    count = 3                 # so many of them; default 1
    arrive = "10s"            # within the duration; default "0s"
    every = "5s"              # from one's arrival to the next one's; default "0s"
    stay = "10min"            # default: to the end
    grow = "10MiB/s"          # default: its size stays as it is
    grow_to = "16GiB"         # needs grow; default: without end

Its memory lies, and grows, where its threads run unless ``nodes`` says where it was first touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli

from numad_py.model.cpulist import parse_list
from numad_py.model.topology import LOCAL_DISTANCE
from numad_py.policy.lines import line_of, line_of_syntax_error
from numad_py.policy.spelled import in_words_of_the_file
from numad_py.policy.units import parse_bytes, parse_duration, parse_rate
from numad_py.replay.fits import Problem, hold_together
from numad_py.replay.machine import Arrival, Machine, NodePart, topology_of
from numad_py.replay.recording import BadFile, open_packed

LARGEST_FILE = 1 << 20
MOST_NODES = 1024
"""MAX_NUMNODES of a kernel with the largest NODES_SHIFT (arch/x86/Kconfig)."""
_Keys = Mapping[str, tuple[str, Callable[[Any], Any]]]
"""Field and parser by key."""


def load_machine(path: Path) -> Machine:
    """Return the machine that a file describes.

    Raises:
        BadFile: with every problem, each ``file:line: key: what is wrong``.
    """
    with open_packed(path) as file:
        raw = file.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        msg = f"{path}: larger than 1 MiB: neither a recording nor the description of a machine"
        raise BadFile(msg)
    try:
        text = raw.decode()
        data = tomli.loads(text)
    except UnicodeDecodeError:
        msg = f"{path}: neither a recording nor a text that describes a machine"
        raise BadFile(msg) from None
    except tomli.TOMLDecodeError as error:
        msg = f"{path}:{line_of_syntax_error(error, text)}: neither a recording nor TOML: {error}"
        raise BadFile(msg) from None
    except (ValueError, RecursionError) as error:
        msg = f"{path}: no description of a machine: {error}"
        raise BadFile(msg) from None
    return machine_of(data, text, str(path))


def machine_of(data: Mapping[str, Any], text: str, name: str) -> Machine:
    """Return the machine of a parsed file; its text tells the lines of what is wrong.

    Raises:
        BadFile: with every problem.
    """
    problems: list[str] = []

    def problem(path: tuple[str | int, ...], what: str) -> None:
        key = ".".join(str(part) for part in path if isinstance(part, str))
        where = f"{name}:{line_of(text, path)}: {key}" if key else name
        problems.append(f"{where}: {what}")

    values = _values({k: v for k, v in data.items() if k not in _LISTS}, _TOP, (), problem)
    nodes = [NodePart(**v) for v in _tables(data, "node", _NODE, {"id", "memory"}, problem)]
    workers = [Arrival(**v) for v in _tables(data, "worker", _WORKER, {"name", "size"}, problem)]
    machine = Machine(tuple(nodes), tuple(workers), **values)
    if not problems:
        hold_together(machine, problem)
    if problems:
        raise BadFile("\n".join(problems))
    return replace(machine, topology=topology_of(nodes))


def _tables(
    data: Mapping[str, Any],
    name: str,
    keys: _Keys,
    needed: set[str],
    problem: Problem,
) -> Iterator[dict[str, Any]]:
    tables = data.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problem((name,), f"is a list of tables; write [[{name}]] above each")
        return
    for i, table in enumerate(tables):
        values = _values(table, keys, (name, i), problem)
        missing = sorted(needed - table.keys())
        if missing:
            problem((name, i), f"has no {' and no '.join(missing)}")
        elif {keys[key][0] for key in needed} <= values.keys():
            yield values


def _values(
    table: Mapping[str, Any],
    keys: _Keys,
    path: tuple[str | int, ...],
    problem: Problem,
) -> dict[str, Any]:
    values = {}
    for key, value in table.items():
        if key not in keys:
            known = ", ".join((*keys, *(_LISTS if not path else ())))
            problem((*path, key), f"no such key; known: {known}")
            continue
        name, parse = keys[key]
        try:
            values[name] = parse(value)
        except ValueError as error:
            problem((*path, key), in_words_of_the_file(str(error), value))
    return values


# Values


def _cpus(value: object) -> frozenset[int]:
    if not isinstance(value, str):
        msg = f'{value!r} is not a list of CPUs; write "0-15"'
        raise ValueError(msg)  # noqa: TRY004 - every bad value is a ValueError here
    return parse_list(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 10_000:  # noqa: PLR2004
        msg = f"{value!r} is not a number from 1 to 10000"
        raise ValueError(msg)
    return value


def _id(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MOST_NODES:
        msg = f"{value!r} is not the id of a node; write one from 0 to {MOST_NODES - 1}"
        raise ValueError(msg)
    return value


def _ids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        msg = f"{value!r} is not a list of nodes; write [0]"
        raise ValueError(msg)
    return tuple(dict.fromkeys(_id(each) for each in value))


def _distances(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(
        type(each) is int and LOCAL_DISTANCE <= each <= 255  # noqa: PLR2004 - an octet
        for each in value
    ):
        msg = (
            f"{value!r} is not a list of distances from 10 to 255; write 10 for the node itself "
            "and more for others, as in [10, 21]"
        )
        raise ValueError(msg)
    return tuple(value)


def _demand(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 8192:  # noqa: PLR2004
        msg = f"{value!r} is not a number of CPUs; write how many it keeps busy, as in 2.5"
        raise ValueError(msg)
    return float(value)


def _name(value: object) -> str:
    if not isinstance(value, str) or not value or "/" in value:
        msg = f"{value!r} is not a name without a slash"
        raise ValueError(msg)
    return value


def _growth(value: object) -> int:
    rate = parse_rate(value)
    if rate is None:
        msg = f'{value!r} is no rate at which memory grows; write one, as in "10MiB/s"'
        raise ValueError(msg)
    return rate


def _interval(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        msg = f'{value!r} is no time at all; write one, as in "5s"'
        raise ValueError(msg)
    return seconds


_LISTS = ("node", "worker")
_TOP: _Keys = {"interval": ("interval_s", _interval), "duration": ("duration_s", parse_duration)}
_NODE: _Keys = {
    "id": ("id", _id),
    "cpus": ("cpus", _cpus),
    "memory": ("memory_bytes", parse_bytes),
    "used": ("used_bytes", parse_bytes),
    "distances": ("distances", _distances),
}
_WORKER: _Keys = {
    "name": ("name", _name),
    "size": ("size_bytes", parse_bytes),
    "nodes": ("nodes", _ids),
    "run": ("run", _ids),
    "cpus": ("cpus", _demand),
    "threads": ("threads", _count),
    "pin": ("pin", _cpus),
    "count": ("count", _count),
    "arrive": ("arrive_s", parse_duration),
    "every": ("every_s", parse_duration),
    "stay": ("stay_s", parse_duration),
    "grow": ("grow_bytes_per_s", _growth),
    "grow_to": ("grow_to_bytes", parse_bytes),
}
