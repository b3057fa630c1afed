"""What goes wrong on real machines: stops, kills and changes in the middle of things."""

from __future__ import annotations

import time

from tests.guest.daemon import Service
from tests.guest.machine import Machine
from tests.guest.marks import on_guest
from tests.guest.project import ROOT
from tests.guest.workers import Workers

GUEST = "bookworm-n4c8"
MIB = 1 << 20
SLOW = '[migration]\nrate = "48MiB/s"\nchunk = "4MiB"\n'
"""So slow that a test can act in the middle of a move."""


def wait_until_moving(workers: Workers, name: str, node: int, limit_s: int = 60) -> None:
    """Wait until a part of a worker's memory has come to a node, and more is to come."""
    end = time.monotonic() + limit_s
    while workers.residency(name).get(node, 0) < 16 * MIB:
        assert time.monotonic() < end, workers.residency(name)


@on_guest(GUEST)
def test_stop_ends_a_move_within_two_seconds(guest: Machine, workers: Workers) -> None:
    """A stop in the middle of a move takes 2 s at most; the worker lives, half moved."""
    service = Service(guest)
    service.configure(SLOW)
    workers.start("a", "--size 512MiB --memory-nodes 1 --cpus 0 --thp never --pause-ms 500")
    workers.start("f", "--size 128MiB --memory-nodes 3 --start-cpus 1 --pause-ms 500")
    workers.wait_ready()
    before = workers.masks("a", "f")
    service.start()
    wait_until_moving(workers, "a", 0)
    took_s = service.stop()
    print(f"systemctl stop in the middle of a move: {took_s:.2f} s")
    assert took_s <= 2.0
    assert service.show("Result") == "success"
    assert workers.alive("a", "f")
    assert workers.residency("a")[1] > 64 * MIB
    assert workers.masks("a", "f") == before


@on_guest(GUEST)
def test_kill_in_the_middle_of_a_move_loses_nothing(guest: Machine, workers: Workers) -> None:
    """After kill -9 systemd starts it again; all come home, and stop gives the first masks back."""
    service = Service(guest)
    service.configure(SLOW)
    workers.start("f", "--size 256MiB --thp never --memory-nodes 3 --start-cpus 1 --threads 3")
    workers.start("a", "--size 384MiB --memory-nodes 1 --cpus 0 --thp never --pause-ms 500")
    workers.wait_ready()
    before = workers.masks("a", "f")
    service.start()
    wait_until_moving(workers, "a", 0)
    assert workers.masks("f") != {"f": before["f"]}
    guest.run("systemctl kill --kill-whom=main --signal=KILL numad-py")
    seconds = workers.wait_home({"a": [[0]]}, 60)
    print(f"seconds until home after kill -9: {seconds}")
    assert None not in seconds.values()
    assert workers.residency("f")[3] >= 256 * MIB
    assert service.show("NRestarts") == "1"
    assert set(map(tuple, workers.masks("f")["f"].values())) == {(6, 7)}
    service.stop()
    assert workers.masks("a", "f") == before
    assert guest.out("cat /var/lib/numad-py/journal.jsonl") == ""


@on_guest(GUEST)
def test_a_bad_policy_fails_the_reload_and_the_old_one_stays(
    guest: Machine, workers: Workers
) -> None:
    """The reload ends with an error that names file, line and key; the daemon goes on."""
    service = Service(guest)
    service.start()
    service.configure('[daemon]\nmode = "observe"\nintervall = "1s"\n')
    failed = guest.run("systemctl reload numad-py", check=False)
    assert failed.returncode != 0
    log = guest.out("journalctl -u numad-py -o cat --no-pager -n 20")
    assert "50-test.toml:3: daemon.intervall: no such key (did you mean interval?)" in log
    assert "numad_py_policy_valid" in "".join(workers.metrics())
    assert workers.metrics()["numad_py_policy_valid"] == 0
    status = service.status()
    assert status["mode"] == "act"
    assert "intervall" in status["policy"]["error"]
    service.configure('[daemon]\nmode = "observe"\n')
    guest.run("systemctl reload numad-py")
    assert service.status()["mode"] == "observe"
    assert workers.metrics()["numad_py_policy_valid"] == 1


@on_guest(GUEST)
def test_a_bad_policy_or_no_right_keeps_it_from_starting(guest: Machine, workers: Workers) -> None:
    """Exit 78 and 77, each with what is wrong, and systemd does not try again."""
    del workers
    service = Service(guest)
    service.configure("[daemon\n")
    guest.run("systemctl start numad-py", check=False)
    assert service.show("ExecMainStatus") == "78"
    assert service.show("NRestarts") == "0"
    assert "50-test.toml:1" in guest.out("journalctl -u numad-py -o cat --no-pager -n 20")

    guest.run(
        "rm /etc/numad-py/conf.d/50-test.toml; systemctl reset-failed numad-py; "
        "mkdir -p /run/systemd/system/numad-py.service.d; printf '[Service]\\n"
        "AmbientCapabilities=\\nAmbientCapabilities=CAP_SYS_PTRACE\\n' "
        "> /run/systemd/system/numad-py.service.d/less.conf; systemctl daemon-reload; "
        "systemctl start numad-py",
        check=False,
    )
    assert service.show("ExecMainStatus") == "77"
    assert "CAP_SYS_NICE is missing" in guest.out("journalctl -u numad-py -o cat --no-pager -n 20")


@on_guest(GUEST)
def test_devices_are_shown(guest: Machine, workers: Workers) -> None:
    """Status has PCI devices by node and name."""
    del workers
    service = Service(guest)
    service.start()
    (card,) = [device for device in service.status()["devices"] if device["node"] is not None]
    assert (card["kind"], card["node"], card["driver"]) == ("ethernet", 1, "virtio-pci")
    assert "Virtio" in card["name"]


@on_guest(GUEST)
def test_its_threads_go_before_others(guest: Machine, workers: Workers) -> None:
    """The unit's nice value is that of each thread, the one that moves too, whatever the user."""
    del workers
    service = Service(guest)
    service.start()
    found = guest.out(f"ps -L -o ni= -p {service.show('MainPID')}").split()
    assert len(found) > 1
    assert set(found) == {"-10"}


@on_guest(GUEST)
def test_the_socket_is_for_root_and_the_group(guest: Machine, workers: Workers) -> None:
    """A member of the group numad-py pauses and resumes; anybody else is turned away with 77."""
    service = Service(guest)
    service.configure('[daemon]\ninterval = "1s"\n')
    service.start()
    member = "setpriv --reuid=65534 --regid=65534 --groups=numad-py"
    other = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    assert guest.out(f"{member} numad-py pause").strip() == "paused"
    refused = guest.run(f"{other} numad-py resume", check=False)
    assert refused.returncode == 77
    assert "group numad-py" in refused.stderr
    workers.start("a", "--size 64MiB --memory-nodes 1 --cpus 0 --pause-ms 500")
    workers.wait_ready()
    time.sleep(5)
    assert service.workers()[workers.pids["a"]]["decision"]["reason"] == "paused"
    assert workers.residency("a")[1] > 60 * MIB
    guest.run(f"{member} numad-py resume")
    assert workers.wait_home({"a": [[0]]}, 30)["a"] is not None


@on_guest(GUEST)
def test_other_memory_and_the_other_method(guest: Machine, workers: Workers) -> None:
    """Shared and file-backed memory of a sole user comes home; so does what migrate_pages moves."""
    service = Service(guest)
    service.configure('[migration]\nmethod = "migrate_pages"\n')
    common = "--memory-nodes 1 --cpus 0 --pause-ms 1000"
    workers.start("small", f"--size 128MiB {common}")
    workers.start("shmem", f"--size 300MiB --kind shmem {common}")
    workers.start("file", f"--size 300MiB --kind file --file /var/tmp/weights {common}")
    workers.wait_ready()
    service.start()
    seconds = workers.wait_home({name: [[0]] for name in ("small", "shmem", "file")}, 60)
    print(f"seconds until home by kind and method: {seconds}")
    guest.run("rm -f /var/tmp/weights")
    assert None not in seconds.values()


@on_guest(GUEST)
def test_once_keeps_masks_and_restore_gives_them_back(guest: Machine, workers: Workers) -> None:
    """One cycle acts without a service; restore undoes its affinity from the journal."""
    workers.start("f", "--size 128MiB --memory-nodes 3 --start-cpus 1 --threads 2 --pause-ms 500")
    workers.wait_ready()
    before = workers.masks("f")
    guest.run("numad-py run --once --dry-run --json >/dev/null")
    assert workers.masks("f") == before
    guest.run("numad-py run --once --json >/dev/null")
    assert set(map(tuple, workers.masks("f")["f"].values())) == {(6, 7)}
    assert "1 worker " in guest.out("numad-py restore")
    assert workers.masks("f") == before


@on_guest(GUEST)
def test_every_panel_and_alert_has_data_in_a_real_prometheus(
    guest: Machine, workers: Workers
) -> None:
    """Debian's Prometheus scrapes the daemon; no expression of the shipped files is empty."""
    workers.start("a", "--size 128MiB --memory-nodes 1 --cpus 0 --pause-ms 500")
    workers.wait_ready()
    Service(guest).start()
    for name in ("expressions.py", "prometheus_check.py"):
        guest.put(ROOT / "tests/guest" / name, f"/opt/check/tests/guest/{name}")
    done = guest.run("cd /opt/check && python3 -m tests.guest.prometheus_check", timeout=400)
    assert '"expressions"' in done.stdout
