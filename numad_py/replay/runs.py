"""A file gone through once, with every run in step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from numad_py.model.cycle import Cycle
from numad_py.model.snapshot import Snapshot
from numad_py.policy.schema import Policy
from numad_py.replay.compare import Tally
from numad_py.replay.described import load_machine
from numad_py.replay.recording import BadFile, Recording, is_recording
from numad_py.replay.simulate import Simulation
from numad_py.replay.world import scene

SCHEMA = 1
"""Goes up when a key changes its meaning or goes; new keys do not count."""


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
    path: Path, present: Callable[[], Policy], new: Policy | None = None
) -> dict[str, Any]:
    """Return the figures of every run of a file, as a document.

    ``recorded`` is what really happened, of a recording; ``untouched`` the same with nothing done;
    ``policy`` the policy under which it was recorded, or the present one; ``new`` another.

    Args:
        path: a recording or the description of a machine.
        present: returns the policy for what was recorded under none.
        new: the policy that is to be tried.

    Raises:
        BadFile: it is neither, odd, or holds no cycle.
    """
    recording = Recording(path) if is_recording(path) else None
    if recording is not None:
        policy = recording.header.policy
        recorded = Tally("recorded", policy.placement)
        tallies, scenes = [recorded], _scenes(recording, recorded)
    else:
        machine = load_machine(path)
        policy, tallies, scenes = present(), [], machine.scenes()
    runs = [Run("untouched", policy, acts=False), Run("policy", policy)]
    runs += [Run("new", new)] if new is not None else []
    cycles = 0
    for cycles, seen in enumerate(scenes, 1):  # noqa: B007 - counted
        for run in runs:
            run.step(seen)
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
