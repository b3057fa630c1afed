"""A file gone through once, with every run in step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from numad_py.model.cycle import Cycle
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import Policy
from numad_py.replay.compare import Tally
from numad_py.replay.described import load_machine
from numad_py.replay.recording import BadFile, Recording, count_cycles, is_recording
from numad_py.replay.simulate import Simulation
from numad_py.replay.world import scene

SCHEMA = 1
"""Goes up when a key changes its meaning or goes; new keys do not count."""
Progress = Callable[[int, int], None]
"""Takes how many cycles are done, and of how many, after each of them."""


class Run:
    """One policy, and what comes of it."""

    def __init__(self, name: str, policy: Policy, *, acts: bool = True) -> None:
        """Begin with an empty machine."""
        self.tally = Tally(name, policy.placement)
        self._simulation = Simulation(policy, acts=acts)

    def step(self, seen: Snapshot) -> None:
        """Go through one cycle."""
        self.tally.add(self._simulation.step(seen))


def replay_file(
    path: Path,
    present: Callable[[], Policy],
    new: Policy | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the figures of every run of a file, as a document.

    ``recorded`` is what really happened, of a recording; ``untouched`` the same with nothing done;
    ``policy`` the policy under which it was recorded, or the present one; ``new`` another.

    Args:
        path: a recording or the description of a machine.
        present: returns the policy for what was recorded under none.
        new: the policy that is to be tried.
        progress: is told how far it has come; the file is counted through for it.

    Raises:
        BadFile: it is neither, odd, or holds no cycle.
    """
    recording = Recording(path) if is_recording(path) else None
    if recording is not None:
        policy = recording.header.policy
        recorded = Tally("recorded", policy.placement)
        tallies, scenes = [recorded], _scenes(recording, recorded)
        count: Callable[[], int] = partial(count_cycles, path)
    else:
        machine = load_machine(path)
        policy, tallies, scenes = present(), [], machine.scenes()
        count = machine.count_cycles
    runs = [Run("untouched", policy, acts=False), Run("policy", policy)]
    runs += [Run("new", new)] if new is not None else []
    cycles, of_all = 0, 0 if progress is None else count()
    for cycles, seen in enumerate(scenes, 1):
        for run in runs:
            run.step(seen)
        if progress is not None:
            progress(cycles, max(cycles, of_all))
    if not cycles:
        msg = f"{path}: holds no cycle"
        raise BadFile(msg)
    figures = [tally.figures() for tally in (*tallies, *(run.tally for run in runs))]
    return {
        "schema": SCHEMA,
        "file": str(path),
        "kind": "machine" if recording is None else "recording",
        "torn": recording is not None and recording.torn,
        "runs": [asdict(each) for each in figures],
    }


def _scenes(cycles: Iterable[Cycle], recorded: Tally) -> Iterator[Snapshot]:
    for cycle in cycles:
        recorded.add(cycle)
        yield scene(cycle.snapshot)
