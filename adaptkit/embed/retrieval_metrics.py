"""Retrieval metrics per query, with trec_eval's definitions and its order of equal scores. Imports no torch.

An item row holds what they are computed from: the ranks (from 1) at which relevant documents came, their
grades, and the grades of all relevant documents of the query.

    {"id": "q1", "hits": [1, 7], "grades": [1, 1], "relevant": [2, 1, 1], "ranking": ["d3", "d9", ...]}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

DEPTH = 1000
"""Ranks that count: what trec_eval's runs hold."""
SHOWN = 10
"""Documents of a ranking that a row names."""

Row = Mapping[str, Any]


def retrieval_row(query: str, ranking: Sequence[str], grades: Mapping[str, int]) -> dict[str, Any]:
    """The item row of a query whose documents were ranked; grades above 0 are relevant."""
    hits = [(rank, grades[name]) for rank, name in enumerate(ranking[:DEPTH], 1) if grades.get(name, 0) > 0]
    return {
        "id": query,
        "hits": [rank for rank, _ in hits],
        "grades": [grade for _, grade in hits],
        "relevant": sorted((grade for grade in grades.values() if grade > 0), reverse=True),
        "ranking": list(ranking[:SHOWN]),
    }


def ranked(scores: np.ndarray, names: Sequence[str], depth: int = DEPTH) -> list[str]:
    """The best `depth` names, as `ranked_places` orders them."""
    return [names[place] for place in ranked_places(scores, names, depth)]


def ranked_places(scores: np.ndarray, names: Sequence[str], depth: int = DEPTH) -> list[int]:
    """Places of the best `depth` names, highest score first, equal scores in descending order of name as
    trec_eval breaks ties.

    Args:
        scores: float [num_names].
    """
    candidates = np.arange(len(scores))
    if len(scores) > depth:
        least = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        candidates = np.flatnonzero(scores >= least)
    by_name = sorted(candidates.tolist(), key=lambda i: names[i], reverse=True)
    order = np.argsort(-scores[by_name], kind="stable")
    return [by_name[i] for i in order[:depth]]


def ndcg(row: Row, k: int = 10) -> float:
    """Discounted gain of the first k ranks over the best possible one (Jarvelin and Kekalainen 2002); gains
    are grades."""
    hits = zip(row["hits"], row["grades"], strict=True)
    gain = sum(grade / np.log2(rank + 1) for rank, grade in hits if rank <= k)
    best = sum(grade / np.log2(rank + 1) for rank, grade in enumerate(row["relevant"][:k], 1))
    if not best:
        return 0.0
    return float(gain / best)


def recall(row: Row, k: int) -> float:
    """Share of the relevant documents that the first k ranks hold."""
    if not row["relevant"]:
        return 0.0
    return sum(rank <= k for rank in row["hits"]) / len(row["relevant"])


def reciprocal_rank(row: Row, k: int = 10) -> float:
    """One over the rank of the first relevant document, 0 if it comes after rank k."""
    first = next(iter(row["hits"]), math.inf)
    return 1 / first if first <= k else 0.0


def average_precision(row: Row) -> float:
    """Mean over the relevant documents of the precision at their ranks, 0 for those beyond `DEPTH`."""
    if not row["relevant"]:
        return 0.0
    precisions = (count / rank for count, rank in enumerate(row["hits"], 1))
    return sum(precisions) / len(row["relevant"])


PER_QUERY: dict[str, Callable[[Row], float]] = {
    "ndcg_at_10": ndcg,
    "mrr_at_10": reciprocal_rank,
    "map": average_precision,
    "recall_at_10": lambda row: recall(row, 10),
    "recall_at_100": lambda row: recall(row, 100),
}


def retrieval_scores(rows: Sequence[Row]) -> dict[str, float]:
    """Means over queries."""
    if not rows:
        return {}
    return {name: float(np.mean([score(row) for row in rows])) for name, score in PER_QUERY.items()}
