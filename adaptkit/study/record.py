"""The record of a study, study.json: the only reader and the only writer.

record = read_study("runs/tickets-1a2b3c4d")
record.arms, record.scores, record.budget.flops_per_seed
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from adaptkit.errors import DataError
from adaptkit.run import read_json, write_json
from adaptkit.run_record import Record, SplitRecord, validated
from adaptkit.study.account_record import LeftOutRecord, PlanRecord, SpendRecord

STUDY_FILE = "study.json"
STUDY_FORMAT: Literal[3] = 3
LARGE_CUT = 0.1
"""Share of a training set from which on a report's limits tell what overlap took out of it."""


class ArmRecord(Record):
    """One strategy."""

    name: str
    """Its origin, with `+adaptation` in the jobs ledger; for people, never taken apart."""
    ledger: Literal["text", "jobs"]
    """`text`: scored on held-out text alone; `jobs`: scored on labelled tasks alone."""
    origin: str
    adaptation: str | None
    """How labelled tasks are learnt; None in the text ledger."""
    describe: str


class TaskRecord(Record):
    """What arms are scored on, and how the score is read."""

    name: str
    kind: str
    """`language`, or the kind of task."""
    metric: str
    higher_is_better: bool
    margin: float
    """Relative for language (a share of the generic arm's score), absolute otherwise."""
    labels: tuple[str, ...] = ()


class ScoreRecord(Record):
    """Where one score is: an arm, a seed, a share of the domain text, a task."""

    arm: str
    seed: int
    share: float
    task: str
    run: str
    """Name of the run that holds eval/<suite>.jsonl."""
    suite: str
    model_run: str | None = None
    """Name of the run whose model answered; None for the untouched base and where no model was made."""
    paid_by: tuple[str, ...] = ()
    """Runs whose cost this score took."""
    tuned_by: tuple[str, ...] = ()
    """Trials whose cost all seeds share."""
    text_bytes: float | None = None
    """Bytes of domain text that the language model read, each counted once."""


class TrialRecord(Record):
    """One learning rate that was tried."""

    run: str
    learning_rate: float
    dev: float
    """What it was judged by on development data, lower is better."""


class TuningRecord(Record):
    """The trials of one training, those of the grid first, the one that followed from them last."""

    title: str
    """`continued`, or `continued+full on ticket`: for people."""
    arm: str
    """An arm of the text ledger for a training on text, of the jobs ledger for one on a task."""
    task: str
    """`language` for a training on text."""
    trials: tuple[TrialRecord, ...]
    rate: float
    """The rate of the runs that count, on the whole text: the best one tried, corrected to their length."""


class ForgettingRecord(Record):
    """Where the scores of an arm of the text ledger on general text are."""

    arm: str
    seed: int
    run: str
    suite: str


class BaselineRecord(Record):
    """Where the scores of an answer without a language model are."""

    name: str
    task: str
    run: str
    suite: str


class BaseRecord(Record):
    """The generic model."""

    model: str
    """Folder or hub id, or what it was made from."""
    run: str | None = None
    """The run that made it."""


class CorpusRecord(Record):
    """One data set of a study."""

    train: SplitRecord
    test: SplitRecord


class OverlapRecord(Record):
    """What of one test set was found in one training set, and what was done."""

    train: str
    test: str
    num_test_items: int
    num_contaminated: int
    num_touched: int
    num_train_rows: int
    share: float
    examples: list[Any] = []
    action: str


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


class DataRecord(Record):
    """The data of a study."""

    corpora: dict[str, CorpusRecord]
    """`domain`, `general` and each task."""
    overlap: tuple[OverlapRecord, ...] = ()
    duplicates: dict[str, dict[str, int]] = {}
    """Data set -> counts of rows that were removed."""
    cuts: tuple[CutRecord, ...] = ()
    """What test sets took out of training sets."""
    test_sets: dict[str, TestSetRecord] = {}
    """By task; `language` for the domain's passages, `general` for the general ones."""
    shifts: dict[str, ShiftRecord] = {}
    """Data set -> how its test differs from its training data."""
    tokenizers: dict[str, TokenizerRecord] = {}

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


class BudgetRecord(Record):
    """What each arm could spend per task and seed."""

    flops_per_seed: float
    """Per arm, task and seed: what the whole pipeline may take."""
    text_flops_per_seed: float
    """What a training on text may take of it; all of it in a study without tasks."""
    unit: str
    asked: str
    task_share: float
    trials: int
    """Settings tried per arm, the same number for each."""
    held_equal: tuple[str, ...]


class PriceRecord(Record):
    """What an hour of the machine costs, and where that was read."""

    usd_per_hour: float
    source: str
    date: str


class StudyRecord(Record):
    """study.json: all that a report, a verdict, an export or a demo needs to find the rest."""

    format: Literal[3] = STUDY_FORMAT
    name: str
    question: str
    command: str
    primary: str
    """The task that decides."""
    confidence: float
    arms: tuple[ArmRecord, ...]
    seeds: tuple[int, ...]
    shares: tuple[float, ...]
    """Shares of the domain text that were trained on, ascending, the last one 1."""
    tasks: tuple[TaskRecord, ...]
    data: DataRecord
    budget: BudgetRecord
    scores: tuple[ScoreRecord, ...]
    tuning: tuple[TuningRecord, ...] = ()
    spends: tuple[SpendRecord, ...] = ()
    left_out: tuple[LeftOutRecord, ...] = ()
    """Arms that could not be run."""
    without: tuple[str, ...] = ()
    """Arms or origins that the user took out."""
    plan: PlanRecord | None = None
    forgetting: tuple[ForgettingRecord, ...] = ()
    baselines: tuple[BaselineRecord, ...] = ()
    base: BaseRecord
    prepared_run: str | None = None
    """The run that holds the prepared data."""
    price: PriceRecord | None = None


def is_study(folder: Path) -> bool:
    """Whether a folder holds a finished study."""
    return (folder / STUDY_FILE).is_file()


def read_study(folder: str | Path) -> StudyRecord:
    """The record of a finished study.

    Raises: DataError for a study that has not ended, or was made by an older release.
    """
    path = Path(folder) / STUDY_FILE
    if not path.is_file():
        fix = "run the same `adaptkit compare` again: finished stages are skipped"
        raise DataError("no finished study here: it holds no study.json", where=str(folder), fix=fix)
    value = read_json(path)
    return validated(StudyRecord, value if "format" in value else {"format": 1}, str(path), STUDY_FORMAT)


def write_study(folder: str | Path, record: StudyRecord) -> None:
    """Write study.json."""
    write_json(Path(folder) / STUDY_FILE, record.model_dump(mode="json"))
