"""What else moves pages or threads, or makes memory remote; with advice."""

from __future__ import annotations

from collections.abc import Mapping

from numad_py.errors import NumadError
from numad_py.kernel.procfs import ProcFs
from numad_py.model.machine import Interference
from numad_py.model.quantity import format_bytes

NAMED = frozenset({"numad", "irqbalance"})
"""Names of processes that interfere."""


def interferences(procfs: ProcFs, named: Mapping[str, int]) -> tuple[Interference, ...]:
    """Return each, by name, whether it is there or not.

    Args:
        procfs: the machine's settings.
        named: pid by name of processes in ``NAMED`` that run.
    """
    return (
        _autonuma(procfs.sysctl_int("kernel/numa_balancing")),
        _irqbalance(named.get("irqbalance")),
        _numad(named.get("numad")),
        _swap(procfs),
        _zone_reclaim(procfs.sysctl_int("vm/zone_reclaim_mode")),
    )


def _autonuma(setting: int | None) -> Interference:
    """Judge kernel.numa_balancing: bit 0 balances, bit 1 only demotes to slower memory tiers."""
    if setting is None:
        return _absent("autonuma", "this kernel has no automatic NUMA balancing", level="note")
    if not setting & 1:
        return _absent("autonuma", "AutoNUMA is off")
    return Interference(
        "autonuma",
        present=True,
        level="warn",
        text="AutoNUMA is on: it stalls threads while it samples, and moves pages on its own. "
        "Bound threads draw pages to their home too, so the two agree; free ones may draw them "
        "away. Up to Linux 6.1 pages it has marked cannot be moved just then: the next move gets "
        'them. To switch it off: [migration] autonuma = "off", or sysctl kernel.numa_balancing=0',
    )


def _numad(pid: int | None) -> Interference:
    if pid is None:
        return _absent("numad", "numad does not run")
    return Interference(
        "numad",
        present=True,
        level="fail",
        text=f"numad runs (pid {pid}): it moves the same processes, and binds them elsewhere; "
        f"to end it: systemctl disable --now numad; if no unit started it: kill {pid}",
    )


def _irqbalance(pid: int | None) -> Interference:
    if pid is None:
        return _absent("irqbalance", "irqbalance does not run")
    return Interference(
        "irqbalance",
        present=True,
        level="note",
        text=f"irqbalance runs (pid {pid}): it moves interrupts, no harm to workers; keep theirs "
        "near their device with its --banirq or --policyscript if latency matters",
    )


def _zone_reclaim(setting: int | None) -> Interference:
    if not setting:
        return _absent("zone_reclaim", "a full node borrows from others before it reclaims")
    return Interference(
        "zone_reclaim",
        present=True,
        level="warn",
        text=f"vm.zone_reclaim_mode is {setting}: a full node reclaims before it borrows; "
        "inference servers usually want: sysctl vm.zone_reclaim_mode=0",
    )


def _swap(procfs: ProcFs) -> Interference:
    try:
        swap = procfs.swap()
    except NumadError:
        return _absent("swap", "swap is not known", level="note")
    if not swap.total_bytes:
        return _absent("swap", "no swap")
    if not swap.used_bytes:
        return Interference(
            "swap",
            present=True,
            level="note",
            text=f"{format_bytes(swap.total_bytes)} of swap, unused: what is swapped out comes "
            "back on the node of the thread that touches it",
        )
    return Interference(
        "swap",
        present=True,
        level="warn",
        text=f"{format_bytes(swap.used_bytes)} of {format_bytes(swap.total_bytes)} swap in use: "
        "a full node swaps while others have room; a worker's swapped bytes stand in status. "
        "Inference servers usually want: sysctl vm.swappiness=1, or swapoff -a",
    )


def _absent(name: str, text: str, *, level: str = "ok") -> Interference:
    return Interference(name, present=False, level=level, text=text)
