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
three as the default.

Where items belong together (passages of one document, rows of one group) whole clusters are drawn. Unequal
ones tell as much as k = n^2 / sum(size^2) equal ones: the item variance has k - 1 degrees of freedom and is
multiplied by k / (k - 1). Simulated with intra-class correlations of 0, .1 and .3: 93.7-96.9 % with 8 or 20
equal or 20 or 60 unequal clusters (39-88 % where correlated clusters are ignored), 97.7-98.8 % where a few
clusters hold most items: too wide, not too narrow. Their number less 1, without the factor, gave 86-95 %.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from adaptkit.data.score_table import ScoreTable
from adaptkit.errors import DataError
from adaptkit.study.intervals import (
    Outcome,
    SeedNoise,
    borrow_between_arms,
    decide,
    half_width,
    simultaneous_level,
)

NUM_RESAMPLES = 2000
_CHUNK_WEIGHTS = 4_000_000  # item weights held at once: 32 MB
_SHAPE = 0.95  # level at which the bootstrap's skew is read, also where the interval's own level is higher


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
        seed_freedom: per arm, degrees of freedom of that variance, those that other arms lent included.
        num_seeds: per arm.
        num_items: test items.
        num_clusters: groups of items that were drawn together; num_items where each stands alone.
        effective_clusters: clusters of equal size that would tell as much; num_items where each stands alone.
        confidence: of this interval alone, also where it is one of several that hold together.
    """

    difference: float
    low: float
    high: float
    margin: float
    outcome: Outcome
    item_variance: float
    seed_variances: tuple[float, float]
    seed_freedom: tuple[float, float]
    num_seeds: tuple[int, int]
    num_items: int
    num_clusters: int
    effective_clusters: float
    confidence: float


@dataclass(frozen=True)
class _Term:
    """One arm of a signed sum."""

    arm: str
    sign: float
    noise: SeedNoise


class Replicates:
    """Bootstrap replicates of one metric for several arms scored on the same items.

    Attributes:
        scores: arm -> float64 [num_seeds], the metric of each seed on all items.
        values: arm -> float64 [num_resamples, num_seeds], the metric of each seed on each item resample.
        draws: arm -> float64 [num_resamples, num_seeds], the weight of each seed in each replicate; rows sum
            to 1.
        num_items: test items.
        num_clusters: groups of items that were drawn together; num_items where each stands alone.
        effective_clusters: clusters of equal size that would tell as much; num_items where each stands alone.
    """

    def __init__(
        self,
        scores: dict[str, np.ndarray],
        values: dict[str, np.ndarray],
        draws: dict[str, np.ndarray],
        cluster_sizes: np.ndarray,
    ):
        self.scores, self.values, self.draws = scores, values, draws
        self.num_items, self.num_clusters = int(cluster_sizes.sum()), len(cluster_sizes)
        self.effective_clusters = float(self.num_items**2 / (cluster_sizes**2).sum())
        self._drawn = {arm: (values[arm] * draws[arm]).sum(axis=1) for arm in values}
        self._all_seeds = {arm: values[arm].mean(axis=1) for arm in values}
        self._together: dict[tuple[str, ...], tuple[dict[str, SeedNoise], np.ndarray]] = {}

    def mean(self, arm: str) -> float:
        return float(self.scores[arm].mean())

    def drawn(self, arm: str) -> np.ndarray:
        """Mean over the drawn seeds, per replicate [num_resamples], before any widening."""
        return self._drawn[arm]

    def widened(self, arm: str, confidence: float = 0.95) -> np.ndarray:
        """Replicates [num_resamples] around the arm's mean, their spread corrected for few seeds."""
        terms = [_Term(arm, 1.0, SeedNoise.of(self.scores[arm]))]
        offsets, stretch = self._stretched(terms, confidence, confidence)
        return self.mean(arm) + offsets * stretch

    def interval(self, arm: str, confidence: float = 0.95) -> Interval:
        low, high = np.quantile(self.widened(arm, confidence), _tails(confidence))
        return Interval(self.mean(arm), float(low), float(high))

    def compare(
        self, arm: str, against: str, *, margin: float, higher_is_better: bool, confidence: float = 0.95
    ) -> Comparison:
        """`arm` minus `against` on the same items."""
        pair = (arm, SeedNoise.of(self.scores[arm])), (against, SeedNoise.of(self.scores[against]))
        return self._comparison(*pair, margin, higher_is_better, confidence, confidence)

    def versus(
        self,
        reference: str,
        others: Sequence[str],
        *,
        margin: float,
        higher_is_better: bool,
        confidence: float = 0.95,
    ) -> dict[str, Comparison]:
        """Each other arm minus `reference`, in intervals that all hold together with probability
        `confidence`."""
        names = tuple(sorted({reference, *others}))
        noise, covariance = self._joint(names)
        level = simultaneous_level(covariance, names.index(reference), confidence)
        against = (reference, noise[reference])
        return {
            arm: self._comparison((arm, noise[arm]), against, margin, higher_is_better, level, _SHAPE)
            for arm in others
        }

    def _comparison(
        self,
        first: tuple[str, SeedNoise],
        second: tuple[str, SeedNoise],
        margin: float,
        higher_is_better: bool,
        level: float,
        shape: float,
    ) -> Comparison:
        terms = [_Term(first[0], 1.0, first[1]), _Term(second[0], -1.0, second[1])]
        offsets, stretch = self._stretched(terms, level, shape)
        difference = self.mean(first[0]) - self.mean(second[0])
        low, high = (float(difference + stretch * q) for q in np.quantile(offsets, _tails(shape)))
        return Comparison(
            difference=difference,
            low=low,
            high=high,
            margin=margin,
            outcome=decide(low, high, margin, higher_is_better),
            item_variance=self._item_variance(terms),
            seed_variances=(first[1].variance, second[1].variance),
            seed_freedom=(first[1].freedom, second[1].freedom),
            num_seeds=(first[1].num_seeds, second[1].num_seeds),
            num_items=self.num_items,
            num_clusters=self.num_clusters,
            effective_clusters=self.effective_clusters,
            confidence=level,
        )

    @property
    def _few_clusters(self) -> float:
        """Factor for the variance that drawing few clusters with replacement leaves out."""
        if self.num_clusters == self.num_items:
            return 1.0
        return self.effective_clusters / (self.effective_clusters - 1)

    def _item_variance(self, terms: Sequence[_Term]) -> float:
        return float(_signed_sum(terms, self._all_seeds).var(ddof=1)) * self._few_clusters

    def _joint(self, arms: tuple[str, ...]) -> tuple[dict[str, SeedNoise], np.ndarray]:
        """Seed noise of arms that are compared together, and the covariance of their means [num_arms,
        num_arms]: items are shared, seeds are not."""
        if arms not in self._together:
            noise = borrow_between_arms({arm: SeedNoise.of(self.scores[arm]) for arm in arms})
            items = np.cov([self._all_seeds[arm] for arm in arms]) * self._few_clusters
            seeds = np.diag([noise[arm].part[0] for arm in arms])
            self._together[arms] = noise, np.atleast_2d(items) + seeds
        return self._together[arms]

    def _stretched(self, terms: Sequence[_Term], level: float, shape: float) -> tuple[np.ndarray, float]:
        """Centred bootstrap replicates of a signed sum of arms, and the factor that makes their quantiles at
        `shape` the ends of an interval at `level`."""
        replicates = _signed_sum(terms, self._drawn)
        offsets = replicates - replicates.mean()
        spread = float(offsets.std())
        if spread == 0.0:
            return offsets, 1.0
        parts = [term.noise.part for term in terms]
        wanted = half_width(self._item_variance(terms), parts, self.effective_clusters, level)
        return offsets, wanted / (_z(shape) * spread)


def _signed_sum(terms: Sequence[_Term], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum of `sign * values[arm]`."""
    return np.sum([term.sign * values[term.arm] for term in terms], axis=0)


def resample(
    tables: Mapping[str, Sequence[ScoreTable]],
    clusters: Sequence[Hashable] | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Replicates:
    """Bootstrap every arm over seeds and items, the items shared by all arms and seeds.

    Args:
        tables: arm -> one table per seed; all tables list the same items in the same order.
        clusters: per item the document or group it belongs to; whole clusters are drawn then, not items.
    Raises: DataError when tables differ in length or are empty, or all items belong to one cluster.
    """
    lengths = {len(table) for seeds in tables.values() for table in seeds}
    if len(lengths) != 1 or 0 in lengths:
        raise DataError(
            f"arms were scored on {sorted(lengths)} items",
            fix="score every arm on the same, non-empty test file",
        )
    places = _cluster_places(clusters, lengths.pop())
    sizes = np.bincount(places)
    scores = {arm: np.array([table.value for table in seeds]) for arm, seeds in tables.items()}
    sums = {arm: [_cluster_sums(table.sums, places) for table in seeds] for arm, seeds in tables.items()}
    values: dict[str, list[np.ndarray]] = {arm: [] for arm in tables}
    for weights in _cluster_weights(len(sizes), num_resamples, seed):
        for arm, seeds in tables.items():
            drawn = [table.finish(weights @ own) for table, own in zip(seeds, sums[arm], strict=True)]
            values[arm].append(np.stack(drawn, axis=1))
    draws = {arm: _seed_draws(arm, len(seeds), num_resamples, seed) for arm, seeds in tables.items()}
    return Replicates(scores, {arm: np.concatenate(parts) for arm, parts in values.items()}, draws, sizes)


def _cluster_places(clusters: Sequence[Hashable] | None, num_items: int) -> np.ndarray:
    """Per item the number of its cluster, in order of appearance; without clusters each is its own."""
    if clusters is None:
        return np.arange(num_items)
    if len(clusters) != num_items:
        raise ValueError(f"{len(clusters)} cluster labels for {num_items} items")
    numbers = {label: number for number, label in enumerate(dict.fromkeys(clusters))}
    if len(numbers) == 1 and num_items > 1:
        raise DataError(
            f"all {num_items} test items belong to one group, so nothing tells how much groups differ",
            fix="test on items of several documents or groups, or group by another column",
        )
    return np.array([numbers[label] for label in clusters])


def _cluster_sums(sums: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Per-item sums added up within each cluster [num_clusters, num_columns]."""
    summed = np.zeros((int(places.max()) + 1, sums.shape[1]))
    np.add.at(summed, places, sums)
    return summed


def _cluster_weights(num_clusters: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks [rows, num_clusters] of how often each cluster is drawn in each replicate."""
    generator = np.random.default_rng([seed, num_clusters])
    rows = max(1, min(num_resamples, _CHUNK_WEIGHTS // num_clusters))
    for start in range(0, num_resamples, rows):
        count = min(rows, num_resamples - start)
        shape = (count, num_clusters)
        picked = generator.integers(0, num_clusters, shape) + num_clusters * np.arange(count)[:, None]
        counts = np.bincount(picked.ravel(), minlength=count * num_clusters)
        yield counts.reshape(shape).astype(np.float64)


def _seed_draws(arm: str, num_seeds: int, num_resamples: int, seed: int) -> np.ndarray:
    # The arm's name is part of the generator's seed: an interval does not depend on which other arms are in
    # the study.
    generator = np.random.default_rng([seed, zlib.crc32(arm.encode())])
    shares = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), num_resamples) / num_seeds
    mirror = generator.choice([-1.0, 1.0], (num_resamples, 1))
    return 1 / num_seeds + mirror * (shares - 1 / num_seeds)


def reverse(comparison: Comparison) -> Comparison:
    """The same comparison seen from the other arm's side."""
    opposite: dict[Outcome, Outcome] = {"win": "loss", "loss": "win", "tie": "tie"}
    return dataclasses.replace(
        comparison,
        difference=-comparison.difference,
        low=-comparison.high,
        high=-comparison.low,
        outcome=opposite[comparison.outcome],
        seed_variances=comparison.seed_variances[::-1],
        seed_freedom=comparison.seed_freedom[::-1],
        num_seeds=comparison.num_seeds[::-1],
    )


def _tails(confidence: float) -> list[float]:
    return [0.5 - confidence / 2, 0.5 + confidence / 2]


def _z(confidence: float) -> float:
    return float(special.ndtri(0.5 + confidence / 2))
