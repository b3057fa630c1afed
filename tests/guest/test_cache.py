"""The page cache of a file on the wrong node, brought to another without reading it again."""

from __future__ import annotations

import json
from typing import Any

from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.marks import on_guest
from tests.guest.workers import Workers

MIB = 1 << 20
SIZE_MIB = 96
FILE = "/var/tmp/model.gguf"


def cached(guest: Machine, words: str = "") -> dict[str, Any]:
    """Return what the verb says of the file."""
    document = json.loads(guest.out(f"numad-py cache {FILE} --json {words}"))
    found: dict[str, Any] = document["files"][0]
    return found


def written_on(guest: Machine, cpu: int) -> None:
    """Write the file from a CPU, whose node then holds its cache."""
    guest.run(f"rm -f {FILE}; taskset -c {cpu} dd if=/dev/zero of={FILE} bs=1M count={SIZE_MIB}")
    guest.run(f"sync {FILE}")


def sectors_read(guest: Machine) -> int:
    """Return how much was ever read from the disk, in sectors."""
    return int(guest.out("awk '{print $3}' /sys/block/vda/stat"))


@on_guest("bookworm-n4c8")
def test_cached_pages_of_a_file_come_to_a_node(guest: Machine, workers: Workers) -> None:  # noqa: ARG001
    """All of them, and nothing is read from the disk for it."""
    written_on(guest, 6)
    before = cached(guest)
    assert before["cached_bytes"] == {"3": SIZE_MIB * MIB}
    read = sectors_read(guest)
    moved = cached(guest, "--to 0")
    assert moved["moved_bytes"] == SIZE_MIB * MIB
    assert cached(guest)["cached_bytes"] == {"0": SIZE_MIB * MIB}
    assert sectors_read(guest) - read < 2 * MIB // 512


@on_guest("bookworm-n4c8")
def test_pages_that_a_worker_maps_are_the_workers(guest: Machine, workers: Workers) -> None:
    """They stay, and are told of; its file is found by the worker's pid."""
    written_on(guest, 6)
    options = f"--kind file --file {FILE} --size {SIZE_MIB}MiB --cpus 0 --pause-ms 3000"
    workers.start("w", options)
    workers.wait_ready()
    pid = workers.pids["w"]
    document = json.loads(guest.out(f"numad-py cache --of {pid} --to 1 --json"))
    (found,) = document["files"]
    assert found["file"].endswith(FILE)
    assert (found["moved_bytes"], found["mapped_by_others_bytes"]) == (0, SIZE_MIB * MIB)
    assert workers.alive("w")


@on_guest("bookworm-n4c8")
def test_doctor_finds_what_a_worker_has_read_far_away(guest: Machine, workers: Workers) -> None:
    """And says how to bring it home; after that all is well."""
    written_on(guest, 6)
    options = f"--file {FILE} --size 64MiB --memory-nodes 0 --cpus 0-1 --pause-ms 3000"
    workers.start("w", options)
    workers.wait_ready()
    service = Service(guest)
    service.start()
    try:
        (warned,) = of_page_cache(guest)
        assert warned["level"] == "warn"
        assert f"{SIZE_MIB}.0 MiB on node 3" in warned["text"]
        _, _, command = warned["text"].partition("to bring it home: ")
        guest.run(command)
        assert cached(guest)["cached_bytes"] == {"0": SIZE_MIB * MIB}
        assert [check["level"] for check in of_page_cache(guest)] == ["ok"]
    finally:
        service.stop()


def of_page_cache(guest: Machine) -> list[dict[str, str]]:
    """Return what doctor says of the page cache."""
    checks = json.loads(guest.out("numad-py doctor --json"))["checks"]
    return [check for check in checks if check["name"] == "page_cache"]
