"""The exceptions of numad-py. Every message tells an operator what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class NumadError(Exception):
    """Root of every error that numad-py raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(NumadError):
    """The command line asks for something that makes no sense."""

    exit_code: ClassVar[int] = 2


class NothingFits(NumadError):  # noqa: N818 - an answer, not a mistake
    """No nodes hold what is asked for; the message says what they would hold."""

    exit_code: ClassVar[int] = 3


class RightsError(NumadError):
    """A capability is missing; the message names it."""

    exit_code: ClassVar[int] = 77


class PolicyError(NumadError):
    """The policy is not usable. ``problems`` holds one ``file:line: key: what`` each."""

    exit_code: ClassVar[int] = 78

    def __init__(self, problems: Sequence[str]) -> None:
        """Keep all problems; the message is one a line."""
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Vanished(NumadError):  # noqa: N818 - an event, not a mistake
    """A process or thread ended between two reads. Normal; counted."""


class Interrupted(NumadError):  # noqa: N818 - an event, not a mistake
    """Somebody said stop in the middle of a look."""


class Malformed(NumadError):  # noqa: N818 - names what the file is
    """A kernel file does not follow its grammar. Counted, and the file left out."""
