"""Overlap of test items with training text: shared runs of 13 words, counted, named and removable.

    report = overlap(train, test)
    test = remove_overlap(test, report)               # or: train = remove_overlap(train, report,
    side="train")

The n-grams of the (small) test side are held in memory and the training side streams past them, so the cost
is one pass over the training text. 13-word runs: Brown et al. 2020, arXiv 2005.14165, appendix C.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from adaptkit.data.ngrams import mix, ngram_hashes, word_hashes
from adaptkit.data.readers import Dataset, Row

NGRAM_WORDS, SHORTEST = (
    13,
    8,
)  # items of 8 to 12 words are looked for whole; shorter ones only as a whole training row
COVERED = 0.1  # share of an item's words in shared runs from which it counts as contaminated
FILTER_BITS = 24
CHUNK_WORDS = 1 << 18


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
        n: words in a run; at least 8.
    """
    probe = _Probe(test.rows, max(n, SHORTEST))
    for row in train.rows if isinstance(train, Dataset) else train:
        probe.add(row)
    return probe.report(test.rows)


def remove_overlap(
    dataset: Dataset, report: OverlapReport, side: Literal["test", "train"] = "test"
) -> Dataset:
    """`dataset` without the test items (or the training rows) that `report` names."""
    ids = set(report.contaminated if side == "test" else report.train_ids)
    return dataset.with_rows(row for row in dataset.rows if row.id not in ids)


class _Probe:
    """The test side's n-grams, and which of them the training rows hold."""

    def __init__(self, items: list[Row], n: int):
        self.n = n
        self._items: list[
            tuple[np.ndarray, int, int]
        ] = []  # hashes, words a hash stands for, words in the item
        for row in items:
            words = word_hashes(row.text)
            size = n if len(words) >= n else len(words)
            whole_row = size < SHORTEST
            self._items.append(
                (
                    _whole(words) if whole_row else ngram_hashes(words, size),
                    0 if whole_row else size,
                    len(words),
                )
            )
        self._sizes = sorted({size for _, size, _ in self._items if size})
        self._known = np.unique(
            np.concatenate([np.empty(0, np.uint64), *(hashes for hashes, _, _ in self._items)])
        )
        self._filter = np.zeros(1 << FILTER_BITS, bool)
        self._filter[self._slots(self._known)] = True
        self._hit = np.zeros(len(self._known), bool)
        self._rows: list[tuple[str, np.ndarray]] = []
        self._pending: list[tuple[str, np.ndarray]] = []
        self._pending_words = 0

    def add(self, row: Row) -> None:
        words = word_hashes(row.text)
        self._pending.append((row.id, words))
        self._pending_words += len(words)
        if self._pending_words >= CHUNK_WORDS:
            self._flush()

    def _flush(self) -> None:
        """Look up a chunk of training rows at once; runs that would cross from one row to the next are left
        out."""
        if not self._pending:
            return
        words = np.concatenate([part for _, part in self._pending])
        ends = np.cumsum([len(part) for _, part in self._pending])
        short = [i for i, (_, part) in enumerate(self._pending) if 0 < len(part) < SHORTEST]
        whole = [np.empty(0, np.uint64), *(_whole(self._pending[i][1]) for i in short)]
        found = [self._hits(np.concatenate(whole), np.asarray(short, np.int64))]
        for size in self._sizes:
            hashes = ngram_hashes(words, size)
            owner = np.searchsorted(ends, np.arange(len(hashes)), side="right")
            inside = np.arange(len(hashes)) + size <= ends[np.minimum(owner, len(ends) - 1)]
            found.append(self._hits(hashes, owner, inside))
        owners, numbers = (np.concatenate(column) for column in zip(*found, strict=True))
        self._hit[numbers] = True
        order = np.argsort(owners, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
            if len(part):
                self._rows.append((self._pending[int(owners[part[0]])][0], np.unique(numbers[part])))
        self._pending, self._pending_words = [], 0

    def _hits(
        self, hashes: np.ndarray, owner: np.ndarray, inside: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(training row, number of the known n-gram) of each hash that the test side has."""
        at = np.flatnonzero(self._filter[self._slots(hashes)])
        at = at if inside is None else at[inside[at]]
        if not len(at) or not len(self._known):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        place = np.minimum(np.searchsorted(self._known, hashes[at]), len(self._known) - 1)
        equal = self._known[place] == hashes[at]
        return owner[at[equal]], place[equal]

    @staticmethod
    def _slots(hashes: np.ndarray) -> np.ndarray:
        return hashes >> np.uint64(64 - FILTER_BITS)

    def report(self, items: list[Row]) -> OverlapReport:
        self._flush()
        covered = [self._covered(i, self._hit) for i in range(len(items))]
        bad = [i for i, share in enumerate(covered) if share >= COVERED]
        ids = [items[i].id for i in bad]
        examples = [(items[i].where, round(covered[i], 3)) for i in bad[:20]]
        return OverlapReport(
            len(items), ids, sum(share > 0 for share in covered), self._offenders(bad), examples
        )

    def _covered(self, item: int, hit: np.ndarray) -> float:
        """Share of the item's words that lie in hit n-grams."""
        hashes, size, num_words = self._items[item]
        if not len(hashes):
            return 0.0
        matched = hit[np.searchsorted(self._known, hashes)]
        if not size:
            return float(matched[0])
        marks = np.zeros(num_words + 1, np.int64)
        at = np.flatnonzero(matched)
        marks[at] += 1
        marks[at + size] -= 1
        return float((np.cumsum(marks)[:num_words] > 0).mean())

    def _offenders(self, bad: list[int]) -> list[str]:
        items_of: dict[int, list[int]] = defaultdict(list)
        for item in bad:
            for number in np.unique(np.searchsorted(self._known, self._items[item][0])):
                items_of[int(number)].append(item)
        offenders = []
        for row_id, numbers in self._rows:
            candidates = Counter(item for number in numbers for item in items_of.get(int(number), ()))
            hit = np.zeros(len(self._known) if candidates else 0, bool)
            if candidates:
                hit[numbers] = True
            if any(self._covered(item, hit) >= COVERED for item, _ in candidates.most_common()):
                offenders.append(row_id)
        return offenders


def _whole(words: np.ndarray) -> np.ndarray:
    """One hash [1] for an item of fewer than SHORTEST words, unlike any n-gram's; none [0] for an item of no
    words."""
    return mix(ngram_hashes(words, max(1, len(words))) + np.uint64(len(words)))
