"""Which PCI devices a worker uses: what stands in /proc and /sys, and how seldom it is asked."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from numad_py.errors import RightsError, Vanished
from numad_py.kernel.cgroupfs import CgroupFs
from numad_py.kernel.devices import MOST_FDS, CharDevice, CharDevices, DeviceUse, Number, rdev_of
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.stat import Stat, parse_stat
from numad_py.kernel.sysfs import SysFs
from numad_py.model.snapshot import WorkerId
from numad_py.model.topology import Topology
from numad_py.observe.devices import (
    FIRST_S,
    SELDOM_S,
    YOUNG_EVERY_S,
    YOUNG_S,
    Devices,
    DevicesSeen,
)
from numad_py.observe.observer import Observer
from numad_py.policy.load import defaults
from tests import fake_tree
from tests.fake_devices import char_device, nvidia_gpu, vfio_group
from tests.fake_tree import FakeDevice, FakeMachine, FakeNode, FakeProcess, anon, area, link, put

PID = 100
ONE = WorkerId(PID, 5000)
GPU0, GPU1, AMD, CARD, PASSED = (
    "0000:3b:00.0",
    "0000:86:00.0",
    "0000:03:00.0",
    "0000:41:00.0",
    "0000:c1:00.0",
)
ADDRESSES = (GPU0, GPU1, AMD, CARD, PASSED)
OLD_S = 10_000.0


def stat_of(threads: int, size: int = 1 << 30) -> Stat:
    """Return the stat of a process with so many threads and bytes."""
    stat = parse_stat(fake_tree.stat_line(PID, "x", ONE.start_ticks, 0, 0))
    return stat._replace(num_threads=threads, resident_bytes=size)


class CountedUse(DeviceUse):
    """Counts what is read, and may be denied descriptors."""

    listings = 0
    maps = 0
    denied = False

    def opened(self, pid: int) -> dict[str, Number | None]:
        """Count, and read."""
        self.listings += 1
        if self.denied:
            msg = "no"
            raise RightsError(msg)
        return super().opened(pid)

    def mapped(self, pid: int) -> set[str]:
        """Count, and read."""
        self.maps += 1
        return super().mapped(pid)


class Made:
    """A machine with five devices, and one process."""

    def __init__(self, folder: Path) -> None:
        """Write it."""
        self.machine = FakeMachine(
            folder,
            [FakeNode(0, (0, 1)), FakeNode(1, (2, 3))],
            devices=[
                FakeDevice(GPU0, "0x030200", 0),
                FakeDevice(GPU1, "0x030200", 1),
                FakeDevice(AMD, "0x038000", 0),
                FakeDevice(CARD, "0x020700", 1),
                FakeDevice(PASSED, "0x120000", 1),
            ],
        )
        self.holds()
        sysfs = self.machine.sysfs
        char_device(sysfs, "226:128", "dri/renderD128", f"pci0000:00/{AMD}/drm/renderD128")
        bridge = "pci0000:40/0000:40:01.0"
        folder_of = f"{bridge}/{CARD}/infiniband_verbs/uverbs0"
        char_device(sysfs, "231:192", "infiniband/uverbs0", folder_of)
        char_device(sysfs, "1:3", "null", "virtual/mem/null")
        vfio_group(sysfs, 12, 3, [PASSED])
        nvidia_gpu(self.machine.procfs, GPU0, 0)
        nvidia_gpu(self.machine.procfs, GPU1, 1)
        self.numbers: dict[str, Number] = {}
        self.use = CountedUse(self.machine.procfs, self._rdev)
        self.topology: Topology = SysFs(sysfs).topology()
        self.devices = Devices(self.use, CharDevices(sysfs))

    def _rdev(self, path: str) -> Number | None:
        return self.numbers.get(str(Path(path).readlink()))

    def holds(self, *opened: str, mapped: tuple[str, ...] = ()) -> None:
        """Let the process have these files open, and those mapped."""
        areas = [area({}, start=0x1000 * (i + 1), file=path) for i, path in enumerate(mapped)]
        numa_maps = anon({0: 1 << 20}) + "".join(areas)
        self.machine.processes = [FakeProcess(PID, ("x",), numa_maps, descriptors=opened)]
        self.machine.write()

    def look(
        self, now_s: float = 1000.0, age_s: float = OLD_S, *, threads: int = 8, size: int = 1 << 30
    ) -> DevicesSeen:
        """Return what is seen of a process of so many threads and bytes."""
        return self.devices.look(ONE, stat_of(threads, size), now_s, age_s, self.topology)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return the machine."""
    return Made(tmp_path)


# The kernel's files


def test_character_devices_are_known_by_the_pci_device_above_them(made: Made) -> None:
    """The last address of the path counts, not the bridge's; a VFIO group has its own folder."""
    found = CharDevices(made.machine.sysfs).char_devices(ADDRESSES)
    assert sorted(found, key=lambda device: device.number) == [
        CharDevice("/dev/dri/renderD128", (226, 128), (AMD,)),
        CharDevice("/dev/infiniband/uverbs0", (231, 192), (CARD,)),
        CharDevice("/dev/vfio/12", (244, 3), (PASSED,)),
    ]


def test_other_pci_devices_are_left_out(made: Made) -> None:
    """Only those that were asked for: a keyboard hangs on PCI, too."""
    (found,) = CharDevices(made.machine.sysfs).char_devices([CARD])
    assert found.addresses == (CARD,)


def test_a_machine_without_devices_has_no_device_files(tmp_path: Path) -> None:
    """Neither folder need be there."""
    assert CharDevices(tmp_path).char_devices(ADDRESSES) == ()
    assert DeviceUse(tmp_path).nvidia() == ()


def test_nvidia_tells_the_minor_by_address(made: Made) -> None:
    """A GPU of which it says nothing of that kind is left out."""
    nvidia_gpu(made.machine.procfs, CARD, "unknown")
    assert made.use.nvidia() == (
        CharDevice("/dev/nvidia0", (195, 0), (GPU0,)),
        CharDevice("/dev/nvidia1", (195, 1), (GPU1,)),
    )


def test_open_files_that_are_no_devices_are_left_out(made: Made) -> None:
    """Sockets, files, shared memory and terminals say nothing, nor does a file named like one."""
    made.holds("socket:[7]", "/srv/dev/nvidia0", "/dev/shm/nvidia0", "/dev/null", "/dev/pts/1")
    assert made.use.opened(PID) == {}


def test_so_many_descriptors_are_looked_at_and_no_more(made: Made) -> None:
    """A process with a million files costs no more than one with a few thousand."""
    for descriptor in range(MOST_FDS + 10):
        link(made.machine.procfs / f"{PID}/fd/{descriptor}", f"/dev/made{descriptor}")
    assert len(made.use.opened(PID)) == MOST_FDS


def test_a_process_that_ended_has_vanished(made: Made) -> None:
    """As with any other file of a process."""
    with pytest.raises(Vanished):
        made.use.opened(PID + 1)
    with pytest.raises(Vanished):
        made.use.mapped(PID + 1)


def test_mapped_devices_stand_in_maps(made: Made) -> None:
    """Each once; a file whose name holds such a path is none."""
    made.holds(mapped=("/dev/nvidia0", "/dev/nvidia0", "/dev/shm/x", "/srv/a /dev/nvidia1"))
    assert made.use.mapped(PID) == {"/dev/nvidia0"}


def test_a_descriptor_leads_to_the_device_itself() -> None:
    """Of a process of ours: /dev/null is 1:3 (Documentation/admin-guide/devices.txt)."""
    with Path(os.devnull).open("rb") as file, Path(__file__).open("rb") as other:
        assert rdev_of(f"/proc/self/fd/{file.fileno()}") == (1, 3)
        assert rdev_of(f"/proc/self/fd/{other.fileno()}") is None
    assert rdev_of("/proc/self/fd/none") is None


def test_links_in_another_machines_files_are_not_followed(tmp_path: Path) -> None:
    """They would lead to this machine's devices."""
    link(tmp_path / f"{PID}/fd/0", "/dev/kmsg")
    assert DeviceUse(tmp_path).opened(PID) == {"/dev/kmsg": None}


# What is made of them


def test_devices_are_those_open_or_mapped(made: Made) -> None:
    """Of the machine's own; what is no PCI device is left out."""
    made.holds("/dev/dri/renderD128", "/dev/infiniband/uverbs0", "/dev/vfio/12", "/dev/kfd")
    assert made.look().addresses == (AMD, CARD, PASSED)


def test_the_number_tells_more_than_the_name(made: Made) -> None:
    """A container may call the second GPU nvidia0; what is mapped there goes by the same number."""
    made.numbers["/dev/nvidia0"] = (195, 1)
    made.holds("/dev/nvidia0")
    assert made.look().addresses == (GPU1,)
    made.holds("/dev/nvidia0", mapped=("/dev/nvidia0",))
    assert made.look(1000 + SELDOM_S).addresses == (GPU1,)


def test_of_open_gpus_the_mapped_ones_count(made: Made) -> None:
    """CUDA opens all that there are; other devices that are open stay."""
    gpus = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidia1")
    made.holds(*gpus, "/dev/infiniband/uverbs0", mapped=("/dev/nvidia1",))
    assert made.look() == DevicesSeen((CARD, GPU1), unsure=False)


def test_several_open_gpus_none_of_them_mapped_are_unsure(made: Made) -> None:
    """One alone is sure: there is no other that it might mean."""
    made.holds("/dev/nvidia0", "/dev/nvidia1")
    assert made.look() == DevicesSeen((GPU0, GPU1), unsure=True)
    made.holds("/dev/nvidia1")
    assert made.look(1000 + SELDOM_S) == DevicesSeen((GPU1,), unsure=False)


def test_without_the_right_to_descriptors_maps_tell(made: Made) -> None:
    """The shipped service has CAP_SYS_PTRACE alone."""
    made.use.denied = True
    made.holds("/dev/nvidia0", mapped=("/dev/nvidia1",))
    assert made.look() == DevicesSeen((GPU1,))


def test_a_worker_without_devices_costs_no_maps(made: Made) -> None:
    """Its descriptors tell enough."""
    made.holds("/dev/null", "socket:[7]")
    assert made.look() == DevicesSeen()
    assert (made.use.listings, made.use.maps) == (1, 0)


def test_where_no_device_has_a_file_nothing_is_read(tmp_path: Path) -> None:
    """A server with network cards only is asked nothing about them."""
    machine = FakeMachine(
        tmp_path,
        [FakeNode(0, (0,))],
        [FakeProcess(PID, ("x",), "", descriptors=["/dev/nvidia0"])],
        devices=[FakeDevice(CARD, "0x020000", 0)],
    ).write()
    use = CountedUse(machine.procfs)
    devices = Devices(use, CharDevices(machine.sysfs))
    topology = SysFs(machine.sysfs).topology()
    assert devices.look(ONE, stat_of(8), 1000.0, OLD_S, topology) == DevicesSeen()
    assert use.listings == 0


# How often


def test_a_young_worker_is_asked_more_often(made: Made) -> None:
    """It opens its devices after its imports."""
    assert made.look(1000, age_s=5) == DevicesSeen()
    made.holds("/dev/nvidia0")
    assert made.look(1000 + YOUNG_EVERY_S - 1, age_s=19) == DevicesSeen()
    assert made.look(1000 + YOUNG_EVERY_S, age_s=20).addresses == (GPU0,)
    assert made.use.listings == 2


def test_an_old_worker_is_asked_ever_more_seldom(made: Made) -> None:
    """In an hour of looks every 5 s: after 1, 2, 4, 8 minutes, and then every 10."""
    asked = []
    for tick in range(720):
        before = made.use.listings
        made.look(1000.0 + 5 * tick)
        if made.use.listings > before:
            asked.append(5 * tick)
    minutes = [0, 1, 3, 7, 15, 25, 35, 45, 55]
    assert [seconds / FIRST_S for seconds in asked] == minutes
    assert SELDOM_S == 10 * FIRST_S


def test_what_changed_is_asked_again_soon(made: Made) -> None:
    """Whoever opens one device may open more."""
    made.look(1000)
    made.look(1000 + FIRST_S)
    made.holds("/dev/nvidia0")
    at_s = 1000 + 3 * FIRST_S
    assert made.look(at_s).addresses == (GPU0,)
    made.holds("/dev/nvidia1")
    assert made.look(at_s + FIRST_S - 1).addresses == (GPU0,)
    assert made.look(at_s + FIRST_S).addresses == (GPU1,)


@pytest.mark.parametrize(("threads", "size"), [(12, 1 << 30), (8, 2 << 30), (8, 1 << 20)])
def test_a_worker_that_has_jumped_is_asked_soon(made: Made, threads: int, size: int) -> None:
    """Whoever opens a device starts threads and maps libraries: it is not waited for minutes."""
    now_s = 1000.0
    while made.devices._seen.get(ONE) is None or made.devices._seen[ONE].every_s < SELDOM_S:
        made.look(now_s)
        now_s += SELDOM_S
    made.look(now_s)
    made.holds("/dev/nvidia0")
    looks = made.use.listings
    assert made.look(now_s + 80) == DevicesSeen()
    assert made.look(now_s + 80, threads=9) == DevicesSeen(), "one thread is no jump"
    assert made.use.listings == looks
    assert made.look(now_s + 80, threads=threads, size=size).addresses == (GPU0,)


def test_one_that_jumps_all_the_time_is_not_asked_each_time(made: Made) -> None:
    """A pool of threads that comes and goes: an eighth of the pause is kept at least."""
    for i in range(100):
        made.look(1000.0 + 5 * i, threads=8 if i % 2 else 80)
    assert made.use.listings <= 100 * 5 / YOUNG_EVERY_S + 1


def test_growing_up_does_not_lengthen_the_pause_at_once(made: Made) -> None:
    """The first pause of an older worker is the shortest of its age, not twice a young one's."""
    made.look(1000, age_s=YOUNG_S - 1)
    made.look(1000 + YOUNG_EVERY_S, age_s=YOUNG_S + YOUNG_EVERY_S - 1)
    made.look(1000 + YOUNG_EVERY_S + FIRST_S - 1, age_s=200)
    assert made.use.listings == 2
    made.look(1000 + YOUNG_EVERY_S + FIRST_S, age_s=201)
    assert made.use.listings == 3


def test_a_new_topology_is_asked_about_at_once(made: Made) -> None:
    """A GPU that was plugged in has a file that meant nothing before."""
    made.holds("/dev/nvidia2")
    assert made.look() == DevicesSeen()
    new = FakeDevice("0000:af:00.0", "0x030200", 1)
    made.machine.devices = [*made.machine.devices, new]
    made.machine.write()
    nvidia_gpu(made.machine.procfs, new.address, 2)
    assert made.look(1005) == DevicesSeen()
    made.topology = SysFs(made.machine.sysfs).topology()
    assert made.look(1010).addresses == (new.address,)


def test_a_driver_that_is_loaded_later_is_found(made: Made) -> None:
    """Its devices were there, their files were not; the table is made anew now and then."""
    made.holds("/dev/accel/accel0")
    assert made.look() == DevicesSeen()
    folder = f"pci0000:00/{PASSED}/accel/accel0"
    char_device(made.machine.sysfs, "261:0", "accel/accel0", folder)
    assert made.look(1000 + SELDOM_S).addresses == (PASSED,)


def test_workers_that_ended_are_forgotten(made: Made) -> None:
    """A worker of the same id is another one."""
    made.look()
    made.devices.forget_except(frozenset())
    made.look()
    assert made.use.listings == 2


def test_a_process_that_vanished_uses_nothing(made: Made) -> None:
    """Nor does one whose maps are odd raise anything."""
    nobody = WorkerId(9, 9)
    assert made.devices.look(nobody, stat_of(8), 1000, 1, made.topology) == DevicesSeen()
    put(made.machine.procfs / f"{PID}/maps", "odd /dev/nvidia0\n")
    made.use.denied = True
    assert made.look() == DevicesSeen()


def test_the_observer_asks_as_seldom_and_the_worker_carries_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In cycles of 5 s an old worker's descriptors are listed once in the first minute."""
    made.holds("/dev/nvidia1", mapped=("/dev/nvidia1",))
    made.machine.processes = [
        replace(process, cmdline=("/usr/bin/llama-server",)) for process in made.machine.processes
    ]
    made.machine.write()
    listed: list[int] = []
    opened = DeviceUse.opened

    def counted(use: DeviceUse, pid: int) -> dict[str, Number | None]:
        listed.append(pid)
        return opened(use, pid)

    monkeypatch.setattr(DeviceUse, "opened", counted)
    cgroups = CgroupFs(f"{made.machine.sysfs}/fs/cgroup")
    observer = Observer(ProcFs(made.machine.procfs), SysFs(made.machine.sysfs), cgroups, defaults())
    for tick in range(12):
        put(made.machine.procfs / "uptime", f"{1000 + 5 * tick}.00 0.00\n")
        (worker,) = observer.observe().workers
        assert worker.devices == (GPU1,)
        assert not worker.devices_unsure
    assert listed == [PID]
