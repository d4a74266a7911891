"""Measure how far a classifier's confidence can be trusted, and what handing doubtful items to people gains.

    for audit in audit_confidence(collect("runs/study-1a2b3c4d"), "intent"):
        audit.temperatures, audit.handed, audit.wanted

Temperature and thresholds are fitted on development items and judged on test items. Where a run kept no
development items, each half of the test items (whole clusters) is judged by what the other half taught.
Intervals are those of all scores: seeds and clustered items are drawn, and what is compared is paired.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptkit.audit.selective import SHARES, ConfidenceFit, Judged, fit_confidence
from adaptkit.data.score_table import ScoreTable, mean_table, with_probabilities
from adaptkit.run import Run, read_jsonl
from adaptkit.seal import check
from adaptkit.study.calibration import MIN_ITEMS
from adaptkit.study.results import Results
from adaptkit.study.scores import confidence_and_hit, ece_table
from adaptkit.study.statistics import Interval, Replicates, resample

NUM_BINS = 10
MIN_BIN_SHARE = 0.02
DEV, HALVES = "development items", "the other half of the test items"
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Handed:
    """What one threshold does on the test items.

    Attributes:
        aimed: the share that it handed over of the items it was fitted on; None where an accuracy was wanted.
        share: of the test items that it hands to people.
        accuracy: of the rest.
        gain: that accuracy minus the accuracy on all items; handing over at random gains 0.
        thresholds: by seed, those of both halves averaged.
    """

    aimed: float | None
    share: Interval
    accuracy: Interval
    gain: Interval
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Bin:
    """Test items of about the same calibrated confidence: how sure, how often right, what share of all."""

    confidence: float
    right: Interval
    share: float


@dataclass(frozen=True)
class ArmConfidence:
    """One classifier's confidence on one task.

    Attributes:
        fitted_on, num_fitted: what temperature and thresholds were fitted on, and how many items that was.
        temperatures: by seed; above 1 the classifier was too sure.
        excess_before, excess_after: mean confidence minus accuracy, as it came and after scaling.
        error_before, error_after: expected calibration error; every bin's noise counts, so it is biased up.
        wanted_accuracy: of the answered items.
        wanted: what its threshold does; None where no threshold reached it on the items it was fitted on.
    """

    arm: str
    task: str
    num_items: int
    num_clusters: int
    fitted_on: str
    num_fitted: int
    temperatures: tuple[float, ...]
    accuracy: Interval
    excess_before: Interval
    excess_after: Interval
    error_before: Interval
    error_after: Interval
    bins: tuple[Bin, ...]
    handed: tuple[Handed, ...]
    wanted_accuracy: float
    wanted: Handed | None

    @property
    def temperature(self) -> float:
        """The geometric mean over seeds."""
        return float(np.exp(np.mean(np.log(self.temperatures))))


def audit_confidence(
    results: Results, task: str, *, accuracy: float | None = None, arms: Sequence[str] | None = None
) -> list[ArmConfidence]:
    """Audit the classifiers of a study on a task; empty where its answers have no probabilities.

    Args:
        accuracy: wanted of the answered items; None wants half as many errors as on all.
        arms: only these.
    """
    audits = []
    clusters = results.clusters(task)
    for arm in results.scored_arms(task):
        cells = results.of(task, arm.name)
        if arms is not None and arm.name not in arms:
            continue
        pairs = [(with_probabilities(cell.rows), dev_rows(Run(cell.run), cell.suite)) for cell in cells]
        if all(len(test) >= MIN_ITEMS for test, _ in pairs):
            audits.append(audit_rows(arm.name, task, pairs, clusters, results.confidence, accuracy))
    return audits


def dev_rows(run: Run, suite: str) -> list[dict[str, Any]]:
    """Item rows of the development split that a run kept; none for a run of an earlier release."""
    path = run.items(suite, "dev")
    if not path.is_file():
        return []
    check(path)
    return list(read_jsonl(path))


def audit_rows(
    arm: str,
    task: str,
    seeds: Sequence[tuple[Rows, Rows]],
    clusters: Sequence[Hashable] | None,
    confidence: float = 0.95,
    accuracy: float | None = None,
) -> ArmConfidence:
    """Audit one classifier.

    Args:
        seeds: per seed the item rows of the test and of the development split; without enough of the latter,
            halves of the test stand in.
        clusters: per test item what it belongs to.
    """
    on_dev = all(len(dev) >= MIN_ITEMS for _, dev in seeds)
    judged = [_judge(test, dev if on_dev else (), clusters, accuracy) for test, dev in seeds]
    tables = _tables(judged)
    measured = _Measured(resample(tables, clusters), confidence)
    num_fitted = min(len(dev) for _, dev in seeds) if on_dev else len(seeds[0][0]) // 2
    return ArmConfidence(
        arm=arm,
        task=task,
        num_items=measured.replicates.num_items,
        num_clusters=measured.replicates.num_clusters,
        fitted_on=DEV if on_dev else HALVES,
        num_fitted=num_fitted,
        temperatures=tuple(seed.temperature for seed in judged),
        accuracy=measured.share("accuracy"),
        excess_before=measured("excess before"),
        excess_after=measured("excess after"),
        error_before=measured.share("error before"),
        error_after=measured.share("error after"),
        bins=_bins(judged, measured),
        handed=tuple(_handed(judged, measured, place) for place in range(len(SHARES))),
        wanted_accuracy=float(np.mean([seed.wanted for seed in judged])),
        wanted=_handed(judged, measured, None) if f"accuracy {None}" in tables else None,
    )


@dataclass(frozen=True)
class _Seed:
    """One seed's test items, judged by what other items taught.

    Attributes:
        before_N, after_N: confidence as it came, and after scaling.
        thresholds_NS: for each item the thresholds of `SHARES`; `wanted_N` that of the wanted accuracy.
    """

    hit_N: np.ndarray
    before_N: np.ndarray
    after_N: np.ndarray
    thresholds_NS: np.ndarray
    wanted_N: np.ndarray | None
    temperature: float
    wanted: float

    def threshold(self, place: int | None) -> np.ndarray:
        """Each item's threshold for a share, or for the wanted accuracy."""
        if place is not None:
            return self.thresholds_NS[:, place]
        assert self.wanted_N is not None
        return self.wanted_N


def _judge(test: Rows, dev: Rows, clusters: Sequence[Hashable] | None, accuracy: float | None) -> _Seed:
    items = Judged.of(test)
    if dev:
        everywhere = np.ones(len(items), dtype=bool)
        fits = [(everywhere, fit_confidence(Judged.of(dev), accuracy))]
    else:
        first = _halves(test, clusters)
        fits = [(first, fit_confidence(items.only(~first), accuracy))]
        fits.append((~first, fit_confidence(items.only(first), accuracy)))
    after_N, thresholds_NS = np.zeros(len(items)), np.zeros((len(items), len(SHARES)))
    wanted_N = np.zeros(len(items))
    for mask, fit in fits:
        after_N[mask] = fit.confidence(items.only(mask))
        thresholds_NS[mask] = fit.thresholds
        wanted_N[mask] = np.nan if fit.wanted_threshold is None else fit.wanted_threshold
    return _Seed(
        hit_N=items.hit_N,
        before_N=np.asarray(confidence_and_hit(test)[0], float),
        after_N=after_N,
        thresholds_NS=thresholds_NS,
        wanted_N=None if np.isnan(wanted_N).any() else wanted_N,
        temperature=_geometric_mean([fit for _, fit in fits]),
        wanted=float(np.mean([fit.wanted for _, fit in fits])),
    )


def _geometric_mean(fits: Sequence[ConfidenceFit]) -> float:
    return float(np.exp(np.mean([np.log(fit.temperature) for fit in fits])))


def _halves(test: Rows, clusters: Sequence[Hashable] | None) -> np.ndarray:
    """Which items belong to the first half: whole clusters, by the hash of their names, alternating."""
    names = [str(row["id"]) for row in test] if clusters is None else [repr(name) for name in clusters]
    ordered = sorted(set(names), key=lambda name: (zlib.crc32(name.encode()), name))
    sizes = {name: names.count(name) for name in ordered} if len(ordered) < len(names) else {}
    first, totals = set(), [0, 0]
    for name in ordered:
        side = 0 if totals[0] <= totals[1] else 1
        totals[side] += sizes.get(name, 1)
        if side == 0:
            first.add(name)
    return np.array([name in first for name in names])


def _tables(judged: Sequence[_Seed]) -> dict[str, list[ScoreTable]]:
    """Every measure by its name, one table per seed."""
    tables: dict[str, list[ScoreTable]] = {
        "accuracy": [mean_table(seed.hit_N.tolist()) for seed in judged],
        "excess before": [mean_table((seed.before_N - seed.hit_N).tolist()) for seed in judged],
        "excess after": [mean_table((seed.after_N - seed.hit_N).tolist()) for seed in judged],
        "error before": [ece_table(seed.before_N.tolist(), seed.hit_N.tolist()) for seed in judged],
        "error after": [ece_table(seed.after_N.tolist(), seed.hit_N.tolist()) for seed in judged],
    }
    places: list[int | None] = [*range(len(SHARES))]
    if all(seed.wanted_N is not None for seed in judged):
        places.append(None)
    for place in places:
        answered = [seed.after_N >= seed.threshold(place) for seed in judged]
        tables[f"share {place}"] = [mean_table((~each).tolist()) for each in answered]
        pairs = list(zip(judged, answered, strict=True))
        tables[f"accuracy {place}"] = [_part_table(seed.hit_N, each) for seed, each in pairs]
        tables[f"gain {place}"] = [_gain_table(seed.hit_N, each) for seed, each in pairs]
    for number in range(NUM_BINS):
        inside = [_bin_of(seed.after_N) == number for seed in judged]
        if np.mean(inside) >= MIN_BIN_SHARE and all(each.any() for each in inside):
            pairs = list(zip(judged, inside, strict=True))
            tables[f"bin {number}"] = [_part_table(seed.hit_N, each) for seed, each in pairs]
    return tables


def _bin_of(confidence_N: np.ndarray) -> np.ndarray:
    return np.clip((confidence_N * NUM_BINS).astype(int), 0, NUM_BINS - 1)


def _part_table(hit_N: np.ndarray, part_N: np.ndarray) -> ScoreTable:
    """The share that is right among the items of a part."""
    sums = np.stack([hit_N & part_N, part_N], axis=1).astype(float)
    return ScoreTable(sums, _divided(_share(hit_N[part_N], float(hit_N.mean()))))


def _gain_table(hit_N: np.ndarray, part_N: np.ndarray) -> ScoreTable:
    """That share minus the share that is right among all items."""
    of_part = _part_table(hit_N, part_N)
    sums = np.concatenate([of_part.sums, np.stack([hit_N, np.ones(len(hit_N))], axis=1)], axis=1)

    def finish(totals: np.ndarray) -> np.ndarray:
        return of_part.finish(totals[..., :2]) - totals[..., 2] / totals[..., 3]

    return ScoreTable(sums, finish)


def _share(hit_N: np.ndarray, without_any: float) -> float:
    return float(hit_N.mean()) if len(hit_N) else without_any


def _divided(without_any: float) -> Callable[[np.ndarray], np.ndarray]:
    """The first column over the second; for a replicate that drew no item of the part a stated value."""

    def finish(totals: np.ndarray) -> np.ndarray:
        some = totals[..., 1] > 0
        return np.where(some, totals[..., 0] / np.where(some, totals[..., 1], 1), without_any)

    return finish


class _Measured:
    """Intervals of the measures; `share` ends them at 0 and 1."""

    def __init__(self, replicates: Replicates, confidence: float):
        self.replicates, self.confidence = replicates, confidence

    def __call__(self, name: str) -> Interval:
        return self.replicates.interval(name, self.confidence)

    def share(self, name: str) -> Interval:
        interval = self(name)
        return Interval(interval.mean, max(0.0, interval.low), min(1.0, interval.high))


def _bins(judged: Sequence[_Seed], measured: _Measured) -> tuple[Bin, ...]:
    bins = []
    for number in range(NUM_BINS):
        if f"bin {number}" in measured.replicates.scores:
            inside = [_bin_of(seed.after_N) == number for seed in judged]
            sure = [seed.after_N[each].mean() for seed, each in zip(judged, inside, strict=True)]
            bins.append(Bin(float(np.mean(sure)), measured.share(f"bin {number}"), float(np.mean(inside))))
    return tuple(bins)


def _handed(judged: Sequence[_Seed], measured: _Measured, place: int | None) -> Handed:
    return Handed(
        aimed=None if place is None else SHARES[place],
        share=measured.share(f"share {place}"),
        accuracy=measured.share(f"accuracy {place}"),
        gain=measured(f"gain {place}"),
        thresholds=tuple(float(np.mean(seed.threshold(place))) for seed in judged),
    )
