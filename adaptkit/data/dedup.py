"""Remove rows that equal another row, or nearly equal it.

    dataset, report = deduplicate(dataset)

Near-duplicates share most runs of 5 words. They are found by MinHash (Broder 1997) with banding (Rajaraman &
Ullman, Mining of Massive Datasets, chapter 3), and compared by their signatures. Of a group of duplicates the
row with the smallest content hash stays, so the result does not depend on the order of rows; a real row stays
before a synthetic one.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from adaptkit.data.guesses import SYNTHETIC
from adaptkit.data.ngrams import hashed_texts, mix, run_hashes
from adaptkit.data.readers import Dataset, Row

SHINGLE = 5  # English words, or as much in scripts without blanks
# 128 hashes: pairs alike to 0.8 meet in some band with probability 0.95, pairs alike to 0.5 with 0.06
BANDS, BAND_ROWS = 16, 8
THRESHOLD = 0.75  # estimated Jaccard similarity from which two rows are near-duplicates
CHUNK_CHARACTERS = 1 << 18  # hashed at a time: their shingles take a quarter of a MiB and stay in cache
HIGH = np.uint64(32)  # bits that a signature leaves out


@dataclass(frozen=True)
class DedupReport:
    """What was removed, with examples.

    Attributes:
        num_rows, num_exact, num_near: rows looked at, and removed as equal or nearly equal to another.
        removed_bytes: UTF-8 bytes of text that went with them.
        num_conflicts: texts that stand with several labels or scores, each of which stays.
        examples: (`removed where`, `kept where`, `exact` or `near`), at most 20.
        conflicts: the places of each such text, at most 20.
    """

    num_rows: int
    num_exact: int
    num_near: int
    removed_bytes: int
    num_conflicts: int = 0
    examples: list[tuple[str, str, str]] = field(default_factory=list)
    conflicts: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """The numbers without the examples."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}

    @property
    def conflict_sentence(self) -> str:
        """What to know about texts with several labels; empty where there are none."""
        if not self.num_conflicts:
            return ""
        places = " and ".join(self.conflicts[0][:3])
        texts = "1 text stands" if self.num_conflicts == 1 else f"{self.num_conflicts:,} texts stand"
        return f"{texts} with different labels (for example {places}); all of these rows stay"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def deduplicate(dataset: Dataset, near: bool = True) -> tuple[Dataset, DedupReport]:
    """Remove rows whose text equals another's, blanks at the ends aside; with `near` also those nearly equal.

    Rows that say different things of a text, by their labels, scores or short answers, repeat nothing.
    """
    rows = sorted(dataset.rows, key=lambda row: (row.values.get("source") == SYNTHETIC, row.id, row.where))
    twin_of: dict[int, tuple[int, str]] = {}
    first: dict[bytes, int] = {}
    for number, row in enumerate(rows):
        key = hashlib.sha256(f"{row.text.strip()}\0{_verdict(row)}".encode()).digest()
        original = first.setdefault(key, number)
        if original != number:
            twin_of[number] = (original, "exact")
    if near:
        by_verdict: dict[str, list[int]] = defaultdict(list)
        for number in range(len(rows)):
            if number not in twin_of:
                by_verdict[_verdict(rows[number])].append(number)
        for alike in by_verdict.values():
            twins = near_duplicates([rows[number].text for number in alike])
            twin_of |= {alike[twin]: (alike[original], "near") for twin, original in twins.items()}
    removed = {id(rows[number]) for number in twin_of}
    return dataset.with_rows(row for row in dataset.rows if id(row) not in removed), _report(rows, twin_of)


def _verdict(row: Row) -> str:
    """What a row says of its text: its label or score, or an answer of fewer words than a shingle."""
    for role in ("label", "labels", "score", "fields"):
        if role in row.values:
            return f"{role} {row.values[role]}"
    if "spans" in row.values:  # by their words: offsets differ between texts that are nearly equal
        named = [(span["label"], row.text[span["start"] : span["end"]]) for span in row.values["spans"]]
        return f"spans {named}"
    words = str(row.values.get("completion", "")).casefold().split()
    return " ".join(words) if len(words) < SHINGLE else ""


def _report(rows: list[Row], twin_of: dict[int, tuple[int, str]]) -> DedupReport:
    kinds = [kind for _, kind in twin_of.values()]
    examples = [
        (rows[twin].where, rows[original].where, kind) for twin, (original, kind) in sorted(twin_of.items())
    ]
    size = sum(len(rows[n].text.encode()) for n in twin_of)
    conflicts = _conflicts(rows)
    return DedupReport(
        len(rows),
        kinds.count("exact"),
        kinds.count("near"),
        size,
        len(conflicts),
        examples[:20],
        conflicts[:20],
    )


def _conflicts(rows: list[Row]) -> list[tuple[str, ...]]:
    """The places of each text that stands with several labels or scores: one place for each of these."""
    said: dict[bytes, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if any(role in row.values for role in ("label", "labels", "score", "spans", "fields")):
            said[hashlib.sha256(row.text.strip().encode()).digest()].setdefault(_verdict(row), row.where)
    return [tuple(places.values()) for places in said.values() if len(places) > 1]


def near_duplicates(texts: list[str]) -> dict[int, int]:
    """Number of a later text -> number of the earlier text that it nearly equals, which is no twin itself.

    The signatures of texts that share a band with another are computed a second time, so that 64 bytes a
    text are all that is held of the rest.
    """
    numbers = _sharing_a_band(texts)
    signatures = minhash([texts[number] for number in numbers])
    twins: dict[int, int] = {}
    buckets: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(BANDS)]
    for place, signature in enumerate(signatures):
        keys = [signature[b * BAND_ROWS : (b + 1) * BAND_ROWS].tobytes() for b in range(BANDS)]
        candidates = sorted({other for b, key in enumerate(keys) for other in buckets[b].get(key, ())})
        if candidates:
            alike = (signatures[candidates] == signature).mean(axis=1)
            if alike.max() >= THRESHOLD:
                twins[numbers[place]] = numbers[candidates[int(alike.argmax())]]
                continue
        for b, key in enumerate(keys):
            buckets[b][key].append(place)
    return twins


def _sharing_a_band(texts: list[str]) -> list[int]:
    """Numbers of the texts of which a band of the signature is that of another text."""
    keys = np.empty((BANDS, len(texts)), np.uint32)
    for begin, signatures in _signatures(texts):
        bands = signatures.reshape(len(signatures), BANDS, BAND_ROWS)
        mixed = np.zeros(bands.shape[:2], np.uint64)
        for row in range(BAND_ROWS):
            mixed = mix(mixed ^ bands[:, :, row])
        keys[:, begin : begin + len(signatures)] = mixed.T >> HIGH
    shares = np.zeros(len(texts), bool)
    for band in keys:
        order = np.argsort(band, kind="stable")
        equal = band[order[1:]] == band[order[:-1]]
        shares[order[1:][equal]] = True
        shares[order[:-1][equal]] = True
    return np.flatnonzero(shares).tolist()


def minhash(texts: list[str]) -> np.ndarray:
    """uint32 [num_texts, BANDS * BAND_ROWS]: the smallest of each of 128 hashes over a text's word shingles.

    A text shorter than a shingle is one shingle; the share of equal entries of two rows estimates their
    Jaccard index.
    """
    parts = [part for _, part in _signatures(texts)]
    return np.concatenate([np.empty((0, BANDS * BAND_ROWS), np.uint32), *parts])


def _signatures(texts: list[str]) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first text, signatures) of one chunk of texts after the other."""
    numbers = np.arange(1, 2 * BANDS * BAND_ROWS + 1, dtype=np.uint64)
    keys = mix(numbers * np.uint64(0x9E3779B97F4A7C15)).reshape(2, -1)
    keys[1] |= np.uint64(1)
    begin = size = 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= CHUNK_CHARACTERS or number == len(texts) - 1:
            yield begin, _chunk_signatures(texts[begin : number + 1], begin, keys)
            begin, size = number + 1, 0


def _chunk_signatures(texts: list[str], begin: int, keys: np.ndarray) -> np.ndarray:
    words, ends = hashed_texts(texts)
    starts, _, shingles = run_hashes(words, SHINGLE, ends)
    firsts = np.searchsorted(starts, np.concatenate([np.zeros(1, np.int64), ends[:-1]]))
    has_words = np.diff(ends, prepend=0) > 0
    signatures = np.empty((len(texts), keys.shape[1]), np.uint32)
    if has_words.any():
        signatures[has_words] = _smallest(shingles, firsts[has_words], keys)
    wordless = np.flatnonzero(~has_words)  # unlike anything else
    if len(wordless):
        signatures[wordless] = _smallest((begin + wordless).astype(np.uint64), np.arange(len(wordless)), keys)
    return signatures


def _smallest(values: np.ndarray, starts: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The smallest of each hash over the values from each start to the next."""
    smallest = np.empty((len(starts), keys.shape[1]), np.uint32)
    hashed = np.empty_like(values)
    for column, (flip, factor) in enumerate(keys.T):
        np.bitwise_xor(values, flip, out=hashed)
        np.multiply(hashed, factor, out=hashed)
        smallest[:, column] = np.minimum.reduceat(hashed, starts) >> HIGH
    return smallest
