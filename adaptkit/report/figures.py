"""The report's tables and figures, built from a study's results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.report import charts, charts_detail, prose
from adaptkit.report.charts import Figure, RowMark, Track, typeset
from adaptkit.report.charts_detail import Pick
from adaptkit.report.svg import chip
from adaptkit.run import Run
from adaptkit.study.forecast import Scaling
from adaptkit.study.results import ArmInfo, Results, TaskInfo
from adaptkit.study.scores import METRICS, score_table
from adaptkit.study.statistics import Comparison, Interval, resample
from adaptkit.study.verdict import TaskVerdict, Verdict, absolute_margin, flops_text, interval_text

ORIGIN_ORDER = ("generic", "continued", "scratch", "distilled", "placebo")
_TIME_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
DETAIL_METRICS = {
    "classify": ("accuracy", "macro_f1", "ece", "brier"),
    "generate": ("rouge_l", "exact_match"),
    "retrieve": ("ndcg_at_10", "mrr_at_10", "map", "recall_at_10", "recall_at_100"),
}


@dataclass(frozen=True)
class Score:
    """A table cell: value, interval, and whether it is the column's best."""

    value: str
    interval: str
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """One arm of a table; `cells` follow the table's columns, None where the arm was not scored."""

    name: str
    chip: str
    describe: str
    cells: tuple[Score | None, ...]
    costs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Column headings, rows, and what the numbers mean."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    cost_columns: tuple[str, ...] = ()


def ordered_arms(results: Results) -> list[ArmInfo]:
    """Arms grouped by origin; an unknown origin comes last."""
    place = {origin: i for i, origin in enumerate(ORIGIN_ORDER)}
    return sorted(results.arms, key=lambda arm: place.get(arm.origin, len(place)))


def main_table(results: Results) -> Table:
    """Every arm on every task, with intervals and what the primary task's score cost."""
    best = {task.name: _best_arm(results, task) for task in results.tasks}
    rows = []
    for arm in ordered_arms(results):
        cells = tuple(_score(results, task, arm.name, best[task.name]) for task in results.tasks)
        rows.append(
            TableRow(
                arm.name, chip(arm.origin, arm.adaptation), arm.describe, cells, _costs(results, arm.name)
            )
        )
    for name in dict.fromkeys(cell.arm for cell in results.baselines):
        cells = tuple(_baseline_score(results, task, name) for task in results.tasks)
        rows.append(
            TableRow(name, chip("baseline", ""), "for reference; no language model", cells, ("", "", "", ""))
        )
    return Table(
        title="All arms",
        columns=tuple(f"{task.title} {_arrow(task.higher_is_better)}" for task in results.tasks),
        rows=tuple(rows),
        cost_columns=("FLOPs", "time", "peak memory", "tokens/s"),
    )


def _arrow(higher_is_better: bool) -> str:
    return "\u2191" if higher_is_better else "\u2193"


def _best_arm(results: Results, task: TaskInfo) -> str:
    names = list(results.distinct_arms(task.name))
    sign = 1 if task.higher_is_better else -1
    return max(names, key=lambda name: sign * results.replicates(task.name).mean(name)) if names else ""


def _score(results: Results, task: TaskInfo, arm: str, best: str) -> Score | None:
    if not results.of(task.name, arm):
        return None
    name = results.same_as(task.name, arm)
    return _cell(task.metric, results.replicates(task.name).interval(name, results.confidence), name == best)


def _baseline_score(results: Results, task: TaskInfo, name: str) -> Score | None:
    if not any(cell.arm == name and cell.task == task.name for cell in results.baselines):
        return None
    return _cell(task.metric, results.replicates(task.name).interval(f"baseline:{name}", results.confidence))


def _cell(metric: str, interval: Interval, best: bool = False) -> Score:
    """Rounded; an interval that t stretched past what the metric can be ends there."""
    low, high = max(interval.low, 0.0), min(interval.high, METRICS[metric].most)
    return Score(f"{interval.mean:.3f}", f"{low:.3f} to {high:.3f}", best)


def _costs(results: Results, arm: str) -> tuple[str, ...]:
    if not results.of(results.primary.name, arm):
        return ("", "", "", "")
    cost = results.cost(results.primary.name, arm)
    if not cost.flops and not cost.seconds:
        return ("none", "none", "", "")
    speed = f"{cost.tokens_per_s:,.0f}"
    return (
        flops_text(cost.flops),
        prose.duration(cost.seconds),
        prose.memory_text(cost.peak_memory_bytes),
        speed,
    )


def detail_tables(results: Results) -> list[Table]:
    """Per labelled task: every metric of its kind, with calibration."""
    tables = []
    for task in results.tasks:
        metrics = [m for m in DETAIL_METRICS.get(task.kind, ()) if _has_columns(results, task, m)]
        if not metrics or not results.scored_arms(task.name):
            continue
        rows = []
        for arm in (a for a in ordered_arms(results) if results.of(task.name, a.name)):
            name = results.same_as(task.name, arm.name)
            cells = tuple(
                _cell(m, results.replicates(task.name, m).interval(name, results.confidence)) for m in metrics
            )
            rows.append(TableRow(arm.name, chip(arm.origin, arm.adaptation), arm.describe, cells))
        columns = tuple(f"{METRICS[m].title} {_arrow(METRICS[m].higher_is_better)}" for m in metrics)
        tables.append(Table(task.name, columns, tuple(rows)))
    return tables


def _has_columns(results: Results, task: TaskInfo, metric: str) -> bool:
    needed = {"ece": "probabilities", "brier": "probabilities"}.get(metric)
    return needed is None or all(
        needed in cell.rows[0] for cell in [*results.cells, *results.baselines] if cell.task == task.name
    )


def hero(verdict: Verdict, results: Results) -> Figure | None:
    """The primary comparison alone, large."""
    main = verdict.main
    if main.versus_generic is None:
        return None
    marks = [_difference_row(results, main.candidate, main.versus_generic, f"against {main.generic}")]
    if main.versus_placebo is not None:
        marks.append(_difference_row(results, main.candidate, main.versus_placebo, f"against {main.placebo}"))
    title = f"{main.candidate}, as a difference"
    return _forest(
        results, main, marks, title, "Shaded: differences declared too small to matter. Whiskers: intervals."
    )


def _difference_row(results: Results, arm: str, pair: Comparison, label: str) -> RowMark:
    return RowMark(
        results.arm(arm), label, Interval(pair.difference, pair.low, pair.high), typeset(interval_text(pair))
    )


def forest(verdict: TaskVerdict, results: Results) -> Figure | None:
    """Every arm's difference to the best generic one, best first."""
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
    marks.sort(key=lambda m: m.value.mean, reverse=task.higher_is_better)
    note = f"Each arm minus {verdict.generic}, the best generic arm, with {results.confidence:.0%} intervals over seeds and items."
    return _forest(results, verdict, marks, f"Difference to {verdict.generic}: {task.title}", note)


def _forest(
    results: Results, verdict: TaskVerdict, marks: Sequence[RowMark], title: str, note: str
) -> Figure:
    task = results.task(verdict.task)
    hints = ("\u2190 worse", "better \u2192") if task.higher_is_better else ("\u2190 better", "worse \u2192")
    return charts.whiskers(
        title,
        "; ".join(f"{m.label}: {m.text}" for m in marks),
        marks,
        axis=f"difference in {METRICS[task.metric].title}",
        reference=0.0,
        margin=absolute_margin(results, task, verdict.generic),
        hints=hints,
        note=note,
    )


def budget_figures(results: Results, scaling: Scaling | None) -> list[Figure]:
    """Quality against FLOPs and time for the primary task, against FLOPs for the others."""
    figures = []
    for task in [results.primary, *(t for t in results.tasks if t.name != results.primary.name)]:
        figures.append(_cost_figure(results, task, "flops", scaling))
        if task.name == results.primary.name:
            figures.append(_cost_figure(results, task, "seconds", scaling))
    return [figure for figure in figures if figure is not None]


def _cost_figure(results: Results, task: TaskInfo, quantity: str, scaling: Scaling | None) -> Figure | None:
    size, fmt = "FLOPs", flops_text
    tracks = _tracks(results, task, quantity, scaling)
    if not tracks:
        return None
    if quantity == "seconds":
        longest = max(x for track in tracks for x, _ in track.points)
        unit, size = next((u, name) for u, name in _TIME_UNITS if longest > 1.5 * u or u == 1.0)
        tracks = [
            dataclasses.replace(track, points=tuple((x / unit, i) for x, i in track.points))
            for track in tracks
        ]
        fmt = "{:g}".format
    metric = METRICS[task.metric].title
    title = f"{metric[0].upper()}{metric[1:]} against {'compute' if quantity == 'flops' else 'time'}"
    title += "" if task.kind == "language" else f": {task.name}"
    note = f"{'Higher' if task.higher_is_better else 'Lower'} is better."
    if any(len(track.points) > 1 for track in tracks):
        note += " Lines join the same arm on growing shares of the text."
    description = "; ".join(
        f"{t.label}: {t.points[-1][1].mean:.3f} at {t.points[-1][0]:.3g} {size}" for t in tracks
    )
    axis = f"training {size} per seed"
    return charts.quality_against(
        title, description, tracks, axis=axis, quality=task.title, fmt=fmt, note=note
    )


def _tracks(results: Results, task: TaskInfo, quantity: str, scaling: Scaling | None) -> list[Track]:
    curves = (
        {c.arm: c for c in scaling.curves} if scaling is not None and task.metric == "bits_per_byte" else {}
    )
    tracks = []
    for name in results.distinct_arms(task.name):
        shares = sorted({c.fraction for c in results.cells if c.task == task.name and c.arm == name})
        if name in curves:
            values = list(zip(shares, curves[name].points, strict=True))
        else:
            values = [(shares[-1], results.replicates(task.name).interval(name, results.confidence))]
        points = []
        for share, interval in values:
            cells = results.of(task.name, name, share)
            points.append((sum(getattr(c.cost, quantity) for c in cells) / len(cells), interval))
        tracks.append(
            Track(
                results.arm(name), results.label(task.name, name), tuple(sorted(points, key=lambda p: p[0]))
            )
        )
    return tracks


def scaling_figure(results: Results, scaling: Scaling | None) -> Figure | None:
    if scaling is None:
        return None
    language = next(task.name for task in results.tasks if task.metric == "bits_per_byte")
    labels = {curve.arm: results.label(language, curve.arm) for curve in scaling.curves}
    return charts.scaling_figure(
        scaling, {arm.name: arm for arm in results.arms}, labels, METRICS["bits_per_byte"].title
    )


def picks(results: Results, task: str) -> list[Pick]:
    """The best arm of each origin on a task, by development score."""
    chosen: dict[str, ArmInfo] = {}
    info = results.task(task)
    sign = 1 if info.higher_is_better else -1

    def quality(arm: ArmInfo) -> float:
        dev = results.dev(task, arm.name)
        return sign * (results.replicates(task).mean(results.same_as(task, arm.name)) if dev is None else dev)

    for arm in results.scored_arms(task):
        if arm.origin not in chosen or quality(arm) > quality(chosen[arm.origin]):
            chosen[arm.origin] = arm
    order = sorted(
        chosen.values(), key=lambda a: ORIGIN_ORDER.index(a.origin) if a.origin in ORIGIN_ORDER else 9
    )
    return [Pick(arm, tuple(results.of(task, arm.name))) for arm in order]


def class_figures(results: Results) -> list[Figure]:
    """Per-class scores and reliability of each classification task."""
    figures = []
    for task in (t for t in results.tasks if t.kind == "classify" and results.scored_arms(t.name)):
        shown = picks(results, task.name)
        figures.append(charts_detail.per_class(task.name, shown))
        if _has_columns(results, task, "ece"):
            errors = results.replicates(task.name, "ece")
            intervals = {
                p.arm.name: errors.interval(results.same_as(task.name, p.arm.name), results.confidence)
                for p in shown
            }
            figures.append(charts_detail.reliability(task.name, shown, intervals))
    return figures


def curves_figure(results: Results) -> Figure | None:
    """Loss of the run behind each arm's primary score, or of the last run that paid for it."""
    panels = []
    for name in results.distinct_arms(results.primary.name):
        seeds = []
        for cell in results.of(results.primary.name, name):
            found = [
                rows
                for path in dict.fromkeys([cell.run, *reversed(cell.paid_by)])
                if (rows := Run(path).metrics())
            ]
            seeds += found[:1]
        if seeds:
            panels.append((results.arm(name), results.label(results.primary.name, name), seeds))
    return charts_detail.learning_curves(panels)


def forgetting_figure(results: Results) -> Figure | None:
    """Bits per byte on general text after adaptation, against the base as it was."""
    names = _distinct_forgetting(results)
    if not names:
        return None
    replicates = resample(
        {name: [score_table("bits_per_byte", rows) for rows in results.forgetting[name]] for name in names}
    )
    untouched = next((name for name in names if name in ("generic+prompt", "generic+probe")), None)
    reference = replicates.mean(untouched or names[0])
    intervals = {name: replicates.interval(name, results.confidence) for name in names if name != untouched}
    marks = [
        RowMark(
            results.arm(name),
            _forgetting_label(results, name),
            i,
            f"{i.mean:.3f} [{i.low:.3f}, {i.high:.3f}]",
        )
        for name, i in intervals.items()
    ]
    marks.sort(key=lambda m: m.value.mean)
    if not marks:
        return None
    note = (
        f"Line: the generic model before any adaptation, {reference:.3f}."
        if untouched
        else f"Line: {names[0]}."
    )
    return charts.whiskers(
        "What is forgotten: general text",
        "; ".join(f"{m.label}: {m.text}" for m in marks),
        marks,
        axis="bits per byte on general text",
        reference=reference,
        hints=("\u2190 remembers", "forgets \u2192"),
        note=note + " Scratch models never knew general text.",
    )


def _forgetting_label(results: Results, arm: str) -> str:
    """Adaptations of one origin share the language model, here as on the language task."""
    language = next(
        (task.name for task in results.tasks if task.kind == "language" and results.of(task.name, arm)), None
    )
    return results.label(language, results.same_as(language, arm)) if language else arm


def _distinct_forgetting(results: Results) -> list[str]:
    """Arms with rows of their own: the reader hands out one list per run, so shared runs show by identity."""
    groups: dict[tuple[int, ...], str] = {}
    for arm in ordered_arms(results):
        if arm.name in results.forgetting:
            groups.setdefault(tuple(id(rows) for rows in results.forgetting[arm.name]), arm.name)
    return list(groups.values())


def origins(results: Results) -> list[tuple[str, str]]:
    """(origin, chip) of the study's origins, for the legend."""
    present = {arm.origin for arm in results.arms}
    return [(origin, chip(origin, "full")) for origin in ORIGIN_ORDER if origin in present]


def adaptations(results: Results) -> list[tuple[str, str]]:
    present = {arm.adaptation for arm in results.arms}
    return [
        (name, chip("ink", name)) for name in ("prompt", "probe", "lora", "qlora", "full") if name in present
    ]
