"""Quality against what it costs: one point for each contender, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pretune.runs.comparison import Style, count_text, seconds_text
from pretune.runs.plots import (
    LETTER,
    Frame,
    Series,
    apart,
    dot,
    grid,
    place,
    short_seconds,
    svg,
    text,
    y_axis,
)


@dataclass(frozen=True)
class Axis:
    """What points are drawn over: `x` of each is taken from its series' only point."""

    name: str
    unit: Callable[[float], str]
    """A number as tick marks have it."""
    said: Callable[[float], str]
    """A number in words, after the score."""
    kind: str  # a class of the page


SECONDS = Axis("training time", short_seconds, lambda x: f"for {seconds_text(x)} of training", "cost")
SPEED = Axis("answers per second", count_text, lambda x: f"at {count_text(x)} answers a second", "speed")
LEAST = 0.01


def scatter(series: Sequence[Series], style: Style, metric: str, axis: Axis, narrow: bool = False) -> str:
    """The metric over a cost, on a logarithmic axis; rings mark the Pareto front."""
    points = [s.points[0] for s in series]
    y_low, y_high, ticks = y_axis(points, style)
    values = [max(p.x, LEAST) for p in points]
    ends = min(values) / (1.6 if narrow else 1.4), max(values) * (1.6 if narrow else 1.4)
    if ends[1] / ends[0] < 10:  # at least a decade, or noise looks like a difference
        middle = (ends[0] * ends[1]) ** 0.5
        ends = middle / 10**0.5, middle * 10**0.5
    width, height = (360.0, 300.0) if narrow else (760.0, 360.0)
    frame = Frame(width, height, 46, 20, 16, 46, *ends, y_low, y_high)
    marks = [m * 10.0**e for e in range(-3, 7) for m in (1, 3) if ends[0] <= m * 10.0**e <= ends[1]]
    drawn = grid(frame, ticks, style, apart(marks, frame, 58), axis.unit, axis.name, metric)
    taken = [
        (frame.x(x) - 10, frame.y(p.high), 20.0, frame.y(p.low) - frame.y(p.high))
        for x, p in zip(values, points, strict=True)
    ]
    for one, value in zip(series, values, strict=True):
        point = one.points[0]
        x, y = frame.x(value), frame.y(point.y)
        reach = f"M{x:.1f} {frame.y(point.low):.1f}V{frame.y(point.high):.1f}"
        drawn.append(f'<path class="whisker {one.colour}" d="{reach}"/>')
        if one.efficient:
            drawn.append(f'<circle class="ring {one.colour}" cx="{x:.1f}" cy="{y:.1f}" r="9"/>')
        drawn.append(dot(x, y, one))
    for one, value in zip(series, values, strict=True):
        if narrow:
            continue
        x, y = frame.x(value), frame.y(one.points[0].y)
        box = place(x, y, len(one.name) * LETTER, frame, taken)
        taken.append(box)
        left = box[0] < x  # then the name ends at the point, however wide the reader's font is
        at = box[0] + box[2] if left else box[0]
        drawn.append(text(at, box[1] + 13, one.name, f"name {one.colour}{' end' if left else ''}"))
    said = "; ".join(
        f"{s.name}: {style(s.points[0].y)} {axis.said(s.points[0].x)}"
        + (", on the Pareto front" if s.efficient else "")
        for s in series
    )
    return svg(frame, axis.kind, f"{metric} over {axis.name}", said, drawn)
