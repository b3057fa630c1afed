"""The kernel's list format for CPUs and nodes, ``0-3,8``.

Format as printed by ``bitmap_print_to_pagebuf`` (lib/bitmap.c) in ``cpulist``, ``online`` or
``Cpus_allowed_list``. Strides (``0-31:2/4``) are accepted by the kernel as input but never printed.
"""

from __future__ import annotations

from collections.abc import Iterable


def parse_list(text: str) -> frozenset[int]:
    r"""Return the ids named by a kernel list.

    >>> sorted(parse_list("0-2,8\n"))
    [0, 1, 2, 8]

    Raises:
        ValueError: when the text is not such a list.
    """
    ids: set[int] = set()
    text = text.strip()
    if not text:
        return frozenset()
    named = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isascii() or not first.isdigit():
            msg = f"{part!r} is not an id or a range of ids such as 0-3"
            raise ValueError(msg)
        if dash and (not last.isascii() or not last.isdigit() or int(last) < int(first)):
            msg = f"{part!r} is not a range of ids such as 0-3"
            raise ValueError(msg)
        ends = int(last) if dash else int(first)
        named += ends - int(first) + 1
        if named > _MOST_IDS:
            msg = f"{text[:200]!r} names more ids than any machine has"
            raise ValueError(msg)
        ids.update(range(int(first), ends + 1))
    return frozenset(ids)


def format_list(ids: Iterable[int]) -> str:
    """Return the shortest kernel list that names these ids.

    >>> format_list({0, 1, 2, 8})
    '0-2,8'
    """
    parts: list[str] = []
    ordered = sorted(set(ids))
    start = 0
    for i, value in enumerate(ordered):
        if i + 1 < len(ordered) and ordered[i + 1] == value + 1:
            continue
        first = ordered[start]
        parts.append(str(first) if first == value else f"{first}-{value}")
        start = i + 1
    return ",".join(parts)


# The kernel's own ceiling is NR_CPUS = 8192 (x86-64, MAXSMP); a longer list is a mistake.
_MOST_IDS = 65537
