"""A guarded worker from end to end: a real endpoint, a real process, and the daemon's own cycles.

Only its memory is made: pages lie where the daemon's system calls bring them, and the server tells
a latency that hangs on where they are.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.act.journal import Journal
from numad_py.act.real import RealActuator
from numad_py.compose import with_mode
from numad_py.daemon import Daemon
from numad_py.events import Mailbox
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.guard import Compared
from numad_py.model.outcome import End
from numad_py.model.plan import Decision, Reason
from numad_py.observe import endpoint
from numad_py.observe.endpoint import Endpoints
from numad_py.observe.observer import Observer
from numad_py.policy.load import load
from numad_py.policy.schema import Mode, Policy
from numad_py.serve.notify import Notifier
from tests.fake_tree import FakeMachine, FakeNode
from tests.unit.fake_kernel import BASE, THP, FakeKernel, MadeProcFs
from tests.unit.test_endpoint import Handler, Server, server

__all__ = ["server"]

SIZE = 64 << 20
THREADS = 4
WITHIN_S = 20.0
CHILD = f"""
import threading, time
for _ in range({THREADS - 1}):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("ready", flush=True)
time.sleep(60)
"""


class OnlyProcFs(MadeProcFs):
    """One that shows a single process."""

    def __init__(self, kernel: FakeKernel, pid: int) -> None:
        """Show this one."""
        super().__init__(kernel)
        self._pid = pid

    def entries(self) -> dict[int, int]:
        """Return it."""
        return {self._pid: 1}


class Worker:
    """A server whose memory is on node 1, and the daemon that looks after it."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], policy: Policy) -> None:
        """Build the rooms as ``compose`` does, on made memory and a made machine."""
        self.pid = process.pid
        self.kernel = FakeKernel()
        self.kernel.area(BASE, SIZE)
        self.kernel.fill(BASE, SIZE, 1, folio=THP)
        self.procfs = OnlyProcFs(self.kernel, process.pid)
        nodes = [FakeNode(0, [0], free_mib=900), FakeNode(1, [1], free_mib=900)]
        made = FakeMachine(folder / "machine", nodes).write()
        sysfs, cgroups = SysFs(made.sysfs), CgroupFs(made.sysfs / "fs/cgroup")
        self.journal = Journal(folder / "state", "boot")
        self.actuator = RealActuator(
            policy, self.procfs, sysfs, cgroups, self.kernel, self.journal, lambda: None
        )
        self.endpoints = Endpoints(policy)
        observer = Observer(
            self.procfs,
            sysfs,
            cgroups,
            policy,
            self.actuator.first_masks,
            endpoints=self.endpoints,
        )
        mailbox = Mailbox()
        self.daemon = Daemon(
            policy,
            observer,
            self.actuator,
            load_policy=lambda: policy,
            notifier=Notifier(),
            mailbox=mailbox,
        )
        self.said: list[Reason] = []
        """What was said of it, one after the other."""

    def masks(self) -> set[frozenset[int] | None]:
        """Return the masks that its threads have."""
        return {thread.affinity for thread in self.procfs.threads(self.pid)}

    def until(self, reason: Reason) -> Decision:
        """Let cycles go by until something is said of it."""
        limit = time.monotonic() + WITHIN_S
        while time.monotonic() < limit:
            (decision,) = self.daemon.cycle().plan.decisions
            if self.said[-1:] != [decision.reason]:
                self.said.append(decision.reason)
            if decision.reason is reason:
                return decision
            time.sleep(0.02)
        msg = f"{reason.value} was not said, but {self.said}: {decision.why}"
        raise AssertionError(msg)

    def close(self) -> None:
        """End its threads."""
        self.endpoints.stop()
        self.actuator.stop(WITHIN_S)
        self.journal.close()


def in_a_hurry(policy: Policy) -> Policy:
    """Return the policy with a window of a second: the file takes none below two readings."""
    rule, *others = policy.rules
    assert rule.guard is not None
    quick = replace(rule, guard=replace(rule.guard, window_s=1.0))
    return replace(policy, rules=(quick, *others))


@pytest.fixture
def guarded(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """Run a worker with an endpoint, which is read some ten times a second."""
    if len(os.sched_getaffinity(0) & {0, 1}) < 2:
        pytest.skip("takes CPUs 0 and 1")
    monkeypatch.setattr(endpoint, "read_every_s", lambda _interval_s: 0.1)
    path = tmp_path / "policy.toml"
    path.write_text(
        f"""\
[daemon]
mode = "act"
[discovery]
known_servers = false
[placement]
min_remote = "8MiB"
cooldown = "0s"
[[rule]]
name = "served"
cmdline = "served-{os.getpid()}$"
nodes = [0]
[rule.guard]
url = "http://127.0.0.1:{server.server_address[1]}/metrics"
metric = "latency_seconds"
"""
    )
    command = [sys.executable, "-c", CHILD, f"served-{os.getpid()}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        made = Worker(tmp_path, process, in_a_hurry(with_mode(load(path), Mode.ACT)))
        yield made
        made.close()
        process.kill()


def tells(server: Server, worker: Worker, *, worse_at_home: bool) -> None:
    """Have the server tell of 30 more requests each time, as fast as its memory lets them be."""
    counts = {"0.1": 0, "1": 0}

    def metrics(to: Handler) -> None:
        at_home = worker.kernel.bytes_on(0) > SIZE / 2
        counts["1" if at_home is worse_at_home else "0.1"] += 30
        total = sum(counts.values())
        to.text(
            "# TYPE latency_seconds histogram\n"
            f'latency_seconds_bucket{{le="0.1"}} {counts["0.1"]}\n'
            f'latency_seconds_bucket{{le="1"}} {total}\n'
            f'latency_seconds_bucket{{le="+Inf"}} {total}\n'
        )

    server.answers["/metrics"] = metrics


def test_latency_that_gets_worse_takes_the_move_back(server: Server, guarded: Worker) -> None:
    """Pages and masks are where they were, the journal is empty, and it is left alone."""
    tells(server, guarded, worse_at_home=True)
    before = guarded.masks()
    guarded.until(Reason.REMOTE_MEMORY)
    guarded.until(Reason.GUARDING)
    assert guarded.kernel.bytes_on(0) == SIZE
    assert guarded.masks() == {frozenset({0})}
    undo = guarded.until(Reason.GUARD_UNDO)
    assert undo.judgement is not None
    assert undo.judgement.result is Compared.UNDONE
    guarded.until(Reason.GUARD_PAUSE)
    assert guarded.kernel.bytes_on(1) == SIZE
    assert guarded.masks() == before
    assert guarded.journal.entries() == ()
    report = guarded.daemon.report
    assert report is not None
    (outcome,) = report.outcomes
    assert (outcome.end, outcome.threads_given_back) == (End.DONE, THREADS)
    assert outcome.moved == {(0, 1): SIZE}
    assert guarded.daemon.totals.judgements == {Compared.UNDONE: 1}
    told = [reason for reason in guarded.said if reason is not Reason.MOVING]
    assert told == [
        Reason.GUARDING,
        Reason.REMOTE_MEMORY,
        Reason.GUARDING,
        Reason.GUARD_UNDO,
        Reason.GUARD_PAUSE,
    ]


def test_latency_that_gets_better_keeps_it(server: Server, guarded: Worker) -> None:
    """It is at home, and what was found is told."""
    tells(server, guarded, worse_at_home=False)
    decision = guarded.until(Reason.HOME)
    assert guarded.kernel.bytes_on(0) == SIZE
    assert guarded.masks() == {frozenset({0})}
    assert decision.judgement is not None
    assert decision.judgement.result is Compared.KEPT
    assert "the move stays" in decision.why
    assert guarded.daemon.totals.judgements == {Compared.KEPT: 1}


def test_a_dead_endpoint_costs_a_cycle_nothing(server: Server, guarded: Worker) -> None:
    """It hangs for as long as it likes; the move goes ahead after two windows."""
    server.answers["/metrics"] = server.hang
    longest_s = 0.0
    limit = time.monotonic() + WITHIN_S
    reason = None
    while reason is not Reason.REMOTE_MEMORY:
        assert time.monotonic() < limit
        began_s = time.monotonic()
        (decision,) = guarded.daemon.cycle().plan.decisions
        longest_s = max(longest_s, time.monotonic() - began_s)
        reason = decision.reason
        time.sleep(0.02)
    assert longest_s < 0.9
    assert "not guarded" in decision.why
    assert guarded.daemon.totals.judgements == {Compared.UNREADABLE: 1}
