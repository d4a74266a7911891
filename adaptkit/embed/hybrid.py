"""Search by words and by vectors at once: BM25 and an encoder, fused in the way that finds best.

    fusion, tried = choose_fusion(encoder, development_set, "ndcg_at_10")
    rows = hybrid_rows(encoder, test_set, fusion)

Which way of fusing is best (`embed.fusion`) is asked on development questions. Shape letters: N documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from adaptkit.data.beir import RetrievalSet
from adaptkit.data.bm25 import Bm25, content_terms
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.fusion import FUSIONS, Fusion
from adaptkit.embed.retrieval import vector_scores
from adaptkit.embed.retrieval_metrics import PER_QUERY, ranked, retrieval_row

FEWEST = 3
"""Ways that are tried whatever the budget says: words alone, reciprocal ranks, both alike."""


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
