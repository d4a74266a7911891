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
understates their variance by (S - 1) / S and knows nothing of t. So of the bootstrap only the skew is used:
its two quantiles are stretched until they lie as far apart as the ends of a t interval (`intervals.py`). That
interval's variance is the item variance (`item_noise.py`) and s^2 / S of each arm, less the part in which
seeds and items interact, since both hold it.

Where items belong together (passages of one document, rows of one group) whole clusters are drawn.

Simulated (benchmarks/interval_coverage.py; figures in benchmarks/results/README.md): with 3 seeds, and with 8
to 60 clusters, equal or not, each setting's intervals cover in 93-97 % of studies. With two seeds the worst
case (one arm without seed noise) falls to 91 %: hence three as the default.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.data.score_table import ScoreTable
from adaptkit.errors import DataError
from adaptkit.study import item_noise
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
        seed_variances: per arm, variance of the score from seed to seed beyond what the choice of items
            explains (0 when there is one seed only).
        seed_freedom: per arm, degrees of freedom of that variance, those that other arms lent included.
        num_seeds: per arm.
        num_items: test items.
        num_clusters: groups of items that were drawn together; num_items where each stands alone.
        item_freedom: degrees of freedom of item_variance.
        interaction: the part of item_variance that is of items hard for one seed only.
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
    item_freedom: float
    interaction: float
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
        influences: arm -> float64 [num_clusters, num_seeds], what each cluster of items adds to the metric.
        draws: arm -> float64 [num_resamples, num_seeds], the weight of each seed in each replicate; rows sum
            to 1.
        num_items: test items.
        num_clusters: groups of items that were drawn together; num_items where each stands alone.
        item_freedom: degrees of freedom of variances due to items.
    """

    def __init__(
        self,
        scores: dict[str, np.ndarray],
        values: dict[str, np.ndarray],
        draws: dict[str, np.ndarray],
        influences: dict[str, np.ndarray],
        cluster_sizes: np.ndarray,
        item_freedom: float | None = None,
    ):
        self.scores, self.values, self.draws, self.influences = scores, values, draws, influences
        self.num_items, self.num_clusters = int(cluster_sizes.sum()), len(cluster_sizes)
        self.item_freedom = item_noise.freedom(cluster_sizes) if item_freedom is None else item_freedom
        self._drawn = {arm: (values[arm] * draws[arm]).sum(axis=1) for arm in values}
        self._influence = {arm: of_seeds.mean(axis=1) for arm, of_seeds in influences.items()}
        self._together: dict[tuple[str, ...], tuple[dict[str, SeedNoise], np.ndarray]] = {}

    def mean(self, arm: str) -> float:
        return float(self.scores[arm].mean())

    def drawn(self, arm: str) -> np.ndarray:
        """Mean over the drawn seeds, per replicate [num_resamples], before any widening."""
        return self._drawn[arm]

    def widened(self, arm: str, confidence: float = 0.95) -> np.ndarray:
        """Replicates [num_resamples] around the arm's mean, their spread corrected for few seeds."""
        terms = [_Term(arm, 1.0, self._seed_noise(arm))]
        offsets, stretch, _ = self._stretched(terms, confidence, confidence)
        return self.mean(arm) + offsets * stretch

    def interval(self, arm: str, confidence: float = 0.95) -> Interval:
        low, high = np.quantile(self.widened(arm, confidence), _tails(confidence))
        return Interval(self.mean(arm), float(low), float(high))

    def compare(
        self, arm: str, against: str, *, margin: float, higher_is_better: bool, confidence: float = 0.95
    ) -> Comparison:
        """`arm` minus `against` on the same items."""
        pair = (arm, self._seed_noise(arm)), (against, self._seed_noise(against))
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
        _, stretch, ends = self._stretched(terms, level, shape)
        difference = self.mean(first[0]) - self.mean(second[0])
        low, high = (float(difference + stretch * end) for end in ends)
        return Comparison(
            difference=difference,
            low=low,
            high=high,
            margin=margin,
            outcome=decide(low, high, margin, higher_is_better),
            item_variance=self._item_variance(terms),
            seed_variances=(first[1].own_variance, second[1].own_variance),
            seed_freedom=(first[1].freedom, second[1].freedom),
            num_seeds=(first[1].num_seeds, second[1].num_seeds),
            num_items=self.num_items,
            num_clusters=self.num_clusters,
            item_freedom=self.item_freedom,
            interaction=first[1].interaction + second[1].interaction,
            confidence=level,
        )

    def _item_variance(self, terms: Sequence[_Term]) -> float:
        return float((_signed_sum(terms, self._influence) ** 2).sum())

    def _seed_noise(self, arm: str) -> SeedNoise:
        return SeedNoise.of(self.scores[arm], item_noise.interaction(self.influences[arm]))

    def _joint(self, arms: tuple[str, ...]) -> tuple[dict[str, SeedNoise], np.ndarray]:
        """Seed noise of arms that are compared together, and the covariance of their means [num_arms,
        num_arms]: items are shared, seeds are not."""
        if arms not in self._together:
            noise = borrow_between_arms({arm: self._seed_noise(arm) for arm in arms})
            influences = np.stack([self._influence[arm] for arm in arms])
            seeds = np.diag([noise[arm].part[0] for arm in arms])
            self._together[arms] = noise, influences @ influences.T + seeds
        return self._together[arms]

    def _stretched(
        self, terms: Sequence[_Term], level: float, shape: float
    ) -> tuple[np.ndarray, float, np.ndarray]:
        """Centred bootstrap replicates of a signed sum of arms, the factor that makes their quantiles at
        `shape` the ends of an interval at `level`, and those quantiles."""
        replicates = _signed_sum(terms, self._drawn)
        offsets = replicates - replicates.mean()
        ends = np.quantile(offsets, _tails(shape))
        if ends[0] == ends[1]:
            return offsets, 1.0, ends
        parts = [term.noise.part for term in terms]
        items = (self._item_variance(terms), self.item_freedom)
        wanted = half_width(items, parts, level)
        return offsets, 2 * wanted / float(ends[1] - ends[0]), ends


def _signed_sum(terms: Sequence[_Term], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum of `sign * values[arm]`."""
    return np.sum([term.sign * values[term.arm] for term in terms], axis=0)


def resample(
    tables: Mapping[str, Sequence[ScoreTable]],
    clusters: Sequence[Hashable] | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    item_freedom: float | None = None,
) -> Replicates:
    """Bootstrap every arm over seeds and items, the items shared by all arms and seeds.

    Args:
        tables: arm -> one table per seed; all tables list the same items in the same order.
        clusters: per item the document or group it belongs to; whole clusters are drawn then, not items.
        item_freedom: degrees of freedom of variances due to items, where a few of the clusters carry them;
            None takes those of all clusters.
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
    sums = {
        arm: [item_noise.cluster_sums(table.sums, places) for table in seeds] for arm, seeds in tables.items()
    }
    values: dict[str, list[np.ndarray]] = {arm: [] for arm in tables}
    for weights in _cluster_weights(len(sizes), num_resamples, seed):
        for arm, seeds in tables.items():
            drawn = [table.finish(weights @ own) for table, own in zip(seeds, sums[arm], strict=True)]
            values[arm].append(np.stack(drawn, axis=1))
    draws = {arm: _seed_draws(arm, len(seeds), num_resamples, seed) for arm, seeds in tables.items()}
    influences = {arm: item_noise.influence(seeds, places) for arm, seeds in tables.items()}
    stacked = {arm: np.concatenate(parts) for arm, parts in values.items()}
    return Replicates(scores, stacked, draws, influences, sizes, item_freedom)


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
