"""The report's section on other numbers of labels: rows and sentences of each task."""

from __future__ import annotations

from dataclasses import dataclass

from adaptkit.report.charts import Figure, label_figure, typeset
from adaptkit.report.forecast_section import (
    NOT_FORECAST,
    AnswerRow,
    CellRow,
    ForecastSection,
    check_rows,
    interval_words,
    sentence_of,
)
from adaptkit.study.forecast_answers import Crossing
from adaptkit.study.label_answers import LabelAnswers, LabelDoubling
from adaptkit.study.label_forecast import LabelForecast
from adaptkit.study.results import Results, task_title
from adaptkit.study.scores import METRICS
from adaptkit.study.statistics import Interval
from adaptkit.study.verdict_line import flops_text


@dataclass(frozen=True)
class LabelPart:
    """One task: its heading, what the section shows of it, and its figure."""

    task: str
    section: ForecastSection
    figure: Figure | None


def label_parts(
    results: Results, measured: tuple[tuple[LabelForecast, LabelAnswers], ...]
) -> list[LabelPart]:
    """The section, one part for each labelled task; none where no fewer labels were tried."""
    arms = {arm.name: arm for arm in results.arms}
    parts = []
    for forecast, answers in measured:
        task = results.task(forecast.record.task)
        drawing = label_figure(forecast, arms, task_title(task)) if forecast.curves else None
        parts.append(LabelPart(task.name, _section(forecast, answers), drawing))
    return parts


def _section(forecast: LabelForecast, answers: LabelAnswers) -> ForecastSection:
    doublings = [_doubling_row(each, forecast.metric) for each in answers.doublings]
    return ForecastSection(
        lead=_lead(forecast),
        checks=check_rows(forecast.checks),
        answers=(*map(_crossing_row, answers.crossings), *doublings),
        cells=tuple(_cell_rows(forecast)),
        note=_note(forecast),
    )


def _lead(forecast: LabelForecast) -> str:
    """Whether the curves may be believed."""
    if forecast.reason:
        return sentence_of(forecast.reason)
    held = f"{len(forecast.curves)} of {len(forecast.checks)} arms"
    lead = f"From trainings with fewer labels those with all were predicted before they began: {held} held."
    if forecast.missed:
        missed = ", ".join(forecast.missed)
        lead += f" The curves did not predict {missed} with all labels: no forecast for it."
    return lead


def _crossing_row(crossing: Crossing) -> AnswerRow:
    question = f"From how many labels on is {crossing.arm} as good as {crossing.against}?"
    return AnswerRow(question, sentence_of(crossing.sentence))


def _doubling_row(doubling: LabelDoubling, metric: str) -> AnswerRow:
    question = f"What would twice the labels add to {doubling.arm}?"
    if doubling.gain is None:
        return AnswerRow(question, sentence_of(doubling.reason))
    gain = doubling.gain
    title = METRICS[metric].title
    return AnswerRow(question, f"{signed(gain)} {title}.")


def signed(interval: Interval) -> str:
    """`+0.012 [+0.004, +0.020]`."""
    return typeset(f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]")


def _cell_rows(forecast: LabelForecast) -> list[CellRow]:
    return [
        CellRow(
            curve.arm,
            f"{round(point.portion.labels * curve.num_labels):,} labels",
            interval_words(point.score),
            f"{point.fitted:.3f}",
            typeset(f"{point.residual:+.4f}"),
        )
        for curve in forecast.curves
        for point in curve.points
    ]


def _note(forecast: LabelForecast) -> str:
    """What the trainings with fewer labels cost, and how far the laws are read."""
    record = forecast.record
    if not record.portions:
        return f"Of other numbers of labels: {NOT_FORECAST}."
    count = f"The {len(record.portions)} trainings with fewer labels"
    cost = f"{count} learn with {flops_text(record.flops)} FLOPs per arm and seed at most, beside the budget"
    drawn = "Each seed draws its own labels by hash, whole groups; a larger share holds all of a smaller one"
    same = "development and test rows are always the same, and come on top of the labels"
    reach = f"Laws are read up to {forecast.reach:g} times the study's {record.num_labels:,} labels"
    return f"{cost}. {drawn}; {same}. {reach}; beyond, nothing is forecast."
