"""Search by words and by vectors at once: BM25 and an encoder, fused in the way that finds best.

    fusion, tried = choose_fusion(encoder, development_set, "ndcg_at_10")
    rows = hybrid_rows(encoder, test_set, fusion)

Ways are reciprocal ranks (Cormack et al. 2009) and weighted sums of scores, each question's brought between 0
and 1; words alone and vectors alone are two of them. Which is best is asked on development questions. Shape
letters: N documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from adaptkit.data.beir import RetrievalSet
from adaptkit.data.bm25 import Bm25, content_terms
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.retrieval import vector_scores
from adaptkit.embed.retrieval_metrics import PER_QUERY, ranked, retrieval_row

FUSING = 60
"""A document at rank r of a ranking adds 1 / (FUSING + r)."""
WEIGHTS = (0.5, 0.3, 0.7, 0.1, 0.9, 0.2, 0.8, 0.4, 0.6, 1.0)
"""Of the vectors' scores, in the order in which they are tried; the words' have the rest."""
FEWEST = 3
"""Ways that are tried whatever the budget says: words alone, reciprocal ranks, both alike."""


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


def choose_fusion(
    encoder: Encoder, development: RetrievalSet, metric: str, most: int = len(FUSIONS)
) -> tuple[Fusion, list[dict[str, Any]]]:
    """Find the way of fusing that scores best on development questions.

    Args:
        most: settings that an arm may try.
    Returns: it, and every way with its mean score.
    """
    score, names = PER_QUERY[metric], list(development.documents)
    found: dict[Fusion, list[float]] = {fusion: [] for fusion in FUSIONS[: max(FEWEST, most)]}
    for query, words_N, vectors_N in both_scores(encoder, development):
        for fusion, values in found.items():
            ranking = ranked(fusion.scores(words_N, vectors_N), names)
            values.append(score(retrieval_row(query, ranking, development.grades[query])))
    means = {fusion: float(np.mean(values)) if values else 0.0 for fusion, values in found.items()}
    best = max(means, key=lambda fusion: means[fusion])  # the first of equal ones
    return best, [{**fusion.as_json(), metric: mean} for fusion, mean in means.items()]


def hybrid_rows(encoder: Encoder, searched: RetrievalSet, fusion: Fusion) -> list[dict[str, Any]]:
    """Item rows of every query, ranked by both."""
    names = list(searched.documents)
    return [
        retrieval_row(query, ranked(fusion.scores(words_N, vectors_N), names), searched.grades[query])
        for query, words_N, vectors_N in both_scores(encoder, searched)
    ]


def both_scores(encoder: Encoder, searched: RetrievalSet) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Every query with the scores [N] that words and vectors give the documents."""
    index = Bm25(list(searched.documents.values()))
    for query, vectors_N in vector_scores(encoder, searched):
        yield query, index.scores(content_terms(searched.queries[query])), vectors_N


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
