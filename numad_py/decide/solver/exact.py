"""The best answer of all, where there are few items: depth first, cut where nothing can come of it.

The work is bounded by a number of steps, not by a clock: the same input gives the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numad_py.decide.solver.candidates import Candidate, Choices, least_cpus
from numad_py.decide.solver.tally import Tally

MOST_STEPS = 200_000
"""Spent at most, where nothing else is said."""
_STATE_STEPS = 12
"""What it takes to look at one state, beside what dividing bytes takes and being accepted."""
MOST_ITEMS = 12
"""With more it would seldom end within these."""


class Exact:
    """A search through all answers that can still be better than the best one known."""

    def __init__(
        self,
        choices: Choices,
        best: int | None,
        accept: Callable[[Sequence[Candidate]], bool],
        most_steps: int = MOST_STEPS,
    ) -> None:
        """Begin with the objective of a known answer; take none that ``accept`` refuses.

        Spends ``most_steps`` at most, what ``accept`` spends included.
        """
        self._choices = choices
        self._tally = Tally(choices)
        self._best = best
        self._accept = accept
        self._most_steps = most_steps
        self.picks: list[Candidate] | None = None
        """An answer better than the known one, if there is any."""
        # Large ones first: what they leave says soonest whether the others can fit.
        self._order = sorted(
            range(len(choices.items)), key=lambda i: (-choices.items[i].size_bytes, i)
        )
        self._wanted = [least_cpus(candidates) for candidates in choices.candidates]

    def run(self) -> bool:
        """Search; say whether it came to its end, so that the best answer is known to be it."""
        work = self._choices.work
        with work.part(self._most_steps):
            self._down(0)
            return not work.done

    def _down(self, depth: int) -> None:
        if self._choices.work.done:
            return
        self._choices.work.spend(_STATE_STEPS)
        if depth == len(self._order):
            picks = self._tally.chosen()
            if self._accept(picks):
                self._best, self.picks = self._tally.total, picks
            return
        least = self._least(depth)
        if least is None or self._too_dear(sum(least)):
            return
        item = self._order[depth]
        cheapest = self._cheapest_now(item)
        rest = least[0] - (cheapest.cost if cheapest else 0)
        for candidate in self._choices.candidates[item]:
            if self._too_dear(rest + candidate.cost):
                break
            if not self._tally.admits(candidate):
                continue
            if self._too_dear(rest + self._tally.price(item, candidate)):
                continue
            self._tally.put(item, candidate)
            self._down(depth + 1)
            self._tally.lift(item)

    def _too_dear(self, total: int) -> bool:
        return self._best is not None and total >= self._best

    def _least(self, depth: int) -> tuple[int, int] | None:
        """Return what the objective comes to at least, and what lacking CPUs add to that at least.

        None where an item fits nowhere at all. CPUs are counted as if all that can have a home yet
        have one: one without costs more than any CPU.
        """
        tally, step = self._tally, self._choices.cpu_step
        total, wanted = tally.total, -sum(max(0, idle) for idle in tally.idle)
        for item in self._order[depth:]:
            cheapest = self._cheapest_now(item)
            if cheapest is None:
                return None
            total += cheapest.cost
            wanted += self._wanted[item] if cheapest.mask else 0
        steps = (tally.over + max(0, wanted)) // step - tally.over // step
        return total, self._choices.cpu_weight * steps

    def _cheapest_now(self, item: int) -> Candidate | None:
        """Return the cheapest candidate that there is room for."""
        candidates = self._choices.candidates[item]
        return next((c for c in candidates if self._tally.admits(c)), None)
