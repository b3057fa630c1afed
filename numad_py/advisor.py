"""Advice for callers one after another: what was promised to one is not promised to the next."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numad_py.decide.advise import advise, coming_bytes
from numad_py.decide.reservations import MOST, Reservations, still_to_come
from numad_py.errors import NumadError
from numad_py.kernel import clock
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.advice import NoAdvice, Request
from numad_py.model.plan import DecisionState
from numad_py.model.snapshot import Snapshot
from numad_py.observe.machine import Machine
from numad_py.policy.schema import Policy
from numad_py.serve.advice import advice_document, name_of, request_of, reservation_documents
from numad_py.serve.report import CycleReport

SAMPLE_S = 0.5
"""So long CPU time is watched where no daemon has watched it."""

Document = dict[str, Any]


class Advisor:
    """Keeps the reservations, in memory only; asked by one thread, looked at by any."""

    def __init__(self) -> None:
        """Begin with none."""
        self._reserved = Reservations()

    def answer(
        self, arguments: Mapping[str, object], seen: CycleReport, policy: Policy
    ) -> Document:
        """Return advice by the last look at the machine, and reserve what it says.

        Raises:
            UsageError: the request makes no sense.
            NumadError: there are too many reservations.
        """
        now_s = clock.boottime_s()
        request, name = request_of(arguments), name_of(arguments)
        # What was started on one that has ended since the last look is not seen yet.
        alive = self._reserved.at(min(now_s, seen.began_at_s or now_s))
        others = still_to_come(alive.without(name).alive, seen.snapshot)
        coming = coming_bytes(seen.plan)
        found = advise(seen.snapshot, policy.placement, request, others, coming)
        document = advice_document(request, found, source="daemon")
        self._reserved = alive
        if isinstance(found, NoAdvice) or not policy.placement.reserve_s:
            return document
        kept = alive.at(now_s).without(name)
        if kept.full:
            soonest_s = min(one.until_s for one in kept.alive) - now_s
            msg = (
                f"{MOST} reservations are alive, and there can be no more; the next ends in "
                f"{soonest_s:.0f} s. See placement.reserve of the policy"
            )
            raise NumadError(msg)
        # Until the next look at the least: what was started by then is seen by it.
        until_s = now_s + max(policy.placement.reserve_s, policy.daemon.interval_s)
        self._reserved = alive.add(found, name, until_s, now_s)
        (told,) = reservation_documents(self._reserved.alive[-1:], now_s)
        document["reservation"] = {**told, "expires_at": clock.unix_s() + until_s - now_s}
        return document

    def kept(self, state: DecisionState) -> DecisionState:
        """Return what deciding is to remember, with what is promised: workers keep off it, too."""
        return replace(state, reserved=self._reserved.alive)

    def told(self) -> list[Document]:
        """Return the reservations that are alive."""
        now_s = clock.boottime_s()
        return reservation_documents(self._reserved.at(now_s).alive, now_s)


def answer_directly(request: Request, procfs: ProcFs, sysfs: SysFs, policy: Policy) -> Document:
    """Return advice by a look of our own, for which CPU time is watched for SAMPLE_S.

    Nothing is reserved: there is nobody to remember it.
    """
    topology = sysfs.topology()
    machine = Machine(procfs, sysfs)
    machine.look(procfs.uptime_s(), topology)
    time.sleep(SAMPLE_S)
    now_s = procfs.uptime_s()
    snapshot = Snapshot(0, now_s, topology, machine.look(now_s, topology).node_states, ())
    return advice_document(request, advise(snapshot, policy.placement, request), source="direct")
