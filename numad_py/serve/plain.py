"""Numbers in the words that people use for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from numad_py.model.cpulist import format_list
from numad_py.model.plan import Limit
from numad_py.model.quantity import format_bytes
from numad_py.serve.explain_words import BARRED

_COSTS = {
    "moving_bytes": "for the move",
    "remote_bytes": "for memory that cannot be moved",
    "spread_bytes": "for lying on several nodes",
    "slow_bytes": "for slower memory",
    "device_bytes": "for the way to its devices",
    "switching_bytes": "for being another home than before",
}
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def age(seconds: float) -> str:
    """Return a time in its largest unit.

    >>> age(7300), age(60), age(0.2)
    ('2 hours', '1 minute', '0 seconds')
    """
    for unit, unit_s in _UNITS:
        number = int(seconds / unit_s)
        if number >= 1 or unit_s == 1:
            return counted(number, unit)
    raise AssertionError


def counted(number: int, noun: str) -> str:
    """Return a number of things; the noun is one that takes an s.

    >>> counted(1, "worker"), counted(0, "cycle")
    ('1 worker', '0 cycles')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def nodes(ids: Iterable[int]) -> str:
    """Return nodes by number.

    >>> nodes([3]), nodes([0, 1])
    ('node 3', 'nodes 0-1')
    """
    wanted = sorted(ids)
    return f"node{'' if len(wanted) == 1 else 's'} {format_list(wanted)}"


def share(part: float) -> str:
    """Return a share in per cent; what is not quite all, or nothing, does not read as if it were.

    >>> share(0.5), share(0.999), share(0.001), share(1.0)
    ('50%', '99.9%', '0.1%', '100%')
    """
    whole = f"{part:.0%}"
    return f"{part:.1%}" if whole in {"0%", "100%"} and 0 < part < 1 else whole


def other_home(home: Iterable[int], dearer_bytes: int, barred_by: Limit | None) -> str:
    """Return what speaks against a home that was weighed, in few words.

    >>> other_home([2], 0, None), other_home([0, 1], 5 << 20, None)
    ('node 2: just as good', 'nodes 0-1: 5.0 MiB dearer')
    """
    if barred_by is not None:
        return f"{nodes(home)}: {BARRED[barred_by]}"
    against = f"{format_bytes(dearer_bytes)} dearer" if dearer_bytes else "just as good"
    return f"{nodes(home)}: {against}"


def cost(costs: Mapping[str, int]) -> str:
    """Return what a home costs, as a whole and by what for.

    >>> cost({"total_bytes": 3 << 20, "moving_bytes": 2 << 20, "device_bytes": 1 << 20})
    '3.0 MiB: 2.0 MiB for the move, 1.0 MiB for the way to its devices'
    """
    parts = [f"{format_bytes(costs[k])} {what}" for k, what in _COSTS.items() if costs.get(k)]
    whole = f"{format_bytes(costs['total_bytes'])}: " if len(parts) > 1 else ""
    return whole + (", ".join(parts) or "nothing")
