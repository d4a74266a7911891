"""The report's section on other amounts of text and compute: rows and sentences; templates lay them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.report.charts import typeset
from adaptkit.report.tables import ExitRow
from adaptkit.study.forecast import Check, Forecast
from adaptkit.study.forecast_answers import Answers, Doubling
from adaptkit.study.results import Results
from adaptkit.study.statistics import Interval
from adaptkit.study.verdict_line import flops_text

NOT_FORECAST = "not forecast"


@dataclass(frozen=True)
class CheckRow:
    """An arm's largest run: predicted before it ran, and measured."""

    arm: str
    predicted: str
    measured: str
    outcome: str


@dataclass(frozen=True)
class AnswerRow:
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class CellRow:
    """A training beside what the law says there."""

    arm: str
    portion: str
    measured: str
    fitted: str
    residual: str


@dataclass(frozen=True)
class ForecastSection:
    """Everything that the section shows."""

    lead: str
    checks: tuple[CheckRow, ...]
    answers: tuple[AnswerRow, ...]
    cells: tuple[CellRow, ...]
    note: str


def forecast_section(
    results: Results, forecast: Forecast | None, answers: Answers | None, *, bills: Sequence[ExitRow]
) -> ForecastSection | None:
    """The section of a study that forecasts; None where nothing was asked for.

    Args:
        bills: of owning each arm against an API; none where the report does not weigh that.
    """
    if forecast is None or answers is None:
        return None
    rows = [*_crossing_rows(forecast, answers), *map(_doubling_row, answers.doublings), _traffic_row(bills)]
    return ForecastSection(
        lead=_lead(forecast),
        checks=check_rows(forecast.checks),
        answers=tuple(rows),
        cells=tuple(_cell_rows(forecast)),
        note=_note(results, forecast),
    )


def _lead(forecast: Forecast) -> str:
    """Whether the curves may be believed."""
    if forecast.reason:
        return sentence_of(forecast.reason)
    passed = f"{len(forecast.curves)} of {len(forecast.checks)} arms"
    lead = f"From smaller trainings the largest run of each arm was predicted before it began: {passed} held."
    if forecast.missed:
        missed = ", ".join(forecast.missed)
        lead += f" The curves did not predict the largest run of {missed}: no forecast for it."
    return lead


def check_rows(checks: Sequence[Check]) -> tuple[CheckRow, ...]:
    """What was predicted of each arm, beside what was measured."""
    return tuple(
        CheckRow(
            check.arm,
            interval_words(check.predicted),
            f"{check.measured:.3f}",
            "held" if check.held else "missed: no forecast",
        )
        for check in checks
    )


def _crossing_rows(forecast: Forecast, answers: Answers) -> list[AnswerRow]:
    questions = {
        "text": "From how much text on does a model of your own pay, at your compute?",
        "compute": "From how much compute on, on your text?",
    }
    if not answers.crossings:
        reason = forecast.reason or f"{NOT_FORECAST}: no model from scratch and continued one were trained"
        return [AnswerRow(question, reason) for question in questions.values()]
    return [AnswerRow(questions[each.axis], sentence_of(each.sentence)) for each in answers.crossings]


def sentence_of(text: str) -> str:
    """A clause as a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def _doubling_row(doubling: Doubling) -> AnswerRow:
    question = f"What would twice the text, or twice the compute, take off {doubling.arm}?"
    if doubling.text is None or doubling.compute is None:
        return AnswerRow(question, sentence_of(doubling.reason))
    text = f"text: {interval_words(doubling.text)}"
    if doubling.reason:
        text = doubling.reason
    compute = f"compute: {interval_words(doubling.compute)} bits per byte"
    return AnswerRow(question, sentence_of(f"{text}; {compute}"))


def _traffic_row(bills: Sequence[ExitRow]) -> AnswerRow:
    question = "From how many requests a month on does owning beat an API?"
    if bills:
        return AnswerRow(question, f"{'; '.join(f'{row.arm} {row.pays_from}' for row in bills)}.")
    return AnswerRow(question, "Not asked: give `api`, `budget.price` and `decision.requests_per_month`.")


def _cell_rows(forecast: Forecast) -> list[CellRow]:
    return [
        CellRow(
            curve.arm,
            point.portion.title,
            interval_words(point.score),
            f"{point.fitted:.3f}",
            typeset(f"{point.residual:+.4f}"),
        )
        for curve in forecast.curves
        for point in curve.points
    ]


def _note(results: Results, forecast: Forecast) -> str:
    """What the smaller trainings cost, and how far the laws are read."""
    record = forecast.record
    count = f"The {len(record.portions)} smaller trainings"
    cost = f"{count} learn with {flops_text(record.flops)} FLOPs per arm and seed"
    reach = f"Laws are read up to {forecast.reach:g} times the study's text and compute"
    size = "Laws are of one size of model: they say nothing about others."
    return (
        f"{cost}, beside the budget and the same for every arm. {reach}; beyond, nothing is forecast. {size}"
    )


def interval_words(interval: Interval) -> str:
    """`1.642 [1.630, 1.655]`."""
    return typeset(f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]")
