"""cgroupfs: cpusets, memory by node, and what a cgroup's path says of units and containers."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath

from numad_py.errors import Malformed, NumadError
from numad_py.kernel.files import Files
from numad_py.kernel.pressure import parse_stalled_s
from numad_py.model.cpulist import parse_list

_UNIT = re.compile(r"\.(?:service|scope)$")
_CONTAINER = re.compile(
    r"^(?:docker-|cri-containerd-|crio-|libpod-|nerdctl-)?(?P<id>[0-9a-f]{64})(?:\.scope)?$"
)
_LXC = re.compile(r"^lxc\.payload\.(?P<id>[^/]+)$")


_TWO_PIDS = 2 * len("4194304\n")
"""Bytes in which two pids have room (PID_MAX_LIMIT, include/linux/threads.h)."""
_NODE = re.compile(r"N[0-9]+=[0-9]+$")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_HIERARCHICAL = "hierarchical_"
"""Begins the lines of v1 that count what the cgroups below are charged for, too."""
MOST_CGROUPS = 64
"""So many are looked through for other processes; whoever owns one may make any number."""


@dataclass(frozen=True)
class MemoryNumaStat:
    """What a cgroup and those below are charged for, in bytes by node.

    Charged is not mapped: memory is charged where it was touched first, and stays there when the
    process moves on. None where there is no such line, or it is odd. v1 has ``anon`` and ``file``
    alone, by LRU list: there tmpfs and shared memory are ``anon``, and what is locked is neither
    (``memcg_numa_stat_show``, mm/memcontrol-v1.c).
    """

    anon: Mapping[int, int] | None = None
    """Anonymous memory that is mapped (v2: NR_ANON_MAPPED)."""
    file: Mapping[int, int] | None = None
    """Page cache, mapped or not (v2: NR_FILE_PAGES, ``shmem`` included)."""
    shmem: Mapping[int, int] | None = None
    """tmpfs and shared memory."""
    file_mapped: Mapping[int, int] | None = None
    """Of ``file`` what is mapped, ``shmem`` included."""
    anon_thp: Mapping[int, int] | None = None
    """Of ``anon`` what is in transparent huge pages."""
    shmem_thp: Mapping[int, int] | None = None
    file_thp: Mapping[int, int] | None = None
    """The like of ``shmem`` and of the other files."""


_KEYS = frozenset(field.name for field in fields(MemoryNumaStat))


_WANTED = re.compile(
    rf"^((?:{_HIERARCHICAL})?(?:{'|'.join(sorted(_KEYS))})(?:=[0-9]+)?) (.*)\n", re.MULTILINE
)
"""A line with one of the figures; a last line that was cut short has no newline."""


def parse_numa_stat(text: str) -> MemoryNumaStat:
    """Return the figures of a memory.numa_stat.

    Lines of v2 are ``anon N0=BYTES N1=BYTES`` (``memory_numa_stat_show``, mm/memcontrol.c); those
    of v1 ``hierarchical_anon=PAGES N0=PAGES N1=PAGES``. Other keys are passed over.
    """
    found: dict[str, Mapping[int, int]] = {}
    for first, figures in _WANTED.findall(text):
        key, pages, _ = first.partition("=")
        if bool(pages) != key.startswith(_HIERARCHICAL):
            continue
        key = key.removeprefix(_HIERARCHICAL)
        words = figures.split(" ")
        if all(map(_NODE.match, words)):
            pairs = (word[1:].split("=") for word in words)
            unit_bytes = _PAGE_BYTES if pages else 1
            found[key] = {int(node): int(count) * unit_bytes for node, count in pairs}
    return MemoryNumaStat(**found)


class CgroupFs(Files):
    """Reads one cgroup file system, v2 or v1."""

    def cpuset_cpus(self, cgroup: str) -> frozenset[int] | None:
        """Return the CPUs that its cpuset grants; None where there is no cpuset controller.

        A cgroup without the controller has the cpuset of its nearest ancestor that has it.
        """
        path = PurePosixPath("/", cgroup.lstrip("/"))
        if ".." in path.parts:
            return None
        for folder in (path, *path.parents):
            for file in (
                f".{folder}/cpuset.cpus.effective",
                f"cpuset{folder}/cpuset.effective_cpus",
            ):
                try:
                    return parse_list(self._read(file)) or None
                except (NumadError, ValueError):
                    continue
        return None

    def memory_numa_stat(self, cgroup: str) -> MemoryNumaStat | None:
        """Return what a cgroup is charged for by node; None where no memory controller says."""
        for folder in _memory_folders(cgroup):
            try:
                stat = parse_numa_stat(self._read(f"{folder}/memory.numa_stat"))
            except NumadError:
                continue
            if stat.anon is not None or stat.file is not None:
                return stat
        return None

    def memory_stalled_s(self, cgroup: str) -> float | None:
        """Return for how long tasks of a cgroup have waited for memory; None where it is not told.

        Of cgroup v2 only (Documentation/accounting/psi.rst).
        """
        for folder in _memory_folders(cgroup)[:1]:
            with contextlib.suppress(NumadError):
                return parse_stalled_s(self._read(f"{folder}/memory.pressure"))
        return None

    def holds_only(self, cgroup: str, pid: int) -> bool:
        """Say whether a cgroup and those below hold this process and no other.

        False for the root, which is charged for what belongs to nobody, and for a threaded cgroup,
        whose cgroup.procs cannot be read (EOPNOTSUPP, cgroups(7)): others of its domain share its
        memory. Processes of other pid namespaces count, as 0.
        """
        if not cgroup.strip("/"):
            return False
        for folder in _memory_folders(cgroup):
            try:
                return self._pids(folder, str(pid)) == {str(pid)}
            except NumadError:
                continue
        return False

    def _pids(self, folder: str, own: str) -> set[str]:
        """Return the pids in a cgroup and those below, up to the first that holds another."""
        pids: set[str] = set()
        folders = [folder]
        for seen in folders:
            # The first two lines tell: a cgroup of thousands is not listed to its end.
            pids.update(self._read_bytes(f"{seen}/cgroup.procs", _TWO_PIDS).decode().split())
            if pids - {own}:
                break
            folders += self._children(seen)
            if len(folders) > MOST_CGROUPS:
                msg = f"{self._prefix}{folder} holds more than {MOST_CGROUPS} cgroups"
                raise Malformed(msg)
        return pids

    def _children(self, folder: str) -> list[str]:
        full = self._prefix + folder
        try:
            # One link is its name, one its own "." and one each child's ".." (kernfs_refresh_inode,
            # fs/kernfs/inode.c): most have no child, and some 60 files to list.
            if os.stat(full).st_nlink == 2:  # noqa: PLR2004 - counted above
                return []
            with os.scandir(full) as listing:
                return [f"{folder}/{e.name}" for e in listing if e.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise self._translate(error, full) from None


def _memory_folders(cgroup: str) -> tuple[str, ...]:
    """Return where a cgroup's memory controller may be, by v2 and by v1."""
    path = cgroup.strip("/")
    if {".", ".."} & set(path.split("/")) or "\0" in path:
        return ()
    return (f"./{path}", f"memory/{path}")


def unit_of(cgroup: str) -> str | None:
    """Return the innermost systemd unit on a cgroup's path."""
    parts = PurePosixPath(cgroup).parts
    return next((part for part in reversed(parts) if _UNIT.search(part)), None)


def container_of(cgroup: str) -> str | None:
    """Return the id of the container that a cgroup belongs to."""
    for part in reversed(PurePosixPath(cgroup).parts):
        match = _CONTAINER.match(part) or _LXC.match(part)
        if match:
            return match["id"]
    return None
