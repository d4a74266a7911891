"""What a study's record says of its data: sizes, what was cut, what is judged on, how tests differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from adaptkit.run_record import CanaryRecord, Record, SplitRecord

LARGE_CUT = 0.1
"""Share of a training set from which on a report's limits tell what overlap took out of it."""


class CorpusRecord(Record):
    """One data set of a study."""

    train: SplitRecord
    test: SplitRecord


class PartCutRecord(Record):
    """What went of one source, or of the rows with one label."""

    num_bytes: int
    share: float
    """Of the bytes that this part had before anything went."""


class CutRecord(Record):
    """What one test set took out of one training set."""

    train: str
    test: str
    num_items: int
    num_items_contaminated: int
    """Items that had a tenth of their words, or of their document's, in runs shared with training data."""
    num_documents_touched: int
    """Training documents, or labelled rows, that lost something."""
    whole_rows: bool
    """Labelled rows go whole; of running text only the sentences that are shared."""
    bytes_cut: int
    share_cut: float
    """Of the training set's bytes before anything went: the shares of several tests add up."""
    by_source: dict[str, PartCutRecord] = {}
    by_label: dict[str, PartCutRecord] = {}
    examples: tuple[tuple[str, float], ...] = ()
    """Where items were found, `file:line`, with the share of their words that is shared."""


@dataclass(frozen=True)
class LargeCut:
    """More of a training set, or of one part of it, went than LARGE_CUT: the result may hang on it.

    Attributes:
        part: empty for the whole training set; else `source` or `label`.
        name: the source or label.
    """

    train: str
    part: str
    name: str
    num_bytes: int
    share: float


class TestSetRecord(Record):
    """What an arm is judged on: the items of one test set, and which of them belong together."""

    __test__: ClassVar[bool] = False  # no class of tests, whatever pytest makes of its name

    num_rows: int
    """Rows or documents read."""
    num_duplicates: int
    """Of these, exact or near repeats of others, left out."""
    num_items: int
    num_clusters: int
    """Groups, or documents that passages come from, or single items."""
    drawn: str
    """A sentence on how the items were drawn."""
    clusters: dict[str, str] = {}
    """Item id -> cluster, for clusters of several items; an item that is absent is a cluster of its own."""

    def cluster_of(self, item: str) -> tuple[str, str]:
        """A label that two items share when they belong together."""
        return ("cluster", self.clusters[item]) if item in self.clusters else ("item", item)


class SharesRecord(Record):
    """The share of one source."""

    train: float
    test: float


class TimesRecord(Record):
    """From when to when; ISO dates, or numbers where the data has numbers."""

    train_from: str | float
    train_to: str | float
    test_from: str | float
    test_to: str | float
    test_share_newer: float
    """Share of test items that are newer than all training rows."""


class ShiftRecord(Record):
    """How a test differs from the training data beside it."""

    sources: dict[str, SharesRecord] = {}
    """Share of rows by source; empty where sources are not named."""
    source_shift: float = 0.0
    """Half the sum of differences of these shares: 0 where they are equal, 1 where no source is shared."""
    times: TimesRecord | None = None
    """None without a time in both."""


class TokenizerRecord(Record):
    """How well a tokenizer fits the domain's text."""

    bytes_per_token: float
    vocab_size: int
    lost_share: float = 0.0
    """Share of the bytes of the domain's test text that it cannot give back; of causal models."""


class ExpectationRecord(Record):
    """Whether pretraining on the domain was expected to gain, before anything trained (data/shift.py)."""

    says: Literal["likely", "unlikely", "cannot say"]
    reason: str
    """The measurements it rests on, in words."""


class DataRecord(Record):
    """The data of a study."""

    corpora: dict[str, CorpusRecord]
    """`domain`, `general` and each task."""
    duplicates: dict[str, dict[str, int]] = {}
    """Data set -> counts of rows that were removed."""
    cuts: tuple[CutRecord, ...] = ()
    """What test sets took out of training sets."""
    test_sets: dict[str, TestSetRecord] = {}
    """By task; `language` for the domain's passages, `general` for the general ones."""
    shifts: dict[str, ShiftRecord] = {}
    """Data set -> how its test differs from its training data."""
    tokenizers: dict[str, TokenizerRecord] = {}
    expectation: ExpectationRecord | None = None
    """None where the base gives no bits per byte, and in studies of older releases."""
    canaries: CanaryRecord | None = None
    """What was planted in the domain's training text; None where nothing was."""

    @property
    def large_cuts(self) -> tuple[LargeCut, ...]:
        """Training sets, their sources and labels that lost more than LARGE_CUT to all tests together."""
        totals: dict[tuple[str, str, str], tuple[int, float]] = {}
        for cut in self.cuts:
            parts = {("", ""): (cut.bytes_cut, cut.share_cut)}
            parts |= {("source", name): (of.num_bytes, of.share) for name, of in cut.by_source.items()}
            parts |= {("label", name): (of.num_bytes, of.share) for name, of in cut.by_label.items()}
            for (part, name), (num_bytes, share) in parts.items():
                before = totals.get((cut.train, part, name), (0, 0.0))
                totals[cut.train, part, name] = (before[0] + num_bytes, before[1] + share)
        return tuple(LargeCut(*key, *total) for key, total in totals.items() if total[1] > LARGE_CUT)
