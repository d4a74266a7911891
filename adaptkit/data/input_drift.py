"""Whether texts that come in are still like those that were learnt from, at a known rate of false alarms.

    reference = Reference.of(training_rows)
    for window in windows(served_rows, 200):
        drift = reference.compare(window)
        drift.alarm, [(sign.name, sign.p) for sign in drift.signs]

The reference is cut into two halves of whole documents. One is the profile: three numbers say how far a set
of texts lies from it (which words it uses, how many of its words the profile lacks, how long texts are). The
other half stands beside the window: if nothing has changed, the window's texts and those are exchangeable, so
each number is held against what it is when the texts of both are dealt out at random (Fisher's permutation
test). Its p is exact at any size. An alarm is the smallest of the three, times three, at or below the rate
that is wanted. Of rows of one `group`, and of equal texts, one is dealt: several are not independent, and
more text lies closer to any profile than less.

Shape letters: N documents, V columns of words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.data.drawing import draw_hash
from adaptkit.data.readers import Row
from adaptkit.data.text_shift import divergence
from adaptkit.data.words import words
from adaptkit.errors import DataError

NUM_WORDS = 1024
"""Most frequent words of the profile that are told apart; the others are counted as one."""
MOST_DOCUMENTS = 1000
"""Of the half that stands beside a window."""
MIN_DOCUMENTS = 40
"""Of each half, and of a window: fewer show nothing but great changes."""
DEALS = 999
SHOWN_WORDS = 6
FALSE_ALARMS = 0.01
WORDS, UNKNOWN, LENGTH = "words", "unknown words", "length"


@dataclass(frozen=True)
class Sign:
    """One number of a window.

    Attributes:
        value, expected: in the window, and on average where texts are dealt at random: bits of divergence,
            share of words, or words of a text (geometric mean).
        p: how often a random deal lies as far from the profile.
    """

    name: str
    value: float
    expected: float
    p: float


@dataclass(frozen=True)
class Drift:
    """One window against the reference.

    Attributes:
        first, last: where its first and its last text stand, `file:line`.
        p: the smallest of the signs' times their number, 1 at most.
        more, fewer: words that it uses more, or less, than the profile, those that tell most first.
    """

    first: str
    last: str
    num_texts: int
    num_documents: int
    signs: tuple[Sign, ...]
    p: float
    alarm: bool
    more: tuple[str, ...]
    fewer: tuple[str, ...]


def windows(rows: Sequence[Row], size: int) -> tuple[list[Sequence[Row]], int]:
    """Rows in windows of `size`, by time where every row has one, else as they stand.

    Returns: the windows, and how many rows at the end are left out: fewer than half a window.
    """
    ordered = list(rows)
    if all("time" in row.values for row in rows):
        ordered.sort(key=lambda row: row.values["time"])
    parts = [ordered[first : first + size] for first in range(0, len(ordered), size)]
    if len(parts) > 1 and len(parts[-1]) < size / 2:
        return list(parts[:-1]), len(parts[-1])
    return list(parts), 0


class Reference:
    """What windows are held against.

    Attributes:
        num_profile, num_beside: documents of the two halves.
    """

    def __init__(self, profile: Sequence[Sequence[Row]], beside: Sequence[Row]):
        counted: Counter[str] = Counter()
        for document in profile:
            for row in document:
                counted.update(words(row.text))
        self.known = set(counted)
        self.names = [word for word, _ in counted.most_common(NUM_WORDS)]
        self._places = {word: place for place, word in enumerate(self.names)}
        self.num_profile, self.num_beside = len(profile), len(beside)
        self._profile_V = np.sum([self._sums(document).sum(axis=0) for document in profile], axis=0)
        self._beside_NV = self._sums(beside)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Reference:
        """Both halves, by the hash of what each document is.

        Raises: DataError for too few documents.
        """
        documents = _documents(rows)
        if len(documents) < 2 * MIN_DOCUMENTS:
            what = f"{len(documents)} documents, and a reference needs {2 * MIN_DOCUMENTS}"
            raise DataError(
                what, where=rows[0].file if rows else None, fix="give more text to hold it against"
            )
        order = sorted(documents, key=draw_hash)
        half = len(order) // 2
        parts = order[:half], order[half : half + MOST_DOCUMENTS]
        profile, beside = ([documents[name] for name in part] for part in parts)
        return cls(profile, [_one(document) for document in beside])

    def _sums(self, rows: Sequence[Row]) -> np.ndarray:
        """Of each row [N, V]: counts of each word, of others, of unknown ones; log-lengths; texts."""
        sums_NV = np.zeros((len(rows), len(self.names) + 4))
        for own_V, row in zip(sums_NV, rows, strict=True):
            found = words(row.text)
            for word in found:
                own_V[self._places.get(word, len(self.names))] += 1
            own_V[-3:] = sum(word not in self.known for word in found), np.log1p(len(found)), 1
        return sums_NV

    def _distances(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """The three numbers of sets of texts, given their sums [..., V]."""
        counted = sums[..., :-3]
        return {
            WORDS: divergence(counted, self._profile_V[:-3]),
            UNKNOWN: sums[..., -3] / np.maximum(counted.sum(axis=-1), 1),
            LENGTH: sums[..., -2] / np.maximum(sums[..., -1], 1),
        }

    def compare(self, rows: Sequence[Row], *, rate: float = FALSE_ALARMS, seed: int = 0) -> Drift:
        """A window's numbers with their p.

        Args:
            rate: of false alarms that is wanted, between 3 / 1000 and 1.
        Raises: DataError for a window of too few different texts.
        """
        documents = [_one(document) for document in _documents(rows).values()]
        if len(documents) < MIN_DOCUMENTS:
            what = f"{len(documents)} different texts, and a window needs {MIN_DOCUMENTS}"
            raise DataError(what, where=rows[0].where, fix="wait for more, or take larger windows")
        own_NV = self._sums(documents)
        both_NV = np.concatenate([own_NV, self._beside_NV])
        rng = np.random.default_rng(seed)
        chosen = np.zeros((DEALS, len(both_NV)))
        for deal in chosen:
            deal[rng.permutation(len(both_NV))[: len(documents)]] = 1.0
        found, dealt = self._distances(own_NV.sum(axis=0)), self._distances(chosen @ both_NV)
        signs = [self._sign(name, float(found[name]), dealt[name]) for name in found]
        p = min(1.0, len(signs) * min(sign.p for sign in signs))
        more, fewer = self._telling(own_NV.sum(axis=0))
        where = rows[0].where, rows[-1].where
        return Drift(*where, len(rows), len(documents), tuple(signs), p, p <= rate, more, fewer)

    def _sign(self, name: str, value: float, dealt: np.ndarray) -> Sign:
        """Divergence only grows with change; the others may rise or fall, from the middle of all deals.

        The middle is the same for all orders of the same texts, so the test stays exact.
        """
        if name == WORDS:
            p = (1 + int((dealt >= value - 1e-12).sum())) / (1 + len(dealt))
        else:
            middle = (float(dealt.sum()) + value) / (1 + len(dealt))
            p = (1 + int((np.abs(dealt - middle) >= abs(value - middle) - 1e-12).sum())) / (1 + len(dealt))
        expected = float(dealt.mean())
        if name == LENGTH:
            value, expected = float(np.expm1(value)), float(np.expm1(expected))
        return Sign(name, value, expected, p)

    def _telling(self, sums_V: np.ndarray) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Words by how much of the divergence is theirs."""
        own = sums_V[: len(self.names)] / max(sums_V[:-3].sum(), 1)
        profile = self._profile_V[: len(self.names)] / max(self._profile_V[:-3].sum(), 1)
        middle = np.maximum((own + profile) / 2, 1e-12)
        part = (_bits(own, middle) + _bits(profile, middle)) / 2
        order = [int(place) for place in np.argsort(-part, kind="stable")]
        more = [self.names[place] for place in order if own[place] > profile[place]]
        fewer = [self.names[place] for place in order if own[place] < profile[place]]
        return tuple(more[:SHOWN_WORDS]), tuple(fewer[:SHOWN_WORDS])


def _bits(shares: np.ndarray, middle: np.ndarray) -> np.ndarray:
    return shares * np.log2(np.maximum(shares, 1e-300) / middle)


def _one(document: Sequence[Row]) -> Row:
    """One row of a document, by hash."""
    return min(document, key=lambda row: draw_hash(row.id))


def _documents(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by what they belong to; those without a group by their text."""
    documents: dict[str, list[Row]] = {}
    for row in rows:
        documents.setdefault(str(row.values.get("group") or row.text), []).append(row)
    return documents
