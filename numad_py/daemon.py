"""The cycle: observe, decide, act, remember, publish. ``compose`` builds the rooms for it."""

from __future__ import annotations

import math
import queue
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from types import FrameType

import structlog

from numad_py.act.actuator import Actuator
from numad_py.advisor import Advisor
from numad_py.cycle import look_and_decide
from numad_py.decide.remember import remember
from numad_py.decide.rest import at_rest
from numad_py.errors import Interrupted, NumadError, PolicyError, UsageError
from numad_py.events import Command, Event, Stop, Wake, handle_until
from numad_py.kernel import clock
from numad_py.model.outcome import Outcome
from numad_py.model.plan import DecisionState, Plan, Verdict
from numad_py.model.snapshot import Snapshot
from numad_py.observe.glance import Glance
from numad_py.observe.observer import Observer
from numad_py.policy.schema import Mode, OnStop, Policy, fixed_at_start
from numad_py.serve.logs import Voice, configure
from numad_py.serve.notify import Notifier
from numad_py.serve.recent import Recent
from numad_py.serve.report import CycleReport, Took, Totals
from numad_py.serve.status import plan_document, status_document
from numad_py.serve.summary import summary

log = structlog.get_logger(__name__)

ANSWER_WITHIN_S = 10.0
"""How long a client of the control socket waits for the main loop."""
TOPOLOGY_EVERY_S = 1.0
"""After a change of the topology the next cycle comes no sooner after the last one."""
STOP_WITHIN_S = 1.5
"""The mover is given this long to finish its chunk; systemctl stop is to take 2 s at most."""


class Daemon:
    """Runs cycles until it is told to stop.

    Everything that happens between two cycles arrives as an event in one mailbox, so that policy,
    state and plan are touched by one thread only. What other threads read is the last report,
    which is frozen.
    """

    def __init__(
        self,
        policy: Policy,
        observer: Observer,
        actuator: Actuator,
        *,
        load_policy: Callable[[], Policy],
        notifier: Notifier,
        mailbox: queue.SimpleQueue[Event],
        dry_run: bool = False,
    ) -> None:
        """Take the rooms; ``load_policy`` reads the files again and raises PolicyError."""
        self.policy = self._started_with = policy
        self.observer = observer
        self.actuator = actuator
        self.mailbox = mailbox
        self.totals = Totals()
        self.report: CycleReport | None = None
        self._whole: Glance | None = None
        """With which the last whole look began; None: another one is due."""
        self.advisor = Advisor()
        self.reached_at: Mapping[str, str | None] = {}
        """Where it listens, by what for; None where it does not."""
        self._load_policy = load_policy
        self._notifier = notifier
        self._dry_run = dry_run
        self._voice = Voice()
        self._state = DecisionState()
        self._policy_error: str | None = None
        self._policy_loaded_at = clock.unix_s()
        self._started = False
        """Whether it came so far that its end is worth a word."""
        self._stopping = False
        self._fed_at_s = clock.monotonic_s()
        self._cycled_at_s = clock.monotonic_s()
        self._stopped = False
        self._untold: tuple[Outcome, ...] = ()
        """Outcomes that no cycle has taken in yet: one that fails must not lose them."""
        self._last_outcomes: tuple[Outcome, ...] = ()
        self._recent = Recent()

    # The cycle

    def run(self) -> None:
        """Cycle until stopped; then give masks back as the policy says."""
        try:
            self._voice.say_started(self.cycle(), self.reached_at)
            self._started = True
            self._notifier.ready()
            due = clock.monotonic_s() + self.policy.daemon.interval_s
            while self._wait(due):
                self._cycle_or_say()
                due = clock.monotonic_s() + self.policy.daemon.interval_s
        except Interrupted:
            self._started = True
            log.info("stopping in the middle of a look")
        finally:
            self.stop()

    def _cycle_or_say(self) -> None:
        """Run a cycle; one that fails is said and counted, and the next one may do better.

        The first one must succeed: what is wrong from the start is for whoever started it.
        """
        try:
            self.cycle()
        except Interrupted:
            raise
        except (NumadError, OSError) as error:
            self.totals = replace(self.totals, failed_cycles=self.totals.failed_cycles + 1)
            log.error("cycle failed", error=str(error))  # noqa: TRY400 - the message says it all
            self._notifier.status(f"the last cycle failed: {error}")
            self._feed()

    def cycle(self) -> CycleReport:
        """Observe, decide, act, remember, publish."""
        began_at_s = clock.boottime_s()
        began_s, began_cpu_s = clock.monotonic_s(), clock.thread_cpu_s()
        self._untold += self._take_outcomes()
        glance = self.observer.glance(self._between)
        if (report := self._resting_report(glance)) is not None:
            return self._publish_again(report, glance, _took(began_s, began_cpu_s))
        self._whole = None
        snapshot, plan, self._state = look_and_decide(
            self.observer, self.policy, self._remembered, self._between, glance
        )
        self._whole = glance
        outcomes, self._untold = self._untold, ()
        self.actuator.forget_ended(frozenset(worker.id for worker in snapshot.workers))
        for decision in plan.decisions:
            if decision.verdict is Verdict.ACT:
                self.actuator.submit(decision)
        took = _took(began_s, began_cpu_s)
        self.totals = self.totals.add(
            plan=plan,
            outcomes=outcomes,
            took=took,
            readings=self.observer.scanner.counts,
            reading_s=self.observer.scanner.cpu_s,
        )
        return self._publish(snapshot, plan, outcomes, took, began_at_s=began_at_s)

    def _resting_report(self, glance: Glance) -> CycleReport | None:
        """Return the last report where all rest and nothing has changed; None: look and decide."""
        report, whole = self.report, self._whole
        if report is None or whole is None or self._untold or self.actuator.busy():
            return None
        if not at_rest(report.plan, report.snapshot) or glance.changed_since(whole):
            return None
        return report

    def _publish_again(self, report: CycleReport, glance: Glance, took: Took) -> CycleReport:
        """Tell the same again, with the nodes as they are now."""
        self._cycled_at_s = clock.monotonic_s()
        self.totals = self.totals.repeat(report.plan, took)
        self.report = report.repeated(
            glance.machine.node_states, glance.machine.pressure, took, clock.unix_s()
        )
        self._feed()
        return self.report

    def _remembered(self, snapshot: Snapshot) -> DecisionState:
        return self.advisor.kept(remember(self._state, self._untold, snapshot.at_s))

    def _between(self) -> None:
        """Feed the watchdog, and break the look off when the end has come: big machines take long.

        Raises:
            Interrupted: somebody said stop.
        """
        fed_every_s = (self._notifier.watchdog_s or 0.0) / 3
        if clock.monotonic_s() - self._fed_at_s > fed_every_s:
            self._feed()
        if self._stopping:
            raise Interrupted

    def _feed(self) -> None:
        self._fed_at_s = clock.monotonic_s()
        self._notifier.watchdog()

    def _take_outcomes(self) -> tuple[Outcome, ...]:
        outcomes = self.actuator.outcomes()
        for outcome in outcomes:
            self.observer.learn(outcome)
        return outcomes

    def _publish(
        self,
        snapshot: Snapshot,
        plan: Plan,
        outcomes: tuple[Outcome, ...],
        took: Took,
        *,
        began_at_s: float,
    ) -> CycleReport:
        self._last_outcomes = outcomes or self._last_outcomes
        self._cycled_at_s = clock.monotonic_s()
        self.report = CycleReport(
            snapshot=snapshot,
            plan=plan,
            outcomes=self._last_outcomes,
            mode=self.policy.daemon.mode.value,
            paused=self._state.paused,
            policy_sources=self.policy.sources,
            policy_error=self._policy_error,
            policy_loaded_at=self._policy_loaded_at,
            cycle_duration_s=took.duration_s,
            cycle_cpu_s=took.cpu_s,
            interval_s=self.policy.daemon.interval_s,
            progress=self.actuator.progress(),
            settings=self.actuator.settings(),
            last_cycle_at=clock.unix_s(),
            began_at_s=began_at_s,
            dry_run=self._dry_run,
        )
        self._recent.add(snapshot, plan, outcomes, self._cycled_at_s)
        self._voice.say_outcomes(outcomes)
        if self.policy.daemon.mode is not Mode.OBSERVE:
            acting = self.policy.daemon.mode is Mode.ACT and not self._dry_run
            self._voice.say(plan, snapshot.topology, acting=acting)
        self._feed()
        self._notifier.status(summary(self.report, self.actuator.busy()))
        return self.report

    # Between two cycles

    def _wait(self, due_s: float) -> bool:
        """Handle events until the next cycle is due, or one is wanted sooner; False: none is.

        The watchdog is fed here too, since an interval may be longer than its limit: that this
        loop turns is what it is to hold.
        """
        watchdog_s = self._notifier.watchdog_s
        often_s = None if watchdog_s is None else watchdog_s / 3
        handle_until(due_s, self.mailbox, self._handle, self._feed, often_s)
        return not self._stopping

    def _handle(self, event: Event) -> float:
        """Do what an event asks for; return when the next cycle is to be at the latest."""
        self._whole = None
        at_once = clock.monotonic_s()
        if isinstance(event, Stop):
            log.info("stopping", why=event.why)
            self._stopping = True
            return at_once
        if isinstance(event, Wake):
            if not event.topology:
                return at_once
            if self.observer.topology_changed():
                log.info("topology changed, reading it again", why=event.why)
            # They come by the thousand: one for each block of memory that is plugged in.
            return self._cycled_at_s + TOPOLOGY_EVERY_S
        if not event.answer.set_running_or_notify_cancel():
            # Whoever asked was told to try again.
            return math.inf
        try:
            event.answer.set_result(self._command(event.verb, event.arguments))
        except NumadError as error:
            event.answer.set_exception(error)
        except Exception as error:  # one odd request must not end the daemon
            log.exception("a command failed", verb=event.verb)
            event.answer.set_exception(NumadError(f"{event.verb} failed: {error!r}; see the log"))
        return at_once if event.verb in {"pause", "resume", "reload", "restore"} else math.inf

    def _command(self, verb: str, arguments: Mapping[str, object]) -> object:
        if verb == "pause":
            self._pause()
            return {"paused": True}
        if verb == "resume":
            self._state = replace(self._state, paused=False)
            self.actuator.resume()
            log.info("resumed")
            return {"paused": False}
        if verb == "reload":
            return self.reload()
        if verb == "restore":
            self._pause()
            given_back = self.actuator.restore_all()
            settings = self.actuator.restore_settings()
            self.observer.masks_changed()
            log.info("affinity given back", workers=given_back)
            return {"paused": True, "restored": given_back, "settings": list(settings)}
        if verb == "advise":
            return self.advisor.answer(arguments, self._seen(), self.policy)
        msg = f"{verb!r} is not a verb of the control socket"
        raise UsageError(msg)

    def _pause(self) -> None:
        self._state = replace(self._state, paused=True)
        self.actuator.pause()
        log.info("paused")

    def reload(self) -> object:
        """Read the policy again; a bad one changes nothing and is answered with its problems."""
        try:
            policy = self._load_policy()
        except NumadError as error:
            self._policy_error = str(error)
            self.totals = replace(self.totals, reload_failures=self.totals.reload_failures + 1)
            problems = list(error.problems) if isinstance(error, PolicyError) else [str(error)]
            log.error("policy rejected, the earlier one stands", problems=problems)  # noqa: TRY400
            raise
        needs_restart = fixed_at_start(self._started_with, policy)
        if policy.log != self.policy.log:
            configure(policy.log.level, policy.log.format)
        self.actuator.use(policy)
        self.observer.use(policy)
        self.observer.masks_changed()  # another mode may have given them back
        self.policy = policy
        self._state = replace(self._state, placing=None)  # other limits may hold now
        self._policy_error = None
        self._policy_loaded_at = clock.unix_s()
        log.info("policy loaded", files=list(policy.sources))
        if needs_restart:
            log.warning("these keys take effect at a restart", keys=needs_restart)
        return {"files": list(policy.sources), "needs_restart": needs_restart}

    # What other threads call

    def handle(self, verb: str, arguments: Mapping[str, object]) -> object:
        """Answer the control socket; runs on its thread."""
        if verb == "record":
            return self._recent.document(arguments.get("after"), self.policy, clock.monotonic_s())
        if verb == "status":
            told = {"cycles": self.totals.cycles, "reservations": self.advisor.told()}
            return {**status_document(self._seen(), source="daemon"), **told}
        if verb == "plan":
            return plan_document(self._seen(), source="daemon")
        answer: Future[object] = Future()
        self.mailbox.put(Command(verb, arguments, answer))
        try:
            return answer.result(timeout=ANSWER_WITHIN_S)
        except FutureTimeoutError:
            answer.cancel()
            msg = f"the daemon did not get to {verb!r} within {ANSWER_WITHIN_S:.0f} s; try again"
            raise NumadError(msg) from None

    def seen(self) -> CycleReport | None:
        """Return the last report as it is now; None before the first cycle has ended."""
        report = self.report
        return None if report is None else report.aged(clock.boottime_s())

    def _seen(self) -> CycleReport:
        seen = self.seen()
        if seen is None:
            msg = "the first cycle has not ended yet; ask again in a moment"
            raise NumadError(msg)
        return seen

    def healthy(self) -> bool:
        """Say whether cycles go on: the last one is not older than three intervals and a margin."""
        report = self.report
        if report is None:
            return False
        return clock.monotonic_s() - self._cycled_at_s < 3 * report.interval_s + 10

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Put a signal into the mailbox; SimpleQueue.put may be called from a handler."""
        if number == signal.SIGHUP:
            self.mailbox.put(Command("reload", {}, Future()))
            return
        self._stopping = True
        self.mailbox.put(Stop(signal.Signals(number).name))

    # The end

    def stop(self) -> None:
        """End the mover within a chunk and give masks back where the policy says so."""
        if self._stopped:
            return
        self._stopped = True
        self._notifier.stopping()
        self.actuator.stop(STOP_WITHIN_S)
        self._voice.say_outcomes((*self._untold, *self._take_outcomes()))
        if self.policy.daemon.on_stop is OnStop.RESTORE:
            given_back = self.actuator.restore_all()
            # What a run that was killed has left is given back also where this one could not begin.
            if self._started or given_back:
                log.info("stopped, affinity given back", workers=given_back)
        elif self._started:
            log.info("stopped, affinity kept; numad-py restore gives it back")


def _took(began_s: float, began_cpu_s: float) -> Took:
    return Took(clock.monotonic_s() - began_s, clock.thread_cpu_s() - began_cpu_s)
