"""Plots as inline SVG: sharp on paper, coloured by the page's own CSS, readable without a mouse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from pretune.runs.comparison import Style, seconds_text

LETTER = 7.6  # mean width of a character at 13 px, in px


@dataclass(frozen=True)
class Point:
    """A measurement with its interval."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One contender: `colour` is a class of the page (c0, c1, …), `open` draws it dashed and hollow."""

    name: str
    colour: str
    open: bool
    points: tuple[Point, ...]
    beyond: tuple[Point, ...] = ()  # where its fitted curve goes on, from the largest size
    efficient: bool = False  # on the Pareto front


@dataclass(frozen=True)
class Frame:
    """From data to pixels; x is logarithmic."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (log10(value) - log10(self.x_low)) / (log10(self.x_high) - log10(self.x_low))
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)


def curves(
    series: Sequence[Series], style: Style, metric: str, narrow: bool = False, target: float | None = None
) -> str:
    """The metric over labelled samples: a line and its 95 % band for each contender.

    Dotted lines go on by the fitted curves; `target` is a line across.
    """
    points = [p for s in series for p in s.points]
    beyond = [p for s in series for p in s.beyond]
    sizes = sorted({p.x for p in points})
    names = [f"{s.name} {style(s.points[-1].y, unit=False)}" for s in series]
    space = 12 if narrow else 24 + max(map(len, names)) * LETTER
    level = [] if target is None else [Point(0, target, target, target)]
    y_low, y_high, ticks = y_axis([*points, *(Point(p.x, p.y, p.y, p.y) for p in beyond), *level], style)
    x_low, x_high = (sizes[0], sizes[-1]) if len(sizes) > 1 else (sizes[0] / 2, sizes[0] * 2)
    x_high = max([x_high, *(p.x for p in beyond)])
    width, height = (360.0, 300.0) if narrow else (760.0, 400.0)
    frame = Frame(width, height, 46, space, 16, 46, x_low, x_high, y_low, y_high)
    marks = apart([*sizes, *({x_high} - {*sizes})], frame)
    drawn = grid(frame, ticks, style, marks, lambda x: f"{x:,.0f}", "labelled samples", metric)
    if target is not None:
        at = frame.y(target)
        drawn.append(f'<path class="target" d="M{frame.left} {at:.1f}H{frame.width - frame.right:.1f}"/>')
    drawn += [_band(s.points, s.colour, frame) for s in series if len(s.points) > 1]
    drawn += [_band(s.beyond, f"haze {s.colour}", frame) for s in series if s.beyond]
    for one in reversed(series):  # the best on top
        drawn.append(_line(one, frame))
    if not narrow:
        last = [(s.beyond or s.points)[-1] for s in series]
        heights = spread([frame.y(p.y) for p in last], 18, frame.top + 4, height - frame.bottom)
        for one, end, name, to in zip(series, last, names, heights, strict=True):
            x, y = frame.x(end.x), frame.y(end.y)
            drawn.append(f'<path class="lead {one.colour}" d="M{x + 7:.1f} {y:.1f}L{x + 16:.1f} {to:.1f}"/>')
            drawn.append(text(x + 20, to + 4.5, name, f"name {one.colour}"))
    said = "; ".join(
        f"{s.name}: "
        + ", ".join(f"{style(p.y)} with {p.x:,.0f}" for p in s.points)
        + "".join(f", by its curve {style(p.y)} with {p.x:,.0f}" for p in s.beyond[-1:])
        for s in series
    )
    return svg(frame, "curves", f"{metric} over the number of labelled samples", said, drawn)


def interval(point: Point, low: float, high: float, colour: str, opened: bool, said: str) -> str:
    """A bar for a table row: the interval as a line, the mean as a dot, on the axis low..high."""

    def x(value: float) -> float:
        return 6 + (value - low) / (high - low) * 188

    dot = f'<circle class="{"hollow" if opened else "full"} {colour}" cx="{x(point.y):.1f}" cy="11" r="4.5"/>'
    return (
        f'<svg class="interval" viewBox="0 0 200 22" role="img" aria-label="{escape(said)}">'
        f'<path class="track" d="M6 11H194"/>'
        f'<path class="reach {colour}" d="M{x(point.low):.1f} 11H{x(point.high):.1f}"/>{dot}</svg>'
    )


def shares(
    labels: Sequence[str], seeds: Sequence[Sequence[float]], most: float, colour: str, said: str
) -> str:
    """A bar a layer, the top one first, up to the share `most`; marks are seeds, dashes an equal share."""
    left, width, step = 58.0, 210.0, 23.0

    def x(share: float) -> float:
        return left + share / most * width

    height = len(labels) * step
    bars, texts = [], []
    for line, k in enumerate(reversed(range(len(labels)))):
        y, own = line * step + 3, [of_seed[k] for of_seed in seeds]
        mean = sum(own) / len(own)
        place = f'x="{left}" y="{y:.1f}" width="{x(mean) - left:.1f}" height="17"'
        bars.append(f'<rect class="full {colour}" {place}/>')
        if len(own) > 1:
            marks = "".join(f"M{x(share):.1f} {y + 4:.1f}v9" for share in own)
            texts.append(
                f'<path class="seed" d="M{x(min(own)):.1f} {y + 8.5:.1f}H{x(max(own)):.1f}{marks}"/>'
            )
        texts.append(text(left - 8, y + 13, labels[k], "tick end"))
        texts.append(text(x(max(own)) + 8, y + 13, f"{mean:.0%}".replace("%", " %"), "tick"))
    bars.append(f'<path class="equal" d="M{x(1 / len(labels)):.1f} 0V{height:.0f}"/>')
    frame = Frame(left + width + 48, height, 0, 0, 0, 0, 1, 10, 0, 1)
    return svg(frame, "shares", "the share of each layer", said, [*bars, *texts])


def swatch(series: Series) -> str:
    """The series' line and dot, for tables and legends."""
    dashed = " dashed" if series.open else ""
    return (
        f'<svg class="swatch" viewBox="0 0 26 14" aria-hidden="true">'
        f'<path class="line {series.colour}{dashed}" d="M1 7H25"/>{dot(13, 7, series)}</svg>'
    )


def y_axis(points: Sequence[Point], style: Style) -> tuple[float, float, list[float]]:
    """Low end, high end and round ticks that hold every interval."""
    low, high = min(p.low for p in points), max(p.high for p in points)
    span = max(high - low, 0.02 / style.scale * 100 if style.scale == 100 else 0.02)
    rough = span / 5
    unit = 10.0 ** floor(log10(rough))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    if first == last:
        last += 1
    return first * step, last * step, [i * step for i in range(first, last + 1)]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, in their order, at least `gap` apart, inside low..high if they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    at = [wanted[i] for i in order]
    for _ in range(200):
        moved = False
        for i in range(len(at) - 1):
            short = gap - (at[i + 1] - at[i])
            if short > 0.01:
                at[i], at[i + 1], moved = at[i] - short / 2, at[i + 1] + short / 2, True
        shift = max(0.0, low - at[0]) - max(0.0, at[-1] - high)
        if abs(shift) > 0.01:
            at = [x + shift for x in at]
        if not moved:
            break
    placed = [0.0] * len(at)
    for position, i in zip(at, order, strict=True):
        placed[i] = position
    return placed


Box = tuple[float, float, float, float]  # left, top, width, height


def place(x: float, y: float, width: float, frame: Frame, taken: Sequence[Box]) -> Box:
    """Where a name beside a point fits without touching what is there; the least bad place else."""
    tried = [
        (left, y + dy, width, 17.0)
        for dy in (-9, -26, 9, -42, 26, -58, 42, -74, 58)
        for left in (x + 13, x - width - 13)
    ]
    inside = [
        b
        for b in tried
        if b[0] >= frame.left
        and b[0] + width <= frame.width
        and b[1] >= 0
        and b[1] + 17 <= frame.height - frame.bottom
    ]
    return min(inside or tried, key=lambda b: sum(_overlap(b, other) for other in taken))


def _overlap(a: Box, b: Box) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)


def apart(values: Sequence[float], frame: Frame, gap: float = 40) -> list[float]:
    """The values whose labels fit on the x axis: from the right, every one `gap` px from the last."""
    kept: list[float] = []
    for value in sorted(values, reverse=True):
        if not kept or frame.x(kept[-1]) - frame.x(value) >= gap:
            kept.append(value)
    return kept


def grid(
    frame: Frame,
    y_ticks: Sequence[float],
    style: Style,
    x_ticks: Sequence[float],
    x_text: Callable[[float], str],
    x_name: str,
    y_name: str,
) -> list[str]:
    right, floor_ = frame.width - frame.right, frame.height - frame.bottom
    drawn = []
    short = style._replace(digits=style.digits if style.scale == 1 else 0)
    if style.scale == 100 and len({short(y) for y in y_ticks}) < len(y_ticks):
        short = style
    for y in y_ticks:
        at = frame.y(y)
        drawn.append(f'<path class="grid" d="M{frame.left} {at:.1f}H{right:.1f}"/>')
        drawn.append(text(frame.left - 8, at + 4.5, short(y, unit=False), "tick end"))
    for x in x_ticks:
        at = frame.x(x)
        drawn.append(f'<path class="tickmark" d="M{at:.1f} {floor_}v5"/>')
        drawn.append(text(at, floor_ + 20, x_text(x), "tick middle"))
    unit = f" ({style.unit.strip()})" if style.unit else ""
    drawn.append(text((frame.left + right) / 2, frame.height - 6, x_name, "axis middle"))
    drawn.append(
        f'<text class="axis middle" transform="translate(11 {(frame.top + floor_) / 2:.1f}) rotate(-90)">'
        f"{escape(y_name + unit)}</text>"
    )
    return drawn


def short_seconds(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 120 else seconds_text(seconds)


def _line(series: Series, frame: Frame) -> str:
    path = _path([(p.x, p.y) for p in series.points], frame)
    dots = "".join(dot(frame.x(p.x), frame.y(p.y), series) for p in series.points)
    line = f'<path class="line {series.colour}{" dashed" if series.open else ""}" d="M{path}"/>{dots}'
    if not series.beyond:
        return line
    onward = _path([(p.x, p.y) for p in series.beyond], frame)
    return f'{line}<path class="line beyond {series.colour}" d="M{onward}"/>'


def _band(points: Sequence[Point], colour: str, frame: Frame) -> str:
    above, below = [(p.x, p.high) for p in points], [(p.x, p.low) for p in reversed(points)]
    return f'<path class="band {colour}" d="M{_path([*above, *below], frame)}Z"/>'


def _path(points: Sequence[tuple[float, float]], frame: Frame) -> str:
    """Never above or below the frame."""
    held = ((x, min(max(y, frame.y_low), frame.y_high)) for x, y in points)
    return "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in held)


def dot(x: float, y: float, series: Series) -> str:
    kind = "hollow" if series.open else "full"
    return f'<circle class="{kind} {series.colour}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


def text(x: float, y: float, said: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(said)}</text>'


def svg(frame: Frame, name: str, title: str, said: str, drawn: Sequence[str]) -> str:
    return (
        f'<svg class="plot {name}" viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" '
        f'aria-label="{escape(title)}. {escape(said)}"><title>{escape(title)}</title>{"".join(drawn)}</svg>'
    )
