"""What the curves of a task answer, each with an interval or the words "not forecast".

From how many labels, under the study's budget, is a way of learning a task as good as a cheaper one? And what
would twice the labels buy each arm?
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from adaptkit.study.forecast import interval_of
from adaptkit.study.forecast_answers import Crossing, Span, crossing_of, no_crossing
from adaptkit.study.label_forecast import LabelCurve, LabelForecast
from adaptkit.study.record import ArmRecord
from adaptkit.study.results import Results
from adaptkit.study.statistics import Interval

LADDER = ("prompt", "probe", "lora", "full")
"""Ways to learn a task, the cheaper ones first: a later one is asked when it catches an earlier one."""


@dataclass(frozen=True)
class LabelDoubling:
    """What twice the labels would add to an arm's score; None where that is not forecast, with the reason."""

    arm: str
    gain: Interval | None
    reason: str = ""


@dataclass(frozen=True)
class LabelAnswers:
    """All that the curves of a task answer."""

    crossings: tuple[Crossing, ...]
    doublings: tuple[LabelDoubling, ...]


@dataclass(frozen=True)
class LabelSpan(Span):
    """How far laws are read along the number of labels."""

    def amount(self, value: float) -> str:
        if value == 0 or math.isinf(value):
            return super().amount(value)
        return f"{rounded(value):,} labels"


def rounded(labels: float) -> int:
    """A forecast number of labels, to two digits."""
    digits = max(0, math.floor(math.log10(max(labels, 1.0))) - 1)
    return int(round(labels, -digits))


def answer_labels(results: Results, forecast: LabelForecast) -> LabelAnswers:
    """Read the laws of a task."""
    crossings = tuple(_crossing(forecast, *pair) for pair in _pairs(results, forecast))
    doublings = tuple(_doubling(forecast, check.arm) for check in forecast.checks)
    return LabelAnswers(crossings, doublings)


def _pairs(results: Results, forecast: LabelForecast) -> Iterator[tuple[str, str]]:
    """(the dearer way, the cheaper one) of each origin, both of which were run."""
    scored = results.scored_arms(forecast.record.task)
    for origin in dict.fromkeys(arm.origin for arm in scored):
        ways: dict[str, ArmRecord] = {
            arm.adaptation: arm for arm in scored if arm.origin == origin and arm.adaptation in LADDER
        }
        for cheaper, dearer in combinations([way for way in LADDER if way in ways], 2):
            if dearer != "probe":
                yield ways[dearer].name, ways[cheaper].name


def _crossing(forecast: LabelForecast, arm: str, against: str) -> Crossing:
    first, second = forecast.line(arm), forecast.line(against)
    if forecast.reason or first is None or second is None:
        missed = " and ".join(name for name in (arm, against) if name in forecast.missed)
        reason = f"the curves did not predict {missed} with all labels: no forecast"
        return no_crossing("labels", arm, against, forecast.reason or reason)
    record = forecast.record
    least = min(portion.labels for portion in record.portions)
    span = LabelSpan("labels", least, forecast.reach, float(record.num_labels), float(record.num_labels))
    gaps = first.lacks(span.factors) - second.lacks(span.factors)
    return crossing_of(arm, against, gaps, span, forecast.confidence)


def _doubling(forecast: LabelForecast, arm: str) -> LabelDoubling:
    curve = forecast.line(arm)
    if forecast.reason or not isinstance(curve, LabelCurve):
        reason = forecast.reason or "the curves did not predict it with all labels: no forecast"
        return LabelDoubling(arm, None, reason)
    if forecast.reach < 2:
        return LabelDoubling(
            arm, None, f"not forecast: laws are read up to {forecast.reach:g} times the study's labels"
        )
    affordable = curve.reading.affordable
    if affordable is not None and affordable <= curve.num_labels:
        read = f"the budget reads {affordable / curve.num_labels:.0%} of the labels"
        return LabelDoubling(arm, None, f"{read}, so more of them change nothing")
    now, twice = curve.scores(np.array([1.0, 2.0])).T
    return LabelDoubling(arm, interval_of(twice - now, forecast.confidence))
