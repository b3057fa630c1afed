"""Looking at a worker's memory around a move."""

from __future__ import annotations

from numad_py.kernel import clock, numa_maps
from numad_py.kernel.maps import parse_maps
from numad_py.kernel.procfs import ProcFs
from numad_py.kernel.segments import segments
from numad_py.model.residency import Residency


def measure(pid: int, procfs: ProcFs) -> Residency | None:
    """Return a process's residency as it is now, its files and segments told apart.

    None where its numa_maps is empty.

    Raises:
        Vanished: it ended.
        NumadError: it cannot be read.
    """
    began_s = clock.thread_cpu_s()
    vmas, odd = numa_maps.parse(procfs.numa_maps(pid))
    if not vmas:
        return None
    found = segments(vmas, parse_maps(procfs.maps(pid)))
    cost_s = clock.thread_cpu_s() - began_s
    return numa_maps.residency(
        vmas, odd, read_at_s=clock.boottime_s(), cost_s=cost_s, segments=found
    )
