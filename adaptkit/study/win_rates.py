"""Who wins how often, from votes on pairs: Bradley and Terry's model (Biometrika 39, 1952), with intervals.

    for row in win_rates(comparisons_of(votes, "voter")): row.model, row.rate, row.low, row.high

A model of strength s beats another of s' with probability 1 / (1 + exp(s' - s)); a tie is half a win of both.
Strengths are those of greatest likelihood, a logistic regression. A model's rate is what it would win against
each of the others in equal numbers, so that one that met weak ones only is not flattered.

Votes of one voter, or on one prompt, are not independent: intervals are a bootstrap of whole clusters. Where
no resample could say anything else (somebody won every vote), the interval is Wilson's for as many votes as
there are clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from adaptkit.study.vote_record import Choice, Vote

Cluster = Literal["voter", "prompt"]
FEWEST_VOTERS = 10
"""From so many on, voters are the clusters; below, a bootstrap of them is too narrow."""
DRAWS = 500
CERTAIN = 1.96
"""Normal quantile of a 95 % interval."""
RIDGE = 1e-4
"""Keeps strengths finite where somebody won every vote: a pull to 0 that is as small as this many votes."""


@dataclass(frozen=True)
class Comparisons:
    """Votes as numbers.

    Attributes:
        models: by name, in order.
        sides_V2: for each vote the places of both models.
        won_V: what the first one got of it: 1, 0, or a half for a tie.
        clusters_V: the number of the cluster that each vote belongs to.
        cluster: what the clusters are.
    """

    models: tuple[str, ...]
    sides_V2: np.ndarray
    won_V: np.ndarray
    clusters_V: np.ndarray
    cluster: Cluster

    @property
    def connected(self) -> bool:
        """Whether votes lead from each model to every other: otherwise their strengths share no scale."""
        num = len(self.models)
        met = coo_array((np.ones(len(self.won_V)), self.sides_V2.T), shape=(num, num))
        return int(connected_components(met, directed=False)[0]) == 1

    @property
    def num_clusters(self) -> int:
        return len(np.unique(self.clusters_V))


@dataclass(frozen=True)
class WinRate:
    """What one model wins, of 1.

    Attributes:
        against: the other model; empty for all others in equal numbers.
        votes: that it took part in.
    """

    model: str
    against: str
    rate: float
    low: float
    high: float
    votes: int


def comparisons_of(votes: Sequence[Vote], cluster: Cluster | None = None) -> Comparisons:
    """Number the models and clusters of some votes.

    Args:
        cluster: None takes voters where there are ten or more, else prompts.
    """
    voters = [vote.voter for vote in votes]
    if cluster is None:
        cluster = "voter" if len(set(voters)) >= FEWEST_VOTERS else "prompt"
    labels = voters if cluster == "voter" else [vote.prompt for vote in votes]
    names = sorted({answer.model for vote in votes for answer in (vote.first, vote.second)})
    sides = [(names.index(vote.first.model), names.index(vote.second.model)) for vote in votes]
    points = {Choice.FIRST: 1.0, Choice.SECOND: 0.0}
    won = [points.get(vote.choice, 0.5) for vote in votes]
    clusters = np.unique(np.array(labels), return_inverse=True)[1] if votes else np.array([], int)
    return Comparisons(tuple(names), np.array(sides, int).reshape(-1, 2), np.array(won), clusters, cluster)


def strengths(compared: Comparisons, weights_V: np.ndarray | None = None) -> np.ndarray:
    """Strengths of all models, whose sum is 0, by maximum likelihood (`RIDGE` aside).

    Args:
        weights_V: how often each vote counts; once where left out.
    """
    from sklearn.linear_model import LogisticRegression  # late: the demo writes votes without it

    weights_V = np.ones(len(compared.won_V)) if weights_V is None else weights_V
    num, (first_V, second_V) = len(compared.models), compared.sides_V2.T
    wins_MM = np.zeros((num, num))
    np.add.at(wins_MM, (first_V, second_V), weights_V * compared.won_V)
    np.add.at(wins_MM, (second_V, first_V), weights_V * (1 - compared.won_V))
    winner_K, loser_K = np.nonzero(wins_MM)
    design_KM = np.eye(num)[winner_K] - np.eye(num)[loser_K]
    half_K = wins_MM[winner_K, loser_K] / 2  # each win stands twice, won and lost: the fit needs both classes
    model = LogisticRegression(C=1 / RIDGE, fit_intercept=False, solver="newton-cholesky", max_iter=200)
    truth_K = np.repeat([1, 0], len(half_K))
    model.fit(np.concatenate([design_KM, -design_KM]), truth_K, np.concatenate([half_K, half_K]))
    return np.asarray(model.coef_[0] - model.coef_[0].mean())


def win_rates(compared: Comparisons, *, seed: int = 0) -> list[WinRate]:
    """What every model wins against all others, the best first, then each pair that was voted on."""
    found_R = _rates(strengths(compared))
    clusters, places = np.unique(compared.clusters_V, return_inverse=True)
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        counts = np.bincount(rng.integers(len(clusters), size=len(clusters)), minlength=len(clusters))
        weights_V = counts[places].astype(float)
        drawn.append(_rates(strengths(compared, weights_V)))
    low_R, high_R = np.quantile(drawn, (0.025, 0.975), axis=0)
    rows = []
    for place, (model, against) in enumerate(_asked(len(compared.models))):
        took_V = _took_part(compared, model, against)
        if not took_V.any() or (against is None and not compared.connected):
            continue
        rate, low, high = float(found_R[place]), float(low_R[place]), float(high_R[place])
        if high - low < 1e-3:
            low, high = wilson(rate, len(np.unique(compared.clusters_V[took_V])))
        other = "" if against is None else compared.models[against]
        rows.append(WinRate(compared.models[model], other, rate, low, high, int(took_V.sum())))
    return sorted(rows, key=lambda row: (row.against != "", -row.rate))


def wilson(rate: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` trials (Wilson 1927)."""
    squared = CERTAIN**2
    centre = (rate + squared / (2 * count)) / (1 + squared / count)
    half = CERTAIN / (1 + squared / count) * np.sqrt(rate * (1 - rate) / count + squared / (4 * count**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _asked(num_models: int) -> list[tuple[int, int | None]]:
    """Each model against all others, then each pair once."""
    pairs: list[tuple[int, int | None]] = [(model, None) for model in range(num_models)]
    return pairs + [(a, b) for a in range(num_models) for b in range(a + 1, num_models)]


def _rates(strengths_M: np.ndarray) -> np.ndarray:
    """The rates of `_asked`."""
    beats_MM = 1 / (1 + np.exp(strengths_M[None, :] - strengths_M[:, None]))
    num = len(strengths_M)
    mean_M = (beats_MM.sum(axis=1) - 0.5) / (num - 1)
    return np.concatenate([mean_M, beats_MM[np.triu_indices(num, 1)]])


def _took_part(compared: Comparisons, model: int, against: int | None) -> np.ndarray:
    mine_V = (compared.sides_V2 == model).any(axis=1)
    if against is None:
        return mine_V
    return mine_V & (compared.sides_V2 == against).any(axis=1)
