"""Rank texts by the words that they share with a question: BM25 (Robertson and Zaragoza 2009).

    index = Bm25(texts)
    index.scores(content_terms("how is the fever treated?"))     float [num_texts]

k1 1.5, b 0.75, English stop words, no stemming; words in any script (`adaptkit.data.words`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from adaptkit.data.words import index_terms

# Importing bm25s starts JAX where that is installed: it takes three quarters of the GPU's memory and starts
# threads and CUDA in a process that stages are forked from, whose own CUDA then hangs. It works without.
_WITHOUT_JAX = "jax" not in sys.modules
if _WITHOUT_JAX:
    sys.modules["jax"] = None  # type: ignore[assignment]
try:
    import bm25s
    from bm25s.stopwords import STOPWORDS_EN
finally:
    if _WITHOUT_JAX:
        del sys.modules["jax"]


def content_terms(text: str) -> list[str]:
    """The words of a text that a search looks at, English stop words left out."""
    return [word for word in index_terms(text) if word not in STOPWORDS_EN]


class Bm25:
    """An index of texts."""

    def __init__(self, texts: Sequence[str]):
        terms = [content_terms(text) for text in texts]
        self._num_texts, self._empty = len(terms), not any(terms)
        self._index = bm25s.BM25()
        if not self._empty:
            self._index.index(terms, show_progress=False)

    def scores(self, terms: Sequence[str]) -> np.ndarray:
        """How well each text fits these words, float [num_texts]; 0 for all where there is nothing to look
        for."""
        if self._empty or not terms:
            return np.zeros(self._num_texts)
        scores: np.ndarray = self._index.get_scores(list(terms))
        return scores
