"""Compute confidence intervals over seeds and items, and decide win, tie or loss between two arms.

A score varies for two reasons: which seed trained the model, and which items happened to be in the test. The
two are crossed (each seed is scored on the same items), so each replicate draws items once and shares the
draw between all seeds and all arms, and draws seeds with replacement on top: the pigeonhole bootstrap of Owen
2007 (Annals of Applied Statistics 1(2)). Sharing the items is what makes a comparison paired.

Seeds of two arms are drawn independently of each other, also where they carry the same number. Seed 1 of two
origins starts from other weights and another tokenizer, so little is shared; what is shared (the order of the
labelled rows, an origin's checkpoint) can only correlate the arms positively, and then ignoring it makes the
interval wider, never too narrow. In exchange the seed noise of a difference is estimated from both arms:
about 4 degrees of freedom instead of 2 at three seeds.

Few seeds need two corrections. The skew of three numbers is noise, so each replicate mirrors the drawn seeds'
deviation from their mean with probability one half; skew that the items have is kept. And resampling S seeds
understates their variance by (S - 1) / S and knows nothing of t. So the bootstrap's spread is replaced: each
quantile is stretched by `t(df) * se / (z * sd of the bootstrap)`, where `se^2` = item variance (from the
bootstrap with the seeds fixed) + s^2 / S of each arm, and `df` is Welch-Satterthwaite's. Simulated
(benchmarks/interval_coverage.py, 1,200 studies a row, nominal 95 %, 3 seeds): where seeds dominate the plain
percentile bootstrap covers 83 %, this one 96 %; it covers 95-96 % with items, or seeds and items, in play,
92.0 % in the worst case found (one arm without seed noise, few item effects), and 99 % where seeds and items
only interact, because that part is counted in both terms. With two seeds the worst case falls to 88 %: hence
three as the default. `tests/test_statistics.py` repeats the simulation.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from adaptkit.data.score_table import ScoreTable
from adaptkit.errors import DataError

NUM_RESAMPLES = 2000
_CHUNK_WEIGHTS = 4_000_000  # item weights held at once: 32 MB
Outcome = Literal["win", "tie", "loss"]


@dataclass(frozen=True)
class Interval:
    """A score, the mean over its seeds, with its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Score of one arm minus score of another, in the metric's units.

    Attributes:
        difference, low, high: the estimate and its interval, raw sign (negative is good for bits per byte).
        margin: smallest difference of interest, >= 0, same units.
        outcome: win / loss when the whole interval lies beyond the margin on the good / bad side, else tie.
        item_variance: variance of the difference due to the choice of items.
        seed_variances: per arm, variance of the score from seed to seed (0 when there is one seed only).
        num_seeds: per arm.
        num_items: test items.
        confidence: of the interval.
    """

    difference: float
    low: float
    high: float
    margin: float
    outcome: Outcome
    item_variance: float
    seed_variances: tuple[float, float]
    num_seeds: tuple[int, int]
    num_items: int
    confidence: float

    @property
    def equivalent(self) -> bool:
        """Whether the whole interval lies inside the margin: a tie that more seeds would not change."""
        return -self.margin <= self.low and self.high <= self.margin


class Replicates:
    """Bootstrap replicates of one metric for several arms scored on the same items.

    Attributes:
        scores: arm -> float64 [num_seeds], the metric of each seed on all items.
        values: arm -> float64 [num_resamples, num_seeds], the metric of each seed on each item resample.
        draws: arm -> float64 [num_resamples, num_seeds], the weight of each seed in each replicate; rows sum
            to 1.
        num_items: test items.
    """

    def __init__(
        self,
        scores: dict[str, np.ndarray],
        values: dict[str, np.ndarray],
        draws: dict[str, np.ndarray],
        num_items: int,
    ):
        self.scores, self.values, self.draws, self.num_items = scores, values, draws, num_items

    def mean(self, arm: str) -> float:
        return float(self.scores[arm].mean())

    def drawn(self, arm: str) -> np.ndarray:
        """Mean over the drawn seeds, per replicate [num_resamples], before any widening."""
        return (self.values[arm] * self.draws[arm]).sum(axis=1)

    def widened(self, arm: str, confidence: float = 0.95) -> np.ndarray:
        """Replicates [num_resamples] around the arm's mean, their spread corrected for few seeds."""
        offsets, stretch = self._stretched([(arm, 1.0)], confidence)
        return self.mean(arm) + offsets * stretch

    def interval(self, arm: str, confidence: float = 0.95) -> Interval:
        low, high = np.quantile(self.widened(arm, confidence), _tails(confidence))
        return Interval(self.mean(arm), float(low), float(high))

    def compare(
        self, arm: str, against: str, *, margin: float, higher_is_better: bool, confidence: float = 0.95
    ) -> Comparison:
        """`arm` minus `against` on the same items."""
        offsets, stretch = self._stretched([(arm, 1.0), (against, -1.0)], confidence)
        difference = self.mean(arm) - self.mean(against)
        low, high = (float(difference + stretch * q) for q in np.quantile(offsets, _tails(confidence)))
        return Comparison(
            difference=difference,
            low=low,
            high=high,
            margin=margin,
            outcome=decide(low, high, margin, higher_is_better),
            item_variance=self._item_variance([(arm, 1.0), (against, -1.0)]),
            seed_variances=(self._seed_variance(arm), self._seed_variance(against)),
            num_seeds=(len(self.scores[arm]), len(self.scores[against])),
            num_items=self.num_items,
            confidence=confidence,
        )

    def _seed_variance(self, arm: str) -> float:
        scores = self.scores[arm]
        return float(scores.var(ddof=1)) if len(scores) > 1 else 0.0

    def _item_variance(self, terms: list[tuple[str, float]]) -> float:
        return float(_signed_sum(terms, {arm: self.values[arm].mean(axis=1) for arm, _ in terms}).var(ddof=1))

    def _stretched(self, terms: list[tuple[str, float]], confidence: float) -> tuple[np.ndarray, float]:
        """Centred bootstrap replicates of a signed sum of arms, and the factor that corrects their spread."""
        replicates = _signed_sum(terms, {arm: self.drawn(arm) for arm, _ in terms})
        offsets = replicates - replicates.mean()
        spread = float(offsets.std())
        if spread == 0.0:
            return offsets, 1.0
        parts = [
            (self._seed_variance(arm) / len(self.scores[arm]), len(self.scores[arm]) - 1) for arm, _ in terms
        ]
        wanted = half_width(self._item_variance(terms), parts, self.num_items, confidence)
        return offsets, wanted / (_z(confidence) * spread)


def _signed_sum(terms: Sequence[tuple[str, float]], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum of `sign * values[arm]`."""
    return np.sum([sign * values[arm] for arm, sign in terms], axis=0)


def resample(
    tables: Mapping[str, Sequence[ScoreTable]], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Replicates:
    """Bootstrap every arm over seeds and items, the items shared by all arms and seeds.

    Args:
        tables: arm -> one table per seed; all tables list the same items in the same order.
    Raises: DataError when tables differ in length or are empty.
    """
    lengths = {len(table) for seeds in tables.values() for table in seeds}
    if len(lengths) != 1 or 0 in lengths:
        raise DataError(
            f"arms were scored on {sorted(lengths)} items",
            fix="score every arm on the same, non-empty test file",
        )
    num_items = lengths.pop()
    scores = {arm: np.array([table.value for table in seeds]) for arm, seeds in tables.items()}
    values: dict[str, list[np.ndarray]] = {arm: [] for arm in tables}
    for weights in _item_weights(num_items, num_resamples, seed):
        for arm, seeds in tables.items():
            values[arm].append(np.stack([table.finish(weights @ table.sums) for table in seeds], axis=1))
    draws = {arm: _seed_draws(arm, len(seeds), num_resamples, seed) for arm, seeds in tables.items()}
    return Replicates(scores, {arm: np.concatenate(parts) for arm, parts in values.items()}, draws, num_items)


def _item_weights(num_items: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks [rows, num_items] of how often each item is drawn in each replicate."""
    generator = np.random.default_rng([seed, num_items])
    rows = max(1, min(num_resamples, _CHUNK_WEIGHTS // num_items))
    for start in range(0, num_resamples, rows):
        count = min(rows, num_resamples - start)
        picked = generator.integers(0, num_items, (count, num_items)) + num_items * np.arange(count)[:, None]
        counts = np.bincount(picked.ravel(), minlength=count * num_items)
        yield counts.reshape(count, num_items).astype(np.float64)


def _seed_draws(arm: str, num_seeds: int, num_resamples: int, seed: int) -> np.ndarray:
    # The arm's name is part of the generator's seed: an interval does not depend on which other arms are in
    # the study.
    generator = np.random.default_rng([seed, zlib.crc32(arm.encode())])
    shares = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), num_resamples) / num_seeds
    mirror = generator.choice([-1.0, 1.0], (num_resamples, 1))
    return 1 / num_seeds + mirror * (shares - 1 / num_seeds)


def decide(low: float, high: float, margin: float, higher_is_better: bool) -> Outcome:
    """win / loss when the interval of a difference lies wholly beyond the margin, else tie."""
    worst, best = low, high
    if not higher_is_better:
        worst, best = -high, -low
    if worst > margin:
        return "win"
    return "loss" if best < -margin else "tie"


def half_width(
    item_variance: float, seed_parts: Sequence[tuple[float, int]], num_items: int, confidence: float
) -> float:
    """Half width of a t interval whose variance is one item part plus one part per arm's seeds
    (Welch-Satterthwaite).

    Args:
        item_variance: variance of the estimate due to items, num_items - 1 degrees of freedom.
        seed_parts: per arm, (variance of its mean due to seeds, degrees of freedom); no freedom means not
            estimable, left out.
    """
    parts = [(item_variance, num_items - 1), *seed_parts]
    total = sum(variance for variance, freedom in parts if freedom > 0)
    if total <= 0.0:
        return 0.0
    freedom = total**2 / sum(variance**2 / freedom for variance, freedom in parts if freedom > 0)
    return float(stats.t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(total)


def seeds_to_settle(comparison: Comparison, most: int = 50) -> int | None:
    """Smallest number of seeds per arm at which, were estimate and variances to stay, the interval would
    clear the margin.

    None when `most` seeds would not do, or there are too few to know how much seeds differ.
    """
    if min(comparison.num_seeds) < 2:
        return None
    gap = distance_to_margin(comparison)
    for num_seeds in range(max(comparison.num_seeds), most + 1):
        parts = [(variance / num_seeds, num_seeds - 1) for variance in comparison.seed_variances]
        if half_width(comparison.item_variance, parts, comparison.num_items, comparison.confidence) < gap:
            return num_seeds
    return None


def items_too_few(comparison: Comparison) -> bool:
    """Whether the items' share of the noise alone keeps the interval from clearing the margin, with any
    number of seeds."""
    width = half_width(comparison.item_variance, [], comparison.num_items, comparison.confidence)
    return width >= distance_to_margin(comparison)


def distance_to_margin(comparison: Comparison) -> float:
    """How far the estimate lies from the nearer end of the margin."""
    return abs(abs(comparison.difference) - comparison.margin)


def _tails(confidence: float) -> list[float]:
    return [0.5 - confidence / 2, 0.5 + confidence / 2]


def _z(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + confidence / 2))
