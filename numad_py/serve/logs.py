"""Logs: what was decided, said once for as long as it stands."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO, cast

import structlog

from numad_py.model.cpulist import format_list
from numad_py.model.guard import Compared, Judgement
from numad_py.model.outcome import End, Outcome, PageStatus
from numad_py.model.plan import Decision, Plan, Reason, Verdict
from numad_py.model.quantity import format_bytes
from numad_py.model.snapshot import WorkerId
from numad_py.model.topology import Topology
from numad_py.policy.schema import LogFormat
from numad_py.serve.decision_status import commands, not_by_hand, restart_command
from numad_py.serve.plain import other_home
from numad_py.serve.report import CycleReport


def configure(level: str, form: LogFormat, stream: TextIO | None = None) -> None:
    """Set up structlog; journald stamps lines itself, so the console form has no time there."""
    stream = stream if stream is not None else sys.stderr
    as_json = form is LogFormat.JSON or (form is LogFormat.AUTO and not stream.isatty())
    journald = "JOURNAL_STREAM" in os.environ
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
    ]
    if as_json or not journald:
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    if as_json:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        colours = stream.isatty() and "NO_COLOR" not in os.environ
        processors.append(structlog.dev.ConsoleRenderer(colors=colours))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
            if hasattr(logging, "getLevelNamesMapping")
            else getattr(logging, level.upper())
        ),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(stream))),
        cache_logger_on_first_use=False,
    )


class _Unfailing:
    """A stream on which a line that cannot be written is lost: no log may decide anything."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, if that can be done."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, if that can be done."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class Voice:
    """Says each decision when it is new, and each outcome."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._said: dict[tuple[WorkerId, str], tuple[Verdict, Reason]] = {}

    @staticmethod
    def say_started(report: CycleReport, reached_at: Mapping[str, str | None]) -> None:
        """Log once, after the first cycle, what runs here, and where it listens for what."""
        structlog.get_logger("numad_py.daemon").info(
            "started",
            mode=report.mode,
            policy=list(report.policy_sources),
            **reached_at,
            nodes=format_list(report.snapshot.topology.node_ids),
            workers=len(report.snapshot.workers),
        )

    @staticmethod
    def say_outcomes(outcomes: Iterable[Outcome]) -> None:
        """Log what became of decisions that were carried out."""
        for outcome in outcomes:
            if outcome.end is not End.SIMULATED:
                _say_outcome(outcome)

    def say(self, plan: Plan, topology: Topology, *, acting: bool = True) -> None:
        """Log what has changed since the last cycle.

        Args:
            plan: of this cycle.
            topology: tells which nodes have CPUs, for those commands.
            acting: whether decisions are carried out; else the commands that would do the same
                are part of the line.
        """
        said: dict[tuple[WorkerId, str], tuple[Verdict, Reason]] = {}
        for decision in plan.decisions:
            key = (decision.worker, decision.label)
            said[key] = (decision.verdict, decision.reason)
            if self._said.get(key) != said[key]:
                _say_decision(decision, topology, acting=acting)
        for decision, judgement in plan.judgements:
            _say_judgement(decision, judgement)
        self._said = said


def _say_decision(decision: Decision, topology: Topology, *, acting: bool) -> None:
    log = structlog.get_logger("numad_py.decide")
    facts: dict[str, Any] = {
        "decision": decision.id,
        "worker": decision.label,
        "pid": decision.worker.pid,
        "reason": decision.reason.value,
        "why": decision.why,
    }
    if decision.finding.locality is not None:
        facts["locality"] = round(decision.finding.locality, 4)
    if decision.verdict in {Verdict.ACT, Verdict.REFUSE}:
        facts |= _choice(decision)
    if not acting and decision.verdict is Verdict.ACT:
        facts["by_hand"] = "; ".join(commands(decision))
        if without := not_by_hand(decision):
            facts["not_by_hand"] = without
        if restart := restart_command(decision, topology):
            facts["at_a_restart"] = restart
    passing = decision.verdict is Verdict.WAIT and decision.reason is not Reason.UNREADABLE
    tell = log.debug if passing else log.info
    tell(decision.verdict.value, **facts)


def _say_judgement(decision: Decision, judgement: Judgement) -> None:
    log = structlog.get_logger("numad_py.guard")
    tell = log.info if judgement.result is Compared.KEPT else log.warning
    tell(
        f"guard {judgement.result.value}",
        decision=decision.id,
        worker=decision.label,
        why=judgement.why,
    )


def _choice(decision: Decision) -> dict[str, Any]:
    """Return what shaped the choice of a home, and what others would have cost, if it was one."""
    facts: dict[str, Any] = {}
    if decision.constraints:
        facts["constraints"] = list(decision.constraints)
    if decision.alternatives:
        facts["other_homes"] = [
            other_home(other.home, other.dearer, other.barred_by) for other in decision.alternatives
        ]
    return facts


def _say_outcome(outcome: Outcome) -> None:
    log = structlog.get_logger("numad_py.act")
    facts: dict[str, Any] = {
        "decision": outcome.decision.id,
        "worker": outcome.decision.label,
        "seconds": round(outcome.duration_s, 3),
        "moved": format_bytes(outcome.moved_bytes),
        "threads_bound": outcome.threads_bound,
    }
    if outcome.threads_given_back:
        facts["threads_given_back"] = outcome.threads_given_back
    if outcome.moved_shared:
        facts["of_that_shared"] = format_bytes(sum(outcome.moved_shared.values()))
    if but_for := _but_for(outcome):
        facts["but_for"] = but_for
    facts |= _judged(outcome)
    if outcome.threads_left:
        facts["threads_left"] = outcome.threads_left
    if outcome.pages:
        facts["pages"] = {status.value: n for status, n in outcome.pages.items()}
    if outcome.error:
        facts["error"] = outcome.error
    tell = log.info if outcome.end in {End.DONE, End.STOPPED, End.PLACED, End.GONE} else log.warning
    tell(f"move {outcome.end.value}", **facts)


def _judged(outcome: Outcome) -> dict[str, Any]:
    """Return what was reached beside what was promised."""
    facts: dict[str, Any] = {}
    if outcome.reached_locality is not None and outcome.decision.moves:
        facts["locality"] = round(outcome.reached_locality, 4)
        facts["promised_locality"] = round(outcome.promised_locality or 0.0, 4)
    if outcome.chunks:
        facts["chunks"] = outcome.chunks
        facts["longest_chunk_s"] = round(outcome.longest_chunk_s, 4)
    if outcome.waited_s:
        facts["waited_for_memory_s"] = round(outcome.waited_s, 1)
    return facts


def _but_for(outcome: Outcome) -> str | None:
    """Return what little was left of a move that is done all the same, ``2 shared pages``."""
    left_bytes = sum(outcome.refused_bytes.values())
    if outcome.end is not End.DONE or not left_bytes:
        return None
    told = ", ".join(
        f"{n} {status.value} page{'' if n == 1 else 's'}"
        for status, n in outcome.pages.items()
        if n and status not in {PageStatus.MOVED, PageStatus.ABSENT}
    )
    return told or format_bytes(left_bytes)
