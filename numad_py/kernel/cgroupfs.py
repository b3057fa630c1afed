"""cgroupfs: cpusets, and what a cgroup's path says of units and containers."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from numad_py.model.cpulist import parse_list

_UNIT = re.compile(r"\.(?:service|scope)$")
_CONTAINER = re.compile(
    r"^(?:docker-|cri-containerd-|crio-|libpod-|nerdctl-)?(?P<id>[0-9a-f]{64})(?:\.scope)?$"
)
_LXC = re.compile(r"^lxc\.payload\.(?P<id>[^/]+)$")


class CgroupFs:
    """Reads one cgroup file system, v2 or v1."""

    def __init__(self, root: str) -> None:
        """Read below ``root``."""
        self.root = Path(root)

    def cpuset_cpus(self, cgroup: str) -> frozenset[int] | None:
        """Return the CPUs that its cpuset grants; None where there is no cpuset controller.

        A cgroup without the controller has the cpuset of its nearest ancestor that has it.
        """
        path = PurePosixPath("/", cgroup.lstrip("/"))
        for folder in (path, *path.parents):
            for file in (
                self.root / str(folder)[1:] / "cpuset.cpus.effective",
                self.root / "cpuset" / str(folder)[1:] / "cpuset.effective_cpus",
            ):
                try:
                    return parse_list(file.read_text()) or None
                except (OSError, ValueError):
                    continue
        return None


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
