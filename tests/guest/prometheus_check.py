"""Runs inside a guest: the real Prometheus over the real daemon, and every expression asked.

An expression with a misspelt metric succeeds with nothing, so each must have an answer that is not
empty. To be called where ``tests/guest/expressions.py`` and this file lie below the folder::

    python3 -m tests.guest.prometheus_check [/opt/numad-py/config]

Prints one JSON document. Ends with 1 when a check fails or an expression has no answer, and names
it on stderr. numad-py must run, with at least one worker that it may move.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

from tests.guest.expressions import JOB, alert_expressions, expressions, selectors

CONFIG = Path("/opt/numad-py/config")
DAEMON = "127.0.0.1:10465"
PROMETHEUS = "127.0.0.1:9090"
SCRAPE_INTERVAL = "2s"
"""Rates over 30 s have something to stand on soon."""
# A guest without KVM takes tens of seconds for what takes one elsewhere.
PROMTOOL_LIMIT_S = 120
UP_LIMIT_S = 180
ANSWERS_LIMIT_S = 180

OK = "ok"
Answer = int | str
"""The number of series, OK, or what is wrong."""
Report = dict[str, dict[str, Answer]]
"""Answers by kind and name."""


class CheckError(Exception):
    """The check itself cannot go on."""


def main() -> int:
    """Check everything, print, and return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    config = Path(sys.argv[1]) if len(sys.argv) > 1 else CONFIG
    report: Report = {}
    try:
        report["promtool"] = dict(promtool(config / "prometheus"))
        with prometheus(config / "prometheus"):
            report |= answers(config)
    except (CheckError, OSError, subprocess.TimeoutExpired) as error:
        report["check"] = {"broken off": str(error)}
    print(json.dumps(report, indent=2, ensure_ascii=False))
    found = list(wrong(report))
    for line in found:
        print(f"prometheus_check: {line}", file=sys.stderr)
    return 1 if found else 0


def wrong(report: Report) -> Iterator[str]:
    """Return what is not as it should be; the alerts themselves may well be empty."""
    for kind, entries in report.items():
        for name, answer in entries.items():
            if isinstance(answer, str) and answer != OK:
                yield f"{kind}: {name}: {answer}"
            elif answer == 0 and kind != "alerts":
                yield f"{kind}: {name}: no series"


def promtool(folder: Path) -> Iterator[tuple[str, Answer]]:
    """Return what promtool says of each file and of the exposition."""
    _, exposition = get(DAEMON, "/metrics")
    for command, given in (
        ("check config prometheus.yml", None),
        ("check rules numad-py.rules.yml", None),
        ("test rules numad-py.rules.test.yml", None),
        ("check metrics", exposition),
    ):
        done = subprocess.run(
            ["promtool", *command.split()],
            cwd=folder,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PROMTOOL_LIMIT_S,
            check=False,
        )
        yield command, OK if done.returncode == 0 else done.stdout


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[None]:
    """Run Prometheus on a copy of the folder that scrapes often; end it whatever happens."""
    with tempfile.TemporaryDirectory(prefix="prometheus-check-") as scratch:
        copy = Path(scratch) / "config"
        shutil.copytree(folder, copy)
        file = copy / "prometheus.yml"
        text, count = re.subn(
            r"^(  (?:scrape|evaluation)_interval:) .*$",
            rf"\1 {SCRAPE_INTERVAL}",
            file.read_text(),
            flags=re.MULTILINE,
        )
        if count != 2:
            msg = f"{file.name} has {count} intervals below global, not scrape and evaluation"
            raise CheckError(msg)
        file.write_text(text)
        log = Path(scratch) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={file}",
                    f"--storage.tsdb.path={scratch}/data",
                    f"--web.listen-address={PROMETHEUS}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until_up(process, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_up(process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the daemon has been scraped.

    Raises:
        CheckError: Prometheus ended, or has not got there in time.
    """
    answer: Answer = "nothing"
    deadline = time.monotonic() + UP_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            msg = f"it ended with {process.returncode}: {log.read_text()[-2000:]}"
            raise CheckError(msg)
        with contextlib.suppress(OSError):
            answer = ask(f'up{{job="{JOB}"}} == 1')
            if answer == 1:
                return
        time.sleep(1)
    msg = f"no scrape of {DAEMON} in {UP_LIMIT_S} s ({answer}): {log.read_text()[-2000:]}"
    raise CheckError(msg)


def answers(config: Path) -> Report:
    """Ask for every expression of the dashboard and for what the alerts are made of."""
    dashboard = json.loads((config / "grafana/numad-py.json").read_text())
    alerts = alert_expressions((config / "prometheus/numad-py.rules.yml").read_text())
    parts = {
        f"{name}: {selector}": str(selector)
        for name, expression in alerts.items()
        for selector in selectors(expression)
    }
    deadline = time.monotonic() + ANSWERS_LIMIT_S
    return {
        "expressions": ask_until_answered(expressions(dashboard), deadline),
        "selectors of alerts": ask_until_answered(parts, deadline),
        "alerts": {name: ask(expression) for name, expression in alerts.items()},
    }


def ask_until_answered(asked: Mapping[str, str], deadline: float) -> dict[str, Answer]:
    """Ask again for what is empty, until the deadline: a rate needs samples first."""
    found: dict[str, Answer] = dict.fromkeys(asked, 0)
    while True:
        for name in [name for name, answer in found.items() if answer == 0]:
            found[name] = ask(asked[name])
        if 0 not in found.values() or time.monotonic() >= deadline:
            return found
        time.sleep(2)


def ask(expression: str) -> Answer:
    """Return how many series an expression has; not-a-number shows nothing and does not count."""
    status, body = get(PROMETHEUS, f"/api/v1/query?{urlencode({'query': expression})}")
    try:
        document = json.loads(body)
    except ValueError:
        return f"HTTP {status}: {body[:200]}"
    if document["status"] != "success":
        return str(document["error"])
    return sum(1 for series in document["data"]["result"] if series["value"][1] != "NaN")


def get(address: str, path: str) -> tuple[int, str]:
    """Return status and body."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
