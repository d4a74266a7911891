"""How far apart two sets of texts are: words, pairs of words, and what chance would show.

Both sets are passages drawn by content hash, as many of each, so that amounts do not differ. Intervals come
from drawing documents again (bootstrap): value +- 1.96 standard deviations of the replicates. `chance` is
what the same measure shows when the same documents are dealt to both sides at random (200 deals): two samples
of one source are never quite alike, and small samples less so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.data.drawing import draw_passages, sources_of
from adaptkit.data.ngrams import hashed_words, ngram_hashes
from adaptkit.data.readers import DataConfig, read
from adaptkit.notices import silent

READ_BYTES = 32_000_000
"""Text that is held of each side while its files stream by; whole rows, sampled by hash."""
NUM_WORDS = 1000
"""Most frequent words of each side that overlap is counted among."""
TABLE_SIZE = 8192
"""Words, or pairs of words, that are counted."""
DEALS = 200
Z = 1.96


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval over documents."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Distance:
    """How far two sides are apart.

    Attributes:
        chance: the mean over random deals of the same documents.
        beyond: further apart than 95 % of the deals.
    """

    estimate: Estimate
    chance: float
    beyond: bool


@dataclass(frozen=True)
class Passages:
    """Passages of one side.

    Attributes:
        texts: in the order that they were drawn in.
        documents: the number of the document that each belongs to.
        sources: of each.
        num_rows, num_bytes: read from the files.
    """

    texts: list[str]
    documents: np.ndarray
    sources: list[str]
    num_rows: int
    num_bytes: int
    sampled: bool = False

    @property
    def num_documents(self) -> int:
        return len(set(self.documents.tolist()))

    def first(self, size: int) -> Passages:
        """The first `size` of them."""
        return Passages(
            self.texts[:size],
            self.documents[:size],
            self.sources[:size],
            self.num_rows,
            self.num_bytes,
            self.sampled,
        )


def draw_side(files: Sequence[str], size: int) -> Passages:
    """Read files and draw at most `size` passages by hash, one of every document before any gives a second.

    Raises: DataError for files without a row that can be used.
    """
    config = DataConfig(files=list(files), on_bad_row="skip", max_bytes=READ_BYTES)
    dataset = read(config, tell=silent)
    drawn = draw_passages(dataset, size).rows
    numbers: dict[str, int] = {}
    documents = [numbers.setdefault(row.cluster, len(numbers)) for row in drawn]
    source = sources_of(drawn)
    rows = dataset.num_sampled_from or len(dataset.rows)
    return Passages(
        [row.text for row in drawn],
        np.array(documents),
        [source(row) for row in drawn],
        rows,
        dataset.num_bytes,
        dataset.num_sampled_from > 0,
    )


def by_document(values: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Sums over the passages of each document, [documents, ...]."""
    names, numbers = np.unique(documents, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, numbers, values)
    return sums


def replicates(num_documents: int, number: int = 400, seed: int = 0) -> np.ndarray:
    """How often each document is drawn in each replicate, [number, documents]."""
    rng = np.random.default_rng(seed)
    shares = np.full(num_documents, 1 / num_documents)
    return rng.multinomial(num_documents, shares, size=number).astype(float)


def estimate(value: float, drawn: np.ndarray) -> Estimate:
    """A value with the spread of its replicates."""
    spread = Z * float(drawn.std())
    return Estimate(value, value - spread, value + spread)


@dataclass(frozen=True)
class Sides:
    """Sums of one kind by document, for both sides, and how they are compared.

    Attributes:
        domain, general: [documents, columns].
        compare: weighted sums [..., columns] of both sides -> distance [...].
    """

    domain: np.ndarray
    general: np.ndarray
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def distance(self) -> Distance:
        """The distance, its interval, and what chance would show."""
        value = float(self.compare(self.domain.sum(0)[None], self.general.sum(0)[None])[0])
        first = replicates(len(self.domain), DEALS, seed=1) @ self.domain
        second = replicates(len(self.general), DEALS, seed=2) @ self.general
        dealt = self._deals()
        interval = estimate(value, self.compare(first, second))
        return Distance(interval, float(dealt.mean()), value > float(np.quantile(dealt, 0.95)))

    def _deals(self) -> np.ndarray:
        """The distance where the documents of both sides are dealt out at random."""
        both = np.concatenate([self.domain, self.general])
        rng = np.random.default_rng(0)
        chosen = np.zeros((DEALS, len(both)))
        for deal in chosen:
            deal[rng.permutation(len(both))[: len(self.domain)]] = 1.0
        return self.compare(chosen @ both, (1.0 - chosen) @ both)


def divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of counts [..., columns] in bits: 0 for equal shares, 1 for none shared."""
    p = first / np.maximum(first.sum(-1, keepdims=True), 1e-12)
    q = second / np.maximum(second.sum(-1, keepdims=True), 1e-12)
    return (_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2).clip(0.0, 1.0)


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -(shares * np.log2(np.maximum(shares, 1e-300))).sum(-1)


def unshared_words(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Share of the NUM_WORDS most frequent words of one side that are not among those of the other."""
    tops = [_most_frequent(side) for side in (first, second)]
    sizes = np.minimum(tops[0].sum(-1), tops[1].sum(-1))
    return 1 - (tops[0] & tops[1]).sum(-1) / np.maximum(sizes, 1)


def _most_frequent(counts: np.ndarray) -> np.ndarray:
    """Which columns are among the most frequent ones that occur at all, [..., columns]."""
    size = min(NUM_WORDS, counts.shape[-1])
    order = np.argsort(-counts, axis=-1, kind="stable")[..., :size]
    top = np.zeros(counts.shape, bool)
    np.put_along_axis(top, order, True, axis=-1)
    return top & (counts > 0)


def compare_words(domain: Passages, general: Passages) -> tuple[Distance, Distance]:
    """Vocabulary that is not shared, and the divergence of pairs of words."""
    single, pairs = (_counts((domain, general), n) for n in (1, 2))
    vocabulary = Sides(single[0], single[1], unshared_words)
    return vocabulary.distance(), Sides(pairs[0], pairs[1], divergence).distance()


def _counts(sides: tuple[Passages, Passages], n: int) -> list[np.ndarray]:
    """Counts of the TABLE_SIZE runs of n words that are most frequent on both sides together, [documents,
    runs]."""
    hashes = [[ngram_hashes(hashed_words(text).hashes, n) for text in side.texts] for side in sides]
    runs, numbers = np.unique(np.concatenate([np.concatenate(side) for side in hashes]), return_counts=True)
    frequent = np.sort(runs[np.argsort(-numbers, kind="stable")[:TABLE_SIZE]])
    tables = []
    for side, texts in zip(sides, hashes, strict=True):
        counts = np.zeros((len(texts), len(frequent)))
        for row, text in zip(counts, texts, strict=True):
            at = np.searchsorted(frequent, text).clip(max=len(frequent) - 1)
            np.add.at(row, at[frequent[at] == text], 1.0)
        tables.append(by_document(counts, side.documents))
    return tables


def ratio(
    above: np.ndarray, below: np.ndarray, documents: np.ndarray, seed: int = 0
) -> tuple[Estimate, np.ndarray]:
    """Sum of one value over the sum of another (tokens per byte, bits per byte), and its replicates."""
    parts = by_document(np.stack([above, below], axis=1).astype(float), documents)
    drawn = replicates(len(parts), seed=seed) @ parts
    values = drawn[:, 0] / np.maximum(drawn[:, 1], 1e-12)
    return estimate(float(above.sum() / max(below.sum(), 1e-12)), values), values
