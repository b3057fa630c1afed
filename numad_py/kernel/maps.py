"""/proc/PID/maps: where areas end, which numa_maps leaves out."""

from __future__ import annotations


def parse_maps(text: str) -> dict[int, int]:
    """Return the end address by start address; lines of another form are left out.

    Lines are ``START-END PERMISSIONS ...`` (``show_vma_header_prefix``, fs/proc/task_mmu.c); only
    newlines part them, since paths may hold any other character.
    """
    ends: dict[int, int] = {}
    for line in text.split("\n"):
        first, dash, rest = line.partition("-")
        last = rest.partition(" ")[0]
        if not dash:
            continue
        try:
            ends[int(first, 16)] = int(last, 16)
        except ValueError:
            continue
    return ends
