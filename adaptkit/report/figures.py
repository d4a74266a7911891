"""Choose what each figure of the report shows, from a study's results; charts.py and its kin draw it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from adaptkit.report import charts, charts_detail
from adaptkit.report.charts import Figure, RowMark, Track, typeset
from adaptkit.report.charts_detail import CurvePanel, Pick
from adaptkit.report.svg import chip
from adaptkit.report.tables import ORIGIN_ORDER, has_columns, ordered_arms
from adaptkit.run import Run
from adaptkit.study.forecast import Forecast
from adaptkit.study.front import front
from adaptkit.study.record import ArmRecord, TaskRecord
from adaptkit.study.results import (
    BASELINE,
    GENERAL,
    Cost,
    ItemRow,
    Results,
    is_language,
    task_title,
    trained_on,
)
from adaptkit.study.scores import METRICS, score_table, within_metric
from adaptkit.study.statistics import Comparison, Interval, resample
from adaptkit.study.task_verdict import TaskVerdict, Verdict
from adaptkit.study.verdict_line import flops_text, interval_text

BETTER_LEFT = ("\u2190 better", "worse \u2192")
BETTER_RIGHT = ("\u2190 worse", "better \u2192")
_ADAPTATIONS = ("prompt", "rag", "probe", "hybrid", "lora", "qlora", "rag-lora", "full", "rerank")
_TIME_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
UNTOUCHED = "generic"
"""The arm of the text ledger that is the base as it is."""


# Differences between arms


def main_difference(verdict: Verdict, results: Results) -> Figure | None:
    """The contenders beside the recommended arm, alone and large; None where it is the only arm."""
    main = verdict.main
    shown = [name for name in main.contenders if name != main.recommended]
    if main.rival is not None and main.rival not in shown:
        shown.append(main.rival)
    marks = _difference_marks(results, main, shown)
    if not marks:
        return None
    note = "Shaded: differences declared too small to matter. Whiskers: intervals that hold together."
    return _difference_figure(results, main, marks, f"Difference to {main.recommended}", note)


def all_differences(verdict: TaskVerdict, results: Results) -> Figure | None:
    """Every arm's difference to the recommended one on a task, best first."""
    task = results.task(verdict.task)
    marks = _difference_marks(results, verdict, list(verdict.differences))
    if not marks:
        return None
    level = f"intervals that hold together with {verdict.confidence:.0%} confidence"
    note = f"Each arm minus {verdict.recommended}, the recommended one, in {level}."
    title = f"Difference to {verdict.recommended}: {task_title(task)}"
    return _difference_figure(results, verdict, marks, title, note)


def _difference_marks(results: Results, verdict: TaskVerdict, names: Sequence[str]) -> list[RowMark]:
    marks = [_difference_row(results, name, verdict.differences[name], name) for name in names]
    return sorted(marks, key=lambda mark: mark.value.mean, reverse=verdict.higher_is_better)


def _difference_row(results: Results, arm: str, pair: Comparison, label: str) -> RowMark:
    interval = Interval(pair.difference, pair.low, pair.high)
    return RowMark(results.arm(arm), label, interval, typeset(interval_text(pair)))


def _difference_figure(
    results: Results, verdict: TaskVerdict, marks: Sequence[RowMark], title: str, note: str
) -> Figure:
    task = results.task(verdict.task)
    return charts.whiskers(
        title,
        "; ".join(f"{mark.label}: {mark.text}" for mark in marks),
        marks,
        axis=f"difference in {METRICS[task.metric].title}",
        reference=0.0,
        margin=verdict.margin,
        hints=BETTER_RIGHT if task.higher_is_better else BETTER_LEFT,
        note=note,
    )


# Quality against cost, text and compute


def cost_figures(results: Results) -> list[Figure]:
    """Quality against FLOPs and time for the primary task, against FLOPs for the others."""
    primary = results.primary
    figures = [_compute_figure(results, primary), _time_figure(results, primary)]
    figures += [_compute_figure(results, task) for task in results.tasks if task != primary]
    return [figure for figure in figures if figure is not None]


def _compute_figure(results: Results, task: TaskRecord) -> Figure | None:
    tracks = _tracks(results, task, lambda cost: cost.flops)
    return _quality_figure(task, tracks, "compute", "FLOPs", flops_text) if tracks else None


def _time_figure(results: Results, task: TaskRecord) -> Figure | None:
    tracks = _tracks(results, task, lambda cost: cost.seconds)
    if not tracks:
        return None
    longest = max(seconds for track in tracks for seconds, _ in track.points)
    size, unit = next((size, unit) for size, unit in _TIME_UNITS if longest > 1.5 * size or size == 1.0)
    scaled = [
        dataclasses.replace(track, points=tuple((seconds / size, score) for seconds, score in track.points))
        for track in tracks
    ]
    return _quality_figure(task, scaled, "time", unit, "{:g}".format)


def _quality_figure(
    task: TaskRecord, tracks: Sequence[Track], against: str, unit: str, fmt: Callable[[float], str]
) -> Figure:
    metric = METRICS[task.metric].title
    title = f"{metric[0].upper()}{metric[1:]} against {against}"
    if not is_language(task):
        title += f": {task.name}"
    note = f"{'Higher' if task.higher_is_better else 'Lower'} is better."
    ends = [(track.label, *track.points[-1]) for track in tracks]
    description = "; ".join(f"{label}: {score.mean:.3f} at {size:.3g} {unit}" for label, size, score in ends)
    axis = f"training {unit} per seed"
    return charts.quality_against(
        title, description, tracks, axis=axis, quality=task_title(task), fmt=fmt, note=note
    )


def _tracks(results: Results, task: TaskRecord, quantity: Callable[[Cost], float]) -> list[Track]:
    """Each arm's score over what it cost."""
    tracks = []
    for name in (arm.name for arm in results.scored_arms(task.name)):
        cells = results.of(task.name, name)
        cost = sum(quantity(cell.cost) for cell in cells) / len(cells)
        tracks.append(Track(results.arm(name), name, ((cost, results.interval(task.name, name)),)))
    return tracks


def forecast_figure(results: Results, forecast: Forecast | None) -> Figure | None:
    """Bits per byte over the text that was read, with the fitted laws; None where none held."""
    if forecast is None or not forecast.curves:
        return None
    arms = {arm.name: arm for arm in results.arms}
    return charts.forecast_figure(forecast, arms, METRICS["bits_per_byte"].title)


def front_figure(results: Results, task: TaskRecord) -> Figure | None:
    """Quality against what a thousand requests cost, or where no price is known, the time of one."""
    rows = front(results, task)
    priced = [row for row in rows if row.owned.usd_per_1k is not None]
    shown = priced or [row for row in rows if row.owned.latency_s is not None]
    if len(shown) < 2:
        return None
    tracks = []
    for row in shown:
        cost = row.owned.usd_per_1k if priced else 1000 * (row.owned.latency_s or 0.0)
        point = ((cost or 0.0, row.score),)
        tracks.append(Track(row.arm, row.arm.name, point, dimmed=row.dominated_by is not None))
    axis = "US dollars per 1,000 requests" if priced else "milliseconds per request"
    origins = "; ".join(dict.fromkeys(row.owned.origin for row in shown))
    dominated = "Pale: another arm is nowhere worse and somewhere better."
    return charts.quality_against(
        "What quality costs to serve",
        "; ".join(f"{track.label}: {track.points[0][1].mean:.3f}" for track in tracks),
        tracks,
        axis=axis,
        quality=task_title(task),
        fmt="{:.2g}".format,
        note=f"{dominated} Cost: {origins}.",
    )


# Single tasks and runs


def best_of_each_origin(results: Results, task: str) -> list[Pick]:
    """The best arm of each origin on a task, by development score."""
    best: dict[str, ArmRecord] = {}
    sign = 1 if results.task(task).higher_is_better else -1

    def quality(arm: ArmRecord) -> float:
        dev = results.dev(task, arm.name)
        if dev is None:
            dev = results.replicates(task).mean(arm.name)
        return sign * dev

    for arm in (arm for arm in results.scored_arms(task) if arm.origin != BASELINE):
        if arm.origin not in best or quality(arm) > quality(best[arm.origin]):
            best[arm.origin] = arm
    order = {origin: i for i, origin in enumerate(ORIGIN_ORDER)}
    arms = sorted(best.values(), key=lambda arm: order.get(arm.origin, len(order)))
    return [Pick(arm, tuple(results.of(task, arm.name))) for arm in arms]


def class_figures(results: Results) -> list[Figure]:
    """Per-class scores and reliability of each classification task."""
    figures = []
    for task in results.tasks:
        if not results.scored_arms(task.name) or not has_columns(results, task, "macro_f1"):
            continue
        picks = best_of_each_origin(results, task.name)
        figures.append(charts_detail.per_class(task.name, picks))
        if has_columns(results, task, "ece"):
            errors = {pick.arm.name: results.interval(task.name, pick.arm.name, "ece") for pick in picks}
            figures.append(charts_detail.reliability(task.name, picks, errors))
    return figures


def curves_figure(results: Results) -> Figure | None:
    """Loss of the run behind each arm's primary score, or of the last run that paid for it."""
    task = results.primary.name
    panels = []
    for name in (arm.name for arm in results.scored_arms(task)):
        curves: list[list[ItemRow]] = []
        for cell in results.of(task, name):
            runs = dict.fromkeys([cell.run, *reversed(cell.paid_by)])
            curves += [rows for run in runs if (rows := Run(run).metrics())][:1]
        if curves:
            panels.append(CurvePanel(results.arm(name), name, curves))
    return charts_detail.learning_curves(panels)


def forgetting_figure(results: Results) -> Figure | None:
    """Bits per byte on general text after training on the domain's, against the base as it was."""
    arms = {arm.name: arm for arm in ordered_arms(results)}
    for record in results.record.forgetting:
        if record.task is not None:  # a job arm of that origin lends its colour
            of_origin = next(arm for arm in results.arms if arm.origin == record.arm)
            arms.setdefault(trained_on(record.arm, record.task), of_origin)
    names = [name for name in arms if name in results.forgetting]
    if len(names) < 2:
        return None
    replicates = resample(
        {name: [score_table("bits_per_byte", rows) for rows in results.forgetting[name]] for name in names},
        results.clusters_of(GENERAL, results.forgetting[names[0]][0]),
    )
    untouched = UNTOUCHED if UNTOUCHED in names else names[0]
    reference = replicates.mean(untouched)
    marks = []
    for name in names:
        if name != untouched:
            interval = within_metric("bits_per_byte", replicates.interval(name, results.confidence))
            text = f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
            marks.append(RowMark(arms[name], name, interval, text))
    marks.sort(key=lambda mark: mark.value.mean)
    note = f"Line: {untouched}."
    if untouched == UNTOUCHED:
        note = f"Line: the generic model before any training, {reference:.3f}."
    return charts.whiskers(
        "What is forgotten: general text",
        "; ".join(f"{mark.label}: {mark.text}" for mark in marks),
        marks,
        axis="bits per byte on general text",
        reference=reference,
        hints=("\u2190 remembers", "forgets \u2192"),
        note=note + " Scratch models never knew general text.",
    )


# Legends


def origins(results: Results) -> list[tuple[str, str]]:
    """(origin, chip) of the study's origins, for the legend; a square for one without a text arm."""
    present = {arm.origin for arm in results.arms}
    alone = {arm.origin for arm in results.arms if arm.adaptation is None}
    return [
        (origin, chip(origin, "" if origin in alone else "full"))
        for origin in ORIGIN_ORDER
        if origin in present
    ]


def adaptations(results: Results) -> list[tuple[str, str]]:
    """(adaptation, chip) of the study's adaptations, for the legend."""
    present = {arm.adaptation for arm in results.arms}
    return [(name, chip("ink", name)) for name in _ADAPTATIONS if name in present]
