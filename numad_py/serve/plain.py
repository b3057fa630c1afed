"""Numbers in the words that people use for them."""

from __future__ import annotations

from collections.abc import Iterable

from numad_py.model.cpulist import format_list

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def age(seconds: float) -> str:
    """Return a time in its largest unit.

    >>> age(7300), age(60), age(0.2)
    ('2 hours', '1 minute', '0 seconds')
    """
    for unit, unit_s in _UNITS:
        number = int(seconds / unit_s)
        if number >= 1 or unit_s == 1:
            return f"{number} {unit}{'' if number == 1 else 's'}"
    raise AssertionError


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
