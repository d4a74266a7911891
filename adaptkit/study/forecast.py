"""Forecast what other amounts of text and compute would do, from smaller trainings of the same arms.

    prediction = predict(measured, whole, ...)      before the largest run: written down as a stage of its own
    forecast = measure(results)                     after it: predicted beside measured, then the answers

Laws are fitted by law.py to every bootstrap replicate over seeds and items. A law that did not predict the
largest run of its arm answers nothing. The others are fitted again with the largest run among their cells,
and read at most as far beyond it as it lay beyond the smaller ones (`reach`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.study.forecast_record import WHOLE, ForecastRecord, Portion, PredictionRecord, reach_of
from adaptkit.study.law import MISFIT, Laws, Place, fit
from adaptkit.study.record import ArmRecord
from adaptkit.study.results import Cell, Results, tables_of
from adaptkit.study.scores import within_metric
from adaptkit.study.statistics import NUM_RESAMPLES, Interval, Replicates, resample

SEED_NOISE, SEED_FREEDOM = 0.003, 2.0
"""From seed to seed before any is seen, as a share of the score, and how many differences that counts for."""
FROM_SCRATCH = ("scratch", "mixed")
KEPT_ON = ("continued", "continued-lora", "continued-vocabulary")
"""Origins that keep on with the base on domain text."""
LEAST_CELLS = 3


@dataclass(frozen=True)
class Measured:
    """The trainings of one arm with one portion.

    Attributes:
        scores: one for each seed, lower is better.
    """

    place: Place
    scores: np.ndarray


@dataclass(frozen=True)
class Point:
    """A cell beside what the law says there."""

    portion: Portion
    place: Place
    score: Interval
    fitted: float

    @property
    def residual(self) -> float:
        return self.score.mean - self.fitted


@dataclass(frozen=True)
class Curve:
    """One arm's cells, the largest last, and the laws through them, one per replicate."""

    arm: str
    origin: str
    points: tuple[Point, ...]
    laws: Laws

    @property
    def whole(self) -> Place:
        """What the run that is compared had."""
        return self.points[-1].place


@dataclass(frozen=True)
class Check:
    """What was predicted of an arm's largest run, beside what was measured."""

    arm: str
    predicted: Interval
    measured: float

    @property
    def held(self) -> bool:
        return self.predicted.low <= self.measured <= self.predicted.high


@dataclass(frozen=True)
class Forecast:
    """The forecast of a study.

    Attributes:
        curves: of the arms whose law held.
        checks: of all arms.
        reach: how many times the study's text and compute laws are read at.
        reason: why nothing is forecast at all; empty where something is.
    """

    record: ForecastRecord
    curves: tuple[Curve, ...]
    checks: tuple[Check, ...]
    reach: float
    confidence: float
    reason: str = ""

    def curve(self, arm: str) -> Curve | None:
        return next((curve for curve in self.curves if curve.arm == arm), None)

    @property
    def missed(self) -> tuple[str, ...]:
        """Arms whose largest run was not predicted."""
        return tuple(check.arm for check in self.checks if not check.held)


@dataclass(frozen=True)
class Doubt:
    """What is assumed of scores before they are seen, as shares of the score.

    Attributes:
        noise: standard deviation from seed to seed.
        misfit: how far a law lies from the truth.
        in_proportion: noise grows with the score, so that small trainings are the louder ones.
    """

    noise: float
    misfit: float
    in_proportion: bool = False

    def errors(self, scores: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
        """Standard error of each mean, from seed to seed, and its degrees of freedom."""
        means = np.array([values.mean() for values in scores])
        unit = means if self.in_proportion else np.ones(len(means))
        pooled, freedom = seed_noise(
            [values / one for values, one in zip(scores, unit, strict=True)], self.noise
        )
        return unit * (pooled / np.sqrt([len(values) for values in scores])), freedom


TEXT_DOUBT = Doubt(SEED_NOISE, MISFIT)


def predict(
    arm: str,
    cells: Sequence[Measured],
    whole: Place,
    confidence: float,
    *,
    from_base: bool,
    doubt: Doubt = TEXT_DOUBT,
) -> PredictionRecord:
    """What smaller trainings say of the mean score of the largest, on the same test items.

    The items are the same, so what varies is the seeds, and how far the law lies from the truth.

    Args:
        from_base: whether the weights start from the base.
    """
    interval = interval_of(predicted_scores(arm, cells, whole, from_base=from_base, doubt=doubt), confidence)
    return PredictionRecord(arm=arm, mean=interval.mean, low=interval.low, high=interval.high)


def predicted_scores(
    arm: str, cells: Sequence[Measured], whole: Place, *, from_base: bool, doubt: Doubt
) -> np.ndarray:
    """Replicates [num_resamples] of the mean score of the largest training."""
    rng = generator_of(arm)
    scores = [cell.scores for cell in cells]
    errors, freedom = doubt.errors(scores)
    stretch = np.sqrt(freedom / rng.chisquare(freedom, NUM_RESAMPLES))[:, None]
    means = np.array([values.mean() for values in scores])
    drawn = means + stretch * errors * rng.standard_normal((NUM_RESAMPLES, len(means)))
    places = [cell.place for cell in cells]
    laws = fit(
        places, drawn, errors, reference=whole.read, from_base=from_base, rng=rng, assumed_misfit=doubt.misfit
    )
    return laws([whole])[:, 0] + stretch[:, 0] * errors[-1] * rng.standard_normal(NUM_RESAMPLES)


def seed_noise(scores: Sequence[np.ndarray], share: float = SEED_NOISE) -> tuple[float, float]:
    """Standard deviation from seed to seed, pooled over cells, and its degrees of freedom.

    Args:
        share: what is assumed of it, as a share of the score.
    """
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in scores)
    freedom = SEED_FREEDOM + sum(len(values) - 1 for values in scores)
    assumed = share * float(np.mean([values.mean() for values in scores]))
    return float(np.sqrt((SEED_FREEDOM * assumed**2 + squares) / freedom)), freedom


def interval_of(values: np.ndarray, confidence: float) -> Interval:
    """Median of replicates, with their interval."""
    low, middle, high = np.quantile(values, [0.5 - confidence / 2, 0.5, 0.5 + confidence / 2])
    return Interval(float(middle), float(low), float(high))


def generator_of(arm: str) -> np.random.Generator:
    """Draws that do not depend on which other arms there are."""
    return np.random.default_rng(zlib.crc32(arm.encode()))


def measure(results: Results) -> Forecast | None:
    """The forecast of a finished study; None where none was asked for."""
    record, language = results.record.forecast, results.language
    if record is None or language is None:
        return None
    reach = reach_of(record.portions) if record.portions else 1.0
    if not record.predictions:
        few = f"fewer than {LEAST_CELLS} smaller trainings of each arm could be paid for: no forecast"
        return Forecast(record, (), (), reach, results.confidence, few)
    checks = tuple(_check(results, language.name, prediction) for prediction in record.predictions)
    if not record.came_first:
        late = "the largest runs were there before the prediction: it proves nothing, so there is no forecast"
        return Forecast(record, (), checks, reach, results.confidence, late)
    held = [check.arm for check in checks if check.held]
    reason = "" if held else "the curves did not predict the largest run: no forecast"
    curves = _curves(results, language.name, language.metric, [results.arm(arm) for arm in held])
    return Forecast(record, curves, checks, reach, results.confidence, reason)


def _check(results: Results, task: str, prediction: PredictionRecord) -> Check:
    metric = results.task(task).metric
    scores = [table.value for table in tables_of(results.of(task, prediction.arm), metric)]
    predicted = Interval(prediction.mean, prediction.low, prediction.high)
    return Check(prediction.arm, predicted, sum(scores) / len(scores))


def _curves(results: Results, task: str, metric: str, arms: Sequence[ArmRecord]) -> tuple[Curve, ...]:
    if not arms:
        return ()
    cells = {
        (arm.name, portion): results.of(task, arm.name, portion)
        for arm in arms
        for portion in results.portions(task, arm.name)
    }
    tables = {_key(*key): tables_of(of_key, metric) for key, of_key in cells.items()}
    replicates = resample(tables, results.clusters(task))
    places = {key: _place(results, of_key) for key, of_key in cells.items()}
    return tuple(_curve(arm, places, replicates, results.confidence) for arm in arms)


def _curve(
    arm: ArmRecord, of_all: dict[tuple[str, Portion], Place], replicates: Replicates, confidence: float
) -> Curve:
    mine = {portion: place for (name, portion), place in of_all.items() if name == arm.name}
    keys, places = [_key(arm.name, portion) for portion in mine], list(mine.values())
    scores = [replicates.scores[key] for key in keys]
    errors = TEXT_DOUBT.errors(scores)[0]
    laws = fit(
        places,
        np.stack([replicates.widened(key, confidence) for key in keys], axis=1),
        errors,
        reference=mine[WHOLE].read,
        from_base=arm.origin in KEPT_ON,
        rng=generator_of(arm.name),
    )
    fitted = np.median(laws(places), axis=0).tolist()
    points = tuple(
        Point(portion, place, within_metric("bits_per_byte", replicates.interval(key, confidence)), value)
        for portion, place, key, value in zip(mine, places, keys, fitted, strict=True)
    )
    return Curve(arm.name, arm.origin, points, laws)


def _place(results: Results, cells: Sequence[Cell]) -> Place:
    """What trainings had to read, and read, mean of the seeds."""
    read = sum(cell.read_bytes or 0.0 for cell in cells) / len(cells)
    return Place(cells[0].portion.text * results.domain_bytes, max(read, 1.0))


def _key(arm: str, portion: Portion) -> str:
    return f"{arm} with {portion.title}"


def size_text(num_bytes: float) -> str:
    """`1.8 MB`: decimal units, three digits at most."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} B"
