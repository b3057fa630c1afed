"""On which line of a TOML file a key stands. Used on the error path only."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import tomli

_GIVEN_TWICE = ("Cannot overwrite", "Cannot declare", "Duplicate inline")
"""How messages of tomli begin of a key, or a table, that is there already."""
_BEGINS = re.compile(r"""(?:\[\[?[\w.'" -]+\]|[\w.'"-][\w.'" -]*=)""")
"""A table, or a key with its value."""
_HEADER = re.compile(r"""\[\[?\s*["']?(\w+)["']?\s*\]""")
_LONGEST_TOLD = 60
"""So many characters of its line are told."""


def line_of(text: str, path: tuple[str | int, ...]) -> int:
    """Return the line, from 1, on which the key at this path is given.

    The parser keeps no positions, so the shortest beginning of the file that parses and has the key
    is looked for; beginnings that end inside a value do not parse and are passed over.
    """
    lines = split_lines(text)
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


def split_lines(text: str) -> list[str]:
    """Return the lines of a TOML file without what ends them.

    Only newlines count, with a carriage return before them or not: str.splitlines() also parts at
    U+2028 and others, which texts may hold. A file cut behind a carriage return would be no TOML.
    """
    return text.replace("\r\n", "\n").split("\n")


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


def syntax_error(error: tomli.TOMLDecodeError, text: str, arrays: Collection[str] = ()) -> str:
    """Return ``line: what is wrong`` of a text that is no TOML.

    What is there already has words of its own: the parser says that a value would be overwritten,
    or a table declared, and where the second one ends.

    Args:
        error: of the parser.
        text: in which it is.
        arrays: names of arrays of tables, which beginners write as tables.
    """
    line = line_of_syntax_error(error, text)
    if str(error).startswith(_GIVEN_TWICE):
        at, second = _statement(split_lines(text)[:line])
        header = _HEADER.match(second)
        if header and header[1] in arrays:
            name = header[1]
            return f"{at}: there may be several tables {name}: write [[{name}]] above each"
        if not header or str(error).startswith("Cannot declare"):
            told = f"{second[:_LONGEST_TOLD]}..." if len(second) > _LONGEST_TOLD else second
            return f"{at}: given twice, the second time here: {told}; keep one of the two"
    return f"{line}: not TOML: {error}"


def _statement(lines: Sequence[str]) -> tuple[int, str]:
    """Return the line on which what ends on the last line most likely begins, and its text."""
    for at in range(len(lines), 0, -1):
        if _BEGINS.match(lines[at - 1].strip()):
            return at, lines[at - 1].strip()
    return len(lines), lines[-1].strip()


def line_of_syntax_error(error: tomli.TOMLDecodeError, text: str) -> int:
    """Return the line of a syntax error; tomli before 2.2 has it in the message only."""
    line = getattr(error, "lineno", None)
    if isinstance(line, int):
        return line
    match = re.search(r"\(at line (\d+), column \d+\)$", str(error))
    return int(match[1]) if match else text.count("\n") + 1
