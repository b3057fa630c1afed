"""``explain``: the story of one worker, from the daemon's documents or a look of our own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from numad_py.cli.common import (
    LOOKS_WITHOUT,
    Verbs,
    add_config,
    add_json,
    add_roots,
    print_json,
    print_text,
    privileged,
)
from numad_py.cli.control import with_config
from numad_py.cli.look import from_daemon
from numad_py.errors import NumadError
from numad_py.kernel.procfs import ProcFs
from numad_py.policy.load import defaults, load
from numad_py.policy.match import NO_RULE, why_not
from numad_py.serve.explain import explain_document, render_explain
from numad_py.serve.status import status_document


def add_verbs(verbs: Verbs) -> None:
    """Add ``explain``."""
    parser = verbs.add_parser("explain", help="the story of one worker, in plain words")
    parser.add_argument("worker", metavar="WORKER", help="its name, as status shows it, or its pid")
    parser.add_argument(
        "--direct", action="store_true", help="look at the machine, do not ask the daemon"
    )
    add_config(parser, LOOKS_WITHOUT)
    add_roots(parser)
    add_json(parser)
    parser.set_defaults(call=explain)


def explain(arguments: argparse.Namespace) -> int:
    """Print the story.

    Raises:
        UsageError: there is no such worker.
    """
    status = from_daemon(arguments, "status")
    if status is None:
        from numad_py.cli.direct import look  # noqa: PLC0415 - asking a daemon needs no rooms

        status = status_document(look(arguments), source="direct")
    procfs = ProcFs(arguments.procfs)
    files = status["policy"]["files"]
    document = explain_document(
        status,
        arguments.worker,
        lambda pid: _comm(procfs, pid),
        lambda pid: _why_not(procfs, pid, files, arguments.config),
    )
    if arguments.json:
        print_json(document)
    else:
        print_text(render_explain(document))
    return 0


def _comm(procfs: ProcFs, pid: int) -> str | None:
    """Return the name of a process; None where there is no such process."""
    try:
        return procfs.stat(pid).comm
    except NumadError:
        return None


def _why_not(procfs: ProcFs, pid: int, files: Sequence[str], config: str | None) -> str | None:
    """Return why a process is no worker by the policy that holds, as its files read now.

    None where that is not to be known: a file has become unusable or is not for us to read, or the
    process has ended.
    """
    from numad_py.observe.discovery import subject_of  # noqa: PLC0415 - few ask for it

    try:
        info = procfs.process(pid)
        if info.stat.kernel_thread:
            return "a thread of the kernel, about which no rule is asked"
        built_in = list(files) == list(defaults().sources)
        policy = defaults() if built_in else load(files[0], privileged=privileged())
    except (NumadError, IndexError):
        return None
    why = why_not(policy, subject_of(info))
    if why is None:
        again = f"{with_config('numad-py reload', config)} makes the daemon look again"
        return f"by now a rule of the policy's files matches it; {again}"
    see = f"{with_config('numad-py check-config', config)} lists the rules"
    return f"{why}; {see}" if why.startswith(NO_RULE) else why
