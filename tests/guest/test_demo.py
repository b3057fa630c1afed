"""The demo where it runs in place: on a machine that has several nodes itself."""

from __future__ import annotations

import re

from tests.guest.machine import Machine
from tests.guest.marks import on_guest
from tests.guest.project import ROOT
from tests.guest.workers import Workers


@on_guest("bookworm-n4c8")
def test_the_demo_runs_in_place_on_a_machine_of_several_nodes(
    guest: Machine, workers: Workers
) -> None:
    """Its own worker comes home, known servers of the machine are left alone, nothing is left."""
    workers.start("other", "--size 64MiB --memory-nodes 1 --cpus 0")
    workers.wait_ready()
    lay = workers.residency("other")
    guest.put(ROOT / "tests", "/opt/demo/tests")
    done = guest.run(
        "cd /opt/demo && python3 -m tests.demo --here --load /opt/load/numaload", timeout=200
    )
    assert "the worker is home" in done.stdout
    # A page or two of libc are always shared.
    assert re.search(r"move (done|partial): 512\.\d MiB", done.stdout), done.stdout
    assert "numad_py_moved_bytes_total" in done.stdout
    assert workers.residency("other") == lay
    left = guest.run(
        "pgrep -f '[n]umaload|[n]umad_py run' || ls -d /tmp/numad-py-demo-*", check=False
    )
    assert left.stdout == ""
