"""The machine in /proc: uptime, CPU use, pressure, swap and settings."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from numad_py.errors import Malformed, NumadError, Vanished
from numad_py.kernel.files import Files
from numad_py.kernel.machine_stat import MachineStat, parse_machine_stat
from numad_py.kernel.pressure import parse_pressure, parse_stalled_s
from numad_py.model.machine import Pressure


@dataclass(frozen=True)
class Swap:
    """What the machine can swap to."""

    total_bytes: int
    used_bytes: int


class MachineFs(Files):
    """What a proc file system tells of the machine as a whole."""

    clock_ticks: Final = os.sysconf("SC_CLK_TCK")
    """Of a second, in which the kernel counts CPU time."""

    def uptime_s(self) -> float:
        """Return the time since boot (CLOCK_BOOTTIME; uptime_proc_show, fs/proc/uptime.c).

        Raises:
            NumadError: there is no such file: this is no proc file system.
            Malformed: the file holds no number.
        """
        try:
            text = self._read_often("uptime")
        except (Vanished, Malformed) as error:
            raise self._no_procfs(error) from None
        try:
            return float(text.split()[0])
        except (ValueError, IndexError):
            msg = f"{self.root / 'uptime'} holds no number: {text[:40]!r}"
            raise Malformed(msg) from None

    def machine_stat(self) -> MachineStat:
        """Return how busy each CPU was, and how many processes were made (/proc/stat)."""
        with self._counted:
            return parse_machine_stat(self._read_often("stat"))

    def busy_s(self, cpus: Collection[int]) -> dict[int, float]:
        """Return for how long each of these CPUs was not idle since boot; of none if not to be had.

        Offline ones are left out.
        """
        try:
            ticks = self.machine_stat().busy_ticks
        except NumadError:
            return {}
        return {cpu: ticks[cpu] / self.clock_ticks for cpu in cpus if cpu in ticks}

    def pressure(self) -> Pressure:
        """Return who waited for CPUs and memory; None where this kernel has no PSI.

        Where it is switched off (``psi=0``) the files are absent, or reading them answers
        EOPNOTSUPP (``psi_proc_init`` and ``psi_show``, kernel/sched/psi.c).
        """
        shares: dict[str, dict[str, float]] = {}
        for name in ("cpu", "memory"):
            with contextlib.suppress(NumadError):
                shares[name] = parse_pressure(self._read_often(f"pressure/{name}"))
        memory = shares.get("memory", {})
        return Pressure(
            cpu_some=shares.get("cpu", {}).get("some"),
            memory_some=memory.get("some"),
            memory_full=memory.get("full"),
        )

    def stalled_s(self) -> dict[str, float]:
        """Return for how long tasks have waited since boot, for ``cpu`` and ``memory``.

        Without those that this kernel does not tell.
        """
        found = {}
        for name in ("cpu", "memory"):
            with contextlib.suppress(NumadError):
                stalled_s = parse_stalled_s(self._read(f"pressure/{name}"))
                if stalled_s is not None:
                    found[name] = stalled_s
        return found

    def boot_id(self) -> str | None:
        """Return the id of this boot."""
        try:
            return self._read("sys/kernel/random/boot_id").strip()
        except NumadError:
            return None

    def sysctl_int(self, name: str) -> int | None:
        """Return a number below /proc/sys, None where this kernel has none of that name."""
        try:
            return int(self._read(f"sys/{name}").split()[0])
        except (NumadError, ValueError, IndexError):
            return None

    def swap(self) -> Swap:
        """Return how much swap there is and how much of it is used.

        Raises:
            NumadError: meminfo cannot be read, or does not say.
        """
        import psutil  # noqa: PLC0415 - seldom asked for, and takes a while

        meminfo = self._read("meminfo")
        if "SwapTotal:" not in meminfo or "SwapFree:" not in meminfo:
            # There psutil would ask the kernel, which is not that of another root.
            msg = f"{self.root / 'meminfo'} does not say how much swap there is"
            raise Malformed(msg)
        psutil.PROCFS_PATH = str(self.root)
        with warnings.catch_warnings():
            # It warns where vmstat is missing, of which nothing is asked for here.
            warnings.simplefilter("ignore", RuntimeWarning)
            try:
                figures = psutil.swap_memory()
            except (ValueError, IndexError) as error:
                msg = f"{self.root / 'meminfo'} cannot be parsed: {error}"
                raise Malformed(msg) from None
        return Swap(figures.total, max(0, figures.used))

    def _no_procfs(self, why: object) -> NumadError:
        return NumadError(f"{self.root} cannot be used ({why}): is this a proc file system?")
