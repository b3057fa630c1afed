"""What guards say in one cycle; the table is the package's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from numad_py.decide.guard import windows, words
from numad_py.decide.guard.memory import gone_back
from numad_py.decide.room import Room
from numad_py.decide.said import Said
from numad_py.decide.sizes import movable_by_node
from numad_py.model.guard import Compared, GuardMemory, Judgement, Measured, read_every_s
from numad_py.model.plan import (
    DecisionState,
    MemoryMove,
    Reason,
    Verdict,
    WorkerMemory,
)
from numad_py.model.snapshot import Snapshot, Worker, WorkerId
from numad_py.policy.schema import GuardPolicy, Mode, Policy

LONGEST_PAUSE_S = 86_400.0
"""The pause after taking a move back doubles up to this."""
WAITS_WINDOWS = 2
"""A move waits for a window of before for so many of its lengths at most."""
_WITHOUT = {Reason.ONE_NODE, Reason.UNREADABLE, Reason.MEMPOLICY, Reason.NO_HOME, Reason.MOVING}
"""Reasons that stand whatever a guard has to say."""
_HINDERS = {
    Reason.ONE_NODE: "only one node had memory",
    Reason.UNREADABLE: "its memory could not be read",
    Reason.NO_HOME: "there was no home for it",
}
"""Why a move cannot be taken back then."""


class Guards:
    """What guards say in one cycle."""

    def __init__(self, snapshot: Snapshot, policy: Policy, state: DecisionState) -> None:
        """Take in what was read; ``state`` is that of before this cycle."""
        self._cycle, self._now_s = snapshot.cycle, snapshot.at_s
        self._every_s = read_every_s(policy.daemon.interval_s)
        self._acts = policy.daemon.mode is Mode.ACT
        self._paused = state.paused
        rules = {rule.name: rule.guard for rule in policy.rules if rule.guard is not None}
        self._workers = {w.id: w for w in snapshot.workers if w.rule in rules}
        self._policies = {key: rules[w.rule] for key, w in self._workers.items()}
        moving = {w.rule for key, w in self._workers.items() if state.of(key).moving}
        self._known = {
            key: _take(state.of(key).guard, w, rules[w.rule], moving=w.rule in moving)
            for key, w in self._workers.items()
        }
        self.waiting: set[WorkerId] = set()
        """Who would be acted on, or measured for that, and waits for its guard; see ``hold``."""
        self._hindered: set[WorkerId] = set()
        self._given_up: set[WorkerId] = set()
        """Of whom no more goes back."""
        self._busy: dict[str, WorkerId] = {}
        """By rule, who is being moved or judged."""
        for key, worker in self._workers.items():
            guard = self._known[key]
            if state.of(key).moving or guard.undoing or guard.moved_at_s is not None:
                self._busy.setdefault(worker.rule, key)

    # What is said

    def hold(self, said: Mapping[WorkerId, Said], room: Room) -> dict[WorkerId, Said]:
        """Return what is said before turns are known; room is taken for what goes back.

        Whether the guard alone is what they wait for in ``waiting`` is to be seen.
        """
        held = dict(said)
        for key in self._workers:
            guard, now = self._known[key], said[key]
            begun = guard.undoing or guard.moved_at_s is not None
            if now.reason in _WITHOUT:
                if begun and now.reason is not Reason.MOVING:
                    held[key] = self._without(key, now)
            elif begun:
                held[key] = self._judged(key, now, room)
            elif now.verdict is Verdict.ACT or now.reason in {Reason.COOLDOWN, Reason.MEASURING}:
                held[key] = self._before_move(key, now)
                if held[key].reason is Reason.GUARDING:
                    self.waiting.add(key)
        return held

    def admit(self, said: Mapping[WorkerId, Said]) -> dict[WorkerId, Said]:
        """Return what is said of who is to be acted on: one of a rule, and what is known before."""
        admitted = dict(said)
        first: dict[str, Worker] = {}
        for key, worker in self._workers.items():
            now, policy = said[key], self._policies[key]
            if now.verdict is not Verdict.ACT or now.give_back:
                continue
            if (other := first.setdefault(worker.rule, worker)) is not worker:
                why = words.fellow(other.label)
                admitted[key] = Said(Verdict.WAIT, Reason.GUARDING, why)
                continue
            before = self._before(key)
            if before is not None and before.enough:
                admitted[key] = replace(now, why=f"{now.why}; {words.compared_later(before)}")
                continue
            why = words.unguarded(words.waiting(policy, before, worker.guard_problem))
            silent = Compared.UNREADABLE if worker.guard is None else Compared.NOT_COMPARABLE
            judgement = Judgement(self._cycle, silent, why, before) if self._acts else None
            admitted[key] = replace(now, why=f"{now.why}; {why}", judgement=judgement)
        return admitted

    def _judged(self, key: WorkerId, now: Said, room: Room) -> Said:
        """Return what is said of a worker whose move is judged, or taken back."""
        guard, policy = self._known[key], self._policies[key]
        if guard.undoing:
            return self._undo_again(key, now, room)
        before, moved_at_s = guard.before, guard.moved_at_s
        if before is None or moved_at_s is None:
            return now
        judgement = self._judgement(key, before, moved_at_s)
        if judgement is None:
            after = windows.after(guard.readings, moved_at_s, policy)
            why = words.watching(before, after, policy, self._now_s - moved_at_s)
            return Said(Verdict.WAIT, Reason.GUARDING, why)
        if judgement.result is Compared.UNDONE:
            return self._undo(key, judgement.why, judgement, room)
        return _beside(now, judgement.why, judgement)

    def _without(self, key: WorkerId, now: Said) -> Said:
        """Return what is said of a worker whose move nothing can be done about, as things are."""
        guard = self._known[key]
        bound = now.reason is Reason.MEMPOLICY
        if guard.undoing:
            if not bound and self._hindered_s(key) < self._longest_s(key):
                return now
            return self._give_up(key, now)
        before, moved_at_s = guard.before, guard.moved_at_s
        if before is None or moved_at_s is None:
            return now
        if bound:
            why = words.stays(words.bound_since(before))
            return _beside(now, why, Judgement(self._cycle, Compared.NOT_COMPARABLE, why, before))
        judgement = self._judgement(key, before, moved_at_s)
        if judgement is not None and judgement.result is Compared.UNDONE:
            hindered_s = self._hindered_s(key)
            if hindered_s < self._longest_s(key):
                return now
            why = words.not_taken_back(judgement.why, hindered_s, _HINDERS[now.reason])
            why = words.stays(why)
            judgement = replace(judgement, result=Compared.NOT_COMPARABLE, why=why)
        return now if judgement is None else _beside(now, judgement.why, judgement)

    def _hindered_s(self, key: WorkerId) -> float:
        """Return for how long taking a move back has been hindered, as it is in this cycle."""
        self._hindered.add(key)
        since_s = self._known[key].hindered_at_s
        return 0.0 if since_s is None else self._now_s - since_s

    def _longest_s(self, key: WorkerId) -> float:
        """Return for how long a move is judged at most."""
        return windows.MOST_WINDOWS * self._policies[key].window_s + 2 * self._every_s

    def _give_up(self, key: WorkerId, now: Said, hindrance: str = "") -> Said:
        """Return what is said of a worker of which no more goes back."""
        self._given_up.add(key)
        since_s = self._known[key].hindered_at_s
        tried_s = 0.0 if since_s is None else self._now_s - since_s
        return _beside(now, words.given_up(tried_s, hindrance))

    def _undo_again(self, key: WorkerId, now: Said, room: Room) -> Said:
        """Return what is said of a worker of which taking its move back was broken off."""
        since_s, window_s = self._known[key].moved_at_s, self._policies[key].window_s
        left_s = 0.0 if since_s is None else since_s + window_s - self._now_s
        hindered = left_s > 0 or not self._acts
        if hindered and self._hindered_s(key) >= self._longest_s(key):
            return self._give_up(key, now, words.MEMORY_SHORT if self._acts else words.NOT_ACTING)
        if left_s > 0:
            return Said(Verdict.WAIT, Reason.GUARDING, words.broken_off(left_s))
        return self._undo(key, "its latency had become worse with the move", None, room)

    def _judgement(self, key: WorkerId, before: Measured, moved_at_s: float) -> Judgement | None:
        """Return what is found about a move; None while that is open."""
        policy = self._policies[key]
        after = windows.after(self._known[key].readings, moved_at_s, policy)
        full_s = max(policy.window_s, min(before.seconds, windows.MOST_WINDOWS * policy.window_s))
        over = self._now_s - moved_at_s >= self._longest_s(key)
        if not over and (after is None or not after.enough or after.seconds < full_s):
            return None
        if after is None:
            why = words.no_reading(before, self._workers[key].guard_problem)
            return Judgement(self._cycle, Compared.UNREADABLE, words.stays(why), before)
        result, why = _compare(before, after, policy)
        return Judgement(self._cycle, result, why, before, after)

    def _undo(self, key: WorkerId, why: str, judgement: Judgement | None, room: Room) -> Said:
        """Return the decision to take a move back, as far as there is room."""
        if self._paused:
            return Said(Verdict.WAIT, Reason.PAUSED, words.undo_paused(why))
        worker, guard = self._workers[key], self._known[key]
        there = movable_by_node(worker, {})
        moves, short_bytes = [], 0
        for (source, target), size in sorted(guard.moved.items()):
            wanted = min(size, there.get(target, 0))
            part = min(wanted, room.bytes_on(source))
            short_bytes += wanted - part
            if part:
                there[target] -= part
                room.take_bytes(source, part)
                moves.append(MemoryMove(target, source, part))
        return Said(
            Verdict.ACT,
            Reason.GUARD_UNDO,
            words.undo(why, tuple(moves), short_bytes),
            moves=tuple(moves),
            give_back=True,
            judgement=judgement,
        )

    def _before_move(self, key: WorkerId, now: Said) -> Said:
        """Return what is said of a worker that would be acted on, or cools down before that."""
        guard, policy, worker = self._known[key], self._policies[key], self._workers[key]
        if guard.until_s is not None and self._now_s < guard.until_s:
            why = words.pause(guard.undone, guard.until_s - self._now_s)
            return Said(Verdict.WAIT, Reason.GUARD_PAUSE, why)
        if now.reason is Reason.COOLDOWN:
            return now
        if (other := self._busy.get(worker.rule, key)) != key:
            why = words.fellow(self._workers[other].label)
            return Said(Verdict.WAIT, Reason.GUARDING, why)
        before = self._before(key)
        if before is not None and before.enough:
            return now
        wanted_at_s = self._now_s if guard.wanted_at_s is None else guard.wanted_at_s
        left_s = wanted_at_s + WAITS_WINDOWS * policy.window_s - self._now_s
        if left_s <= 0:
            return now
        lacking = words.waiting(policy, before, worker.guard_problem)
        why = words.before_move(policy, lacking, left_s)
        return Said(Verdict.WAIT, Reason.GUARDING, why)

    def _before(self, key: WorkerId) -> Measured | None:
        readings, policy = self._known[key].readings, self._policies[key]
        return windows.before(readings, policy, self._now_s, self._every_s)

    # What is remembered

    def remember(self, key: WorkerId, memory: WorkerMemory, said: Said) -> WorkerMemory:
        """Return the memory of a worker after this cycle, with that of its guard."""
        if key not in self._workers:
            return memory if memory.guard == GuardMemory() else replace(memory, guard=GuardMemory())
        guard, policy = self._known[key], self._policies[key]
        guard = replace(guard, hindered_at_s=self._hindered_at_s(key, said))
        if key in self._given_up:
            guard = replace(guard, undoing=False, moved={}, moved_at_s=None, hindered_at_s=None)
        if said.give_back:
            if said.judgement is not None:
                pause_s = min(LONGEST_PAUSE_S, policy.pause_s * 2.0 ** min(guard.undone, 16))
                guard = replace(
                    guard,
                    undone=guard.undone + 1,
                    until_s=self._now_s + pause_s,
                    judgement=said.judgement,
                )
            guard = replace(guard, undoing=True, before=None, moved_at_s=None, wanted_at_s=None)
            return replace(gone_back(memory, said), guard=guard)
        if said.judgement is not None:
            guard = replace(guard, judgement=said.judgement)
        if said.verdict is Verdict.ACT:
            before = self._before(key)
            guarded = before if before is not None and before.enough else None
            return replace(memory, guard=replace(guard, before=guarded))
        if said.judgement is not None:
            since = tuple(r for r in guard.readings if r.at_s >= (guard.moved_at_s or 0.0))
            kept = said.judgement.result is Compared.KEPT
            guard = replace(
                guard,
                before=None,
                moved_at_s=None,
                moved={},
                readings=since,
                hindered_at_s=None,
                undone=0 if kept else guard.undone,
            )
        return replace(memory, guard=replace(guard, wanted_at_s=self._wanted(key, said)))

    def _hindered_at_s(self, key: WorkerId, said: Said) -> float | None:
        """Return since when taking a move back is hindered; a try in between is no end of that."""
        since_s = self._known[key].hindered_at_s
        if key in self._hindered:
            return self._now_s if since_s is None else since_s
        tried = said.reason is Reason.MOVING or (said.give_back and said.judgement is None)
        return since_s if tried else None

    def _wanted(self, key: WorkerId, said: Said) -> float | None:
        """Return since when a worker waits for a window, and for nothing else."""
        guard = self._known[key]
        for_others = self._busy.get(self._workers[key].rule, key) != key
        if said.verdict is not Verdict.WAIT or guard.moved_at_s is not None or for_others:
            return None
        if said.reason is Reason.GUARDING and guard.wanted_at_s is None:
            return self._now_s
        return guard.wanted_at_s


def _take(guard: GuardMemory, worker: Worker, policy: GuardPolicy, *, moving: bool) -> GuardMemory:
    """Return what is known with the last reading; one while somebody is moved tells nothing."""
    readings = () if moving else windows.take(guard.readings, worker.guard, policy.window_s)
    return replace(guard, readings=readings)


def _beside(now: Said, why: str, judgement: Judgement | None = None) -> Said:
    """Return what is said without a guard, and with it what the guard has to say.

    What else there is to do is for the next cycle: one thing is said at a time.
    """
    if now.verdict is Verdict.ACT or now.reason is Reason.MEASURING:
        return Said(Verdict.WAIT, Reason.GUARDING, why, judgement=judgement)
    return replace(now, why=f"{now.why}; {why}", judgement=judgement)


def _compare(before: Measured, after: Measured, policy: GuardPolicy) -> tuple[Compared, str]:
    """Return whether a move stays, and why."""
    if not after.enough or before.what != after.what or before.beyond:
        return Compared.NOT_COMPARABLE, words.stays(words.not_comparable(before, after))
    if after.value > before.value and before.value <= 0:
        return Compared.NOT_COMPARABLE, words.stays(words.not_comparable(before, after))
    why = words.change(before, after, policy)
    if after.value > before.value * (1 + policy.worse):
        return Compared.UNDONE, why
    return Compared.KEPT, words.stays(why)
