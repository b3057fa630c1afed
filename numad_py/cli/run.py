"""``numad-py run``: the daemon itself, or one cycle of it."""

from __future__ import annotations

import argparse
import signal
import time
from functools import partial
from pathlib import Path

from numad_py.cli.common import (
    Verbs,
    add_config,
    add_json,
    add_roots,
    print_json,
    print_text,
    privileged,
)
from numad_py.cli.direct import policy_for_look, refuse_if_blind
from numad_py.compose import build_daemon, serving, with_mode
from numad_py.daemon import STOP_WITHIN_S, Daemon
from numad_py.errors import UsageError
from numad_py.kernel import procfs, rights, sysfs
from numad_py.model.outcome import End
from numad_py.model.plan import Verdict
from numad_py.policy.load import load
from numad_py.policy.schema import Mode, Policy
from numad_py.serve import logs
from numad_py.serve.render import render_plan, render_status
from numad_py.serve.status import outcome_document, plan_document, status_document

ONCE_LIMIT_S = 3600.0
"""A single run ends by then even if the mover does not."""


def add_verbs(verbs: Verbs) -> None:
    """Add ``run``."""
    parser = verbs.add_parser("run", help="watch the workers and bring them home")
    parser.add_argument("--once", action="store_true", help="one cycle, then end; masks are kept")
    parser.add_argument(
        "--dry-run", action="store_true", help="decide and say so, but touch nothing"
    )
    parser.add_argument(
        "--mode", choices=[m.value for m in Mode], help="instead of the policy's daemon.mode"
    )
    add_config(parser)
    add_roots(parser)
    add_json(parser)
    parser.set_defaults(call=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until stopped, or once."""
    # Until there is a policy to read again; the default would end us.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mode = Mode(arguments.mode) if arguments.mode else None
    # What touches nothing and ends at once is a look, which any machine can have.
    look = arguments.once and arguments.dry_run
    found = policy_for_look if look else partial(load, privileged=privileged())
    if arguments.config is not None:
        # Whoever asks this daemon later names the file from another folder.
        arguments.config = str(Path(arguments.config).absolute())
    policy = with_mode(found(arguments.config), mode)
    dry = bool(arguments.dry_run or (arguments.once and policy.daemon.mode is not Mode.ACT))
    logs.configure(policy.log.level, policy.log.format)
    if not (arguments.once and dry):
        rights.require(needed(policy, dry=dry))
    if not dry and not (procfs.is_own(arguments.procfs) and sysfs.is_own(arguments.sysfs)):
        msg = (
            f"{arguments.procfs} and {arguments.sysfs} show another machine than the one "
            "that would be acted upon. Add --dry-run"
        )
        raise UsageError(msg)
    daemon = build_daemon(
        policy,
        config=arguments.config,
        mode=mode,
        dry=dry,
        procfs_root=arguments.procfs,
        sysfs_root=arguments.sysfs,
        privileged=privileged(),
    )
    if arguments.once:
        try:
            return once(daemon, dry=dry, as_json=arguments.json)
        finally:
            # Masks are kept; kernel settings are given back.
            daemon.actuator.stop(STOP_WITHIN_S)
    try:
        with serving(daemon):
            daemon.run()
    finally:
        # Also where it could not begin: masks of a run that was killed are given back.
        daemon.stop()
    return 0


def needed(policy: Policy, *, dry: bool) -> tuple[str, ...]:
    """Return the capabilities that this way of running cannot do without."""
    if dry or policy.daemon.mode is not Mode.ACT:
        return ("CAP_SYS_PTRACE",)
    return ("CAP_SYS_PTRACE", "CAP_SYS_NICE")


def once(daemon: Daemon, *, dry: bool, as_json: bool) -> int:
    """Run one cycle, wait for what it began, look again, and print both.

    Raises:
        RightsError: it is a look, there are workers, and none of them may be looked at.
    """
    first = daemon.cycle()
    if dry:
        refuse_if_blind(first)
    acting = any(d.verdict is Verdict.ACT for d in first.plan.decisions)
    last = first
    if acting and not dry:
        limit = time.monotonic() + ONCE_LIMIT_S
        while daemon.actuator.busy() and time.monotonic() < limit:
            time.sleep(0.05)
        daemon.actuator.pause()
        last = daemon.cycle()
    plan = plan_document(first, source="direct")
    status = status_document(last, source="direct")
    done = [outcome_document(outcome) for outcome in last.outcomes if not dry]
    if as_json:
        print_json({"schema": 1, "plan": plan, "outcomes": done, "status": status})
    else:
        print_text(f"{render_plan(plan)}\n\n{render_status(status)}")
    return 1 if any(outcome["end"] == End.FAILED.value for outcome in done) else 0
