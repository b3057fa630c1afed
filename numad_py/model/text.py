"""Text that others have made, for people's terminals."""

from __future__ import annotations

_PID_DIGITS = 10


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with what a terminal cannot show, or would obey, escaped.

    A process may put escape sequences and newlines into its name, and bytes that no encoding has.

    >>> printable("a\x1b[31m")
    'a\\x1b[31m'
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def pid_of(text: str) -> int | None:
    """Return the pid that a text is; None where it is none, be it for having too many digits.

    >>> pid_of("4711"), pid_of("vllm/0"), pid_of("9" * 5000)
    (4711, None, None)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _PID_DIGITS else None
