"""Word counts as features: what baselines without a language model learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adaptkit.data.words import index_terms

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer


def word_counts() -> TfidfVectorizer:
    """TF-IDF of single words and of neighbours, in any script."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        ngram_range=(1, 2),
        sublinear_tf=True,
        max_features=100_000,
        lowercase=False,  # the words come folded
        tokenizer=index_terms,
        token_pattern=None,
    )


class PairCounts:
    """Word counts of two texts side by side: each one's, what they share, and where they differ."""

    def __init__(self) -> None:
        self._counts = word_counts()

    def fit(self, pairs: Sequence[tuple[str, str]]) -> PairCounts:
        """Learn the words of both sides."""
        self._counts.fit([text for pair in pairs for text in pair])
        return self

    def transform(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """A sparse row of features for each pair."""
        from scipy.sparse import csr_matrix, hstack

        first, second = (self._counts.transform([pair[side] for pair in pairs]) for side in (0, 1))
        shared = first.multiply(second)
        alike = csr_matrix(shared.sum(axis=1))
        return hstack([first - second, abs(first - second), shared, alike], format="csr")
