"""``doctor``: whether this machine gives numad-py what it needs, and what works against it."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from numad_py.cli.common import Verbs, add_config, add_json, add_roots, print_json, privileged
from numad_py.cli.control import runs_by, socket_of, socket_path
from numad_py.errors import NumadError, PolicyError
from numad_py.kernel import rights, users
from numad_py.kernel.procfs import ProcFs, is_own
from numad_py.kernel.syscalls import Syscalls
from numad_py.kernel.sysfs import SysFs
from numad_py.model.cpulist import format_list
from numad_py.model.guard import GuardReading
from numad_py.model.quantity import format_bytes
from numad_py.model.text import printable
from numad_py.model.topology import Topology
from numad_py.observe.endpoint_check import EndpointCheck, Found, endpoint_checks
from numad_py.observe.in_time import in_time
from numad_py.observe.interference import NAMED, interferences
from numad_py.observe.model_files import path_here
from numad_py.observe.stray_cache import Resident, Stray, stray_caches
from numad_py.policy.absent import absent
from numad_py.policy.load import DEFAULT_PATH, load
from numad_py.policy.schema import AutoNuma, Mode, Policy
from numad_py.serve.control import call
from numad_py.serve.plain import counted

_THP = {
    "always": "the kernel makes them on its own (always)",
    "madvise": "programs that ask for them get them (madvise)",
    "never": "off (never)",
    None: "this kernel has none",
}
MOST_WORKERS = 3
"""So many of a file are named."""
_NONE_YET = "no observation so far, and a move without any is not judged"


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    level: str
    """ok, note, warn or fail."""
    text: str
    """What was found, and what to do where something is to be done."""


def add_verbs(verbs: Verbs) -> None:
    """Add ``doctor``."""
    parser = verbs.add_parser("doctor", help="topology, rights, kernel settings, conflicts")
    add_config(parser)
    add_roots(parser)
    add_json(parser)
    parser.set_defaults(call=doctor)


def doctor(arguments: argparse.Namespace) -> int:
    """Print every check; exit code 1 where one fails."""
    procfs = ProcFs(arguments.procfs)
    sysfs = SysFs(arguments.sysfs)
    topology = sysfs.topology()
    policy, of_policy = _load(arguments.config)
    status, of_daemon = _daemon(arguments.config, policy)
    checks = [
        *_topology(topology),
        *_rights(),
        *of_policy,
        *(_absent(policy, topology) if policy else ()),
        *(_guards(policy, procfs) if policy else ()),
        *_interferences(procfs),
        *_huge_pages(sysfs),
        *of_daemon,
        *(_page_cache(status, procfs, policy) if status else ()),
    ]
    if arguments.json:
        print_json({"schema": 1, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            print(printable(f"{check.level:<5} {check.name:<16} {check.text}"))
    return 1 if any(check.level == "fail" for check in checks) else 0


def _topology(topology: Topology) -> Iterator[Check]:
    nodes = ", ".join(
        f"node {n.id}: CPUs {format_list(n.cpus) or 'none'}, {n.memory_bytes >> 20} MiB"
        for n in topology.nodes
    )
    with_memory = [n for n in topology.nodes if n.has_memory]
    if len(with_memory) > 1:
        yield Check("nodes", "ok", nodes)
    else:
        yield Check(
            "nodes", "note", f"{nodes}; one node: there is nothing to move, only to measure"
        )
    unknown = [d.address for d in topology.devices if d.node is None]
    if unknown and len(with_memory) > 1:
        yield Check("devices", "note", f"node unknown (firmware says none): {', '.join(unknown)}")


def _rights() -> Iterator[Check]:
    have = rights.effective_capabilities()
    for name, use in (
        ("CAP_SYS_PTRACE", "read numa_maps and move pages of other users' processes"),
        ("CAP_SYS_NICE", "set affinity of other users' threads"),
    ):
        if name in have:
            yield Check("rights", "ok", f"{name}: can {use}")
        else:
            yield Check(
                "rights",
                "warn",
                f"{name} is missing here: cannot {use}; the shipped unit has it, or run as root",
            )


def _load(config: str | None) -> tuple[Policy | None, list[Check]]:
    """Return the policy, None where there is no good one, and what is to be said of it."""
    if config is None and not Path(DEFAULT_PATH).exists():
        text = f"no {DEFAULT_PATH}: the service is not installed here yet"
        return None, [Check("policy", "note", text)]
    try:
        policy = load(config, privileged=privileged())
    except PolicyError as error:
        return None, [Check("policy", "fail", problem) for problem in error.problems]
    text = f"{', '.join(policy.sources)}: mode {policy.daemon.mode.value}"
    return policy, [Check("policy", "ok", text)]


def _absent(policy: Policy, topology: Topology) -> Iterator[Check]:
    """Return what the policy names and this machine has not, such as a node that is offline."""
    for text in absent(policy, topology, users.exists):
        yield Check("policy", "warn", text)


def _guards(policy: Policy, procfs: ProcFs) -> Iterator[Check]:
    if not any(rule.guard for rule in policy.rules):
        return
    if not is_own(procfs.root):
        yield Check("guard", "note", f"no endpoint is read: {procfs.root} is another machine's")
        return
    for check in endpoint_checks(procfs, policy):
        yield _guard(check)


def _guard(check: EndpointCheck) -> Check:
    guard = check.guard
    if check.found is Found.NO_WORKER:
        why = "no worker of it is seen now, and its endpoint is read only while one is"
        return Check("guard", "note", f"rule {check.rule}: {why}; {guard.url} was not tried")
    rule = f"rule {check.rule} ({counted(check.workers, 'worker')})"
    if check.reading is None:
        see = f"curl -sS {shlex.quote(guard.url)} | grep '^# TYPE'"
        return Check(
            "guard",
            "warn",
            f"{rule}: {check.problem}; until it can be read, moves wait for two windows and are "
            f"not judged; see what is there: {see}",
        )
    empty = check.found is Found.EMPTY
    says = _NONE_YET if empty else _figure(check.reading)
    if check.elsewhere:
        says += "; the shipped unit must admit its address too (IPAddressAllow, numad-py(8))"
    text = f"{rule}: {check.reading.metric} of {guard.url} can be read: {says}"
    return Check("guard", "note" if empty else "ok", text)


def _figure(reading: GuardReading) -> str:
    if reading.count is None:
        return f"{reading.value:g}"
    return f"{reading.count:.0f} observations so far"


def _interferences(procfs: ProcFs) -> Iterator[Check]:
    """Return each, there or not, by the name that status and the metrics have for it."""
    for found in interferences(procfs, _named(procfs)):
        yield Check(found.name, found.level, found.text)


def _huge_pages(sysfs: SysFs) -> Iterator[Check]:
    setting = sysfs.transparent_huge_pages()
    said = _THP.get(setting, str(setting))
    yield Check("thp", "note", f"transparent huge pages: {said}")


def _named(procfs: ProcFs) -> dict[str, int]:
    """Return the pid by name of processes that interfere."""
    named: dict[str, int] = {}
    for pid in sorted(procfs.entries()):
        try:
            comm = procfs.stat(pid).comm
        except NumadError:
            continue
        if comm in NAMED:
            named.setdefault(comm, pid)
    return named


def _daemon(
    config: str | None, policy: Policy | None
) -> tuple[Mapping[str, Any] | None, list[Check]]:
    """Return the daemon's status, None where none answers that is meant, and what is to be said."""
    try:
        # Where there is no good policy: at the usual place, unless a file was named.
        path = socket_of(policy) if policy else socket_path(config)
        status = cast("dict[str, Any]", call(path, "status"))
    except PolicyError:
        text = "not asked: the policy does not say where it listens"
        return None, [Check("daemon", "note", text)]
    except NumadError as error:
        asked_for = _settings_asked_for(policy) if policy else ()
        return None, [Check("daemon", "note", str(error)), *asked_for]
    if config is not None and not runs_by(status, config):
        files = ", ".join(status["policy"]["files"])
        text = f"the one that answers runs by {files}, not by {config}"
        return None, [Check("daemon", "warn", text)]
    return status, [Check("daemon", "ok", "it runs and answers"), *_settings(status)]


def _settings(status: Mapping[str, Any]) -> Iterator[Check]:
    settings = status.get("settings", {"changed": {}, "problems": {}})
    for name, text in settings["changed"].items():
        yield Check("settings", "ok", f"{name} is {text}; it is given back later")
    for text in settings["problems"].values():
        yield Check("settings", "warn", text)


def _page_cache(
    status: Mapping[str, Any], procfs: ProcFs, policy: Policy | None
) -> Iterator[Check]:
    """Say which model files are cached away from the workers that use them."""
    if not is_own(procfs.root):
        return
    workers = [
        Resident(w["worker"], w["pid"], frozenset(w["home"]["nodes"] if w["home"] else ()))
        for w in status["workers"]
    ]
    least_bytes = (policy or Policy()).placement.min_remote_bytes
    seen = stray_caches(workers, procfs, Syscalls(), least_bytes)
    for stray in seen.strays:
        yield Check("page_cache", "warn", _far_away(stray))
    if seen.barred:
        yield Check("page_cache", "note", "where model files are cached only root is told")
    if seen.unanswered:
        text = f"{seen.unanswered}; is a file system there whose server has gone?"
        yield Check("page_cache", "warn", f"not looked at: {text}")
    if seen.problems:
        count = counted(len(seen.problems), "model file")
        yield Check("page_cache", "note", f"{count} not looked at: {seen.problems[0]}")
    if seen.left_out:
        count = counted(seen.left_out, "smaller model file")
        yield Check("page_cache", "note", f"{count} left out: the largest were looked at")
    if seen.looked_at and not seen.strays:
        text = f"{counted(seen.looked_at, 'model file')} looked at: none is cached far away"
        yield Check("page_cache", "ok", text)


def _far_away(stray: Stray) -> str:
    about = "about " if stray.error_bytes else ""
    where = ", ".join(f"{format_bytes(b)} on node {n}" for n, b in stray.away_bytes.items())
    homes = format_list(stray.homes)
    workers = ", ".join(stray.workers[:MOST_WORKERS])
    if len(stray.workers) > MOST_WORKERS:
        workers += f" and {len(stray.workers) - MOST_WORKERS} more"
    text = (
        f"{stray.file.path} of {workers} (at home on node {homes}) is cached far away: "
        f"{about}{where}"
    )
    if len(stray.homes) > 1:
        return text
    path = None
    with contextlib.suppress(TimeoutError):
        path = in_time(partial(path_here, stray.file))
    # A name that no shell takes as it is shown would be another file's.
    if path is None or not str(path).isprintable():
        return text
    return f"{text}; to bring it home: numad-py cache {shlex.quote(str(path))} --to {homes}"


def _settings_asked_for(policy: Policy) -> Iterator[Check]:
    """Say ahead what a policy asks for that the shipped unit has no right to."""
    if policy.daemon.mode is Mode.ACT and policy.migration.autonuma is AutoNuma.OFF:
        yield Check(
            "settings",
            "warn",
            '[migration] autonuma = "off" takes root and CAP_SYS_ADMIN, which the shipped unit has '
            "not: see systemd/numad-py-settings.conf (numad-py(8), KERNEL SETTINGS)",
        )
