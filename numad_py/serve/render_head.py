"""The first lines of ``status`` and ``plan``: who speaks, by which policy, and what waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Entry = Mapping[str, Any]

NOTABLE_SHARE = 0.001
"""Who waited for less of the time than this waited for nothing to speak of."""


def head(document: Entry) -> str:
    """Return who speaks and, where a reload was refused, why.

    ``from the daemon, mode act, cycle 17, 3s ago``
    """
    mode = f"mode {document['mode']}" + (" in a dry run" if document.get("dry_run") else "")
    mode += ", paused" if document["paused"] else ""
    if document["source"] == "daemon":
        when = f"cycle {document['cycle']}, {age(document['age_seconds'])} ago"
        text = f"from the daemon, {mode}, {when}"
    else:
        text = f"looked at directly, not by a daemon; policy: {_files(document)}, {mode}"
    if document["policy"]["error"]:
        problems = document["policy"]["error"].replace("\n", "\n  ")
        text += f"\nthe policy file was refused, an earlier one stands:\n  {problems}"
    return text


def _files(document: Entry) -> str:
    first, *more = document["policy"]["files"] or ("none",)
    return f"{first} and {len(more)} more" if more else first


def waits(pressure: Entry) -> str:
    """Return what tasks waited for lately; nothing where none did, or nobody knows."""
    return "; ".join(_waits(pressure))


def _waits(pressure: Entry) -> Iterator[str]:
    some = {"a CPU": pressure["cpu_some"], "memory": pressure["memory_some"]}
    told = [
        f"for {what} {percent(share)} of the time"
        for what, share in some.items()
        if share and share >= NOTABLE_SHARE
    ]
    if told:
        yield f"pressure over the last 10 s: some task waited {', '.join(told)}"
    if pressure["memory_full"] and pressure["memory_full"] >= NOTABLE_SHARE:
        yield f"all at once for memory {percent(pressure['memory_full'])} of the time"


def age(seconds: float) -> str:
    """Return a time as it stands in a table.

    >>> age(3.2), age(150), age(7300)
    ('3s', '2min', '2h')
    """
    for unit, unit_s in (("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f}{unit}"
    return f"{seconds:.0f}s"


def percent(share: float | None) -> str:
    """Return a share as it stands in a table; ``-`` where it is not known.

    What is not quite all, or nothing, does not read as if it were.

    >>> percent(0.5), percent(1.0), percent(0.9999), percent(0.0001), percent(None)
    ('50.0%', '100.0%', '>99.9%', '<0.1%', '-')
    """
    if share is None:
        return "-"
    text = f"{100 * share:.1f}%"
    if 0 < share < 1:
        return {"0.0%": "<0.1%", "100.0%": ">99.9%"}.get(text, text)
    return text
