"""resctrl: the memory traffic of groups of threads, as the processor measures it."""

from __future__ import annotations

import os
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from numad_py.errors import NumadError
from numad_py.kernel.files import Files

ROOT = ("/", "")
"""The group of all threads that are in no other."""


@dataclass(frozen=True)
class Traffic:
    """Bytes between the L3 caches and memory since the group was made."""

    local_bytes: int
    """To memory of the node that the cache belongs to (mbm_local_bytes)."""
    total_bytes: int
    """All of it (mbm_total_bytes)."""


class ResctrlFs(Files):
    """Reads one resctrl file system (Documentation/filesystems/resctrl.rst).

    Groups are named as /proc/PID/cpu_resctrl_groups names them (``proc_resctrl_show``,
    fs/resctrl/rdtgroup.c): a control group, ``/`` being the root, and a monitoring group in it, or
    an empty name for the control group itself.
    """

    @property
    def mounted(self) -> bool:
        """Whether it is mounted, on a machine that can monitor."""
        return os.path.exists(f"{self._prefix}mon_data")

    def traffic(self, res: str, mon: str) -> Traffic | None:
        """Return a group's traffic, all L3 caches together; None where any of them does not say.

        In place of a figure they can say ``Unavailable``, ``Error`` or ``Unassigned``. Those of a
        control group hold the traffic of the monitoring groups in it.
        """
        folder = _folder(res, mon)
        if folder is None:
            return None
        try:
            listing = os.listdir(f"{self._prefix}{folder}/mon_data")
        except OSError:
            return None
        # With Sub-NUMA Clustering these have folders of their own, whose figures they add up.
        caches = [f"{folder}/mon_data/{name}" for name in listing if name.startswith("mon_L3_")]
        local = [self._figure(f"{cache}/mbm_local_bytes") for cache in caches]
        total = [self._figure(f"{cache}/mbm_total_bytes") for cache in caches]
        known = [figure for figure in (*local, *total) if figure is not None]
        if not caches or len(known) < 2 * len(caches):
            return None
        return Traffic(sum(known[: len(caches)]), sum(known[len(caches) :]))

    def holds_only(self, res: str, mon: str, tids: AbstractSet[int]) -> bool:
        """Say whether a group's traffic is that of these threads, all of them, and of no other.

        False also where it names no thread: a control group does not where the processor monitors
        but cannot control (``is_closid_match``, fs/resctrl/rdtgroup.c). A group that owns CPUs
        counts what other threads do there as well.
        """
        folder = _folder(res, mon)
        if folder is None:
            return False
        try:
            tasks = set(map(int, self._read(f"{folder}/tasks").split()))
        except (NumadError, ValueError):
            return False
        return bool(tasks) and tasks == tids and not self._owns_cpus(folder)

    def _owns_cpus(self, folder: str) -> bool:
        try:
            return bool(self._read(f"{folder}/cpus_list").strip())
        except NumadError:
            return False

    def _figure(self, path: str) -> int | None:
        try:
            number, newline, _ = self._read(path).partition("\n")
        except NumadError:
            return None
        return int(number) if newline and number.isdecimal() else None


def _folder(res: str, mon: str) -> str | None:
    """Return a group's folder below the root; None where a name would lead elsewhere."""
    folder = "." if res == "/" else res
    for name in (folder, mon):
        if "/" in name or "\0" in name or name == "..":
            return None
    return f"{folder}/mon_groups/{mon}" if mon else folder
