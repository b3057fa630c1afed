"""How long things may be left alone that hardly ever change."""

from __future__ import annotations

CALM_TIMES = 4
"""What has not changed for long is asked for this much more seldom than what has."""


def as_long_again(unchanged_s: float, shortest_s: float) -> float:
    """Return a pause: as long as a thing was found unchanged, up to CALM_TIMES the shortest one.

    Args:
        unchanged_s: from when it was new until it was last found to be the same.
        shortest_s: the pause after a change.
    """
    return min(max(unchanged_s, shortest_s), CALM_TIMES * shortest_s)
