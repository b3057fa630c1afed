"""Values of a policy file in the words of the file: TOML's, not Python's."""

from __future__ import annotations

from datetime import date, time


def spelled(value: object) -> str:
    """Return a value as it would be written; texts in the quotes of literal strings.

    >>> spelled(False), spelled([1, True]), spelled({"a": True}), spelled("x")
    ('false', '[1, true]', '{ a = true }', "'x'")
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(spelled(each) for each in value)}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {spelled(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, date | time):
        return value.isoformat()
    return repr(value)


def in_words_of_the_file(said: str, value: object) -> str:
    """Return what is said of a value, with the value spelled as the file spells it.

    >>> in_words_of_the_file("False is not a size", False)
    'false is not a size'
    """
    if isinstance(value, str):
        return said
    parts = [value, *(value if isinstance(value, list) else ())]
    for part in parts:
        if not isinstance(part, str):
            said = said.replace(repr(part), spelled(part))
    return said
