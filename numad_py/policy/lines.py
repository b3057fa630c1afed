"""On which line of a TOML file a key stands. Used on the error path only."""

from __future__ import annotations

import re

import tomli


def line_of(text: str, path: tuple[str | int, ...]) -> int:
    """Return the line, from 1, on which the key at this path is given.

    The parser keeps no positions, so the shortest beginning of the file that parses and has the key
    is looked for; beginnings that end inside a value do not parse and are passed over.
    """
    # Only newlines count: str.splitlines() also parts at U+2028 and others, which texts may hold.
    lines = text.split("\n")
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    # Where the key is written as it reads, no other line can be the one: parsing costs.
    named = [count for count, line in enumerate(lines, 1) if key in line]
    counts: list[int] = [*named, *range(1, len(lines) + 1)]
    for count in counts:
        try:
            data: object = tomli.loads("\n".join(lines[:count]))
        except tomli.TOMLDecodeError:
            continue
        if _has(data, path):
            return count
    return 1


def lines_of_tables(text: str, name: str) -> list[int]:
    """Return the lines that look like the headers of an array of tables, in one pass.

    A text in quotes may look like one too: compare their number with that of the tables.
    """
    header = re.compile(rf"\s*\[\[\s*{re.escape(name)}\s*\]\]")
    return [count for count, line in enumerate(text.split("\n"), 1) if header.match(line)]


def _has(data: object, path: tuple[str | int, ...]) -> bool:
    for part in path:
        if isinstance(part, int):
            if not isinstance(data, list) or len(data) <= part:
                return False
            data = data[part]
        elif isinstance(data, dict) and part in data:
            data = data[part]
        else:
            return False
    return True


def line_of_syntax_error(error: tomli.TOMLDecodeError) -> int:
    """Return the line of a syntax error; tomli before 2.2 has it in the message only."""
    line = getattr(error, "lineno", None)
    if isinstance(line, int):
        return line
    match = re.search(r"line (\d+)", str(error))
    return int(match[1]) if match else 1
