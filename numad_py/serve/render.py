"""Documents as text for people; what is not known is left out or stands as ``-``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from numad_py.model.cpulist import format_list
from numad_py.model.plan import Limit, Verdict
from numad_py.model.quantity import format_bytes
from numad_py.model.residency import Source
from numad_py.model.text import printable
from numad_py.model.topology import device_noun
from numad_py.serve.plain import cost, other_home
from numad_py.serve.render_head import age, head, percent, waits

MOST_SEGMENTS = 10
MOST_USERS = 4
"""Of a segment, named; others are counted."""
NOTABLE_SHARE = 0.01
"""Less than this of a worker's memory is not worth a word: shared libraries, for one."""

MOST_ALIKE = 3
"""Workers that rest for the same reason, named in a plan; more are counted."""
SHARED_BYTES = 16 << 20
"""Less that others map too is not worth a word either."""

_ANONYMOUS = {"/dev/zero (deleted)": "(shared anonymous memory)"}
"""Names of the kernel's (shmem_zero_setup, mm/shmem.c) in the words of people."""
_SOURCES = {Source.NUMA_STAT.value: "cgroup"}
"""By the word that says most to people."""
_NOTABLE = (
    ("shared_bytes", "shared with others", SHARED_BYTES),
    ("policy_bytes", "placed by its user", 0),
    ("refused_bytes", "refused to move", 0),
    ("pinned_bytes", "pinned for devices", 0),
    ("swapped_bytes", "swapped out", 0),
    ("thp_bytes", "in transparent huge pages", 0),
)
"""Sizes with what they are, and the least that is worth a word."""
_WEIGHTY = {Verdict.ACT.value, Verdict.REFUSE.value}
"""Verdicts of which a plan tells what led to them."""
_ONLY = {
    Source.NUMA_STAT.value: "only the charges of its cgroup are",
    Source.SAMPLE.value: "it was only sampled",
    Source.NUMA_MAPS.value: "it was not read in full",
}

Entry = Mapping[str, Any]


def render_status(document: Entry) -> str:
    """Return a status document as text."""
    parts = [
        "\n".join(line for line in (head(document), waits(document["pressure"])) if line),
        _nodes(document["nodes"]),
        _devices(document["devices"]),
        _interferences(document["interferences"]),
        _settings(document.get("settings")),
        *_workers(document["workers"], several=_several(document["nodes"])),
        _segments(document["segments"], document["segments_in_all"]),
        _reservations(document.get("reservations", ())),
        _passed_over(document["passed_over"]),
    ]
    return "\n\n".join(part for part in parts if part)


def render_plan(document: Entry) -> str:
    """Return a plan document as text."""
    decisions = document["decisions"]
    if not decisions:
        return f"{head(document)}\n\nnothing to decide: no worker"
    lines = [
        f"{head(document)}\n",
        table(
            ("WORKER", "PID", "HOME", "LOCAL", "VERDICT", "REASON"),
            [
                (
                    d["worker"],
                    str(d["pid"]),
                    "-" if d["home"] is None else format_list(d["home"]),
                    percent(d["locality"]),
                    d["verdict"],
                    d["reason"],
                )
                for d in decisions
            ],
        ),
    ]
    resting = Counter(d["why"] for d in decisions if d["verdict"] == Verdict.REST.value)
    for d in decisions:
        alike = resting[d["why"]] if d["verdict"] == Verdict.REST.value else 0
        if alike > MOST_ALIKE:
            lines.append(f"\n{alike} workers  {d['why']}")
            resting[d["why"]] = 0
        elif alike or d["verdict"] != Verdict.REST.value:
            lines.append(f"\n{d['worker']}  {d['why']}")
        if d["verdict"] in _WEIGHTY:
            lines += _weighed(d)
    lines += [f"\nnote: {text}" for text in document.get("notes", ())]
    return "\n".join(lines)


def _weighed(decision: Entry) -> Iterator[str]:
    """Yield what a decision is made of, and how to do it by hand, in lines below its reason."""
    constraints = [text for text in decision["constraints"] if text not in decision["why"]]
    others = [
        other_home(a["home"], a["dearer_bytes"], a["barred_by"] and Limit(a["barred_by"]))
        for a in decision["alternatives"]
    ]
    parts = (
        ("shaped by", constraints),
        ("cost", [cost(decision["cost"])] if decision["cost"] else []),
        ("other homes", others),
        ("by hand", [*decision["commands"], *(f"({text})" for text in decision["not_by_hand"])]),
        ("at a restart", [decision["restart_command"]] if decision["restart_command"] else []),
    )
    for title, texts in parts:
        for i, text in enumerate(texts):
            yield f"    {'' if i else title:<14}{text}"


# The machine


def _nodes(nodes: Sequence[Entry]) -> str:
    tiers = {n["memory_tier"] for n in nodes}
    columns: tuple[tuple[str, Callable[[Entry], str | None]], ...] = (
        ("NODE", lambda n: str(n["id"])),
        ("CPUS", lambda n: n["cpus"] or "none"),
        ("BUSY", lambda n: None if n["busy_cpus"] is None else f"{n['busy_cpus']:.1f}"),
        ("MEMORY", lambda n: format_bytes(n["memory_bytes"])),
        ("FREE", lambda n: "?" if n["free_bytes"] is None else format_bytes(n["free_bytes"])),
        ("WORKERS", lambda n: format_bytes(n["workers_bytes"])),
        ("FREE HUGE PAGES", _huge_pages),
        ("TIER", lambda n: str(n["memory_tier"] or "-") if len(tiers) > 1 else None),
        ("RATED READ", _rated),
        ("DISTANCES", lambda n: " ".join(f"{k}:{v}" for k, v in n["distances"].items())),
    )
    cells = {head: [cell(node) for node in nodes] for head, cell in columns}
    known = {head: column for head, column in cells.items() if any(x is not None for x in column)}
    rows = zip(*known.values(), strict=True)
    return table(tuple(known), [tuple(cell or "-" for cell in row) for row in rows])


def _huge_pages(node: Entry) -> str | None:
    pools = [
        f"{pool['free']}/{pool['total']} x {format_bytes(pool['page_bytes'])}"
        for pool in node["huge_pages"]
        if pool["total"]
    ]
    return ", ".join(pools) or None


def _rated(node: Entry) -> str | None:
    """Return bandwidth and latency of reading, as the firmware rates them."""
    rated = node["performance"] or {}
    mib_s, ns = rated.get("read_bandwidth_mib_s"), rated.get("read_latency_ns")
    words = [] if mib_s is None else [f"{format_bytes(mib_s << 20)}/s"]
    words += [] if ns is None else [f"{ns} ns"]
    return ", ".join(words) or None


def _devices(devices: Sequence[Entry]) -> str:
    return table(
        ("DEVICE", "KIND", "NODE", "DRIVER", "NAME"),
        [
            (
                d["address"],
                device_noun(d["kind"]),
                str(d["node"]),
                d["driver"] or "-",
                d["name"] or "-",
            )
            for d in devices
            if d["node"] is not None
        ],
    )


def _interferences(interferences: Sequence[Entry]) -> str:
    return table(
        ("INTERFERES", "LEVEL", "WHAT"),
        [(i["name"], i["level"], i["text"]) for i in interferences if i["present"]],
    )


def _settings(settings: Entry | None) -> str:
    """Return what numad-py has set in the kernel, and what it could not."""
    if settings is None:
        return ""
    changed = [f"{name} is {text}; given back later" for name, text in settings["changed"].items()]
    return "\n".join(f"setting: {text}" for text in (*changed, *settings["problems"].values()))


def _segments(segments: Sequence[Entry], in_all: Entry) -> str:
    shown = segments[:MOST_SEGMENTS]
    text = table(
        ("FILE OR SHARED SEGMENT", "KIND", "RESIDENT BY NODE", "WORKERS"),
        [
            (
                _path(s["path"]),
                s["kind"],
                " ".join(f"{n}:{format_bytes(size)}" for n, size in s["bytes_by_node"].items()),
                _users(s["users"]),
            )
            for s in shown
        ],
    )
    if (more := in_all["count"] - len(shown)) > 0:
        text += f"\nand {more} more: {format_bytes(in_all['resident_bytes'])} in all"
    return text


def _path(path: str) -> str:
    """Return a path, or what people call it that the kernel gives this name."""
    return _ANONYMOUS.get(path, path)


def _users(users: Sequence[str]) -> str:
    more = len(users) - MOST_USERS
    return " ".join(users[:MOST_USERS]) + (f" and {more} more" if more > 0 else "")


def _reservations(reservations: Sequence[Entry]) -> str:
    return table(
        ("RESERVED FOR", "NODES", "CPUS", "MEMORY", "ENDS IN"),
        [
            (
                r["name"] or f"advice {r['id']}",
                format_list(r["nodes"]),
                f"{sum(r['cpus_by_node'].values()):.0f}",
                format_bytes(sum(r["bytes_by_node"].values())),
                f"{r['expires_in_seconds']:.0f} s",
            )
            for r in reservations
        ],
    )


def _passed_over(passed_over: Sequence[Entry]) -> str:
    return table(
        ("NOT WATCHED", "PID", "RESIDENT", "COMMAND", "WHY"),
        [
            (
                p["comm"],
                str(p["pid"]),
                format_bytes(p["resident_bytes"]),
                p["command"] or "-",
                p["why"],
            )
            for p in passed_over
        ],
    )


# Workers


def _several(nodes: Sequence[Entry]) -> bool:
    """Say whether there is anything to move between."""
    return sum(1 for node in nodes if node["memory_bytes"]) > 1


def _workers(workers: Sequence[Entry], *, several: bool) -> Iterator[str]:
    if not workers:
        yield "no worker: no process matches a rule (numad-py check-config lists the rules)"
        return
    yield table(
        ("WORKER", "PID", "HOME", "LOCAL", "RESIDENT BY NODE", "FIGURES", "DECISION"),
        [_worker_row(worker) for worker in workers],
    )
    why = ((w["worker"], _why(w)) for w in workers)
    yield "\n".join(f"{label}: {said}" for label, said in why if said)
    notes = ((w["worker"], "; ".join(_notes(w, several=several))) for w in workers)
    yield "\n".join(f"{label}: {said}" for label, said in notes if said)
    guards = ((w["worker"], _guard(w)) for w in workers)
    yield "\n".join(f"{label}: {said}" for label, said in guards if said)


def _why(worker: Entry) -> str | None:
    """Return what is said of a worker; where it is to rest, why it could not be read, if so."""
    decision = worker["decision"]
    said: str | None = worker["problem"]
    if decision is not None and decision["verdict"] != Verdict.REST.value:
        said = decision["why"]
    return said


def _guard(worker: Entry) -> str | None:
    """Return why a worker's guard cannot be read, unless the reason of its decision says so."""
    problem = worker.get("guard_problem")
    if not problem or problem in (_why(worker) or ""):
        return None
    return f"its guard cannot be read: {problem}"


def _worker_row(worker: Entry) -> tuple[str, ...]:
    home = worker["home"]
    resident = worker["resident_bytes"]
    decision = worker["decision"]
    return (
        worker["worker"],
        str(worker["pid"]),
        "-" if home is None else f"{format_list(home['nodes'])} ({home['source']})",
        percent(worker["locality"]),
        "?"
        if resident is None
        else " ".join(f"{n}:{format_bytes(sum(k.values()))}" for n, k in resident.items()),
        "-" if worker["figures"] is None else figures(worker["figures"]),
        "-" if decision is None else f"{decision['verdict']} {decision['reason']}",
    )


def figures(document: Entry) -> str:
    """Return where figures come from, how old they are and how sure, in few words.

    ``numa_maps 40s, sample 2s ±0.9%``: each page counted 40 s ago; a sample found that unchanged
    2 s ago, give or take 0.9 points of its memory.
    """
    looks = (document, document["confirmed"])
    return ", ".join(_look(look) for look in looks if look is not None)


def _look(look: Entry) -> str:
    source: str = look["source"]
    words = [_SOURCES.get(source, source), age(look["age_seconds"])]
    if look["error"]:
        words.append(f"±{100 * look['error']:.1f}%")
    return " ".join(words)


def _notes(worker: Entry, *, several: bool) -> Iterator[str]:
    """Return what else is to be known of a worker's memory."""
    resident = sum(sum(kinds.values()) for kinds in (worker["resident_bytes"] or {}).values())
    least = max(1.0, NOTABLE_SHARE * resident)
    sizes = [
        f"{format_bytes(worker[key])} {what}"
        for key, what, at_least in _NOTABLE
        if (worker[key] or 0) >= max(least, at_least)
    ]
    if sizes:
        yield ", ".join(sizes)
    if worker["devices"]:
        uses = "has open, and may use: " if worker["devices_unsure"] else "uses "
        yield uses + ", ".join(_device(d) for d in worker["devices"])
    traffic = worker["bandwidth"]
    if traffic is not None and traffic["total_bytes_per_s"]:
        remote = max(0, traffic["total_bytes_per_s"] - traffic["local_bytes_per_s"])
        yield (
            f"{format_bytes(remote)}/s of its {format_bytes(traffic['total_bytes_per_s'])}/s "
            "of memory traffic is remote"
        )
    if worker["figures"] is not None:
        if several and not worker["figures"]["mobility_known"]:
            yield (
                f"what of it may be moved is not known: {_ONLY[worker['figures']['source']]}; "
                "it is read in full before anything is done"
            )
        if worker["figures"]["no_full_reading"]:
            yield worker["figures"]["no_full_reading"]


def _device(device: Entry) -> str:
    where = "node not known" if device["node"] is None else f"node {device['node']}"
    return f"{device_noun(device['kind'])} {device['address']} ({where})"


# Words


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows below their headings in columns; nothing where there is no row."""
    if not rows:
        return ""
    rows = [tuple(printable(cell) for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
