"""Values of a policy file in the words of the file: TOML's, not Python's."""

from __future__ import annotations

import re
from datetime import date, time

_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A key that needs no quotes."""
_NOT_LITERAL = re.compile(r"['\x00-\x08\x0a-\x1f\x7f]")
"""What a literal string cannot hold: its own quote, and control characters but the tab."""
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f]')
"""What a basic string holds with a backslash only."""
_SHORT = {"\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r"}


def spelled(value: object) -> str:
    r"""Return a value as it would be written, so that TOML reads the same value back.

    A text stands in the quotes of a literal string where it can, else in those of a basic one.

    >>> spelled(False), spelled([1, True]), spelled({"a": True}), spelled("x")
    ('false', '[1, true]', '{ a = true }', "'x'")
    >>> print(spelled(r"\d+"), spelled("it's\n"), spelled({"a b": 1.0}))
    '\d+' "it's\n" { 'a b' = 1.0 }
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(spelled(each) for each in value)}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {spelled(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, date | time):
        return value.isoformat()
    return repr(value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    if not _NOT_LITERAL.search(text):
        return f"'{text}'"
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(found: re.Match[str]) -> str:
    one = found[0]
    return _SHORT.get(one) or (f"\\u{ord(one):04x}" if one not in '"\\' else f"\\{one}")


def in_words_of_the_file(said: str, value: object) -> str:
    r"""Return what is said of a value, with the value spelled as the file spells it.

    >>> in_words_of_the_file("False is not a size", False)
    'false is not a size'
    >>> print(in_words_of_the_file(r"'\\d' is not a size", "\\d"))
    '\d' is not a size
    """
    parts = [value, *(value if isinstance(value, list) else ())]
    try:
        spellings = {
            python: toml for part in parts if (python := repr(part)) != (toml := spelled(part))
        }
    except ValueError:
        # Python writes no whole number of more than 4300 digits; in hexadecimal it reads them.
        return "holds a number of thousands of digits; no key takes such a one"
    if not spellings:
        return said
    # In one go, the longest first: what is put in place of one is not taken for another.
    longest_first = sorted(spellings, key=len, reverse=True)
    anyone = "|".join(re.escape(python) for python in longest_first)
    return re.sub(anyone, lambda found: spellings[found[0]], said)
