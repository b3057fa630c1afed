"""What clients of the control socket ask for: told at once, or done between two cycles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field, replace

import structlog

from numad_py.act.actuator import Actuator
from numad_py.advisor import Advisor
from numad_py.errors import NumadError, PolicyError, UsageError
from numad_py.events import Command, Mailbox
from numad_py.kernel import clock
from numad_py.model.plan import DecisionState
from numad_py.observe.observer import Observer
from numad_py.policy.schema import Policy, fixed_at_start
from numad_py.serve.logs import configure
from numad_py.serve.recent import Recent
from numad_py.serve.report import CycleReport, Totals
from numad_py.serve.status import plan_document, status_document

log = structlog.get_logger(__name__)

ANSWER_WITHIN_S = 10.0
"""How long a client of the control socket waits for the main loop."""
CALLS_FOR_CYCLE = frozenset({"pause", "resume", "reload", "restore"})
"""After these the next cycle comes at once."""


@dataclass
class Standing:
    """By what the next cycle goes: cycles and commands change it, on the main loop's thread.

    Each field is a frozen value, so that other threads may look at it.
    """

    policy: Policy
    policy_error: str | None = None
    """Why the last reload was refused."""
    policy_loaded_at: float = field(default_factory=clock.unix_s)
    """Unix time."""
    state: DecisionState = field(default_factory=DecisionState)
    totals: Totals = field(default_factory=Totals)


class Commands:
    """Answers clients, by what the daemon saw last and what it stands at."""

    def __init__(
        self,
        standing: Standing,
        observer: Observer,
        actuator: Actuator,
        *,
        advisor: Advisor,
        recent: Recent,
        mailbox: Mailbox,
        load_policy: Callable[[], Policy],
        seen: Callable[[], CycleReport | None],
    ) -> None:
        """Take the rooms.

        Args:
            standing: what commands change.
            observer: told of another policy, and of masks that were given back.
            actuator: paused, resumed, and told of another policy.
            advisor: keeps what it advised.
            recent: the last cycles, for recordings.
            mailbox: where commands wait for the main loop.
            load_policy: reads the files again; raises PolicyError.
            seen: returns the last report as it is now; None before the first cycle has ended.
        """
        self._standing = standing
        self._started_with = standing.policy
        self._observer = observer
        self._actuator = actuator
        self._advisor = advisor
        self._recent = recent
        self._mailbox = mailbox
        self._load_policy = load_policy
        self._seen = seen

    # On any thread

    def answer(self, verb: str, arguments: Mapping[str, object]) -> object:
        """Answer a client: at once where it asks what was seen, else when the main loop has.

        Raises:
            NumadError: there is no such verb, it makes no sense, or it was not got to in time.
        """
        if verb == "record":
            after, now_s = arguments.get("after"), clock.monotonic_s()
            return self._recent.document(after, self._standing.policy, now_s)
        if verb == "status":
            last = self._last()
            told = {
                "cycles": self._standing.totals.cycles,
                "reservations": self._advisor.told(),
                # Of the policy by which it has looked, which is what the document shows.
                "policy_loaded_at": last.policy_loaded_at,
            }
            return {**status_document(last, source="daemon"), **told}
        if verb == "plan":
            return plan_document(self._last(), source="daemon")
        answer: Future[object] = Future()
        self._mailbox.put(Command(verb, arguments, answer))
        try:
            return answer.result(timeout=ANSWER_WITHIN_S)
        except FutureTimeoutError:
            answer.cancel()
            msg = f"the daemon did not get to {verb!r} within {ANSWER_WITHIN_S:.0f} s; try again"
            raise NumadError(msg) from None

    def _last(self) -> CycleReport:
        seen = self._seen()
        if seen is None:
            msg = "the first cycle has not ended yet; ask again in a moment"
            raise NumadError(msg)
        return seen

    # On the main loop's thread

    def carry_out(self, command: Command) -> bool:
        """Do what a client asks for, and say whether a cycle is to come at once."""
        if not command.answer.set_running_or_notify_cancel():
            # Whoever asked was told to try again.
            return False
        try:
            command.answer.set_result(self._done(command.verb, command.arguments))
        except NumadError as error:
            command.answer.set_exception(error)
        except Exception as error:  # one odd request must not end the daemon
            log.exception("a command failed", verb=command.verb)
            failed = NumadError(f"{command.verb} failed: {error!r}; see the log")
            command.answer.set_exception(failed)
        return command.verb in CALLS_FOR_CYCLE

    def _done(self, verb: str, arguments: Mapping[str, object]) -> object:
        if verb == "pause":
            self._pause()
            return {"paused": True}
        if verb == "resume":
            self._standing.state = replace(self._standing.state, paused=False)
            self._actuator.resume()
            log.info("resumed")
            return {"paused": False}
        if verb == "reload":
            return self.reload()
        if verb == "restore":
            self._pause()
            given_back = self._actuator.restore_all()
            settings = self._actuator.restore_settings()
            self._observer.masks_changed()
            log.info("affinity given back", workers=given_back)
            return {"paused": True, "restored": given_back, "settings": list(settings)}
        if verb == "advise":
            return self._advisor.answer(arguments, self._last(), self._standing.policy)
        msg = f"{verb!r} is not a verb of the control socket"
        raise UsageError(msg)

    def _pause(self) -> None:
        self._standing.state = replace(self._standing.state, paused=True)
        self._actuator.pause()
        log.info("paused")

    def reload(self) -> object:
        """Read the policy again; a bad one changes nothing and is answered with its problems."""
        standing = self._standing
        try:
            policy = self._load_policy()
        except NumadError as error:
            standing.policy_error = str(error)
            failures = standing.totals.reload_failures + 1
            standing.totals = replace(standing.totals, reload_failures=failures)
            problems = list(error.problems) if isinstance(error, PolicyError) else [str(error)]
            log.error("policy rejected, the earlier one stands", problems=problems)  # noqa: TRY400
            raise
        needs_restart = fixed_at_start(self._started_with, policy)
        if policy.log != standing.policy.log:
            configure(policy.log.level, policy.log.format)
        self._actuator.use(policy)
        self._observer.use(policy)
        self._observer.masks_changed()  # another mode may have given them back
        standing.policy = policy
        standing.state = replace(standing.state, placing=None)  # other limits may hold now
        standing.policy_error = None
        standing.policy_loaded_at = clock.unix_s()
        log.info("policy loaded", files=list(policy.sources))
        if needs_restart:
            log.warning("these keys take effect at a restart", keys=needs_restart)
        return {"files": list(policy.sources), "needs_restart": needs_restart}
