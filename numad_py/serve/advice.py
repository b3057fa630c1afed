"""Advice on the control socket and as JSON: requests read, answers and reservations told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from numad_py.errors import UsageError
from numad_py.model.advice import Advice, NoAdvice, Request, Reservation
from numad_py.model.cpulist import format_list, parse_list

SCHEMA = 1
"""Goes up when a key changes its meaning or goes; new keys do not count."""
MOST_CPUS = 1 << 20
MOST_BYTES = 1 << 60
LONGEST_NAME = 64

Document = dict[str, Any]


def request_arguments(request: Request) -> Document:
    """Return a request as it goes over the control socket."""
    arguments: Document = {"cpus": request.cpus, "bytes": request.size_bytes}
    if request.within_cpus is not None:
        arguments["within_cpus"] = format_list(request.within_cpus)
    if request.within_nodes is not None:
        arguments["within_nodes"] = format_list(request.within_nodes)
    return arguments


def request_of(arguments: Mapping[str, object]) -> Request:
    """Return the request that ``request_arguments`` has written.

    Raises:
        UsageError: it is no such thing.
    """
    return Request(
        cpus=_whole(arguments, "cpus", 1, MOST_CPUS, None),
        size_bytes=_whole(arguments, "bytes", 0, MOST_BYTES, 0),
        within_cpus=_ids(arguments, "within_cpus"),
        within_nodes=_ids(arguments, "within_nodes"),
    )


def name_of(arguments: Mapping[str, object]) -> str | None:
    """Return what the caller calls its reservation.

    Raises:
        UsageError: it is no name.
    """
    name = arguments.get("name")
    if name is None:
        return None
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        msg = f"a name is 1 to {LONGEST_NAME} printable characters"
        raise UsageError(msg)
    return name


def advice_document(request: Request, found: Advice | NoAdvice, *, source: str) -> Document:
    """Return what was found; ``reservation`` is for whoever makes one to fill in.

    Args:
        request: what was asked for.
        found: where, or why nowhere.
        source: ``daemon`` or ``direct``; a direct look reserves nothing.
    """
    document: Document = {
        "schema": SCHEMA,
        "source": source,
        "cpus_asked": request.cpus,
        "bytes_asked": request.size_bytes,
        "fits": isinstance(found, Advice),
        "reservation": None,
    }
    if isinstance(found, NoAdvice):
        most = {"most_cpus": found.most_cpus, "most_bytes": found.most_bytes}
        return {**document, "why": found.why, **most}
    return {
        **document,
        "nodes": sorted(found.nodes),
        "cpus": format_list(found.cpus),
        "bytes_by_node": {str(node): size for node, size in sorted(found.bytes_by_node.items())},
        "cpus_by_node": {str(n): round(cpus, 2) for n, cpus in sorted(found.cpus_by_node.items())},
        "crowded": found.crowded,
        "reasons": list(found.reasons),
        "alternatives": [
            {"nodes": sorted(other.nodes), "fits": other.fits, "why": other.why}
            for other in found.alternatives
        ],
    }


def reservation_documents(alive: Iterable[Reservation], now_s: float) -> list[Document]:
    """Return reservations, oldest first."""
    return [
        {
            "id": one.id,
            "name": one.name,
            "nodes": sorted(one.nodes),
            "bytes_by_node": {str(n): size for n, size in sorted(one.bytes_by_node.items())},
            "cpus_by_node": {str(n): round(c, 2) for n, c in sorted(one.cpus_by_node.items())},
            "expires_in_seconds": round(one.until_s - now_s, 1),
        }
        for one in alive
    ]


def _whole(
    arguments: Mapping[str, object], key: str, least: int, most: int, default: int | None
) -> int:
    value = arguments.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        msg = f"advise wants {key} as a whole number from {least} to {most}, not {value!r}"
        raise UsageError(msg)
    return value


def _ids(arguments: Mapping[str, object], key: str) -> frozenset[int] | None:
    value = arguments.get(key)
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return parse_list(value)
    except ValueError:
        pass
    msg = f'advise wants {key} as a list such as "0-3,8", not {value!r}'
    raise UsageError(msg)
