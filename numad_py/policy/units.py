"""Quoted units of the policy file. Every ValueError says what to write."""

from __future__ import annotations

import re

_NUMBER_UNIT = re.compile(r"^\s*(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z%]*)\s*$", re.ASCII)
"""More digits than these are a mistake, and some hundreds of them no float."""
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_bytes(value: object) -> int:
    """Return bytes of ``"512MiB"``.

    >>> parse_bytes("1.5KiB")
    1536
    """
    if isinstance(value, str) and (match := _NUMBER_UNIT.match(value)):
        number, unit = match.groups()
        if unit in _BYTES:
            return int(float(number) * _BYTES[unit])
        if number == "0" and not unit:
            return 0
        if near := _near_unit(unit):
            msg = f'{value!r} has no unit known here; did you mean "{number}{near}"?'
            raise ValueError(msg)
    msg = f'{value!r} is not a size; write one with its unit, as in "512MiB"'
    raise ValueError(msg)


def _near_unit(unit: str) -> str | None:
    """Return the unit that a word such as ``MB`` may stand for."""
    return {u[0].lower(): u for u in _BYTES}.get(unit[:1].lower())


def parse_duration(value: object) -> float:
    """Return seconds of ``"5s"``.

    >>> parse_duration("2min")
    120.0
    """
    if isinstance(value, str) and (match := _NUMBER_UNIT.match(value)):
        number, unit = match.groups()
        if unit in _SECONDS:
            return float(number) * _SECONDS[unit]
        if unit == "m":
            msg = f'{value!r} could be minutes or milliseconds; write "{number}min" or "{number}ms"'
            raise ValueError(msg)
    msg = f'{value!r} is not a duration; write one with its unit (ms, s, min, h, d), as in "5s"'
    raise ValueError(msg)


def parse_share(value: object) -> float:
    """Return a share 0..1 of ``"10%"``.

    >>> parse_share("10%")
    0.1
    """
    if isinstance(value, str) and (match := _NUMBER_UNIT.match(value)):
        number, unit = match.groups()
        if unit == "%" and float(number) <= 100:  # noqa: PLR2004 - the whole
            return float(number) / 100
    msg = f'{value!r} is not a share; write it in percent from "0%" to "100%"'
    raise ValueError(msg)


def parse_rate(value: object) -> int | None:
    """Return bytes a second of ``"1GiB/s"``, None for ``"unlimited"``."""
    if value == "unlimited":
        return None
    text = value[:-2] if isinstance(value, str) and value.endswith("/s") else value
    try:
        rate = parse_bytes(text)
    except ValueError:
        rate = 0
    if rate <= 0:
        msg = f'{value!r} is not a rate; write "1GiB/s", or "unlimited"'
        match = _NUMBER_UNIT.match(text) if isinstance(text, str) else None
        if match and float(match[1]) > 0 and (near := _near_unit(match[2])):
            msg = f'{value!r} is not a rate; did you mean "{match[1]}{near}/s"?'
        raise ValueError(msg)
    return rate
