"""Forecast what other numbers of labels would do, from trainings of the same arms with fewer of them.

    prediction = predict_with_all(arm, ...)    before any training with all labels: a stage of its own
    forecasts = measure_labels(results)        after it: predicted beside measured, then the laws

The laws are those of law.py, of what lacks to the best possible score. Their text is labelled rows, as a
study trains with so many of them: under its budget, for `max_epochs` passes at most. A row that is read again
counts for less, as text does. What an arm knows before it has seen a label is the law's `transfer`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.study.forecast import (
    Check,
    Curve,
    Doubt,
    Measured,
    Point,
    generator_of,
    interval_of,
    predicted_scores,
)
from adaptkit.study.forecast_record import (
    WHOLE,
    LabelForecastRecord,
    LabelledArmRecord,
    Portion,
    PredictionRecord,
    reach_of,
)
from adaptkit.study.law import Place, fit, read_once
from adaptkit.study.results import Cell, Results, tables_of
from adaptkit.study.scores import METRICS, within_metric
from adaptkit.study.statistics import Interval, Replicates, resample

LABEL_DOUBT = Doubt(noise=0.03, misfit=0.01, in_proportion=True)
"""Of what lacks to the best score: few labels give louder scores than much text does, and rougher curves."""
LEAST_ERROR = 1e-6
"""A law is a power of what lacks, so that is never taken as nothing."""


@dataclass(frozen=True)
class Lack:
    """What lacks to the best possible score of a metric: lower is better, and nothing is below 0."""

    metric: str

    @property
    def has_end(self) -> bool:
        """Whether there is a best possible score."""
        return math.isfinite(self._best)

    @property
    def _best(self) -> float:
        known = METRICS[self.metric]
        return known.most if known.higher_is_better else known.least

    def of(self, scores: np.ndarray) -> np.ndarray:
        return np.maximum(np.abs(self._best - scores), LEAST_ERROR)

    def score(self, lack: np.ndarray) -> np.ndarray:
        """The scores that lack so much."""
        return self._best - lack if METRICS[self.metric].higher_is_better else self._best + lack


@dataclass(frozen=True)
class Reading:
    """How many labelled rows an arm reads where there are so many.

    Attributes:
        max_epochs: passes over them at most.
        affordable: rows that the budget pays for; None where nothing is trained but a head on all rows.
    """

    max_epochs: int
    affordable: float | None

    def place(self, labels: float) -> Place:
        """Where a training with so many labels stands."""
        if self.affordable is None:
            return read_once(labels, labels)
        return read_once(labels, min(labels * self.max_epochs, self.affordable))


@dataclass(frozen=True)
class LabelCurve(Curve):
    """One arm's trainings with fewer labels and with all, the laws of what lacks, and how it reads."""

    reading: Reading
    num_labels: int
    lack: Lack

    def lacks(self, factors: np.ndarray) -> np.ndarray:
        """What lacks by the laws, with so many times the study's labels [num_replicates, num_factors]."""
        return self.laws([self.reading.place(self.num_labels * float(factor)) for factor in factors])

    def scores(self, factors: np.ndarray) -> np.ndarray:
        """The same in the task's metric, which it does not leave."""
        return self.lack.score(np.maximum(self.lacks(factors), 0.0))


@dataclass(frozen=True)
class Level:
    """An arm that takes no more labels than fit into its prompts: as good with any number of them."""

    arm: str
    origin: str
    score: Interval
    replicates: np.ndarray
    """What lacks to the best score."""
    lack: Lack

    def lacks(self, factors: np.ndarray) -> np.ndarray:
        """The same for any number of labels [num_replicates, num_factors]."""
        return np.broadcast_to(self.replicates[:, None], (len(self.replicates), len(factors)))

    def scores(self, factors: np.ndarray) -> np.ndarray:
        return self.lack.score(self.lacks(factors))


@dataclass(frozen=True)
class LabelForecast:
    """The forecast of one task.

    Attributes:
        curves: of the arms whose law held.
        levels: of arms that are only asked.
        checks: of all arms that learn from labels.
        reach: how many times the study's labels laws are read at.
        reason: why nothing is forecast at all; empty where something is.
    """

    record: LabelForecastRecord
    metric: str
    curves: tuple[LabelCurve, ...]
    levels: tuple[Level, ...]
    checks: tuple[Check, ...]
    reach: float
    confidence: float
    reason: str = ""

    def line(self, arm: str) -> LabelCurve | Level | None:
        """What an arm's scores follow; None for one that was not predicted."""
        lines: tuple[LabelCurve | Level, ...] = (*self.curves, *self.levels)
        return next((line for line in lines if line.arm == arm), None)

    @property
    def missed(self) -> tuple[str, ...]:
        """Arms whose training with all labels was not predicted."""
        return tuple(check.arm for check in self.checks if not check.held)


def predict_with_all(
    arm: str, metric: str, cells: Sequence[Measured], whole: Place, confidence: float
) -> PredictionRecord:
    """What trainings with fewer labels say of the mean score of those with all, on the same test items.

    Args:
        cells: their scores are in the task's metric.
    """
    lack = Lack(metric)
    lacking = [Measured(cell.place, lack.of(cell.scores)) for cell in cells]
    drawn = lack.score(predicted_scores(arm, lacking, whole, from_base=True, doubt=LABEL_DOUBT))
    interval = within_metric(metric, interval_of(drawn, confidence))
    return PredictionRecord(arm=arm, mean=interval.mean, low=interval.low, high=interval.high)


def measure_labels(results: Results) -> tuple[LabelForecast, ...]:
    """The forecast of each labelled task of a finished study; none where none was asked for."""
    return tuple(_measure(results, record) for record in results.record.label_forecasts)


def _measure(results: Results, record: LabelForecastRecord) -> LabelForecast:
    metric = results.task(record.task).metric
    reach = reach_of(record.portions) if record.portions else 1.0

    def outcome(reason: str = "", checks: tuple[Check, ...] = ()) -> LabelForecast:
        return LabelForecast(record, metric, (), (), checks, reach, results.confidence, reason)

    if not record.predictions:
        return outcome(record.reason)
    checks = tuple(_check(results, record.task, prediction) for prediction in record.predictions)
    if not record.came_first:
        late = "trainings with all labels were there before the prediction, so it proves nothing"
        return outcome(f"{late}: no forecast", checks)
    held = {check.arm for check in checks if check.held}
    if not held:
        return outcome("the curves did not predict the trainings with all labels: no forecast", checks)
    replicates = _replicates(results, record.task, metric, held)
    curves = tuple(
        _curve(results, record, arm, replicates, Lack(metric)) for arm in record.arms if arm.arm in held
    )
    levels = tuple(
        Level(
            arm.name,
            arm.origin,
            results.interval(record.task, arm.name),
            Lack(metric).of(replicates.widened(arm.name, results.confidence)),
            Lack(metric),
        )
        for arm in results.scored_arms(record.task)
        if arm.adaptation in PROMPTED
    )
    return LabelForecast(record, metric, curves, levels, checks, reach, results.confidence)


PROMPTED = ("prompt", "rag")
"""Adaptations that read a fixed number of examples."""


def _check(results: Results, task: str, prediction: PredictionRecord) -> Check:
    scores = [table.value for table in tables_of(results.of(task, prediction.arm), results.task(task).metric)]
    predicted = Interval(prediction.mean, prediction.low, prediction.high)
    return Check(prediction.arm, predicted, sum(scores) / len(scores))


def _replicates(results: Results, task: str, metric: str, held: set[str]) -> Replicates:
    """Bootstrap of all cells that laws are fitted to and of what they are compared with, items shared."""
    tables = {}
    for arm in results.scored_arms(task):
        if arm.name in held:
            for portion in results.portions(task, arm.name):
                tables[_key(arm.name, portion)] = tables_of(results.of(task, arm.name, portion), metric)
        elif arm.adaptation in PROMPTED:
            tables[arm.name] = tables_of(results.of(task, arm.name), metric)
    return resample(tables, results.clusters(task))


def _key(arm: str, portion: Portion) -> str:
    return arm if portion == WHOLE else f"{arm} with {portion.title}"


def _curve(
    results: Results, record: LabelForecastRecord, arm: LabelledArmRecord, replicates: Replicates, lack: Lack
) -> LabelCurve:
    portions = results.portions(record.task, arm.arm)
    keys = [_key(arm.arm, portion) for portion in portions]
    reading = Reading(record.max_epochs, arm.affordable_rows)
    places = [
        place_of(results.of(record.task, arm.arm, portion), portion.labels * record.num_labels)
        for portion in portions
    ]
    laws = fit(
        places,
        np.stack([lack.of(replicates.widened(key, results.confidence)) for key in keys], axis=1),
        LABEL_DOUBT.errors([lack.of(replicates.scores[key]) for key in keys])[0],
        reference=places[-1].read,
        from_base=True,
        rng=generator_of(arm.arm),
        assumed_misfit=LABEL_DOUBT.misfit,
    )
    fitted = lack.score(np.median(laws(places), axis=0)).tolist()
    points = tuple(
        Point(portion, place, within_metric(lack.metric, replicates.interval(key, results.confidence)), value)
        for portion, place, key, value in zip(portions, places, keys, fitted, strict=True)
    )
    origin = results.arm(arm.arm).origin
    return LabelCurve(arm.arm, origin, points, laws, reading, record.num_labels, lack)


def place_of(cells: Sequence[Cell], labels: float) -> Place:
    """Where trainings with so many labels stand, by the rows that they read, mean of the seeds."""
    reads = [cell.read_labels for cell in cells if cell.read_labels is not None]
    return read_once(labels, sum(reads) / len(reads) if reads else labels)
