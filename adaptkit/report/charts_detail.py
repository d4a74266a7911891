"""Draw the figures of single tasks and runs: per-class scores, reliability diagrams, learning curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.data.score_table import per_class_f1
from adaptkit.report.charts import Figure, short
from adaptkit.report.svg import WIDTH, Canvas, Scale, circle, decimals, mark, padded, polyline
from adaptkit.study.record import ArmRecord
from adaptkit.study.results import Cell, ItemRow
from adaptkit.study.scores import NUM_ECE_BINS, bin_index, confidence_and_hit
from adaptkit.study.statistics import Interval

MAX_CLASSES = 20
_NAMES = 170.0
_CLASS_ROW = 46.0
_LANE = 8.5  # between the arms of one class
_PANEL = 252.0  # width and height of a reliability diagram, width of a panel of curves
_CURVES = 176.0  # height of a panel of curves
_MIN_BIN_SHARE = 0.005


@dataclass(frozen=True)
class Pick:
    """An arm shown in a detail figure, with its cells of one task."""

    arm: ArmRecord
    cells: tuple[Cell, ...]


def per_class(task: str, picks: Sequence[Pick]) -> Figure:
    """F1 of every label (mean over seeds) for a few arms, most frequent label first."""
    counts = Counter(row["label"] for row in picks[0].cells[0].rows)
    labels = [label for label, _ in counts.most_common(MAX_CLASSES)]
    scores = {pick.arm.name: _mean_f1(pick.cells) for pick in picks}
    values = [scores[pick.arm.name].get(label, 0.0) for pick in picks for label in labels]
    low, high = padded([*values, min(1.0, max(values) + 0.02)])
    x = Scale(max(0.0, low), min(1.0, high), _NAMES, WIDTH - 10)
    bottom = 14 + _CLASS_ROW * len(labels)
    title = f"Per class: {task}"
    names = ", ".join(pick.arm.name for pick in picks)
    canvas = Canvas(WIDTH, bottom + 48, title, f"F1 of {len(labels)} labels for {names}")
    canvas.x_axis(x, bottom, 8, decimals(x), "F1 (mean over seeds)")
    for i, label in enumerate(labels):
        y = 14 + _CLASS_ROW * (i + 0.5)
        canvas.text(0, y - 1, short(label, 21), "name")
        canvas.text(0, y + 13, f"{counts[label]:,} items", "tick")
        canvas.line(0, y + _CLASS_ROW / 2, WIDTH - 10, y + _CLASS_ROW / 2, "grid")
        for j, pick in enumerate(picks):
            value = scores[pick.arm.name].get(label, 0.0)
            lane = y + _LANE * (j - (len(picks) - 1) / 2)
            canvas.group(
                f"o-{pick.arm.origin}",
                mark(pick.arm.adaptation or pick.arm.origin, x(x.clip(value)), lane, 4.2),
            )
    note = "One arm per origin, picked on development data. The axis does not start at zero."
    if len(counts) > len(labels):
        note += f" The {len(counts) - len(labels)} rarest labels are left out."
    return Figure(title, canvas.render(), note)


def _mean_f1(cells: Sequence[Cell]) -> dict[str, float]:
    seeds = []
    for cell in cells:
        predictions, labels = [row["prediction"] for row in cell.rows], [row["label"] for row in cell.rows]
        seeds.append(per_class_f1(predictions, labels))
    names = {name for seed in seeds for name in seed}
    return {name: float(np.mean([seed.get(name, 0.0) for seed in seeds])) for name in names}


def reliability(task: str, picks: Sequence[Pick], errors: dict[str, Interval]) -> Figure:
    """How often a prediction is right when the model says it is p sure: one panel per arm, seeds pooled."""
    rows_of_panels = (len(picks) + 1) // 2
    title = f"Calibration: {task}"
    description = "; ".join(f"{p.arm.name}: calibration error {errors[p.arm.name].mean:.3f}" for p in picks)
    canvas = Canvas(WIDTH, rows_of_panels * (_PANEL + 24), title, description)
    for i, pick in enumerate(picks):
        left, top = (i % 2) * (_PANEL + 16), (i // 2) * (_PANEL + 24)
        _reliability_panel(canvas, left, top, pick, errors[pick.arm.name])
    diagonal = "On the diagonal, confidence is honest; below it, too high."
    note = f"{diagonal} {NUM_ECE_BINS} bins; larger dots hold more items."
    return Figure(title, canvas.render(), note)


def _reliability_panel(canvas: Canvas, left: float, top: float, pick: Pick, error: Interval) -> None:
    x, y = Scale(0, 1, left + 34, left + _PANEL - 6), Scale(0, 1, top + _PANEL - 26, top + 44)
    canvas.text(left, top + 14, short(pick.arm.name, 24), "name")
    canvas.text(left, top + 31, f"ECE {error.mean:.3f} [{error.low:.3f}, {error.high:.3f}]", "tick")
    for tick in (0, 0.5, 1):
        canvas.line(x(0), y(tick), x(1), y(tick), "grid")
        canvas.text(x(0) - 7, y(tick) + 4.5, f"{tick:g}", "tick", "end")
        canvas.text(x(tick), y(0) + 17, f"{tick:g}", "tick", "middle")
    canvas.line(x(0), y(0), x(1), y(1), "diagonal")
    if left == 0:
        canvas.text(x(0) + 6, y(1) + 14, "share right", "hint halo")
    canvas.text(x(0.5), y(0) + 33, "confidence", "hint", "middle")
    bins = _bins(pick.cells)
    parts = [polyline([(x(c), y(a)) for c, a, _ in bins], "track")]
    parts += [circle(x(c), y(a), 2.2 + 9 * share**0.5, "mark soft") for c, a, share in bins]
    canvas.group(f"o-{pick.arm.origin}", *parts)


def _bins(cells: Sequence[Cell]) -> list[tuple[float, float, float]]:
    """(mean confidence, share right, share of items) of each bin that holds at least half a percent of the
    items."""
    pairs = [confidence_and_hit(cell.rows) for cell in cells]
    confidence = np.concatenate([np.asarray(c, dtype=float) for c, _ in pairs])
    right = np.concatenate([np.asarray(h, dtype=float) for _, h in pairs])
    index = bin_index(confidence)
    bins = []
    for i in range(NUM_ECE_BINS):
        inside = index == i
        if inside.mean() >= _MIN_BIN_SHARE:
            bins.append((float(confidence[inside].mean()), float(right[inside].mean()), float(inside.mean())))
    return bins


@dataclass(frozen=True)
class CurvePanel:
    """One arm's learning curves: the rows of metrics.jsonl of each seed's run."""

    arm: ArmRecord
    label: str
    seeds: list[list[ItemRow]]


def learning_curves(panels: Sequence[CurvePanel]) -> Figure | None:
    """Loss over tokens, a panel per arm with its own axis: losses per token of different tokenizers do not
    compare in height."""
    drawn = [panel for panel in panels if any(len(curve(rows, "loss")) > 1 for rows in panel.seeds)]
    if not drawn:
        return None
    title = "Learning curves"
    height = ((len(drawn) + 1) // 2) * (_CURVES + 20)
    canvas = Canvas(WIDTH, height, title, f"training and development loss of {len(drawn)} arms")
    for i, panel in enumerate(drawn):
        _curve_panel(canvas, (i % 2) * (_PANEL + 16), (i // 2) * (_CURVES + 20), panel)
    lines = "Nats per token. Lines: training, one per seed; dots: development."
    return Figure(title, canvas.render(), f"{lines} Compare shapes, not heights: tokenizers differ.")


def curve(rows: Sequence[ItemRow], key: str) -> list[tuple[float, float]]:
    """(tokens, or steps where no tokens were counted; value) of the metrics rows that have `key`."""
    recorded = [row for row in rows if row.get(key) is not None]
    places = [row["tokens_seen"] if "tokens_seen" in row else row.get("step", 0) for row in recorded]
    return [(float(place), float(row[key])) for place, row in zip(places, recorded, strict=True)]


def _curve_panel(canvas: Canvas, left: float, top: float, panel: CurvePanel) -> None:
    train = [curve(rows, "loss") for rows in panel.seeds]
    dev = [curve(rows, "eval_loss") for rows in panel.seeds]
    points = [point for losses in [*train, *dev] for point in losses]
    # The first steps start high and would flatten the rest: the axis holds all but the top 2 %.
    ceiling = float(np.quantile([v for _, v in points], 0.98))
    low, high = padded([min(v for _, v in points), ceiling])
    x = Scale(0, max(t for t, _ in points) or 1.0, left + 34, left + _PANEL - 8)
    y = Scale(low, high, top + _CURVES - 26, top + 28)
    canvas.text(left, top + 14, short(panel.label, 28), "name")
    for tick in y.ticks(3):
        canvas.line(x.start, y(tick), x.end, y(tick), "grid")
        canvas.text(x.start - 6, y(tick) + 4.5, decimals(y, 3)(tick), "tick", "end")
    canvas.line(x.start, y.start, x.end, y.start, "axis")
    canvas.text(x.start, y.start + 17, "0", "tick", "middle")
    canvas.text(x.end, y.start + 17, f"{_count(x.high)} tokens", "tick", "end")
    parts = [polyline([(x(t), y(y.clip(v))) for t, v in losses], "seed") for losses in train]
    parts += [circle(x(t), y(y.clip(v)), 2.6, "mark") for losses in dev for t, v in losses]
    canvas.group(f"o-{panel.arm.origin}", *parts)


def _count(value: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"
