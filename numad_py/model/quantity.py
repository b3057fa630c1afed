"""Bytes for people."""

from __future__ import annotations

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def format_bytes(size: int) -> str:
    """Return ``1.5 GiB``; bytes as a whole number.

    >>> format_bytes(1536)
    '1.5 KiB'
    """
    value = float(size)
    for unit in UNITS:
        if abs(value) < 1024 or unit == UNITS[-1]:  # noqa: PLR2004 - one KiB
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError
