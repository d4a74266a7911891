"""The arithmetic of t intervals: their width, the level at which several hold together, what seeds lend.

**Several intervals that hold together** (max-T). Each of (arm - reference) gets the same level, the one at
which all of them cover with the wanted probability. It is read off the largest of |difference| / standard
deviation over the arms, drawn from joint normals with the covariance of the bootstrap's items and the seeds'
variances. Read off the bootstrap replicates themselves the level was less certain, and lower where seeds
dominate, since three resampled seeds have no tails: with 12 arms and 1,000 replicates it left each interval
.92 % of misses (+- .22 from one study to the next) where the normals leave .67 % (+- .19) and Bonferroni's
bound is .45 %; where items dominate .64 (+- .08) and .62 (+- .04). All 11 intervals then covered in 95 % and
97 % of 150 studies where seeds dominate. Quantiles of replicates are never read beyond 95 %: their skew there
is taken for that of higher levels (`statistics.py`).

**What seeds lend.** The variance of three seeds is small by chance in some arm of many, and the formula of
Welch-Satterthwaite does not make up for it at the levels above 99 % that many arms need: seen from a
baseline, intervals of 11 arms whose noise is mostly seeds held together in 75 % of 20,000 simulated studies,
at a nominal 95 %. Among three or more arms each arm's variance is therefore averaged with the mean variance
of all, which counts for at most 4 degrees of freedom, and is never taken below its own. Then they hold
together in 98.8 % (3 others: 94.4 %), and where true variances differ between arms, by a log spread of 1, in
95.9 % (93.3 %), of 2 in 94.2 % (92.9 %). The plain mean of all variances gave 95 %, 84 % and 74 %, moderated
variances (Smyth 2004) 94 %, 85 % and 83 %. The intervals are half as wide as without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy import special

Outcome = Literal["win", "tie", "loss"]

_NUM_NORMAL = 20_000  # joint draws behind a simultaneous level
_BORROWED_FREEDOM = 4.0  # degrees of freedom that the seeds of all other arms lend to one


@dataclass(frozen=True)
class SeedNoise:
    """How much an arm's score varies from seed to seed.

    Attributes:
        variance: of the score of one seed; 0 when there is one seed only.
        freedom: degrees of freedom of that variance; 0 when there is one seed only.
    """

    variance: float
    num_seeds: int
    freedom: float

    @classmethod
    def of(cls, scores: np.ndarray) -> SeedNoise:
        """What the scores of an arm's own seeds say."""
        variance = float(scores.var(ddof=1)) if len(scores) > 1 else 0.0
        return cls(variance, len(scores), len(scores) - 1)

    @property
    def part(self) -> tuple[float, float]:
        """Variance of the arm's mean, and its degrees of freedom."""
        return self.variance / self.num_seeds, self.freedom


def borrow_between_arms(own: Mapping[str, SeedNoise]) -> dict[str, SeedNoise]:
    """Let the seeds of all arms say something about each arm's variance, never making it smaller.

    Arms without noise, such as a baseline, neither lend nor borrow; nor do two arms alone.
    """
    lenders = [noise for noise in own.values() if noise.variance > 0]
    if len(own) < 3 or len(lenders) < 2:
        return dict(own)
    total = sum(noise.freedom for noise in lenders)
    mean = sum(noise.freedom * noise.variance for noise in lenders) / total
    return {arm: _borrowed(noise, mean, total) if noise.variance > 0 else noise for arm, noise in own.items()}


def _borrowed(own: SeedNoise, mean: float, total_freedom: float) -> SeedNoise:
    lent = min(_BORROWED_FREEDOM, total_freedom - own.freedom)
    averaged = (own.freedom * own.variance + lent * mean) / (own.freedom + lent)
    return SeedNoise(max(own.variance, averaged), own.num_seeds, own.freedom + lent)


def half_width(
    item_variance: float, seed_parts: Sequence[tuple[float, float]], num_clusters: float, confidence: float
) -> float:
    """Half width of a t interval whose variance is one item part plus one part per arm's seeds
    (Welch-Satterthwaite).

    Args:
        item_variance: variance of the estimate due to items, num_clusters - 1 degrees of freedom.
        seed_parts: per arm, (variance of its mean due to seeds, degrees of freedom); no freedom means not
            estimable, left out.
        num_clusters: items, or effective clusters of them.
    """
    parts = [(item_variance, num_clusters - 1), *seed_parts]
    total = sum(variance for variance, freedom in parts if freedom > 0)
    if total <= 0.0:
        return 0.0
    freedom = total**2 / sum(variance**2 / freedom for variance, freedom in parts if freedom > 0)
    return float(special.stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(total)


def decide(low: float, high: float, margin: float, higher_is_better: bool) -> Outcome:
    """win / loss when the interval of a difference lies wholly beyond the margin, else tie."""
    worst, best = low, high
    if not higher_is_better:
        worst, best = -high, -low
    if worst > margin:
        return "win"
    return "loss" if best < -margin else "tie"


def simultaneous_level(covariance: np.ndarray, reference: int, confidence: float) -> float:
    """The level that each interval of (arm - reference) needs for all to hold with probability `confidence`.

    It lies between `confidence` and Bonferroni's level.

    Args:
        covariance: of the arms' means [num_arms, num_arms].
        reference: number of the arm that all others are compared with.
    """
    differences = np.eye(len(covariance)) - np.eye(len(covariance))[reference]
    variance = np.einsum("ij,jk,ik->i", differences, covariance, differences)
    varying = variance > 1e-12 * np.trace(covariance)
    if varying.sum() < 2:
        return confidence
    roots, axes = np.linalg.eigh(covariance)
    scaled = differences[varying] / np.sqrt(variance[varying])[:, None]
    deviations = (scaled @ axes * np.sqrt(roots.clip(0))) @ _normals(len(roots))
    largest = np.abs(deviations).max(axis=0)
    level = 2 * float(special.ndtr(np.quantile(largest, confidence))) - 1
    return float(np.clip(level, confidence, 1 - (1 - confidence) / varying.sum()))


@cache
def _normals(num_rows: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num_rows, _NUM_NORMAL))
