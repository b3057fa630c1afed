"""Device files of a made machine: what /sys/dev/char, IOMMU groups and NVIDIA's driver say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.fake_tree import link, put


def char_device(sysfs: Path, number: str, name: str, folder: str) -> None:
    """Write a character device.

    Args:
        sysfs: the root.
        number: ``226:128``.
        name: its path below /dev, ``dri/renderD128``.
        folder: below /sys/devices, ``pci0000:00/0000:03:00.0/drm/renderD128``.
    """
    major, minor = number.split(":")
    here = sysfs / "devices" / folder
    put(here / "uevent", f"MAJOR={major}\nMINOR={minor}\nDEVNAME={name}\n")
    link(sysfs / "dev/char" / number, f"../../devices/{folder}")


def vfio_group(sysfs: Path, group: int, minor: int, addresses: Iterable[str]) -> None:
    """Write a VFIO group, whose minor is not its number, and the devices in it."""
    char_device(sysfs, f"244:{minor}", f"vfio/{group}", f"virtual/vfio/{group}")
    for address in addresses:
        devices = sysfs / f"kernel/iommu_groups/{group}/devices"
        link(devices / address, f"../../../../devices/pci0000:00/{address}")


def nvidia_gpu(procfs: Path, address: str, minor: object) -> None:
    """Write what NVIDIA's driver says of a GPU, as version 580.159 does of an H100."""
    put(
        procfs / f"driver/nvidia/gpus/{address}/information",
        "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 41\n"
        "GPU UUID: \t GPU-00000000-0000-0000-0000-000000000000\nVideo BIOS: \t 96.00.da.00.0c\n"
        "Bus Type: \t PCIe\nDMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\n"
        f"Bus Location: \t {address}\nDevice Minor: \t {minor}\n"
        "GPU Firmware: \t 580.159.04\nGPU Excluded:\t No\n",
    )
