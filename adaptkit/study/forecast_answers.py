"""What a forecast answers, each with an interval or the words "not forecast".

From how much text, at the study's compute, and from how much compute, on the study's text, is a model of
one's own as good as keeping on with the base? And what would twice the text, or compute, buy each arm?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adaptkit.study.forecast import FROM_SCRATCH, KEPT_ON, Curve, Forecast, interval_of, size_text
from adaptkit.study.law import Place
from adaptkit.study.results import Results
from adaptkit.study.statistics import Interval

Axis = Literal["text", "compute", "labels"]
Status = Literal["at", "already", "beyond", "not forecast"]
GIVEN: dict[Axis, str] = {"text": "at your compute", "compute": "on your text", "labels": "with your budget"}
"""What stays as it is while an axis is walked along."""
WIDEST = 8.0
"""An interval whose ends lie further apart than this factor is no answer."""
_GRID_POINTS = 200


@dataclass(frozen=True)
class Crossing:
    """The text, compute or labels from which `arm` is as good as `against` and stays so.

    Attributes:
        status: `at`; `already` (as good at the least that was tried); `beyond` (not within reach); or `not
            forecast`, with the reason in the sentence.
        value, low, high: bytes, FLOPs of one training, or labelled rows; 0 for below the least, inf for
            beyond reach.
    """

    axis: Axis
    arm: str
    against: str
    status: Status
    value: float
    low: float
    high: float
    sentence: str


@dataclass(frozen=True)
class Doubling:
    """What twice the text, and twice the compute, take off an arm's bits per byte.

    Attributes:
        text, compute: None where that is not forecast, with the reason.
    """

    arm: str
    text: Interval | None
    compute: Interval | None
    reason: str = ""


@dataclass(frozen=True)
class Answers:
    """All that a forecast answers."""

    crossings: tuple[Crossing, ...]
    doublings: tuple[Doubling, ...]


@dataclass(frozen=True)
class Span:
    """How far laws are read along one axis.

    Attributes:
        least, most: in the study's text or compute.
        unit: the study's, in bytes or FLOPs of one training.
        text: bytes of the study's text.
    """

    axis: Axis
    least: float
    most: float
    unit: float
    text: float

    @property
    def factors(self) -> np.ndarray:
        return np.geomspace(self.least, self.most, _GRID_POINTS)

    def places(self, curve: Curve) -> list[Place]:
        """Where an arm stands at each factor, the other axis being the study's."""
        read = curve.whole.read
        if self.axis == "text":
            return [Place(self.text * factor, read) for factor in self.factors]
        return [Place(self.text, read * factor) for factor in self.factors]

    def amount(self, value: float) -> str:
        """A number on this axis, in words."""
        if value == 0:
            return "less than was tried"
        if math.isinf(value):
            return f"beyond {self.most:g} times yours"
        if self.axis == "text":
            return size_text(value)
        return f"{value / self.unit:.2g} times your compute"


def answer(results: Results, forecast: Forecast) -> Answers:
    """Read the laws of a study."""
    crossings: tuple[Crossing, ...] = ()
    pair = _pair(results, forecast)
    if pair is not None:
        crossings = _crossings(results, forecast, *pair)
    doublings = tuple(_doubling(curve, forecast) for curve in forecast.curves)
    return Answers(crossings, doublings)


def _pair(results: Results, forecast: Forecast) -> tuple[str, str] | None:
    """The best model of one's own and the best way of keeping on with the base, in the largest runs."""
    best: list[str] = []
    for origins in (FROM_SCRATCH, KEPT_ON):
        scores = {c.arm: c.measured for c in forecast.checks if results.arm(c.arm).origin in origins}
        if not scores:
            return None
        best.append(min(scores, key=lambda arm: scores[arm]))
    return best[0], best[1]


def _crossings(results: Results, forecast: Forecast, arm: str, against: str) -> tuple[Crossing, ...]:
    first, second = forecast.curve(arm), forecast.curve(against)
    if first is None or second is None:
        missed = " and ".join(name for name in (arm, against) if name in forecast.missed)
        reason = forecast.reason or f"the curves did not predict the largest run of {missed}: no forecast"
        return (no_crossing("text", arm, against, reason), no_crossing("compute", arm, against, reason))
    portions, text = [point.portion for point in first.points], float(results.domain_bytes)
    spans = (
        Span("text", min(portion.text for portion in portions), forecast.reach, text, text),
        Span(
            "compute",
            min(portion.compute for portion in portions),
            forecast.reach,
            forecast.record.largest_flops,
            text,
        ),
    )
    return tuple(cross(first, second, span, forecast.confidence) for span in spans)


def cross(curve: Curve, other: Curve, span: Span, confidence: float) -> Crossing:
    """Where `curve` catches `other` along an axis, on laws fitted to the same replicates."""
    gaps = curve.laws(span.places(curve)) - other.laws(span.places(other))
    return crossing_of(curve.arm, other.arm, gaps, span, confidence)


def crossing_of(arm: str, against: str, gaps: np.ndarray, span: Span, confidence: float) -> Crossing:
    """Where gaps between two arms' laws [num_replicates, num_factors] close and stay closed."""
    # np.quantile turns infinities into nan, so the order statistics are picked by hand.
    ordered = np.sort(catches(gaps, span.factors)) * span.unit
    tails = (0.5, 0.5 - confidence / 2, 0.5 + confidence / 2)
    value, low, high = (float(ordered[round((len(ordered) - 1) * tail)]) for tail in tails)
    status = status_of(value, low, high, span)
    sentence = _sentence(arm, against, status, span, (value, low, high), confidence)
    return Crossing(span.axis, arm, against, status, value, low, high, sentence)


def catches(gaps: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The factor from which each row of gaps [num_replicates, num_factors] stays at or below nothing.

    0: from the least on. inf: not within reach.
    """
    behind = gaps > 0
    last = len(factors) - 1 - behind[:, ::-1].argmax(axis=1)  # the last factor that is still behind
    after = np.minimum(last + 1, len(factors) - 1)
    rows = np.arange(len(gaps))
    before_gap, after_gap = gaps[rows, last], gaps[rows, after]
    share = before_gap / np.where(before_gap == after_gap, 1.0, before_gap - after_gap)
    crossing = factors[last] * (factors[after] / factors[last]) ** share
    return np.where(~behind.any(axis=1), 0.0, np.where(behind[:, -1], np.inf, crossing))


def status_of(value: float, low: float, high: float, span: Span) -> Status:
    """Whether an interval is narrow enough to be an answer."""
    if low == math.inf:
        return "beyond"
    if high == math.inf or high > WIDEST * max(low, span.least * span.unit):
        return "not forecast"
    return "already" if value == 0 else "at"


def _sentence(
    arm: str, against: str, status: Status, span: Span, ends: tuple[float, float, float], confidence: float
) -> str:
    value, low, high = map(span.amount, ends)
    given = GIVEN[span.axis]
    more = "more labels keep it so" if span.axis == "labels" else f"more {span.axis} keeps it so"
    if status == "beyond":
        return (
            f"{given}, {arm} does not catch {against} within {span.most:g} times your {span.axis} "
            f"({confidence:.0%} confidence); beyond that nothing is forecast"
        )
    if status == "not forecast":
        return f"not forecast: {given}, {arm} may catch {against} anywhere from {low} to {high}"
    if status == "already":
        start = "the least that was tried"
        if ends[2] > 0:
            start = f"at most {high} ({confidence:.0%} confidence)"
        return f"{given}, {arm} is as good as {against} from {start} on; {more}"
    return f"{given}, {arm} catches {against} from {value} on ({confidence:.0%} interval: {low} to {high})"


def no_crossing(axis: Axis, arm: str, against: str, reason: str) -> Crossing:
    """A crossing that is not forecast."""
    return Crossing(axis, arm, against, "not forecast", math.inf, 0.0, math.inf, reason)


def _doubling(curve: Curve, forecast: Forecast) -> Doubling:
    if forecast.reach < 2:
        reason = f"laws are read up to {forecast.reach:g} times the study's text and compute"
        return Doubling(curve.arm, None, None, f"not forecast: {reason}")
    whole = curve.whole
    more_text, more_compute = Place(2 * whole.text, whole.read), Place(whole.text, 2 * whole.read)
    scores = curve.laws([whole, more_text, more_compute])
    text, compute = (interval_of(scores[:, 0] - scores[:, i], forecast.confidence) for i in (1, 2))
    reason = ""
    if whole.read <= whole.text:
        reason = f"the budget reads {whole.read / whole.text:.0%} of the text, so more of it changes nothing"
    return Doubling(curve.arm, text, compute, reason)


def sentences(answers: Sequence[Crossing]) -> str:
    """Crossings as one line."""
    return "; ".join(crossing.sentence for crossing in answers)
