"""What stands between a worker and its home, in numbers."""

from __future__ import annotations

from numad_py.decide.sizes import movable_by_node
from numad_py.model.plan import Finding, Home, WorkerMemory
from numad_py.model.residency import Mobility
from numad_py.model.snapshot import Worker


def diagnose(worker: Worker, home: Home | None, memory: WorkerMemory) -> Finding:
    """Return the finding; without a home nothing counts as remote."""
    movable = movable_by_node(worker, memory.refused)
    total = sum(movable.values())
    nodes = home.nodes if home is not None else frozenset(movable)
    remote = sum(size for node, size in movable.items() if node not in nodes)
    residency = worker.residency
    resident = residency.total_bytes() if residency is not None else 0
    run = worker.run_share
    return Finding(
        worker=worker.id,
        label=worker.label,
        home=home,
        movable_bytes=total,
        remote_bytes=remote,
        immovable_bytes=resident - total,
        locality=1 - remote / total if total and home is not None else None,
        run_locality=sum(run.get(n, 0.0) for n in nodes) if run and home is not None else None,
        shared_bytes=residency.total_bytes(mobility=Mobility.SHARED) if residency else None,
        left_bytes=residency.total_bytes(mobility=Mobility.LEFT) if residency else 0,
    )
