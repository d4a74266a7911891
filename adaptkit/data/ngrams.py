"""Hash runs of words (n-grams) to 64 bits, fast enough for whole corpora.

A word costs one dictionary look-up; the rest is numpy. Words are those of `adaptkit.data.words`. Two n-grams
collide with probability 2^-64.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from adaptkit.data.words import fold, has_blankless, units_per_word, words_as_written

_BASE = 0x9E3779B97F4A7C15 | 1  # odd: multiplication by it loses nothing modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)


class _Hashes(dict[str, int]):
    """word -> hash of the folded word, filled on first sight."""

    def __missing__(self, word: str) -> int:
        raw = hashlib.blake2b(fold(word).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = int.from_bytes(raw, "little")
        return self[word]


class _Units(dict[str, int]):
    """word -> words like it that hold as much as an English one, filled on first sight."""

    def __missing__(self, word: str) -> int:
        self[word] = units_per_word(word)
        return self[word]


_HASH, _UNITS = _Hashes(), _Units()
MAX_TABLE = 4_000_000  # words remembered; about 0.5 GB


@dataclass(frozen=True)
class HashedWords:
    """The words of a text.

    Attributes:
        hashes: uint64 [num_words].
        units: int64 [num_words], how many words like it hold as much as one English word (see
            `units_per_word`): a run of n English words is one of n * units words.
    """

    hashes: np.ndarray
    units: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def size(self) -> float:
        """How much text it is, in English words."""
        return float((1 / self.units).sum())


def hashed_words(text: str) -> HashedWords:
    """The words of `text` as hashes."""
    for table in (_HASH, _UNITS):
        if len(table) > MAX_TABLE:
            table.clear()
    words = words_as_written(text)
    hashes = np.fromiter(map(_HASH.__getitem__, words), np.uint64, len(words))
    units = np.ones(len(words), np.int64)
    if has_blankless(text):
        units = np.fromiter(map(_UNITS.__getitem__, words), np.int64, len(words))
    return HashedWords(hashes, units)


def ngram_hashes(words: np.ndarray, n: int) -> np.ndarray:
    """A hash of every run of n words, uint64 [num_words - n + 1]; empty when there are fewer.

    The polynomial of the words' hashes over the run, from running sums: its cost does not grow with n.
    """
    size = len(words) - n + 1
    if size <= 0:
        return np.empty(0, np.uint64)
    powers = np.cumprod(np.full(len(words), _BASE, np.uint64))
    inverses = np.cumprod(np.full(len(words), _INVERSE, np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words * inverses, dtype=np.uint64)])
    return mix((sums[n:] - sums[:-n]) * powers[n - 1 :])


def run_hashes(words: HashedWords, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every run of as much text as n English words hold: where it begins, how many words it has, its hash.

    How many words a run has follows from the script of its first one, so equal runs are found whatever stands
    around them. A text in which no run fits is one run.
    """
    starts, lengths = np.arange(len(words)), n * words.units
    fits = starts + lengths <= len(words)
    if not fits.any() and len(words):
        return starts[:1], np.full(1, len(words)), ngram_hashes(words.hashes, len(words))
    hashes = np.zeros(len(words), np.uint64)
    for length in np.unique(lengths[fits]).tolist():
        at = np.flatnonzero(fits & (lengths == length))
        hashes[at] = ngram_hashes(words.hashes, length)[at]
    return starts[fits], lengths[fits], hashes[fits]


def mix(values: np.ndarray) -> np.ndarray:
    """Spread 64-bit values (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Novelty:
    """Tells new text from text whose n-grams were seen before, and remembers what is new.

    A table of 2^25 flags stands for the set of 10-grams seen, so a million of them make 3 % of the others
    look seen.
    """

    N, SEEN = 10, 0.25  # English words; share of known n-grams from which a text is not new

    def __init__(self) -> None:
        self._flags = np.zeros(1 << 25, bool)

    def __call__(self, text: str) -> bool:
        slots = run_hashes(hashed_words(text), self.N)[2] >> np.uint64(64 - 25)
        if len(slots) and self._flags[slots].mean() >= self.SEEN:
            return False
        self._flags[slots] = True
        return True
