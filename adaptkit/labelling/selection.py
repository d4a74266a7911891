"""Choose rows for people to label: those that a model is unsure of, and that are unlike each other.

uncertainty   the smallest margin between the two likeliest labels (Scheffer et al. 2001, IDA)
diversity     greedy k-centres: each row the farthest from all that are labelled or chosen (Sener and
              Savarese, arXiv 1708.00489)
both          BADGE (Ash et al., arXiv 1906.03671): k-means++ over the gradients that each row would give a
              linear head if its likeliest label were true; they are long where the model is unsure, and
              differ in direction where the rows or their labels do. Unlike there, no gradient at all is a
              centre from the start: rows of many words are all about equally far from each other, and then
              rows that the model is sure of would be drawn as often as others
random        the control

Shape suffixes: N = rows to choose from, M = labelled rows, D = features, C = labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    Vectors: TypeAlias = csr_matrix | np.ndarray

Strategy = Literal["both", "uncertainty", "diversity", "random"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
CHUNK_ROWS = 256
"""Labelled rows that are compared with all others at once."""


@dataclass(frozen=True)
class Pool:
    """Rows to choose from.

    Attributes:
        vectors_ND: features of each row, as a sparse matrix or an array.
        labelled_MD: the same of the rows that are labelled.
        chances_NC: a model's probabilities of the labels; None where none has been trained yet.
    """

    vectors_ND: Vectors
    labelled_MD: Vectors
    chances_NC: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.vectors_ND.shape[0])


def select(strategy: Strategy, pool: Pool, count: int, seed: int) -> list[int]:
    """Places of the rows to label, the first to be labelled first; all where there are no more than `count`.

    The same seed chooses the same rows; ties are broken by it.
    Raises: ValueError for a strategy that asks how sure a model is, without probabilities.
    """
    rng = np.random.default_rng(seed)
    count = min(count, len(pool))
    if strategy == "random":
        return [int(place) for place in rng.permutation(len(pool))[:count]]
    if strategy == "diversity":
        return _k_centres(pool, count, rng)
    if pool.chances_NC is None:
        raise ValueError(f"'{strategy}' needs a model's probabilities")
    if strategy == "uncertainty":
        order = np.lexsort((rng.permutation(len(pool)), margins(pool.chances_NC)))
        return [int(place) for place in order[:count]]
    return _badge(pool.vectors_ND, pool.chances_NC, count, rng)


def margins(chances_NC: np.ndarray) -> np.ndarray:
    """Probability of the likeliest label minus that of the next [N]: small where a model is unsure."""
    ordered_NC = np.sort(chances_NC, axis=1)
    margins_N: np.ndarray = ordered_NC[:, -1] - ordered_NC[:, -2]
    return margins_N


def _k_centres(pool: Pool, count: int, rng: np.random.Generator) -> list[int]:
    order = rng.permutation(len(pool))  # of equally far rows, the first in it
    lengths_N = _square_lengths(pool.vectors_ND)
    nearest_N = np.full(len(pool), np.inf)
    labelled_M = _square_lengths(pool.labelled_MD)
    for start in range(0, len(labelled_M), CHUNK_ROWS):
        products_NB = _dense(pool.vectors_ND @ pool.labelled_MD[start : start + CHUNK_ROWS].T)
        apart_NB = lengths_N[:, None] + labelled_M[start : start + CHUNK_ROWS] - 2 * products_NB
        nearest_N = np.minimum(nearest_N, apart_NB.min(axis=1))
    chosen: list[int] = []
    for _ in range(count):
        place = int(order[nearest_N[order].argmax()])
        chosen.append(place)
        apart_N = lengths_N + lengths_N[place] - 2 * _products(pool.vectors_ND, place)
        nearest_N = np.minimum(nearest_N, apart_N)
        nearest_N[chosen] = -np.inf
    return chosen


def _badge(vectors_ND: Vectors, chances_NC: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """K-means++ over outer products of `p - onehot(argmax p)` and the features.

    They are never made: the product of two is the product of the first factors times that of the second.
    """
    rows = np.arange(len(chances_NC))
    errors_NC = chances_NC.copy()
    errors_NC[rows, chances_NC.argmax(axis=1)] -= 1.0
    lengths_N = (errors_NC**2).sum(axis=1) * _square_lengths(vectors_ND)
    nearest_N = lengths_N  # from no gradient at all
    chosen: list[int] = []
    left_N = np.ones(len(rows), bool)
    for _ in range(count):
        weight_N = np.where(left_N, np.maximum(nearest_N, 0.0), 0.0)
        if weight_N.sum() <= 0:  # all that are left repeat a chosen row
            weight_N = left_N.astype(float)
        place = int(rng.choice(rows, p=weight_N / weight_N.sum()))
        chosen.append(place)
        left_N[place] = False
        products_N = (errors_NC @ errors_NC[place]) * _products(vectors_ND, place)
        nearest_N = np.minimum(nearest_N, lengths_N + lengths_N[place] - 2 * products_N)
    return chosen


def _products(vectors_ND: Vectors, place: int) -> np.ndarray:
    """Of every row with one of them [N]."""
    row = vectors_ND[place]
    return _dense(vectors_ND @ row.T).ravel()


def _square_lengths(vectors_ND: Vectors) -> np.ndarray:
    if isinstance(vectors_ND, np.ndarray):
        lengths_N: np.ndarray = (vectors_ND**2).sum(axis=1)
        return lengths_N
    return np.asarray(vectors_ND.multiply(vectors_ND).sum(axis=1)).ravel()


def _dense(product: Vectors) -> np.ndarray:
    return product if isinstance(product, np.ndarray) else product.toarray()
