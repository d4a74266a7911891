"""Take out of training data what stands in a test: sentences of running text, or whole labelled rows.

    train, removals = cut_overlap(train, {"ticket": test_rows})
    removals["ticket"].num_bytes, removals["ticket"].by_source

A document loses the sentences that hold words of a run shared with a contaminated item. The rest of it
stays; where a cut lies in the middle, the parts become documents of their own, so that no sentence is
followed by one that it never stood before.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from adaptkit.data.drawing import sources_of, with_document_groups
from adaptkit.data.ngrams import hashed_words
from adaptkit.data.overlap import SHORTEST, OverlapReport, Probe
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.words import word_starts

_SMALL = "a-z\u00df-\u00f6\u00f8-\u00ff\u03ac-\u03ce\u0430-\u045f"
_THAI_LIKE = "\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1780-\u17d3"  # Lao, Burmese, Khmer
_SENTENCE_END = re.compile(
    "\\n+"
    f"|(?<=[.!?])[\"')\\]]*\\s+(?![{_SMALL}])"
    "|(?<=[\u061f\u06d4\u0964\u0965\u104b\u17d4\u17d5\u1362\u0f0d\u0589])\\s*"  # Arabic, Hindi, Khmer ...
    "|(?<=[\u3002\uff01\uff1f\uff0e\uff61])[\u300d\u300f\u201d\u2019\uff09]*"
    f"|(?<=[{_THAI_LIKE}])\\s+(?=[{_THAI_LIKE}])"
)
"""A line's end; or a full stop, blank and no small letter; in scripts with a full stop of their own that
alone; in Thai and its like, which have none, a blank."""


@dataclass(frozen=True)
class Removal:
    """What one test set took out of a training set.

    Attributes:
        report: the contaminated items.
        num_rows: training rows that lost something.
        whole_rows: they lost everything.
        by_source, by_label: UTF-8 bytes that went, by source and by label of the training row.
    """

    report: OverlapReport
    num_rows: int
    whole_rows: bool
    by_source: dict[str, int] = field(default_factory=dict)
    by_label: dict[str, int] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return sum(self.by_source.values())


def cut_overlap(train: Dataset, tests: Mapping[str, Sequence[Row]]) -> tuple[Dataset, dict[str, Removal]]:
    """Running text without the sentences that it shares with contaminated test items.

    A sentence that several tests share is counted for the first of them. What is left between two cuts stays
    from SHORTEST words on, or as much in scripts without blanks.
    """
    probe, ranges = _probe(train, tests)
    reports = {name: probe.report(numbers, name_rows=False) for name, numbers in ranges.items()}
    runs = {name: probe.runs_of(reports[name], ranges[name]) for name in tests}
    touched = set[str]().union(*(probe.holders(of) for of in runs.values()))
    source = sources_of(train.rows)
    lost = {name: Counter[str]() for name in tests}
    num_rows = Counter[str]()
    pieces: dict[str, list[str]] = {}
    for row in train.rows:
        if row.id not in touched:
            continue
        pieces[row.id], by_test = _cut(row.text, [probe.words_in(row.text, runs[name]) for name in tests])
        for name, size in zip(tests, by_test, strict=True):
            lost[name][source(row)] += size
            num_rows[name] += size > 0
    removals = {name: Removal(reports[name], num_rows[name], False, dict(+lost[name])) for name in tests}
    return with_document_groups(train, pieces), removals


def drop_overlap(train: Dataset, tests: Mapping[str, Sequence[Row]]) -> tuple[Dataset, dict[str, Removal]]:
    """Labelled rows without those that by themselves hold a tenth of a contaminated test item: a row is one
    passage, and its label belongs to all of it."""
    probe, ranges = _probe(train, tests)
    source = sources_of(train.rows)
    removals: dict[str, Removal] = {}
    gone: set[str] = set()
    for name, numbers in ranges.items():
        report = probe.report(numbers)
        going = set(report.train_ids) - gone
        rows = [row for row in train.rows if row.id in going]
        by_source, by_label = Counter[str](), Counter[str]()
        for row in rows:
            size = len(row.text.encode())
            by_source[source(row)] += size
            by_label.update(dict.fromkeys(row.labels, size))
        removals[name] = Removal(report, len(rows), True, dict(by_source), dict(by_label))
        gone |= {row.id for row in rows}
    return train.with_rows(row for row in train.rows if row.id not in gone), removals


def sentence_starts(text: str) -> list[int]:
    """Where each sentence of a text begins, in characters."""
    return [0, *(match.end() for match in _SENTENCE_END.finditer(text))]


def _probe(train: Dataset, tests: Mapping[str, Sequence[Row]]) -> tuple[Probe, dict[str, range]]:
    """All training rows against the items of all tests at once, and which numbers each test's items have."""
    ranges: dict[str, range] = {}
    items: list[Row] = []
    for name, rows in tests.items():
        ranges[name] = range(len(items), len(items) + len(rows))
        items += rows
    probe = Probe(items)
    for row in train.rows:
        probe.add(row)
    return probe, ranges


def _cut(text: str, marked: Sequence[np.ndarray]) -> tuple[list[str], list[int]]:
    """The pieces of a text that stay, and the bytes that went for each of several markings of its words."""
    starts = np.asarray(sentence_starts(text), np.int64)
    words = np.asarray(word_starts(text), np.int64)
    sentence_of = np.searchsorted(starts, words, side="right") - 1
    reason = np.full(len(starts), -1)  # the marking that a sentence goes for
    for number in reversed(range(len(marked))):
        reason[sentence_of[marked[number]]] = number
    size = np.bincount(sentence_of, 1 / hashed_words(text).units, minlength=len(starts))
    ends = np.append(starts[1:], len(text))
    pieces: list[str] = []
    lost = [0] * len(marked)
    edges = np.flatnonzero(np.diff(reason >= 0)) + 1
    for part in np.split(np.arange(len(starts)), edges):
        if reason[part[0]] < 0 and size[part].sum() >= SHORTEST:
            pieces.append(text[starts[part[0]] : ends[part[-1]]].strip())
        for sentence in part[reason[part] >= 0]:
            lost[reason[sentence]] += len(text[starts[sentence] : ends[sentence]].encode())
    rest = len(text.encode()) - sum(lost) - sum(len(piece.encode()) for piece in pieces)
    lost[int(np.argmax(lost))] += rest  # blanks, and what was too short to stay
    return pieces, lost
