"""Draw the figures of a study as a whole: differences with intervals, quality against cost, fitted laws.

Each function returns a `Figure`: inline SVG, with a note that says how to read it and what was left outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.report.svg import (
    WIDTH,
    Canvas,
    Scale,
    decimals,
    line,
    mark,
    padded,
    polygon,
    polyline,
    robust_range,
    spread,
)
from adaptkit.study.forecast import Curve, Forecast, size_text
from adaptkit.study.label_forecast import LabelForecast
from adaptkit.study.law import Place
from adaptkit.study.record import ArmRecord
from adaptkit.study.statistics import Interval

_LABELS = 148.0  # room for arm names at the right of a plot
_ROW = 46.0
_MARK_WIDTH = 16.0
_MINUS = "\u2212"
_MAX_NAME = 30


@dataclass(frozen=True)
class Figure:
    """A drawing, its heading and one or two sentences on how to read it."""

    title: str
    svg: str
    note: str


@dataclass(frozen=True)
class RowMark:
    """One row of a dot-and-whisker figure."""

    arm: ArmRecord
    label: str
    value: Interval
    text: str


@dataclass(frozen=True)
class Track:
    """One arm's points in a quality-against-x figure, ascending in x."""

    arm: ArmRecord
    label: str
    points: tuple[tuple[float, Interval], ...]
    dimmed: bool = False
    """Drawn pale."""


def short(text: str, most: int = _MAX_NAME) -> str:
    """Long names are cut in figures; tables hold them whole."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def typeset(text: str) -> str:
    """A true minus sign before digits, for figures and tables."""
    return text.replace("-", _MINUS)


def whiskers(
    title: str,
    description: str,
    rows: Sequence[RowMark],
    *,
    axis: str,
    reference: float,
    margin: float = 0.0,
    hints: tuple[str, str] = ("", ""),
    note: str = "",
) -> Figure:
    """Rows of a point with its interval against a reference line and, shaded, the margin around it.

    Args:
        hints: words at the left and right end, above the rows.
    """
    band_low, band_high = reference - margin, reference + margin
    bounds = [(min(row.value.low, band_low), max(row.value.high, band_high)) for row in rows]
    low, high = robust_range([*bounds, (band_low, band_high)])
    x = Scale(min(low, reference - 1.2 * margin), max(high, reference + 1.2 * margin), 8, WIDTH - 8)
    top, bottom = 30.0, 34.0 + _ROW * len(rows)
    canvas = Canvas(WIDTH, bottom + 48, title, description)
    fmt = decimals(x)
    canvas.x_axis(x, bottom, bottom - 5, lambda v: typeset(fmt(v)), axis)
    canvas.text(8, 16, hints[0], "hint")
    canvas.text(WIDTH - 8, 16, hints[1], "hint", "end")
    for i, row in enumerate(rows):
        y = top + 4 + _ROW * i
        canvas.text(8, y + 16, short(row.label), "name")
        canvas.text(WIDTH - 8, y + 16, row.text, "value", "end")
        canvas.line(x.start, y + 31, x.end, y + 31, "grid")
        canvas.rect(x(band_low), y + 22, x(band_high) - x(band_low), 18, "margin")
        canvas.line(x(reference), y + 22, x(reference), y + 40, "zero")
        _whisker(canvas, x, y + 31, row)
    return Figure(title, canvas.render(), note)


def _whisker(canvas: Canvas, x: Scale, y: float, row: RowMark) -> None:
    low, high = x(x.clip(row.value.low)), x(x.clip(row.value.high))
    parts = [line(low, y, high, y, "whisker")]
    reach = 5 if high - low > _MARK_WIDTH else 10  # a short interval stands out above and below its marker
    for value, end in ((row.value.low, low), (row.value.high, high)):
        if x.inside(value):
            parts.append(line(end, y - reach, end, y + reach, "whisker"))
    if x.inside(row.value.mean):
        parts.append(mark(row.arm.adaptation or row.arm.origin, x(row.value.mean), y))
    else:
        direction = 1 if row.value.mean > x.high else -1
        parts.append(_arrow(x(x.clip(row.value.mean)), y, direction, across=True))
    canvas.group(f"o-{row.arm.origin}", *parts)


def _arrow(x: float, y: float, direction: int, across: bool) -> str:
    """A small triangle at the border that points to what lies outside the plot."""
    tip, back, half = 8 * direction, -2 * direction, 6
    if across:
        return polygon([(x + tip, y), (x + back, y - half), (x + back, y + half)], "mark")
    return polygon([(x, y - tip), (x - half, y - back), (x + half, y - back)], "mark")


def quality_against(
    title: str,
    description: str,
    tracks: Sequence[Track],
    *,
    axis: str,
    quality: str,
    fmt: Callable[[float], str],
    note: str,
) -> Figure:
    """Quality over what it cost: one line per arm through its shares of the data, names at the right."""
    y_low, y_high = robust_range([(i.low, i.high) for track in tracks for _, i in track.points])
    x_high = max(x for track in tracks for x, _ in track.points) or 1.0
    height = max(250.0, 17.0 * len(tracks))
    x, y = Scale(0.0, x_high * 1.04, 52, WIDTH - _LABELS), Scale(y_low, y_high, height + 34, 34)
    canvas = Canvas(WIDTH, height + 82, title, description)
    canvas.x_axis(x, y.start, y.end, fmt, axis, count=4)
    canvas.y_axis(y, x.start, x.end, decimals(y), short(quality, 60))
    for track in tracks:
        _track(canvas, x, y, track)
    ends = [_End(t.arm.origin, t.label, x(t.points[-1][0]), t.points[-1][1].mean) for t in tracks]
    near_right = x.start + 0.62 * (x.end - x.start)
    _end_labels(canvas, x.end, y, [end for end in ends if end.x >= near_right])
    _inner_labels(canvas, y, [end for end in ends if end.x < near_right])
    return Figure(title, canvas.render(), note + _outside(tracks, y))


def _track(canvas: Canvas, x: Scale, y: Scale, track: Track) -> None:
    inside = [(x(size), y(i.mean)) for size, i in track.points if y.inside(i.mean)]
    parts = [polyline(inside, "track")]
    for size, interval in track.points:
        if y.inside(interval.mean):
            parts += [
                _error_bar(x(size), y, interval),
                mark(track.arm.adaptation or track.arm.origin, x(size), y(interval.mean)),
            ]
        else:
            parts.append(
                _arrow(x(size), y(y.clip(interval.mean)), 1 if interval.mean > y.high else -1, across=False)
            )
    css = f"o-{track.arm.origin} dim" if track.dimmed else f"o-{track.arm.origin}"
    canvas.group(css, *parts)


def _error_bar(x: float, y: Scale, interval: Interval) -> str:
    return line(x, y(y.clip(interval.low)), x, y(y.clip(interval.high)), "whisker")


def _outside(tracks: Sequence[Track], y: Scale) -> str:
    """A sentence that gives the values drawn as arrows."""
    outside = [f"{t.label} {i.mean:.3f}" for t in tracks for _, i in t.points[-1:] if not y.inside(i.mean)]
    return f" Off the scale (arrow): {', '.join(outside)}." if outside else ""


@dataclass(frozen=True)
class _End:
    """The last point of a line: its arm's origin and label, its place in pixels, its value."""

    origin: str
    label: str
    x: float
    value: float


def _end_labels(canvas: Canvas, right: float, y: Scale, ends: Sequence[_End]) -> None:
    """Names beside the last points, moved apart, each tied to its point by a thin line."""
    targets = [y(y.clip(end.value)) for end in ends]
    places = spread(targets, 16.5, y.end + 2, y.start - 2)
    for end, target, place in zip(ends, targets, places, strict=True):
        leader = [(end.x + 7, target), (right + 4, target), (right + 14, place)]
        canvas.group(f"o-{end.origin}", polyline(leader, "leader"))
        canvas.text(right + 18, place + 4.5, short(end.label, 18), "end")


def _inner_labels(canvas: Canvas, y: Scale, ends: Sequence[_End]) -> None:
    """Names right beside points that lie far from the right border."""
    places = spread([y(y.clip(end.value)) for end in ends], 16.5, y.end + 8, y.start - 8)
    for end, place in zip(ends, places, strict=True):
        canvas.text(end.x + 11, place + 4.5, short(end.label, 18), "end halo")


@dataclass(frozen=True)
class LawLine:
    """One arm's trainings, and what its laws say on the way through them and beyond.

    Attributes:
        points: where each stands, its score, and whether it is drawn pale.
        grid: places along the line, ascending.
        scores: of the laws there [num_replicates, num_places].
        largest: the place of the run that is compared.
    """

    arm: ArmRecord
    points: tuple[tuple[float, Interval, bool], ...]
    grid: np.ndarray
    scores: np.ndarray
    largest: float


def forecast_figure(forecast: Forecast, arms: dict[str, ArmRecord], quality: str) -> Figure:
    """Bits per byte over the text that was read, repeats counted: cells, and laws with bands."""
    lines = [_text_line(curve, arms[curve.arm], forecast.reach) for curve in forecast.curves]
    points = "Points: measured; pale ones had less of the text"
    return laws_figure(
        lines,
        forecast.confidence,
        title="How quality grows with compute",
        axis="text read, repeats counted (log scale)",
        fmt=size_text,
        quality=quality,
        note=f"{points}. Lines: fitted laws on all of the text, with bands, dashed beyond the largest run.",
    )


def _text_line(curve: Curve, arm: ArmRecord, reach: float) -> LawLine:
    whole = curve.whole
    least = min(point.place.read for point in curve.points)
    grid = np.geomspace(least, whole.read * reach, 60)
    points = tuple((point.place.read, point.score, point.portion.text < 1) for point in curve.points)
    return LawLine(arm, points, grid, curve.laws([Place(whole.text, read) for read in grid]), whole.read)


def label_figure(forecast: LabelForecast, arms: dict[str, ArmRecord], quality: str) -> Figure:
    """A task's score over the number of labels: cells, laws with bands, and arms that read none."""
    whole, least = forecast.record.num_labels, min(portion.labels for portion in forecast.record.portions)
    grid = np.geomspace(least, forecast.reach, 60)
    lines = [
        LawLine(
            arms[curve.arm],
            tuple((whole * point.portion.labels, point.score, False) for point in curve.points),
            whole * grid,
            curve.scores(grid),
            float(whole),
        )
        for curve in forecast.curves
    ]
    lines += [
        LawLine(
            arms[level.arm],
            ((float(whole), level.score, False),),
            whole * grid,
            level.scores(grid),
            float(whole),
        )
        for level in forecast.levels
    ]
    asked = " Arms that are only asked read no more labels than fit into a prompt." if forecast.levels else ""
    return laws_figure(
        lines,
        forecast.confidence,
        title=f"How quality on {forecast.record.task} grows with labels",
        axis="labelled rows to train on (log scale)",
        fmt=lambda labels: f"{labels:,.0f}",
        quality=quality,
        note=f"Points: measured. Lines: fitted laws with bands, dashed beyond the study's labels.{asked}",
    )


def laws_figure(
    lines: Sequence[LawLine],
    confidence: float,
    *,
    title: str,
    axis: str,
    fmt: Callable[[float], str],
    quality: str,
    note: str,
) -> Figure:
    """Scores over an amount of something: points, and laws with bands."""
    places = [place for line in lines for place, _, _ in line.points]
    x = Scale(min(places) * 0.85, max(line.grid[-1] for line in lines), 52, WIDTH - _LABELS, log=True)
    scores = [score for line in lines for _, score, _ in line.points]
    ahead = [float(np.median(line.scores[:, -1])) for line in lines]
    y_low, y_high = padded([*ahead, *(value for score in scores for value in (score.low, score.high))])
    y = Scale(y_low, y_high, 324.0, 34)
    description = "; ".join(f"{line.arm.name}: {line.points[-1][1].mean:.3f}" for line in lines)
    canvas = Canvas(WIDTH, 372.0, title, description)
    canvas.x_axis(x, y.start, y.end, fmt, axis)
    canvas.y_axis(y, x.start, x.end, decimals(y), quality)
    ends = [
        _End(line.arm.origin, line.arm.name, x.end - 4, _law(canvas, x, y, line, confidence))
        for line in lines
    ]
    _end_labels(canvas, x.end, y, ends)
    return Figure(title, canvas.render(), note)


def _law(canvas: Canvas, x: Scale, y: Scale, line: LawLine, confidence: float) -> float:
    """Draw one arm; returns where its law ends."""
    arm, grid, tail = line.arm, line.grid, 0.5 - confidence / 2
    low, middle, high = np.quantile(line.scores, [tail, 0.5, 1 - tail], axis=0)
    around = [*zip(grid, low, strict=True), *zip(grid[::-1], high[::-1], strict=True)]
    line_points = [(x(g), y(y.clip(v))) for g, v in zip(grid, middle, strict=True)]
    turn = int((grid <= line.largest * 1.0001).sum())
    parts = [polygon([(x(g), y(y.clip(v))) for g, v in around], "band")]
    parts += [polyline(line_points[:turn], "track"), polyline(line_points[turn - 1 :], "track ahead")]
    pale: list[str] = []
    for place, score, is_pale in line.points:
        drawn = pale if is_pale else parts
        drawn += [_error_bar(x(place), y, score), mark(arm.adaptation or arm.origin, x(place), y(score.mean))]
    canvas.group(f"o-{arm.origin}", *parts)
    canvas.group(f"o-{arm.origin} dim", *pale)
    return float(middle[-1])
