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
from adaptkit.study.forecast import Scaling
from adaptkit.study.record import ArmRecord, TaskRecord
from adaptkit.study.results import Cost, ItemRow, Results, is_language, task_title
from adaptkit.study.scores import METRICS, score_table
from adaptkit.study.statistics import Comparison, Interval, resample
from adaptkit.study.verdict import TaskVerdict, Verdict, absolute_margin, flops_text, interval_text

BETTER_LEFT = ("\u2190 better", "worse \u2192")
BETTER_RIGHT = ("\u2190 worse", "better \u2192")
_ADAPTATIONS = ("prompt", "probe", "lora", "qlora", "full")
_TIME_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_UNTOUCHED = ("prompt", "probe")


# Differences between arms


def main_difference(verdict: Verdict, results: Results) -> Figure | None:
    """The comparison that decides, alone and large; None where there was nothing to compare."""
    main = verdict.main
    if main.candidate is None or main.versus_generic is None:
        return None
    marks = [_difference_row(results, main.candidate, main.versus_generic, f"against {main.generic}")]
    if main.versus_placebo is not None:
        marks.append(_difference_row(results, main.candidate, main.versus_placebo, f"against {main.placebo}"))
    note = "Shaded: differences declared too small to matter. Whiskers: intervals."
    return _difference_figure(results, main, marks, f"{main.candidate}, as a difference", note)


def all_differences(verdict: TaskVerdict, results: Results) -> Figure | None:
    """Every arm's difference to the best generic one on a task, best first."""
    task = results.task(verdict.task)
    if verdict.generic is None:
        return None
    margin = absolute_margin(results, task, verdict.generic)
    marks = []
    for name in results.distinct_arms(task.name):
        if name == verdict.generic:
            continue
        pair = results.replicates(task.name).compare(
            name,
            verdict.generic,
            margin=margin,
            higher_is_better=task.higher_is_better,
            confidence=results.confidence,
        )
        marks.append(_difference_row(results, name, pair, results.label(task.name, name)))
    if not marks:
        return None
    marks.sort(key=lambda mark: mark.value.mean, reverse=task.higher_is_better)
    level = f"{results.confidence:.0%} intervals over seeds and items"
    note = f"Each arm minus {verdict.generic}, the best generic arm, with {level}."
    title = f"Difference to {verdict.generic}: {task_title(task)}"
    return _difference_figure(results, verdict, marks, title, note)


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
        margin=absolute_margin(results, task, verdict.generic),
        hints=BETTER_RIGHT if task.higher_is_better else BETTER_LEFT,
        note=note,
    )


# Quality against cost and amount of text


def cost_figures(results: Results, scaling: Scaling | None) -> list[Figure]:
    """Quality against FLOPs and time for the primary task, against FLOPs for the others."""
    primary = results.primary
    figures = [_compute_figure(results, primary, scaling), _time_figure(results, primary, scaling)]
    figures += [_compute_figure(results, task, scaling) for task in results.tasks if task != primary]
    return [figure for figure in figures if figure is not None]


def _compute_figure(results: Results, task: TaskRecord, scaling: Scaling | None) -> Figure | None:
    tracks = _tracks(results, task, lambda cost: cost.flops, scaling)
    return _quality_figure(task, tracks, "compute", "FLOPs", flops_text) if tracks else None


def _time_figure(results: Results, task: TaskRecord, scaling: Scaling | None) -> Figure | None:
    tracks = _tracks(results, task, lambda cost: cost.seconds, scaling)
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
    if any(len(track.points) > 1 for track in tracks):
        note += " Lines join the same arm on growing shares of the text."
    ends = [(track.label, *track.points[-1]) for track in tracks]
    description = "; ".join(f"{label}: {score.mean:.3f} at {size:.3g} {unit}" for label, size, score in ends)
    axis = f"training {unit} per seed"
    return charts.quality_against(
        title, description, tracks, axis=axis, quality=task_title(task), fmt=fmt, note=note
    )


def _tracks(
    results: Results, task: TaskRecord, quantity: Callable[[Cost], float], scaling: Scaling | None
) -> list[Track]:
    """Each arm's scores over what they cost; at every share of the text where a law was fitted."""
    curves = {}
    if scaling is not None and task.metric == "bits_per_byte":
        curves = {curve.arm: curve for curve in scaling.curves}
    tracks = []
    for name in results.distinct_arms(task.name):
        shares = results.shares(task.name, name)
        if name in curves:
            scores = list(zip(shares, curves[name].points, strict=True))
        else:
            scores = [(shares[-1], results.replicates(task.name).interval(name, results.confidence))]
        points = []
        for share, interval in scores:
            cells = results.of(task.name, name, share)
            points.append((sum(quantity(cell.cost) for cell in cells) / len(cells), interval))
        points.sort(key=lambda point: point[0])
        tracks.append(Track(results.arm(name), results.label(task.name, name), tuple(points)))
    return tracks


def scaling_figure(results: Results, scaling: Scaling | None) -> Figure | None:
    """Bits per byte over the amount of text with the fitted laws; None where none was fitted."""
    if scaling is None or results.language is None:
        return None
    labels = {curve.arm: results.label(results.language.name, curve.arm) for curve in scaling.curves}
    arms = {arm.name: arm for arm in results.arms}
    return charts.scaling_figure(scaling, arms, labels, METRICS["bits_per_byte"].title)


# Single tasks and runs


def best_of_each_origin(results: Results, task: str) -> list[Pick]:
    """The best arm of each origin on a task, by development score."""
    best: dict[str, ArmRecord] = {}
    sign = 1 if results.task(task).higher_is_better else -1

    def quality(arm: ArmRecord) -> float:
        dev = results.dev(task, arm.name)
        if dev is None:
            dev = results.replicates(task).mean(results.same_as(task, arm.name))
        return sign * dev

    for arm in results.scored_arms(task):
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
            replicates = results.replicates(task.name, "ece")
            errors = {}
            for pick in picks:
                same = results.same_as(task.name, pick.arm.name)
                errors[pick.arm.name] = replicates.interval(same, results.confidence)
            figures.append(charts_detail.reliability(task.name, picks, errors))
    return figures


def curves_figure(results: Results) -> Figure | None:
    """Loss of the run behind each arm's primary score, or of the last run that paid for it."""
    task = results.primary.name
    panels = []
    for name in results.distinct_arms(task):
        curves: list[list[ItemRow]] = []
        for cell in results.of(task, name):
            runs = dict.fromkeys([cell.run, *reversed(cell.paid_by)])
            curves += [rows for run in runs if (rows := Run(run).metrics())][:1]
        if curves:
            panels.append(CurvePanel(results.arm(name), results.label(task, name), curves))
    return charts_detail.learning_curves(panels)


def forgetting_figure(results: Results) -> Figure | None:
    """Bits per byte on general text after adaptation, against the base as it was."""
    names = _distinct_forgetting(results)
    if not names:
        return None
    replicates = resample(
        {name: [score_table("bits_per_byte", rows) for rows in results.forgetting[name]] for name in names}
    )
    untouched = next((name for name in names if _is_untouched(results.arm(name))), None)
    reference = replicates.mean(untouched or names[0])
    marks = []
    for name in names:
        if name != untouched:
            interval = replicates.interval(name, results.confidence)
            text = f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
            marks.append(RowMark(results.arm(name), _forgetting_label(results, name), interval, text))
    if not marks:
        return None
    marks.sort(key=lambda mark: mark.value.mean)
    note = f"Line: {names[0]}."
    if untouched:
        note = f"Line: the generic model before any adaptation, {reference:.3f}."
    return charts.whiskers(
        "What is forgotten: general text",
        "; ".join(f"{mark.label}: {mark.text}" for mark in marks),
        marks,
        axis="bits per byte on general text",
        reference=reference,
        hints=("\u2190 remembers", "forgets \u2192"),
        note=note + " Scratch models never knew general text.",
    )


def _is_untouched(arm: ArmRecord) -> bool:
    return arm.origin == "generic" and arm.adaptation in _UNTOUCHED


def _forgetting_label(results: Results, arm: str) -> str:
    """Adaptations of one origin share the language model, here as on the language task."""
    for task in results.tasks:
        if is_language(task) and results.of(task.name, arm):
            return results.label(task.name, results.same_as(task.name, arm))
    return arm


def _distinct_forgetting(results: Results) -> list[str]:
    """Arms with rows of their own: the reader hands out one list per run, so shared runs show by identity."""
    groups: dict[tuple[int, ...], str] = {}
    for arm in ordered_arms(results):
        if arm.name in results.forgetting:
            groups.setdefault(tuple(id(rows) for rows in results.forgetting[arm.name]), arm.name)
    return list(groups.values())


# Legends


def origins(results: Results) -> list[tuple[str, str]]:
    """(origin, chip) of the study's origins, for the legend."""
    present = {arm.origin for arm in results.arms}
    return [(origin, chip(origin, "full")) for origin in ORIGIN_ORDER if origin in present]


def adaptations(results: Results) -> list[tuple[str, str]]:
    """(adaptation, chip) of the study's adaptations, for the legend."""
    present = {arm.adaptation for arm in results.arms}
    return [(name, chip("ink", name)) for name in _ADAPTATIONS if name in present]
