"""Search in two stages: a reranker reads again what the first stage found, and both scores make the order.

    read = read_again(reranker, first, searched, depth=50)
    share = choose_share(read_on_development, development, "ndcg_at_10")
    rows = two_stage_rows(read, searched, share)

How much the reranker's score counts is asked on development queries: a small one is a better judge beside the
first stage than alone. Shape letters: K documents that are read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptkit.data.beir import RetrievalSet
from adaptkit.embed.cross_encoder import CrossEncoder
from adaptkit.embed.first_stage import FirstStage
from adaptkit.embed.fusion import Fusion
from adaptkit.embed.retrieval_metrics import DEPTH, PER_QUERY, ranked, retrieval_row

SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
"""What the reranker's scores may count, the first stage's the rest, each query's brought between 0 and 1; of
equally good ones the first is taken."""


@dataclass(frozen=True)
class ReadAgain:
    """What both stages say of one query's documents.

    Attributes:
        names: ids of those that were read again, as the first stage ranks them.
        first_K, second_K: scores of both stages.
        rest: ids of the others, as the first stage ranks them.
    """

    query: str
    names: list[str]
    first_K: np.ndarray
    second_K: np.ndarray
    rest: list[str]

    def ranking(self, share: float) -> list[str]:
        """All ids, best first."""
        scores_K = Fusion("weighted", share).scores(self.first_K, self.second_K)
        return [*ranked(scores_K, self.names), *self.rest]


def read_again(
    reranker: CrossEncoder, first: FirstStage, searched: RetrievalSet, depth: int
) -> list[ReadAgain]:
    """Rank all documents for every query, and score the first `depth` of them again."""
    names, read = list(searched.documents), []
    places = {name: place for place, name in enumerate(names)}
    for query, scores_N in first.scores(searched):
        ranking = ranked(scores_N, names, max(DEPTH, depth))
        again = ranking[:depth]
        second_K = reranker.scores([(searched.queries[query], searched.documents[name]) for name in again])
        first_K = scores_N[[places[name] for name in again]]
        read.append(ReadAgain(query, again, first_K, second_K, ranking[depth:]))
    return read


def two_stage_rows(read: Sequence[ReadAgain], searched: RetrievalSet, share: float) -> list[dict[str, Any]]:
    """Item rows of every query; those of the first stage alone at a share of 0."""
    return [retrieval_row(each.query, each.ranking(share), searched.grades[each.query]) for each in read]


def choose_share(read: Sequence[ReadAgain], searched: RetrievalSet, metric: str) -> float:
    """The share of the reranker's scores that ranks development queries best."""
    score = PER_QUERY[metric]

    def mean(share: float) -> float:
        return float(np.mean([score(row) for row in two_stage_rows(read, searched, share)] or [0.0]))

    return max(SHARES, key=mean)  # the first of equal ones
