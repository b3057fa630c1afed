"""``explain``: one worker's part of ``status`` as a story, for people who do not know NUMA."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from numad_py.errors import UsageError
from numad_py.model.cpulist import format_list, parse_list
from numad_py.model.outcome import End
from numad_py.model.plan import HomeSource, Limit, Reason, Verdict
from numad_py.model.quantity import format_bytes
from numad_py.model.text import pid_of, printable
from numad_py.model.topology import ACCELERATORS, device_noun
from numad_py.policy.schema import Mode
from numad_py.serve.explain_memory import memory
from numad_py.serve.explain_words import (
    BARRED,
    ENDS,
    GLOSSARY,
    MEANINGS,
    NODE,
    SOURCES,
    WIDEN,
)
from numad_py.serve.plain import age, cost, counted, nodes, share

WIDTH = 88
MOST_ALTERNATIVES = 4
_HARDLY = 0.005
"""A share of CPU time below this is not worth a word."""

Document = dict[str, Any]
Entry = Mapping[str, Any]


def explain_document(
    status: Entry,
    name: str,
    comm_of: Callable[[int], str | None] = lambda _: None,
    why_not: Callable[[int], str | None] = lambda _: None,
) -> Document:
    """Return what a status document says of one worker.

    Args:
        status: of the daemon, or of a look.
        name: label or pid of the worker.
        comm_of: tells the name of a process, None where there is none; asked where ``name`` is a
            pid of no worker.
        why_not: tells why a process is no worker, None where that is not known; asked likewise.

    Raises:
        UsageError: there is no such worker; with the names that come near.
    """
    worker = next((w for w in status["workers"] if name in {w["worker"], str(w["pid"])}), None)
    if worker is None:
        raise UsageError(_unknown(status, name, comm_of, why_not))
    outcomes = [o for o in status.get("outcomes", ()) if o["worker"] == worker["worker"]]
    return {
        "schema": status["schema"],
        "source": status["source"],
        "mode": status["mode"],
        "dry_run": status.get("dry_run", False),
        "paused": status["paused"],
        "worker": {key: value for key, value in worker.items() if key != "decision"},
        "decision": worker["decision"],
        "last_outcome": outcomes[-1] if outcomes else None,
        "autonuma": any(i["name"] == "autonuma" and i["present"] for i in status["interferences"]),
        "nodes": status["nodes"],
    }


def _unknown(
    status: Entry,
    name: str,
    comm_of: Callable[[int], str | None],
    why_not: Callable[[int], str | None],
) -> str:
    """Return why a name is none of a worker, and what was perhaps meant."""
    labels = [w["worker"] for w in status["workers"]]
    number = f"{len(labels)} worker{'' if len(labels) == 1 else 's'}"
    for process in status["passed_over"]:
        if str(process["pid"]) == name:
            told, more = process["why"], why_not(process["pid"])
            # The daemon's word counts, where it is not the same with more to it.
            why = more if more is not None and more.startswith(told) else told
            return f"pid {name} ({process['comm']}) is no worker: {why}"
    pid = pid_of(name)
    comm = None if pid is None else comm_of(pid)
    if pid is not None and comm is not None:
        why = why_not(pid)
        if why is not None:
            return f"pid {name} ({comm}) is no worker: {why}"
        return (
            f"pid {name} ({comm}) is a process, but no worker: no rule matches it, or an exclude "
            "does; numad-py check-config lists them"
        )
    if not labels:
        return f"no worker {name!r}: there is none at all; numad-py check-config lists the rules"
    near = [label for label in labels if label.rpartition("/")[0] == name]
    near = near or difflib.get_close_matches(name, labels, n=3)
    meant = f"did you mean {' or '.join(near[:3])}? " if near else ""
    return f"no worker {name!r} among {number}; {meant}numad-py status lists them"


def render_explain(document: Entry) -> str:
    """Return the story."""
    worker, decision = document["worker"], document["decision"]
    head = (
        f"{worker['worker']}: pid {worker['pid']}, command {worker['comm']}, "
        f"user {worker['user'] or 'not known'}, started {age(worker['age_seconds'])} ago"
    )
    parts = [_fill(head)]
    facts, said = _facts(document), None
    if decision is not None:
        said = MEANINGS[Reason(decision["reason"])]
        parts.append(_fill(said.verdict.format_map(facts)))
    parts += [
        _fill(NODE),
        _section("Memory", list(memory(worker))),
        _section("Threads", [" ".join(_threads(worker, document["nodes"]))]),
    ]
    if decision is not None and said is not None:
        alone = decision["reason"] == Reason.ONE_NODE.value
        advice = said.advice.format_map(facts).splitlines()
        parts += [
            _section("Home", () if alone else list(_home(worker, decision))),
            _section("What numad-py does", [said.meaning, *_doing(document)]),
            _section("What you can do", _listed(advice)),
            _by_hand(decision),
        ]
    text = "\n\n".join(part for part in parts if part)
    return "\n\n".join(part for part in (text, _words(text)) if part)


def _facts(document: Entry) -> dict[str, str]:
    worker, home = document["worker"], document["worker"]["home"]
    at = home["nodes"] if home else ()
    cpus = [parse_list(node["cpus"]) for node in document["nodes"] if node["id"] in at]
    source = HomeSource(home["source"]) if home else HomeSource.PLANNER
    return {
        "pid": str(worker["pid"]),
        "home": nodes(at) if at else "its home",
        "away": format_bytes(worker["remote_bytes"] or 0),
        "remote": _part(worker["remote_bytes"] or 0, _movable_bytes(worker)),
        "cpus": format_list(frozenset().union(*cpus)) or "LIST",
        "widen": WIDEN[source],
    }


def _movable_bytes(worker: Entry) -> int:
    """Return what may be moved; all that is resident counts while nobody knows."""
    resident = worker["resident_bytes"] or {}
    known: int | None = worker["movable_bytes"]
    return sum(sum(kinds.values()) for kinds in resident.values()) if known is None else known


def _part(size: int, total: int) -> str:
    return f"{'all' if size >= total else format_bytes(size)} of the {format_bytes(total)}"


# The sections


def _threads(worker: Entry, all_nodes: Sequence[Entry]) -> Iterator[str]:
    allowed = parse_list(worker["allowed_cpus"])
    cpus = {node["id"]: parse_list(node["cpus"]) for node in all_nodes}
    one = worker["threads"] == 1
    number, they = (
        ("It has 1 thread", "it") if one else (f"It has {worker['threads']} threads", "they")
    )
    if not worker["threads"] or not allowed:
        yield f"{number}; on which CPUs {they} may run is not known."
    elif allowed >= frozenset().union(*cpus.values()):
        yield f"{number}, free to run on every CPU."
    else:
        on = [node for node, mine in cpus.items() if mine & allowed]
        yield f"{number}, which may run on CPUs {worker['allowed_cpus']} ({nodes(on)})."
    if worker["bound_by_us"]:
        yield f"numad-py has bound {'it' if one else 'them'} there."
    ran = {node: part for node, part in worker["run_share"].items() if part >= _HARDLY}
    if len(ran) == 1:
        yield f"Lately {they} ran on node {next(iter(ran))} only."
    elif ran:
        spent = [f"{share(part)} on node {node}" for node, part in ran.items()]
        yield f"Of {'its' if one else 'their'} CPU time {they} lately spent {' and '.join(spent)}."
    else:
        yield f"Lately {they} did not run."
    if worker["devices"]:
        uses = "It has open, and may use, " if worker["devices_unsure"] else "It uses "
        yield uses + ", ".join(_device(device) for device in worker["devices"]) + "."


def _device(device: Entry) -> str:
    noun = device_noun(device["kind"])
    kind = f"the {noun}" if device["kind"] in ACCELERATORS else noun
    where = "whose node is not known" if device["node"] is None else f"on node {device['node']}"
    return f"{kind} {device['address']} {where}"


def _home(worker: Entry, decision: Entry) -> Iterator[str]:
    home = worker["home"]
    if home is not None:
        locality = worker["locality"]
        there = f"; {share(locality)} of what can be moved lies there" if locality else ""
        source = SOURCES[HomeSource(home["source"])].format(why=home["why"])
        yield f"Its home is {nodes(home['nodes'])}{there}. {source}"
    constraints = decision.get("constraints", ())
    if costs := decision.get("cost"):
        yield (
            "What a home costs is given as if it were memory lying on another node, by distance "
            f"and by how busy the worker is. This one costs {cost(costs)}."
        )
    if constraints:
        yield "What shaped the choice:"
        yield from (f"- {text}" for text in constraints)
    others = [text for a in decision.get("alternatives", ()) if (text := _other(a, constraints))]
    if others:
        yield ("Other homes were weighed against it in the same way; the move there is counted in.")
        yield from (f"- {text}" for text in others[:MOST_ALTERNATIVES])
        if len(others) > MOST_ALTERNATIVES:
            yield f"- and {len(others) - MOST_ALTERNATIVES} more"


def _other(alternative: Entry, constraints: Sequence[str]) -> str | None:
    """Return what speaks against another home; None where the constraints have said it."""
    at, dearer = alternative["home"], alternative["dearer_bytes"]
    if any(text.startswith(f"node {format_list(at)} would be ") for text in constraints):
        return None
    if alternative["barred_by"] is not None:
        return f"{nodes(at)}: {BARRED[Limit(alternative['barred_by'])]}"
    if not dearer:
        return f"{nodes(at)} would be just as good"
    return f"{nodes(at)} would cost as much as {format_bytes(dearer)} more on another node"


def _doing(document: Entry) -> Iterator[str]:
    """Return what is done in this cycle, in numbers, and what became of the last time."""
    worker, decision = document["worker"], document["decision"]
    said = ""
    if decision["verdict"] == Verdict.ACT.value:
        yield _acting(document)
        if document["autonuma"]:
            yield _autonuma(document)
    elif MEANINGS[Reason(decision["reason"])].detail and decision["why"] != worker["problem"]:
        said = decision["why"]
        yield f"In detail: {said}."
    for shared in decision.get("shared", ()):
        told = f"{shared['path']} {shared['why']}"
        if told not in said:
            yield f"{format_bytes(shared['away_bytes'])} of {told}."
    yield (
        f'In status, log and metrics this is "{decision["verdict"]} {decision["reason"]}", '
        f"decision {decision['id']}."
    )
    judged = decision.get("judgement")
    told = decision["verdict"] != Verdict.ACT.value and decision["why"]
    if judged is not None and judged["why"] not in (told or ""):
        yield f"What its guard has last found: {judged['why']}."
    if problem := worker.get("guard_problem"):
        yield f"The endpoint that its guard needs could not be read: {problem}."
    if worker["moved_so_far_bytes"]:
        yield f"So far {format_bytes(worker['moved_so_far_bytes'])} of it were moved."
    last = document["last_outcome"]
    if last is not None:
        error = f" ({last['error']})" if last["error"] else ""
        yield (
            f"Last time (decision {last['decision']}) {format_bytes(last['moved_bytes'])} were "
            f"moved and {counted(last['threads_bound'], 'thread')} bound{_given_back(last)} in "
            f"{last['seconds']:.1f} s; "
            f"{ENDS[End(last['end'])]}{error}."
        )


def _given_back(last: Entry) -> str:
    count = last.get("threads_given_back", 0)
    return f", {count} given their own masks back" if count else ""


def _acting(document: Entry) -> str:
    """Return what is done, or would be, by whom and where from."""
    decision = document["decision"]
    does = [
        f"moves {format_bytes(move['bytes'])} from node {move['source']} to node {move['target']}"
        for move in decision["moves"]
    ]
    if decision["bind_cpus"] is not None:
        does.insert(0, f"binds its threads to CPUs {decision['bind_cpus']}")
    if decision.get("give_back"):
        does.append("gives its threads their own masks back")
    done = " and ".join((", ".join(does[:-1]), does[-1]) if does[1:] else does)
    if document["source"] != "daemon":
        return f"This was only a look, which changes nothing. The daemon, in mode act, {done}."
    if document["dry_run"]:
        return f"It runs with --dry-run, and does nothing. Without that it {done}."
    if document["mode"] != Mode.ACT.value:
        return f"It runs in mode {document['mode']}, and does nothing. In mode act it {done}."
    return f"Now it {done}."


def _autonuma(document: Entry) -> str:
    """Return what the kernel's own balancing does to a move."""
    worker = document["worker"]
    theirs = {HomeSource.PIN.value, HomeSource.CPUSET.value}
    pinned = worker["home"] is not None and worker["home"]["source"] in theirs
    bound = pinned or worker["bound_by_us"] or document["decision"]["bind_cpus"] is not None
    follows = (
        "it draws memory to the same node, since the threads are bound there"
        if bound
        else "it may draw memory away again, since the threads are free to run elsewhere"
    )
    return f"The kernel's own balancing (AutoNUMA) is on and moves memory too: {follows}."


def _by_hand(decision: Entry) -> str:
    """Return the commands that do what a decision is about, on lines of their own."""
    restart = decision.get("restart_command")
    parts = (
        ("By hand, this comes nearest to it", decision["commands"]),
        ("At a restart, this brings it there from the start", [restart] if restart else []),
    )
    sections = [
        "\n".join((title, *(f"    {printable(command)}" for command in commands)))
        for title, commands in parts
        if commands
    ]
    return "\n\n".join((*sections, *map(_fill, decision.get("not_by_hand", ()))))


def _words(text: str) -> str:
    """Return what the rarer words of a text mean."""
    plain = " ".join(text.split())
    found = {w: means for w, means in GLOSSARY.items() if re.search(rf"\b{w}\b", plain)}
    return _section("Words", [f"- {word}: {means}" for word, means in found.items()])


def _listed(texts: Sequence[str]) -> Sequence[str]:
    return [f"- {text}" for text in texts] if len(texts) > 1 else texts


def _section(title: str, paragraphs: Sequence[str]) -> str:
    if not paragraphs:
        return ""
    return "\n".join((title, *(_fill(text, "  ") for text in paragraphs)))


def _fill(text: str, indent: str = "") -> str:
    """Return a paragraph in lines of bearable length; what processes call themselves is tamed."""
    hang = "  " if text.startswith("- ") else ""
    return textwrap.fill(
        printable(text),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
