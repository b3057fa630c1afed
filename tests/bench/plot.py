"""Lines over a logarithmic axis, as SVG: one panel below the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 560, 220
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 32, 36


@dataclass(frozen=True)
class Line:
    """What one panel shows."""

    title: str
    points: Sequence[tuple[float, float]]
    """x above 0, and y not below 0."""


def svg(title: str, x_title: str, lines: Sequence[Line]) -> str:
    """Return a drawing; x is logarithmic, y begins at 0."""
    panels = "".join(_panel(line, x_title, i * HEIGHT + 24) for i, line in enumerate(lines))
    height = len(lines) * HEIGHT + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f"{_text(8, 16, title, 'start')}{panels}</svg>\n"
    )


def _panel(line: Line, x_title: str, top: int) -> str:
    xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
    low, high, most = math.log(min(xs)), math.log(max(xs)), max(ys) or 1.0
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    floor = top + TOP + down

    def at(x: float, y: float) -> tuple[float, float]:
        share = (math.log(x) - low) / (high - low) if high > low else 0.5
        return LEFT + share * across, floor - y / most * down

    places = [at(x, y) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn = [_text(LEFT, top + TOP - 10, line.title, "start")]
    drawn.append(
        f'<path d="M{LEFT},{top + TOP}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="grey"/>'
    )
    drawn.append(f'<polyline points="{path}" fill="none" stroke="black"/>')
    for (x, y), (across_x, _) in zip(places, line.points, strict=True):
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        drawn.append(_text(x, floor + 14, f"{across_x:g}", "middle"))
    marks = (0.0, most / 2, most)
    drawn += [_text(LEFT - 6, at(min(xs), y)[1] + 4, f"{y:.3g}", "end") for y in marks]
    drawn.append(_text(WIDTH - RIGHT, floor + 30, x_title, "end"))
    return "".join(drawn)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
