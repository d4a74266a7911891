"""Rank the documents of a retrieval set with an encoder: every query becomes a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from adaptkit.data.beir import RetrievalSet
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.retrieval_metrics import DEPTH, ranked, retrieval_row

QUERY_BLOCK = 256


def retrieval_rows(
    encoder: Encoder, retrieval_set: RetrievalSet, dimensions: int = 0
) -> list[dict[str, Any]]:
    """Item rows of every query, ranked by the exact product of vectors; prompts `query` and `document` where
    there are any."""
    names, rows = list(retrieval_set.documents), []
    for query, scores_N in vector_scores(encoder, retrieval_set, dimensions):
        rows.append(retrieval_row(query, ranked(scores_N, names, DEPTH), retrieval_set.grades[query]))
    return rows


def vector_scores(
    encoder: Encoder, retrieval_set: RetrievalSet, dimensions: int = 0
) -> Iterator[tuple[str, np.ndarray]]:
    """Every query with the products [N] of its vector and the documents'."""
    prompts = {name: encoder.layout.prompt_if_any(name) for name in ("query", "document")}
    texts = list(retrieval_set.documents.values())
    documents_ND = encoder.encode_to_rank(texts, prompt=prompts["document"], dimensions=dimensions)
    queries, questions = list(retrieval_set.queries), list(retrieval_set.queries.values())
    queries_QD = encoder.encode_to_rank(questions, prompt=prompts["query"], dimensions=dimensions)
    for start in range(0, len(queries), QUERY_BLOCK):
        scores_QN = queries_QD[start : start + QUERY_BLOCK] @ documents_ND.T
        yield from zip(queries[start:], scores_QN, strict=False)
