"""Text that others have made, for people's terminals."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with what a terminal cannot show, or would obey, escaped.

    A process may put escape sequences and newlines into its name, and bytes that no encoding has.

    >>> printable("a\x1b[31m")
    'a\\x1b[31m'
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)
