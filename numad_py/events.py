"""What happens to the daemon between two cycles, as it comes into its mailbox."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass


@dataclass(frozen=True)
class Stop:
    """Somebody wants the daemon to end."""

    why: str


@dataclass(frozen=True)
class Wake:
    """Something happened that is worth a cycle now."""

    why: str
    topology: bool = False


@dataclass(frozen=True)
class Command:
    """A verb from the control socket, and where its answer goes."""

    verb: str
    arguments: Mapping[str, object]
    answer: Future[object]


Event = Stop | Wake | Command
