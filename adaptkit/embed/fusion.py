"""One ranking of two: words' scores (BM25) and vectors' scores of the same texts, fused. Imports no torch.

Ways are reciprocal ranks (Cormack et al. 2009) and weighted sums of scores, each question's brought between 0
and 1; words alone and vectors alone are two of them. Shape letters: N texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

FUSING = 60
"""A document at rank r of a ranking adds 1 / (FUSING + r)."""
WEIGHTS = (0.5, 0.3, 0.7, 0.1, 0.9, 0.2, 0.8, 0.4, 0.6, 1.0)
"""Of the vectors' scores, in the order in which they are tried; the words' have the rest."""


@dataclass(frozen=True)
class Fusion:
    """One way to make one ranking of two.

    Attributes:
        weight: of the vectors' scores; None for reciprocal ranks, which take both alike.
    """

    way: Literal["weighted", "reciprocal rank"]
    weight: float | None = None

    def scores(self, words_N: np.ndarray, vectors_N: np.ndarray) -> np.ndarray:
        """Score each document by both."""
        if self.weight is None:
            return _reciprocal_ranks(words_N, least=0.0) + _reciprocal_ranks(vectors_N, least=-np.inf)
        return (1 - self.weight) * _between_0_and_1(words_N) + self.weight * _between_0_and_1(vectors_N)

    def as_json(self) -> dict[str, Any]:
        return {"fusion": self.way, "weight": self.weight}


WORDS = Fusion("weighted", 0.0)
"""Words alone."""
FUSIONS = (WORDS, Fusion("reciprocal rank"), *(Fusion("weighted", weight) for weight in WEIGHTS))
"""What is tried, in this order; of equal ones the first is taken, and words alone stand first."""


def _reciprocal_ranks(scores_N: np.ndarray, least: float) -> np.ndarray:
    """Give each document 1 / (FUSING + its rank); those that do not score above `least` get nothing."""
    order = np.argsort(-scores_N, kind="stable")
    parts_N = np.empty(len(scores_N))
    parts_N[order] = 1 / (FUSING + np.arange(1, len(scores_N) + 1))
    return np.where(scores_N > least, parts_N, 0.0)


def _between_0_and_1(scores_N: np.ndarray) -> np.ndarray:
    """Bring a question's scores between 0 and 1; all 0 where they are equal."""
    scores_N = scores_N.astype(np.float64)
    low, high = scores_N.min(initial=np.inf), scores_N.max(initial=-np.inf)
    if not high > low:
        return np.zeros(len(scores_N))
    return (scores_N - low) / (high - low)
