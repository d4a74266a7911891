"""The first of two stages of a search: words, or words and vectors, rank all documents, and a reranker reads
the first of them again.

    first = choose_first_stage(development_set, "ndcg_at_10", encoder)
    candidates = first.candidates(searched, depth=50)        # query id -> ids of documents, best first

Shape letters: N documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptkit.data.beir import RetrievalSet
from adaptkit.data.bm25 import Bm25, content_terms
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.fusion import FUSIONS, WORDS, Fusion
from adaptkit.embed.hybrid import both_scores, choose_fusion
from adaptkit.embed.retrieval_metrics import ranked


@dataclass(frozen=True)
class FirstStage:
    """How all documents are ranked for a query.

    Attributes:
        encoder: gives the vectors; None where words alone rank.
    """

    fusion: Fusion = WORDS
    encoder: Encoder | None = None

    def scores(self, searched: RetrievalSet) -> Iterator[tuple[str, np.ndarray]]:
        """Every query with the scores [N] of the documents."""
        if self.encoder is None:
            index = Bm25(list(searched.documents.values()))
            for query, text in searched.queries.items():
                yield query, index.scores(content_terms(text))
            return
        for query, words_N, vectors_N in both_scores(self.encoder, searched):
            yield query, self.fusion.scores(words_N, vectors_N)

    def candidates(self, searched: RetrievalSet, depth: int) -> dict[str, list[str]]:
        """Query id -> ids of its first `depth` documents, best first."""
        names = list(searched.documents)
        return {query: ranked(scores_N, names, depth) for query, scores_N in self.scores(searched)}

    def __str__(self) -> str:
        if self.encoder is None:
            return "words (BM25)"
        weight = "" if self.fusion.weight is None else f", {self.fusion.weight:g} of the vectors'"
        return f"words (BM25) and vectors, {self.fusion.way}{weight}"

    def as_json(self) -> dict[str, Any]:
        return {"name": str(self), **self.fusion.as_json()}


def choose_first_stage(
    development: RetrievalSet, metric: str, encoder: Encoder | None, most: int = len(FUSIONS)
) -> FirstStage:
    """Words, or words and vectors fused: whichever ranks development queries best; of equal ones words.

    Args:
        encoder: gives the vectors; None asks words alone.
        most: ways that may be tried.
    """
    if encoder is None:
        return FirstStage()
    fusion, _ = choose_fusion(encoder, development, metric, most)
    return FirstStage() if fusion == WORDS else FirstStage(fusion, encoder)
