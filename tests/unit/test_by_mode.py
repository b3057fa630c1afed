"""The doer follows the mode of a policy that is loaded while the daemon runs; real threads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.act.actuator import Actuator
from numad_py.compose import build_actuator
from numad_py.events import Mailbox
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.sysfs import SysFs
from numad_py.model.outcome import End
from numad_py.model.plan import Decision, Finding, Reason, Verdict
from numad_py.model.snapshot import WorkerId
from numad_py.policy.schema import DaemonPolicy, Mode, OnStop, Policy

HOME = frozenset({min(os.sched_getaffinity(0))})


@pytest.fixture
def worker() -> Iterator[WorkerId]:
    """Run a process that sleeps."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield WorkerId(process.pid, ProcFs().stat(process.pid).start_ticks)
        process.kill()


def policy(folder: Path, mode: Mode, on_stop: OnStop = OnStop.RESTORE) -> Policy:
    """Return a policy of that mode."""
    return Policy(daemon=DaemonPolicy(mode=mode, on_stop=on_stop, state_dir=str(folder / "state")))


def bind(worker: WorkerId) -> Decision:
    """Return the decision to bind a worker to one CPU."""
    finding = Finding(worker, "x/0", None, 0, 0, 0, None, None)
    made = Decision("1:x/0", worker, "x/0", "x", Verdict.ACT, Reason.REMOTE_THREADS, "", finding)
    return replace(made, bind_cpus=HOME)


def end_of(actuator: Actuator) -> End:
    """Wait for one outcome."""
    for _ in range(500):
        if outcomes := actuator.outcomes():
            return outcomes[0].end
        time.sleep(0.01)
    pytest.fail("no outcome within 5 s")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
@pytest.mark.parametrize("on_stop", OnStop)
def test_leaving_act_is_a_stop_and_coming_back_acts_again(
    tmp_path: Path, worker: WorkerId, on_stop: OnStop
) -> None:
    """In another mode nothing is done; masks go back as on_stop says; in act it is done again."""
    first = os.sched_getaffinity(worker.pid)
    acting = policy(tmp_path, Mode.ACT, on_stop)
    mailbox = Mailbox()
    actuator = build_actuator(
        acting, ProcFs(), SysFs(), CgroupFs("/sys/fs/cgroup"), mailbox, dry=False
    )
    try:
        actuator.submit(bind(worker))
        assert end_of(actuator) is End.DONE
        assert os.sched_getaffinity(worker.pid) == HOME
        actuator.use(policy(tmp_path, Mode.OBSERVE, on_stop))
        kept = HOME if on_stop is OnStop.KEEP else first
        assert os.sched_getaffinity(worker.pid) == kept
        actuator.submit(bind(worker))
        assert end_of(actuator) is End.SIMULATED
        assert os.sched_getaffinity(worker.pid) == kept
        actuator.use(acting)
        actuator.submit(bind(worker))
        assert end_of(actuator) is End.DONE
        assert os.sched_getaffinity(worker.pid) == HOME
        assert actuator.restore_all() == 1
        assert os.sched_getaffinity(worker.pid) == first
    finally:
        actuator.stop(5)


def test_a_pause_outlasts_a_change_of_mode(tmp_path: Path, worker: WorkerId) -> None:
    """What somebody paused by hand is not resumed by a reload."""
    acting = policy(tmp_path, Mode.ACT)
    mailbox = Mailbox()
    actuator = build_actuator(
        acting, ProcFs(), SysFs(), CgroupFs("/sys/fs/cgroup"), mailbox, dry=False
    )
    try:
        actuator.pause()
        actuator.use(policy(tmp_path, Mode.ADVISE))
        actuator.use(acting)
        actuator.submit(bind(worker))
        assert end_of(actuator) is End.STOPPED
        actuator.resume()
        actuator.submit(bind(worker))
        assert end_of(actuator) is End.DONE
    finally:
        actuator.stop(5)
