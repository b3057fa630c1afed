"""Bytes shared out over several nodes: a maximum flow (Edmonds and Karp), exact in whole bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence

from numad_py.decide.solver.candidates import positions
from numad_py.decide.solver.work import Work

Graph = dict[Hashable, dict[Hashable, int]]
_SOURCE, _SINK = "source", "sink"
_EDGES_A_STEP = 8
"""So many edges are gone over in one step of work; to make one takes a step."""


def divide(
    arrivals: Sequence[tuple[int, int]], room: Sequence[int], work: Work | None = None
) -> list[dict[int, int]] | None:
    """Return for each (mask, bytes) what comes to each position, or None where it cannot."""
    return divide_in_time(arrivals, [room] * len(arrivals), work)


def divide_in_time(
    arrivals: Sequence[tuple[int, int]],
    rooms: Sequence[Sequence[int]],
    work: Work | None = None,
) -> list[dict[int, int]] | None:
    """Return the same for arrivals one after another; ``rooms[t]`` holds when arrival t is there.

    What has come by then must fit in the room of that time, arrival by arrival. It is always
    brought to its end, whatever is left of ``work``, of which it spends.
    """
    graph: Graph = {}
    last = len(arrivals) - 1
    for time, (mask, size) in enumerate(arrivals):
        _edge(graph, _SOURCE, time, size)
        # The roomiest first: where the choice is free, nothing is filled to the brim.
        for at in sorted(positions(mask), key=lambda at: (-rooms[last][at], at)):
            _edge(graph, time, (at, time), size)
    for time, room in enumerate(rooms):
        for at, size in enumerate(room):
            _edge(graph, (at, time), (at, time + 1) if time < last else _SINK, max(0, size))
    left = {node: dict(edges) for node, edges in graph.items()}
    work = work or Work()
    edges = sum(map(len, graph.values()))
    work.spend(edges)
    if _flow(left, work, edges // _EDGES_A_STEP) < sum(size for _, size in arrivals):
        return None
    return [
        {
            at: graph[time][at, time] - left[time][at, time]
            for at in positions(mask)
            if graph[time][at, time] > left[time][at, time]
        }
        for time, (mask, _) in enumerate(arrivals)
    ]


def _edge(graph: Graph, start: Hashable, end: Hashable, size: int) -> None:
    graph.setdefault(start, {})[end] = size
    graph.setdefault(end, {}).setdefault(start, 0)


def _flow(left: Graph, work: Work, round_steps: int) -> int:
    """Send all that can be sent from source to sink; what each edge has left stays in ``left``."""
    sent = 0
    while True:
        work.spend(round_steps)
        came_from: dict[Hashable, Hashable] = {_SOURCE: _SOURCE}
        queue: deque[Hashable] = deque([_SOURCE])
        while queue and _SINK not in came_from:
            node = queue.popleft()
            for end, size in left.get(node, {}).items():
                if size > 0 and end not in came_from:
                    came_from[end] = node
                    queue.append(end)
        if _SINK not in came_from:
            return sent
        sent += _augment(left, came_from)


def _augment(left: Graph, came_from: Mapping[Hashable, Hashable]) -> int:
    path: list[tuple[Hashable, Hashable]] = []
    node: Hashable = _SINK
    while node != _SOURCE:
        path.append((came_from[node], node))
        node = came_from[node]
    size = min(left[start][end] for start, end in path)
    for start, end in path:
        left[start][end] -= size
        left[end][start] += size
    return size
