"""Hash runs of words (n-grams) to 64 bits, fast enough for whole corpora.

A word costs one dictionary look-up; the rest is numpy. Words are runs of letters, digits and underscores,
lower-cased. Two n-grams collide with probability 2^-64.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np

_WORD = re.compile(r"\w+")
_DOTTED_I = "\u0130"  # the one letter that lower-casing makes longer, which would shift the places of words
_BASE = 0x9E3779B97F4A7C15 | 1  # odd: multiplication by it loses nothing modulo 2^64


class _Table(dict[str, int]):
    """word -> hash, filled on first sight."""

    def __missing__(self, word: str) -> int:
        raw = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = int.from_bytes(raw, "little")
        return self[word]


_HASH = _Table()
MAX_TABLE = 4_000_000  # words remembered; about 0.5 GB


def word_hashes(text: str) -> np.ndarray:
    """A hash of each word of `text`, uint64 [num_words]."""
    if len(_HASH) > MAX_TABLE:
        _HASH.clear()
    words = _WORD.findall(_lower(text))
    return np.fromiter(map(_HASH.__getitem__, words), np.uint64, len(words))


def word_starts(text: str) -> np.ndarray:
    """Where each word of `text` begins, in characters, int64 [num_words]."""
    return np.fromiter((match.start() for match in _WORD.finditer(_lower(text))), np.int64)


def _lower(text: str) -> str:
    """Lower case, as many characters as before."""
    return text.replace(_DOTTED_I, "i").lower()


def ngram_hashes(words: np.ndarray, n: int) -> np.ndarray:
    """A hash of every run of n words, uint64 [num_words - n + 1]; empty when there are fewer."""
    size = len(words) - n + 1
    if size <= 0:
        return np.empty(0, np.uint64)
    total = np.zeros(size, np.uint64)
    base = np.uint64(_BASE)
    for k in range(n):
        total = total * base + words[k : k + size]
    return mix(total)


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

    N, SEEN = 10, 0.25  # words; share of known n-grams from which a text is not new

    def __init__(self) -> None:
        self._flags = np.zeros(1 << 25, bool)

    def __call__(self, text: str) -> bool:
        words = word_hashes(text)
        slots = ngram_hashes(words, min(self.N, max(1, len(words)))) >> np.uint64(64 - 25)
        if len(slots) and self._flags[slots].mean() >= self.SEEN:
            return False
        self._flags[slots] = True
        return True
