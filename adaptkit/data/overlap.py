"""Find test items that stand in the training text, by shared runs of 13 words, and remove them.

    report = overlap(train, test)
    test = remove_overlap(test, report)  # or: train = remove_overlap(train, report, side="train")

The n-grams of the (small) test side are held in memory and the training side streams past them, so the cost
is one pass over the training text. 13-word runs: Brown et al. 2020, arXiv 2005.14165, appendix C. Scripts
without blanks are compared in runs that hold as much: 26 Han or kana, 52 letters of Thai and its like.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from adaptkit.data.ngrams import (
    HashedWords,
    hashed_texts,
    hashed_words,
    mix,
    ngram_hashes,
    run_hashes,
    span_hashes,
)
from adaptkit.data.readers import Dataset, Row

NGRAM_WORDS = 13
SHORTEST = 8
"""English words, or as much in scripts without blanks: items from here to NGRAM_WORDS are looked for whole,
shorter ones only as a whole training row."""
COVERED = 0.1  # share of an item's words in shared runs from which it counts as contaminated
FILTER_BITS = 24
CHUNK_CHARACTERS = 1 << 20  # looked up at a time


@dataclass(frozen=True)
class OverlapReport:
    """Which test items stand in the training text, and which training rows hold them.

    Attributes:
        contaminated: ids of test items of which at least a tenth of the words lie in shared runs.
        num_touched: items that share any run at all; stock phrases ("written informed consent was obtained
            from ...") put most long documents here, and they are not removed for it.
        train_ids: training rows that by themselves cover a tenth of some contaminated item.
        examples: `where` of up to 20 contaminated items with the share covered.
    """

    num_test_items: int
    contaminated: list[str]
    num_touched: int
    train_ids: list[str]
    examples: list[tuple[str, float]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Contaminated share of the test items."""
        return len(self.contaminated) / max(1, self.num_test_items)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values; ids are counted, not listed."""
        return {
            "num_test_items": self.num_test_items,
            "num_contaminated": len(self.contaminated),
            "num_touched": self.num_touched,
            "num_train_rows": len(self.train_ids),
            "share": self.share,
            "examples": self.examples,
        }


def overlap(train: Dataset | Iterable[Row], test: Dataset, n: int = NGRAM_WORDS) -> OverlapReport:
    """Compare every test item with all training text.

    Args:
        n: English words in a run, or as much in scripts without blanks; at least 8.
    """
    probe = Probe(test.rows, max(n, SHORTEST))
    for row in train.rows if isinstance(train, Dataset) else train:
        probe.add(row)
    return probe.report(range(len(test.rows)))


def remove_overlap(
    dataset: Dataset, report: OverlapReport, side: Literal["test", "train"] = "test"
) -> Dataset:
    """Return `dataset` without the test items (or the training rows) that `report` names."""
    ids = set(report.contaminated if side == "test" else report.train_ids)
    return dataset.with_rows(row for row in dataset.rows if row.id not in ids)


@dataclass(frozen=True)
class _Item:
    """The runs of a test item.

    Attributes:
        starts, lengths, hashes: of each run: its first word, its words, its hash.
        short: so little text that only a whole training row counts.
    """

    starts: np.ndarray
    lengths: np.ndarray
    hashes: np.ndarray
    num_words: int
    short: bool = False


def _item(row: Row, n: int) -> _Item:
    words = hashed_words(row.text)
    if words.size < SHORTEST:
        starts, lengths = _all_of(words)
        return _Item(starts, lengths, _whole(words.hashes, starts, lengths), len(words), True)
    if words.size < n:
        whole = ngram_hashes(words.hashes, len(words))
        return _Item(np.zeros(1, np.int64), np.full(1, len(words)), whole, len(words))
    return _Item(*run_hashes(words, n), len(words))


class Probe:
    """The test side's n-grams, and which of them the training rows hold."""

    def __init__(self, items: Sequence[Row], n: int = NGRAM_WORDS):
        self._item_rows = items
        self._items = [_item(row, n) for row in items]
        self._lengths = sorted(
            {int(length) for item in self._items if not item.short for length in np.unique(item.lengths)}
        )
        hashes = [item.hashes for item in self._items]
        self._ngrams = np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))
        self._filter = np.zeros(1 << FILTER_BITS, bool)
        self._filter[self._slots(self._ngrams)] = True
        self._hit = np.zeros(len(self._ngrams), bool)
        self._rows: list[tuple[str, np.ndarray]] = []
        self._pending: list[Row] = []
        self._pending_characters = 0

    def add(self, row: Row) -> None:
        """Look for the test items in a training row, together with the rows of its chunk."""
        self._pending.append(row)
        self._pending_characters += len(row.text)
        if self._pending_characters >= CHUNK_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        """Look up a chunk of training rows at once, without runs that cross from one row to the next."""
        if not self._pending:
            return
        words, ends = hashed_texts([row.text for row in self._pending])
        begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        english_words = np.concatenate([np.zeros(1), np.cumsum(1 / words.units)])
        sizes = english_words[ends] - english_words[begins]
        short = np.flatnonzero((sizes > 0) & (sizes < SHORTEST))
        hits = [self._hits(_whole(words.hashes, begins[short], (ends - begins)[short]), short)]
        owner = np.repeat(np.arange(len(ends)), ends - begins)
        for length in self._lengths:
            hashes = ngram_hashes(words.hashes, length)
            inside = np.arange(len(hashes)) + length <= ends[owner[: len(hashes)]]
            hits.append(self._hits(hashes, owner, inside))
        owners, numbers = (np.concatenate(column) for column in zip(*hits, strict=True))
        self._hit[numbers] = True
        order = np.argsort(owners, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
            if len(part):
                self._rows.append((self._pending[int(owners[part[0]])].id, np.unique(numbers[part])))
        self._pending, self._pending_characters = [], 0

    def _hits(
        self, hashes: np.ndarray, owner: np.ndarray, inside: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(training row, number of the test side's n-gram) of each hash that the test side has."""
        at = np.flatnonzero(self._filter[self._slots(hashes)])
        if inside is not None:
            at = at[inside[at]]
        if not len(at) or not len(self._ngrams):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        place = np.minimum(np.searchsorted(self._ngrams, hashes[at]), len(self._ngrams) - 1)
        equal = self._ngrams[place] == hashes[at]
        return owner[at[equal]], place[equal]

    @staticmethod
    def _slots(hashes: np.ndarray) -> np.ndarray:
        return hashes >> np.uint64(64 - FILTER_BITS)

    def report(self, numbers: Sequence[int], *, name_rows: bool = True) -> OverlapReport:
        """What the training rows added so far hold of the items with these numbers.

        Args:
            name_rows: find the training rows that hold a tenth of an item, which takes as long again.
        """
        self._flush()
        covered = {i: self._covered(i, self._hit) for i in numbers}
        bad = [i for i, share in covered.items() if share >= COVERED]
        return OverlapReport(
            num_test_items=len(numbers),
            contaminated=[self._item_rows[i].id for i in bad],
            num_touched=sum(share > 0 for share in covered.values()),
            train_ids=self._offenders(bad) if name_rows else [],
            examples=[(self._item_rows[i].where, round(covered[i], 3)) for i in bad[:20]],
        )

    def runs_of(self, report: OverlapReport, numbers: Sequence[int]) -> np.ndarray:
        """bool [num_ngrams]: the runs of a report's contaminated items, which are among `numbers`."""
        contaminated = set(report.contaminated)
        runs = np.zeros(len(self._ngrams), bool)
        for i in numbers:
            if self._item_rows[i].id in contaminated:
                runs[np.searchsorted(self._ngrams, self._items[i].hashes)] = True
        return runs

    def holders(self, runs: np.ndarray) -> set[str]:
        """Ids of the training rows that hold any of these runs."""
        self._flush()
        return {row_id for row_id, numbers in self._rows if runs[numbers].any()}

    def words_in(self, text: str, runs: np.ndarray) -> np.ndarray:
        """bool [num_words]: the words of a training text that lie in these runs."""
        words = hashed_words(text)
        marks = np.zeros(len(words) + 1, np.int64)
        everywhere = np.arange(len(words))
        if 0 < words.size < SHORTEST:
            _, numbers = self._hits(_whole(words.hashes, *_all_of(words)), everywhere[:1])
            return np.full(len(words), bool(runs[numbers].any()))
        for length in self._lengths:
            at, numbers = self._hits(ngram_hashes(words.hashes, length), everywhere)
            at = at[runs[numbers]]
            np.add.at(marks, at, 1)
            np.add.at(marks, at + length, -1)
        return np.cumsum(marks)[: len(words)] > 0

    def _covered(self, number: int, hit: np.ndarray) -> float:
        """Share of the item's words that lie in hit n-grams."""
        item = self._items[number]
        if not len(item.hashes):
            return 0.0
        matched = hit[np.searchsorted(self._ngrams, item.hashes)]
        if item.short:
            return float(matched[0])
        marks = np.zeros(item.num_words + 1, np.int64)
        np.add.at(marks, item.starts[matched], 1)
        np.add.at(marks, (item.starts + item.lengths)[matched], -1)
        return float((np.cumsum(marks)[: item.num_words] > 0).mean())

    def _offenders(self, bad: list[int]) -> list[str]:
        """Ids of the training rows that alone make one of the `bad` items contaminated."""
        items_of: dict[int, list[int]] = defaultdict(list)
        for item in bad:
            for number in np.unique(np.searchsorted(self._ngrams, self._items[item].hashes)):
                items_of[int(number)].append(item)
        offenders = []
        for row_id, numbers in self._rows:
            candidates = Counter(item for number in numbers for item in items_of.get(int(number), ()))
            if not candidates:
                continue
            hit = np.zeros(len(self._ngrams), bool)
            hit[numbers] = True
            if any(self._covered(item, hit) >= COVERED for item, _ in candidates.most_common()):
                offenders.append(row_id)
        return offenders


def _whole(words: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The hash of each short item as a whole, unlike any n-gram's, uint64 [num_items]."""
    return mix(span_hashes(words, starts, lengths) + lengths.astype(np.uint64))


def _all_of(words: HashedWords) -> tuple[np.ndarray, np.ndarray]:
    """Where a text's one run begins and how many words it has; none for a text without words."""
    num_runs = min(1, len(words))
    return np.zeros(num_runs, np.int64), np.full(num_runs, len(words))
