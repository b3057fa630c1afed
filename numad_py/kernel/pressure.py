"""/proc/pressure: how long tasks waited for a resource (PSI)."""

from __future__ import annotations


def parse_pressure(text: str) -> dict[str, float]:
    """Return the share of the last 10 s in which tasks waited, 0..1, by ``some`` and ``full``.

    Lines are ``some avg10=0.38 avg60=0.98 avg300=0.35 total=2683378481``, averages in per cent
    (Documentation/accounting/psi.rst; ``psi_show``, kernel/sched/psi.c). Lines of another form and
    a last line that was cut short are left out; before Linux 5.13 the CPUs have no ``full``.
    """
    shares: dict[str, float] = {}
    for line in text.split("\n")[:-1]:
        key, _, figures = line.partition(" ")
        name, _, percent = figures.partition(" ")[0].partition("=")
        whole, dot, part = percent.partition(".")
        if key in {"some", "full"} and name == "avg10" and dot and f"{whole}{part}".isdecimal():
            shares[key] = float(percent) / 100
    return shares


def parse_stalled_s(text: str) -> float | None:
    """Return the seconds for which some task waited so far; None where the file does not say.

    The averages beside that total lag by some 10 s; the difference of two totals does not.
    """
    for line in text.split("\n")[:-1]:
        key, _, figures = line.partition(" ")
        total_us = figures.rpartition("total=")[2]
        if key == "some" and total_us.isdecimal():
            return int(total_us) / 1e6
    return None
