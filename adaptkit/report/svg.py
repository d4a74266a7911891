"""Write inline SVG by hand: a canvas, axes with round ticks, a marker per arm, a colour per origin.

Colours are CSS classes (`o-scratch` sets `color`, shapes draw in `currentColor`), so one drawing serves
light, dark and print. Sizes are for a width of 520 at 14 px text: two figures side by side on a desk, one at
0.7 of that on a phone.
"""

from __future__ import annotations

import cmath
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 520.0
FONT = 14.0


def polygon(points: Sequence[tuple[float, float]], css: str) -> str:
    return f'<polygon points="{_pairs(points)}" class="{css}"/>'


def polyline(points: Sequence[tuple[float, float]], css: str) -> str:
    """Nothing for fewer than two points."""
    return f'<polyline points="{_pairs(points)}" class="{css}"/>' if len(points) > 1 else ""


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def circle(x: float, y: float, radius: float, css: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="{css}"/>'


def _square(x: float, y: float, r: float, css: str = "mark") -> str:
    return polygon([(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)], css)


def _diamond(x: float, y: float, r: float, css: str = "mark") -> str:
    return polygon([(x, y - 1.25 * r), (x + 1.25 * r, y), (x, y + 1.25 * r), (x - 1.25 * r, y)], css)


def _triangle(x: float, y: float, r: float, css: str = "mark", up: int = 1) -> str:
    base = y + 0.85 * r * up
    return polygon([(x, y - 1.25 * r * up), (x + 1.15 * r, base), (x - 1.15 * r, base)], css)


def _plus(x: float, y: float, r: float, css: str = "mark", turn: float = 0.0) -> str:
    """A cross of two bars, each a third as wide as it is long."""
    a, b = 1.25 * r, 0.42 * r
    half = [(b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a)]
    corners = [complex(u, v) * cmath.exp(1j * turn) for u, v in half]
    return polygon([(x + c.real, y + c.imag) for c in [*corners, *(-c for c in corners)]], css)


_MARKS: dict[str, Callable[[float, float, float], str]] = {
    "prompt": lambda x, y, r: circle(x, y, r, "hollow"),
    "rag": lambda x, y, r: _square(x, y, r, "hollow"),
    "probe": lambda x, y, r: _diamond(x, y, r, "hollow"),
    "hybrid": lambda x, y, r: _plus(x, y, r, "hollow"),
    "lora": _triangle,
    "qlora": lambda x, y, r: _triangle(x, y, r, up=-1),
    "rag-lora": lambda x, y, r: _triangle(x, y, r, "hollow"),
    "full": _square,
    "rerank": lambda x, y, r: _diamond(x, y, r),
    "continued": _square,
    "continued-lora": _triangle,
    "continued-vocabulary": _plus,
    "mixed": _diamond,
    "scratch": lambda x, y, r: _square(x, y, r, "hollow"),
    "distilled": lambda x, y, r: _triangle(x, y, r, "hollow"),
    "placebo": lambda x, y, r: circle(x, y, r, "hollow"),
    "baseline": lambda x, y, r: _plus(x, y, r, turn=math.pi / 4),
}
"""Shapes by adaptation, and by origin for arms that learn no task: prints without colour tell them apart.
`generic`, and what has no shape of its own, is a dot."""


def _pairs(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def mark(name: str, x: float, y: float, radius: float = 4.6) -> str:
    """The marker of an adaptation, or of an origin in the text ledger; a dot for anything else."""
    draw = _MARKS.get(name)
    return draw(x, y, radius) if draw else circle(x, y, radius, "mark")


def chip(origin: str, adaptation: str) -> str:
    """A marker alone, for tables and legends; hidden from readers, the arm's name stands beside it."""
    shape = mark(adaptation or origin, 7, 7, 5.0)
    size = 'viewBox="0 0 14 14" width="14" height="14"'
    return f'<svg class="chip o-{escape(origin)}" {size} aria-hidden="true">{shape}</svg>'


@dataclass(frozen=True)
class Scale:
    """Data -> pixels along one axis, linear or logarithmic, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def inside(self, value: float) -> bool:
        span = 1e-9 * (self.high - self.low)
        return self.low - span <= value <= self.high + span

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def ticks(self, count: int = 5) -> list[float]:
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high, count)


def _ticks(low: float, high: float, count: int) -> list[float]:
    raw = (high - low) / max(count, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high * 1.000001]
        if len(ticks) >= 3:
            return ticks[:: math.ceil(len(ticks) / 6)]
    return ticks


def padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """Range of the values with some air; never empty."""
    low, high = min(values), max(values)
    air = (high - low) * share or abs(high) * 0.05 or 1.0
    return low - air, high + air


def robust_range(intervals: Sequence[tuple[float, float]], ratio: float = 2.0) -> tuple[float, float]:
    """A range for most of the intervals: one that would stretch the rest more than `ratio` times is left
    outside.

    The drawing shows what is outside as an arrow with its value at the border.
    """
    shown = sorted(intervals, key=lambda interval: (interval[0] + interval[1]) / 2)
    while len(shown) > 3:
        without_lowest, without_highest = _span(shown[1:]), _span(shown[:-1])
        if _span(shown) <= ratio * min(without_lowest, without_highest):
            break
        shown = shown[1:] if without_lowest < without_highest else shown[:-1]
    return padded([value for interval in shown for value in interval])


def _span(intervals: Sequence[tuple[float, float]]) -> float:
    return max(i[1] for i in intervals) - min(i[0] for i in intervals)


class Canvas:
    """Collects SVG elements; `render` returns the figure, with title and description for screen readers."""

    def __init__(self, width: float, height: float, title: str, description: str):
        self.width, self.height, self.title, self.description = width, height, title, description
        self.parts: list[str] = []

    def add(self, part: str) -> None:
        self.parts.append(part)

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        self.add(line(x1, y1, x2, y2, css))

    def rect(self, x: float, y: float, width: float, height: float, css: str) -> None:
        size = f'width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
        self.add(f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{css}"/>')

    def text(self, x: float, y: float, text: str, css: str = "", anchor: str = "start") -> None:
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(text)}</text>')

    def group(self, css: str, *parts: str) -> None:
        self.add(f'<g class="{escape(css)}">{"".join(parts)}</g>')

    def x_axis(
        self, scale: Scale, y: float, top: float, fmt: Callable[[float], str], label: str, count: int = 5
    ) -> None:
        """Ticks below `y`, hairlines up to `top`, the label centred underneath."""
        for tick in scale.ticks(count):
            self.line(scale(tick), top, scale(tick), y, "grid")
            self.text(scale(tick), y + 18, fmt(tick), "tick", "middle")
        self.line(scale.start, y, scale.end, y, "axis")
        self.text((scale.start + scale.end) / 2, y + 38, label, "label", "middle")

    def y_axis(
        self, scale: Scale, x: float, right: float, fmt: Callable[[float], str], label: str, count: int = 5
    ) -> None:
        """Ticks left of `x`, hairlines to `right`, the label above the axis, flush left."""
        for tick in scale.ticks(count):
            self.line(x, scale(tick), right, scale(tick), "grid")
            self.text(x - 8, scale(tick) + 4.5, fmt(tick), "tick", "end")
        self.text(0, scale.end - 14, label, "label")

    def render(self) -> str:
        ident = f"t{zlib.crc32((self.title + self.description).encode()):x}"
        box = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        return (
            f'<svg class="plot" {box} role="img" aria-labelledby="{ident} {ident}d">'
            f'<title id="{ident}">{escape(self.title)}</title>'
            f'<desc id="{ident}d">{escape(self.description)}</desc>'
            f"{''.join(self.parts)}</svg>"
        )


def decimals(scale: Scale, count: int = 5) -> Callable[[float], str]:
    """A formatter with as many decimals as the ticks need."""
    ticks = scale.ticks(count)
    step = min((b - a for a, b in zip(ticks, ticks[1:], strict=False)), default=1.0)
    digits = max(0, math.ceil(-math.log10(step) - 1e-9))
    digits += not math.isclose(step * 10**digits, round(step * 10**digits), abs_tol=1e-6)
    return lambda value: f"{value if abs(value) > 1e-12 else 0.0:.{digits}f}"


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Label positions moved apart until neighbours are `gap` away, in the order given, within low..high where
    they fit."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    placed = [positions[index] for index in order]
    for _ in range(60):
        for i in range(1, len(placed)):
            overlap = gap - (placed[i] - placed[i - 1])
            if overlap > 0:
                placed[i - 1] -= overlap / 2
                placed[i] += overlap / 2
        placed = [min(max(value, low), high) for value in placed]
    result = [0.0] * len(positions)
    for place, index in zip(placed, order, strict=True):
        result[index] = place
    return result
