"""Hash runs of words (n-grams) to 64 bits, fast enough for whole corpora.

Words are those of `adaptkit.data.words`. Those in ASCII are hashed letter by letter, in numpy; others cost
one dictionary look-up. Two n-grams collide with probability 2^-64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from adaptkit.data.words import fold, is_plain, units_per_word, words_as_written

_BASE = 0x9E3779B97F4A7C15 | 1  # odd: multiplication by it loses nothing modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)


def mix(values: np.ndarray) -> np.ndarray:
    """Spread 64-bit values (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_BYTE = mix(np.arange(1, 257, dtype=np.uint64) * np.uint64(_BASE))
"""A random number for each byte: a word's hash is their polynomial."""
_FOLDED_BYTE = _BYTE[[ord(chr(byte).lower()) for byte in range(128)]]
_BLOCK = 1 << 18  # characters hashed at a time
_LAST = 0xFFFF  # no character: stands for all beyond it


class Runs:
    """Hashes of runs over a row of numbers, from running sums: the cost does not grow with their length.

    The hash of a run is the polynomial of its numbers, so it does not depend on where the run stands.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self._powers = _powers(_BASE, len(numbers))
        summands = numbers * _powers(_INVERSE, len(numbers))
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(summands, dtype=np.uint64)])

    def __call__(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The hash of the run that begins at each of `starts`; no run is empty."""
        ends = starts + lengths
        return mix((self._sums[ends] - self._sums[starts]) * self._powers[ends - 1])


@lru_cache(maxsize=40)
def _powers_up_to(base: int, num: int) -> np.ndarray:
    return np.cumprod(np.full(num, base, np.uint64))


def _powers(base: int, num: int) -> np.ndarray:
    """The first `num` powers of `base` modulo 2^64, from 1 on; those of usual lengths are remembered."""
    if num > 2 * _BLOCK:
        return _powers_up_to.__wrapped__(base, num)
    return _powers_up_to(base, max(1 << 10, 1 << (num - 1).bit_length()))[:num]


class _Hashes(dict[str, int]):
    """word -> hash of the folded word's UTF-8, filled on first sight."""

    def __missing__(self, word: str) -> int:
        raw = np.frombuffer(fold(word).encode("utf-8", "surrogatepass"), np.uint8)
        self[word] = int(Runs(_BYTE[raw])(np.zeros(1, np.int64), np.full(1, len(raw)))[0]) if len(raw) else 0
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
    return hashed_texts([text])[0]


def hashed_texts(texts: Sequence[str]) -> tuple[HashedWords, np.ndarray]:
    """The words of all texts in a row, and where those of each text end, int64 [num_texts]."""
    for table in (_HASH, _UNITS):
        if len(table) > MAX_TABLE:
            table.clear()
    text = "\n".join(texts)
    codes = _codes(text)
    spans = _special_spans(codes)
    in_word = _in_word()[codes]
    for begin, end in spans:
        in_word[begin:end] = False
    edges = np.flatnonzero(np.diff(in_word, prepend=False, append=False))
    starts, stops = edges[::2], edges[1::2]
    hashes, units = _hashed_plain(text, codes, starts, stops), np.ones(len(starts), np.int64)
    if spans:
        words = [words_as_written(text[begin:end]) for begin, end in spans]
        flat = [word for part in words for word in part]
        begins = np.repeat([begin for begin, _ in spans], [len(part) for part in words])
        places = np.searchsorted(starts, begins)
        starts = np.insert(starts, places, begins)
        hashes = np.insert(hashes, places, np.fromiter(map(_HASH.__getitem__, flat), np.uint64, len(flat)))
        units = np.insert(units, places, np.fromiter(map(_UNITS.__getitem__, flat), np.int64, len(flat)))
    text_ends = np.cumsum([len(part) + 1 for part in texts], dtype=np.int64) - 1
    return HashedWords(hashes, units), np.searchsorted(starts, text_ends)


def _codes(text: str) -> np.ndarray:
    """The characters of a text as numbers: uint8 where all are ASCII, else uint16, at most `_LAST`."""
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return np.minimum(codes, _LAST).astype(np.uint16)


def _special_spans(codes: np.ndarray) -> list[tuple[int, int]]:
    """Where runs without blanks stand whose words are other than their runs of letters and digits."""
    if codes.dtype == np.uint8:
        return []
    at = np.flatnonzero(_is_special()[codes])
    if not len(at):
        return []
    blanks = np.concatenate([[-1], np.flatnonzero(codes <= ord(" ")), [len(codes)]])
    after = np.unique(np.searchsorted(blanks, at))
    return list(zip((blanks[after - 1] + 1).tolist(), blanks[after].tolist(), strict=True))


def _hashed_plain(text: str, codes: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Hashes of the words at these places, uint64 [num_words]: those in ASCII letter by letter, in numpy."""
    hashes = np.empty(len(starts), np.uint64)
    first = 0
    while first < len(starts):
        begin = starts[first]
        last = max(first + 1, int(np.searchsorted(stops, begin + _BLOCK, side="right")))
        block = Runs(_FOLDED_BYTE[codes[begin : stops[last - 1]] & 127])
        hashes[first:last] = block(starts[first:last] - begin, (stops - starts)[first:last])
        first = last
    if codes.dtype != np.uint8:
        foreign = np.concatenate([np.zeros(1, np.int64), np.cumsum(codes > 127)])
        for number in np.flatnonzero(foreign[stops] > foreign[starts]).tolist():
            hashes[number] = _HASH[text[starts[number] : stops[number]]]
    return hashes


@cache
def _is_special() -> np.ndarray:
    """bool [65536]: whether a character makes words other than runs of letters and digits.

    The last one stands for all that do not fit in 16 bits.
    """
    special = np.array([not is_plain(chr(code)) for code in range(_LAST + 1)])
    special[_LAST] = True
    return special


@cache
def _in_word() -> np.ndarray:
    """bool [65536]: whether a character of plain text is part of words."""
    return np.array([chr(code).isalnum() or code == ord("_") for code in range(_LAST + 1)])


def span_hashes(words: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The hash of the run of `lengths` words at each of `starts`, uint64 [num_runs]; no run is empty."""
    return Runs(words)(starts, lengths)


def ngram_hashes(words: np.ndarray, n: int) -> np.ndarray:
    """A hash of every run of n words, uint64 [num_words - n + 1]; empty when there are fewer."""
    size = len(words) - n + 1
    if size <= 0:
        return np.empty(0, np.uint64)
    return span_hashes(words, np.arange(size), np.full(size, n))


def run_hashes(
    words: HashedWords, n: int, ends: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every run of as much text as n English words hold: where it begins, how many words it has, its hash.

    How many words a run has follows from the script of its first one, so equal runs are found whatever stands
    around them. A text in which no run fits is one run.

    Args:
        ends: where each of several texts ends (see `hashed_texts`); no run crosses from one to the next.
    """
    ends = np.asarray([len(words)]) if ends is None else ends
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    sizes = ends - begins
    starts, lengths = np.arange(len(words)), n * words.units
    fits = starts + lengths <= np.repeat(ends, sizes)
    num_fitting = np.concatenate([np.zeros(1, np.int64), np.cumsum(fits)])
    whole = (sizes > 0) & (num_fitting[ends] == num_fitting[begins])
    lengths[begins[whole]] = sizes[whole]
    fits[begins[whole]] = True
    starts, lengths = starts[fits], lengths[fits]
    return starts, lengths, span_hashes(words.hashes, starts, lengths)


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
