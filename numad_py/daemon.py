"""The cycle: observe, decide, act, remember, publish. ``compose`` builds the rooms for it."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from types import FrameType

import structlog

from numad_py.act.actuator import Actuator
from numad_py.advisor import Advisor
from numad_py.commands import Commands, Standing
from numad_py.cycle import look_and_decide
from numad_py.decide.remember import remember
from numad_py.decide.rest import at_rest
from numad_py.errors import Interrupted, NumadError
from numad_py.events import Command, Event, Mailbox, Stop, Wake, handle_until
from numad_py.kernel import clock
from numad_py.model.outcome import Outcome
from numad_py.model.plan import DecisionState, Plan, Verdict
from numad_py.model.snapshot import Snapshot
from numad_py.observe.glance import Glance
from numad_py.observe.observer import Observer
from numad_py.policy.schema import Mode, OnStop, Policy
from numad_py.serve.logs import Voice
from numad_py.serve.notify import Notifier
from numad_py.serve.recent import Recent
from numad_py.serve.report import CycleReport, Took, Totals
from numad_py.serve.summary import summary

log = structlog.get_logger(__name__)

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
        mailbox: Mailbox,
        dry_run: bool = False,
    ) -> None:
        """Take the rooms; ``load_policy`` reads the files again and raises PolicyError."""
        self.observer = observer
        self.actuator = actuator
        self.mailbox = mailbox
        self.report: CycleReport | None = None
        self._whole: Glance | None = None
        """With which the last whole look began; None: another one is due."""
        self.advisor = Advisor()
        self.reached_at: Mapping[str, str | None] = {}
        """Where it listens, by what for; None where it does not."""
        self._standing = Standing(policy)
        self._recent = Recent()
        self.commands = Commands(
            self._standing,
            observer,
            actuator,
            advisor=self.advisor,
            recent=self._recent,
            mailbox=mailbox,
            load_policy=load_policy,
            seen=self.seen,
        )
        self._notifier = notifier
        self._dry_run = dry_run
        self._voice = Voice()
        self._started = False
        """Whether it came so far that its end is worth a word."""
        self._stopping = False
        self._fed_at_s = clock.monotonic_s()
        self._cycled_at_s = clock.monotonic_s()
        self._stopped = False
        self._untold: tuple[Outcome, ...] = ()
        """Outcomes that no cycle has taken in yet: one that fails must not lose them."""
        self._last_outcomes: tuple[Outcome, ...] = ()

    @property
    def policy(self) -> Policy:
        """By which the next cycle goes."""
        return self._standing.policy

    @property
    def totals(self) -> Totals:
        """What all cycles so far add up to."""
        return self._standing.totals

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
            self._standing.totals = replace(
                self.totals, failed_cycles=self.totals.failed_cycles + 1
            )
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
            took = _took(began_s, began_cpu_s)
            return self._publish_again(report, glance, took, began_at_s)
        self._whole = None
        snapshot, plan, self._standing.state = look_and_decide(
            self.observer, self.policy, self._remembered, self._between, glance
        )
        self._whole = glance
        outcomes, self._untold = self._untold, ()
        self.actuator.forget_ended(frozenset(worker.id for worker in snapshot.workers))
        for decision in plan.decisions:
            if decision.verdict is Verdict.ACT:
                self.actuator.submit(decision)
        took = _took(began_s, began_cpu_s)
        self._standing.totals = self.totals.add(
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

    def _publish_again(
        self, report: CycleReport, glance: Glance, took: Took, began_at_s: float
    ) -> CycleReport:
        """Tell the same again, with the nodes as they are now."""
        self._cycled_at_s = clock.monotonic_s()
        self._standing.totals = self.totals.repeat(report.plan, took)
        machine = glance.machine
        self.report = report.repeated(
            cycle=glance.cycle,
            glanced_at_s=began_at_s,
            node_states=machine.node_states,
            pressure=machine.pressure,
            took=took,
            last_cycle_at=clock.unix_s(),
        )
        self._feed()
        return self.report

    def _remembered(self, snapshot: Snapshot) -> DecisionState:
        return self.advisor.kept(remember(self._standing.state, self._untold, snapshot.at_s))

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
            cycle=snapshot.cycle,
            snapshot=snapshot,
            plan=plan,
            outcomes=self._last_outcomes,
            mode=self.policy.daemon.mode.value,
            paused=self._standing.state.paused,
            policy_sources=self.policy.sources,
            policy_error=self._standing.policy_error,
            policy_loaded_at=self._standing.policy_loaded_at,
            cycle_duration_s=took.duration_s,
            cycle_cpu_s=took.cpu_s,
            interval_s=self.policy.daemon.interval_s,
            progress=self.actuator.progress(),
            settings=self.actuator.settings(),
            last_cycle_at=clock.unix_s(),
            began_at_s=began_at_s,
            glanced_at_s=began_at_s,
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
        return at_once if self.commands.carry_out(event) else math.inf

    # What other threads call

    def handle(self, verb: str, arguments: Mapping[str, object]) -> object:
        """Answer the control socket; runs on its thread."""
        return self.commands.answer(verb, arguments)

    def seen(self) -> CycleReport | None:
        """Return the last report as it is now; None before the first cycle has ended."""
        report = self.report
        return None if report is None else report.aged(clock.boottime_s())

    def healthy(self) -> bool:
        """Say whether cycles go on: the last one is not older than three intervals and a margin."""
        report = self.report
        if report is None:
            return False
        return clock.monotonic_s() - self._cycled_at_s < 3 * report.interval_s + 10

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Put a signal into the mailbox; Mailbox.put may be called from a handler."""
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
