"""Device files: which of them a process uses, and which PCI devices these are."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice

from numad_py.errors import NumadError
from numad_py.kernel.files import Files
from numad_py.kernel.procfs import is_own

MOST_FDS = 4096
"""So many descriptors of a process are looked at."""
NVIDIA_MAJOR = 195
"""Of /dev/nvidiaN (Documentation/admin-guide/devices.txt: ``Nvidia graphics devices``)."""
_CHAR = "dev/char"
_NVIDIA = "driver/nvidia/gpus"
_ADDRESS = re.compile(r"/([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(?=/)")
_VFIO_GROUP = re.compile(r"/virtual/vfio/(?:noiommu-)?([0-9]+)$")
_DEVNAME = re.compile(r"^DEVNAME=(.+)$", re.MULTILINE)
_MINOR = re.compile(r"^Device Minor:\s+([0-9]+)\s*$", re.MULTILINE)
_MAPPED = re.compile(rb"^\S+ \S+ \S+ \S+ \S+ +(/dev/[^\n]+)$", re.MULTILINE)
_NO_DEVICE = (
    *("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/full", "/dev/tty"),
    *("/dev/shm/", "/dev/pts/", "/dev/hugepages", "/dev/mqueue/", "/dev/fuse"),  # noqa: S108
)
"""Paths, or beginnings of them, that say nothing of a PCI device."""

Number = tuple[int, int]
"""Major and minor of a character device."""
Rdev = Callable[[str], Number | None]
"""Tells which character device a path leads to; None where it leads to none."""


@dataclass(frozen=True)
class CharDevice:
    """A character device behind which PCI devices are."""

    path: str
    """As on the host: ``/dev/dri/renderD128``."""
    number: Number
    addresses: tuple[str, ...]
    """More than one of a VFIO group only."""


def rdev_of(path: str) -> Number | None:
    """Return which character device a path leads to; None where it leads to none.

    A link of /proc/PID/fd leads to the open file itself, whatever its path is in a container
    (``proc_pid_get_link``, fs/proc/base.c).
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISCHR(found.st_mode):
        return None
    return os.major(found.st_rdev), os.minor(found.st_rdev)


def _no_rdev(_path: str) -> Number | None:
    return None


class CharDevices(Files):
    """Which character devices belong to PCI devices, as a sysfs tells."""

    def char_devices(self, addresses: Collection[str]) -> tuple[CharDevice, ...]:
        """Return those behind which one of these PCI devices is.

        ``/sys/dev/char/MAJOR:MINOR`` is a link to the device's folder, which is below that of its
        parent (``device_create_sys_dev_entry``, drivers/base/core.c): DRM, accel, InfiniBand verbs
        and any driver that names a parent. A VFIO group has none: its number is that of its IOMMU
        group (``vfio_group_alloc``, drivers/vfio/group.c), whose folder links its devices.
        """
        found = []
        for entry in self._listed(_CHAR):
            major, _, minor = entry.partition(":")
            target = ""
            with contextlib.suppress(OSError):
                target = os.readlink(f"{self._prefix}{_CHAR}/{entry}")
            behind = _ADDRESS.findall(target)[-1:]
            if group := _VFIO_GROUP.search(target):
                behind = sorted(self._listed(f"kernel/iommu_groups/{group[1]}/devices"))
            behind = [address for address in behind if address in addresses]
            if behind and (path := self._path(entry)) is not None:
                with contextlib.suppress(ValueError):
                    found.append(CharDevice(path, (int(major), int(minor)), tuple(behind)))
        return tuple(found)

    def _path(self, entry: str) -> str | None:
        """Return the path as udev makes it (DEVNAME; ``dev_uevent``, drivers/base/core.c)."""
        try:
            name = _DEVNAME.search(self._read(f"{_CHAR}/{entry}/uevent"))
        except NumadError:
            return None
        return f"/dev/{name[1]}" if name else None

    def _listed(self, folder: str) -> list[str]:
        try:
            return os.listdir(self._prefix + folder)
        except OSError:
            return []


class DeviceUse(Files):
    """Which device files a process has open or mapped."""

    def __init__(self, root: str | os.PathLike[str] = "/proc", rdev: Rdev | None = None) -> None:
        """Read below ``root``.

        Args:
            root: of a proc file system.
            rdev: what a link of a descriptor leads to; None: asks the kernel where ``root`` is its
                own, since on another's the links lead to this machine's devices.
        """
        super().__init__(root)
        self._rdev = rdev or (rdev_of if is_own(root) else _no_rdev)

    def opened(self, pid: int) -> dict[str, Number | None]:
        """Return the device files that a process has open: what each is, by its path.

        The path is that of the process: of a container, perhaps. The number tells the device
        itself; None where it is not known. Of the first MOST_FDS descriptors. The folder is its
        user's alone: other users need CAP_DAC_READ_SEARCH, and for the links CAP_SYS_PTRACE
        (``proc_fd_permission``, fs/proc/fd.c; ``proc_fd_access_allowed``, fs/proc/base.c).

        Raises:
            Vanished: it ended.
            RightsError: they may not be seen.
            Malformed: listing them fails in another way.
        """
        folder = f"{self._prefix}{pid}/fd"
        found: dict[str, Number | None] = {}
        try:
            with os.scandir(folder) as listing:
                descriptors = [entry.name for entry in islice(listing, MOST_FDS)]
        except OSError as error:
            raise self._translate(error, folder) from None
        for descriptor in descriptors:
            try:
                path = os.readlink(f"{folder}/{descriptor}")
            except OSError:
                continue
            if path.startswith("/dev/") and not path.startswith(_NO_DEVICE) and path not in found:
                found[path] = self._rdev(f"{folder}/{descriptor}")
        return found

    def mapped(self, pid: int) -> set[str]:
        """Return the paths of the device files that a process has mapped, as the process has them.

        A driver maps what a process works with, where libraries open every device that there is.
        CAP_SYS_PTRACE is enough. Takes mmap_lock, as any reading of maps does.

        Raises:
            Vanished: it ended.
            RightsError: its maps may not be read.
            Malformed: they cannot be read.
        """
        raw = self._read_bytes(f"{pid}/maps")
        if b" /dev/" not in raw:
            return set()
        paths = (path.decode("utf-8", "surrogateescape") for path in _MAPPED.findall(raw))
        return {path for path in paths if not path.startswith(_NO_DEVICE)}

    def nvidia(self) -> tuple[CharDevice, ...]:
        """Return NVIDIA's GPUs; none where its driver is not loaded.

        Its devices have no parent in sysfs, and N of /dev/nvidiaN is no CUDA ordinal. As documented
        by NVIDIA (README of the driver, "/proc interface") and as its open kernel module prints it
        (``nv_procfs_read_gpu_info``, kernel-open/nvidia/nv-procfs.c): a folder by PCI address, in
        which ``information`` has the line ``Device Minor:``. Tried with driver 580.159 and an H100.
        """
        found = []
        try:
            addresses = os.listdir(self._prefix + _NVIDIA)
        except OSError:
            return ()
        for address in sorted(addresses):
            with contextlib.suppress(NumadError):
                text = self._read(f"{_NVIDIA}/{address}/information")
                if minor := _MINOR.search(text):
                    number = (NVIDIA_MAJOR, int(minor[1]))
                    found.append(CharDevice(f"/dev/nvidia{minor[1]}", number, (address.lower(),)))
        return tuple(found)
