"""/proc/PID/maps: where areas begin and end, and what is mapped there."""

from __future__ import annotations

from typing import NamedTuple

_NO_MEMORY = ("[vdso]", "[vvar", "[vsyscall]", "[uprobes]", "/dev/", "anon_inode:", "/dmabuf:")
HUGETLB_FILES = ("/anon_hugepage", "/dev/huge")
"""How paths of hugetlbfs begin; below /dev it is mounted as hugepages, hugepages-1G, hugetlbfs."""
_MEMORY_ALL_THE_SAME = ("/dev/shm/", "/dev/zero", "/dev/huge")  # noqa: S108 - prefixes alone


def maps_device(path: str) -> bool:
    """Say whether an area of this path shows what a device or the kernel itself has there.

    That is not a process's to place: a driver maps it as VM_IO or VM_PFNMAP, and such pages are
    never migrated (``vma_migratable``, include/linux/mempolicy.h), also where numa_maps counts them
    as resident, as those of /dev/nvidiactl. In a container /dev is a tmpfs, which may hold files:
    a name with a dot in it, such as ``model.gguf``, is no device's.
    """
    if not path.startswith(_NO_MEMORY) or path.startswith(_MEMORY_ALL_THE_SAME):
        return False
    name = path.removesuffix(" (deleted)").rpartition("/")[2]
    return not (path.startswith("/dev/") and "." in name)


class MappedArea(NamedTuple):
    """One area of an address space. A tuple: a process can have 65,000 of them."""

    start: int
    end: int
    permissions: str
    """``rw-p``, as mmap(2) was asked for it; ``s`` in the last place where it is shared."""
    device: str
    """``MAJOR:MINOR`` in hexadecimal; ``00:00`` where no file is mapped."""
    inode: int
    """0 where no file is mapped; of a System V segment its id, which may be 0 as well."""
    path: str
    """Empty where the kernel names nothing. ``[heap]``, ``[stack]``, ``[vdso]`` and other names in
    brackets are the kernel's own; a file that was deleted ends in `` (deleted)``."""

    @property
    def segment(self) -> tuple[str, int] | None:
        """What all who map the same file or shared segment have in common; None where nothing is.

        Nor for System V segments: each IPC namespace counts them from 0, on one device
        (``newseg``, ipc/shm.c).
        """
        if not self.path.startswith("/") or self.path.startswith("/SYSV"):
            return None
        return self.device, self.inode

    @property
    def may_hold_pages(self) -> bool:
        """Whether memory of the process can be resident here.

        Not where there is no access (runtimes reserve address space by the TiB that way, and give
        access to a part before they use it), and not in what devices and the kernel map.
        """
        return self.permissions[:3] != "---" and not maps_device(self.path)


def parse_maps(text: str) -> tuple[MappedArea, ...]:
    """Return all areas, as they stand; lines of another form are left out.

    Lines are ``START-END PERMISSIONS OFFSET DEVICE INODE PATH`` (``show_vma_header_prefix`` and
    ``show_map_vma``, fs/proc/task_mmu.c). Only newlines part them, since paths may hold any other
    character; of these the newline alone is escaped. A last line without one was cut short.
    """
    areas = []
    for line in text.split("\n")[:-1]:
        words = line.split(None, 5)
        try:
            start, _, end = words[0].partition("-")
            path = words[5] if len(words) > 5 else ""  # noqa: PLR2004 - counted in the docstring
            if "\\" in path:
                path = path.replace(r"\012", "\n")
            # Past the class's own __new__, which takes as long as the rest of a line.
            area = (int(start, 16), int(end, 16), words[1], words[3], int(words[4]), path)
        except (ValueError, IndexError):
            continue
        areas.append(tuple.__new__(MappedArea, area))
    return tuple(areas)
