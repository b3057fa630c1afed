"""``cache``: where the page cache of model files lies, and bringing it to a node."""

from __future__ import annotations

import argparse
from collections import Counter
from functools import partial
from pathlib import Path

from numad_py.act.cached import Cached, bring
from numad_py.act.room import room_bytes
from numad_py.cli.common import (
    FINDS_DAEMON,
    Verbs,
    add_config,
    add_json,
    add_roots,
    print_json,
    print_text,
)
from numad_py.cli.look import from_daemon
from numad_py.errors import NumadError, RightsError, UsageError
from numad_py.kernel.pagecache import CachedFile
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.syscalls import Syscalls
from numad_py.kernel.sysfs import SysFs
from numad_py.model.quantity import format_bytes
from numad_py.model.text import pid_of, printable
from numad_py.observe.in_time import in_time
from numad_py.observe.model_files import LEAST_BYTES, ModelFile, model_files
from numad_py.observe.page_cache import look

DESCRIPTION = """\
Shows on which nodes the page cache of files lies, without reading them. With --to, brings it to a
node: page by page, of these files alone, and without dropping anything or reading it again. Pages
that a worker maps stay: they are moved with the worker.
"""


def add_verbs(verbs: Verbs) -> None:
    """Add ``cache``."""
    parser = verbs.add_parser(
        "cache", help="where the page cache of model files lies", description=DESCRIPTION
    )
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path)
    parser.add_argument(
        "--of", metavar="WORKER", help="the files that a worker maps or names; its name or pid"
    )
    parser.add_argument("--to", metavar="NODE", type=int, help="bring it to this node")
    add_config(parser, FINDS_DAEMON)
    add_roots(parser)
    add_json(parser)
    parser.set_defaults(call=cache, direct=False)


def cache(arguments: argparse.Namespace) -> int:
    """Show, and move where told to.

    Returns:
        1 where a file could not be looked at, 77 where no file could for want of a right.

    Raises:
        UsageError: no file is named, or no such node or worker is there.
        NumadError: the worker works with no large file.
    """
    sysfs = SysFs(arguments.sysfs)
    topology = sysfs.topology()
    target: int | None = arguments.to
    node = topology.node(target) if target is not None else None
    if target is not None and (node is None or not node.has_memory):
        with_memory = ", ".join(str(n.id) for n in topology.nodes if n.has_memory)
        msg = f"no node {target} with memory; nodes with memory: {with_memory or 'none'}"
        raise UsageError(msg)
    files = [ModelFile(path) for path in arguments.files]
    if arguments.of is not None:
        files += _files_of(ProcFs(arguments.procfs), _pid(arguments))
    if not files and arguments.of is not None:
        msg = f"{arguments.of} maps and names no file of {format_bytes(LEAST_BYTES)} or more"
        raise NumadError(msg)
    if not files:
        msg = "name files, or a worker that works with some: numad-py cache --of WORKER"
        raise UsageError(msg)
    headroom = 0.0
    if target is not None:
        from numad_py.cli.direct import policy_for_look  # noqa: PLC0415 - to look takes no policy

        headroom = policy_for_look(arguments.config).placement.headroom
    found: list[tuple[Path, Cached | str]] = []
    refused = 0
    for model in files:
        try:
            with CachedFile(model.path, model.root) as file:
                found.append((model.path, _one(file, target, sysfs, headroom)))
        except (NumadError, OSError) as error:
            refused += isinstance(error, RightsError)
            found.append((model.path, str(error)))
    if arguments.json:
        print_json({"schema": 1, "to": target, "files": [_document(*one) for one in found]})
    else:
        print_text("\n".join(_lines(*one, target) for one in found))
    if refused == len(found):
        return RightsError.exit_code
    return 1 if any(isinstance(cached, str) for _, cached in found) else 0


def _files_of(procfs: ProcFs, pid: int) -> tuple[ModelFile, ...]:
    try:
        return in_time(partial(model_files, procfs, pid))
    except TimeoutError as error:
        msg = f"what process {pid} maps and names: {error}; name the files"
        raise NumadError(msg) from None


def _pid(arguments: argparse.Namespace) -> int:
    name: str = arguments.of
    if (pid := pid_of(name)) is not None:
        return pid
    status = from_daemon(arguments, "status")
    if status is None:
        msg = f"no daemon answers that knows {name!r}; give its pid"
        raise UsageError(msg)
    for worker in status["workers"]:
        if worker["worker"] == name:
            return int(worker["pid"])
    msg = f"there is no worker {name!r}; numad-py status shows them"
    raise UsageError(msg)


def _one(file: CachedFile, target: int | None, sysfs: SysFs, headroom: float) -> Cached:
    syscalls = Syscalls()
    if target is None:
        return Cached(by_node=Counter(look(file, syscalls).by_node))

    def room() -> int:
        return room_bytes(sysfs.node_state(target), 0, headroom)

    return bring(file, target, syscalls, room)


def _document(path: Path, cached: Cached | str) -> dict[str, object]:
    if isinstance(cached, str):
        return {"file": str(path), "error": cached}
    return {
        "file": str(path),
        "cached_bytes": {str(node): size for node, size in sorted(cached.by_node.items())},
        "moved_bytes": cached.moved_bytes,
        "mapped_by_others_bytes": cached.mapped_bytes,
        "refused_bytes": cached.refused_bytes,
        "no_room_bytes": cached.no_room_bytes,
    }


def _lines(path: Path, cached: Cached | str, target: int | None) -> str:
    if isinstance(cached, str):
        return printable(f"{path}: {cached}")
    where = ", ".join(f"node {n}: {format_bytes(b)}" for n, b in sorted(cached.by_node.items()))
    lines = [f"{printable(str(path))}: {where or 'nothing of it is cached'}"]
    if target is not None:
        told = [f"moved {format_bytes(cached.moved_bytes)} to node {target}"]
        stayed = {
            "that other processes map": cached.mapped_bytes,
            "that would not move": cached.refused_bytes,
            f"for which node {target} has no room": cached.no_room_bytes,
        }
        told += [f"left {format_bytes(size)} {why}" for why, size in stayed.items() if size]
        lines.append("  " + ", ".join(told))
    return "\n".join(lines)
