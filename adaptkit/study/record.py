"""The records of a study: what a stage is, what it left, and study.json. The only reader and the only writer.

result = read_result(study, StageKey.for_task("ticket", arm, seed=0), TaskResult)
record = read_study("runs/tickets-1a2b3c4d")
record.arms, record.scores, record.budget.flops_per_seed
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar

from adaptkit.errors import DataError
from adaptkit.run import FORMAT, read_json, write_json
from adaptkit.run_record import ModelKind, Record, SplitRecord, validated
from adaptkit.study.arms import Arm, TextJob

STUDY_FILE = "study.json"


class ArmRecord(Record):
    """One strategy."""

    name: str
    """`origin+adaptation`; for people, never taken apart."""
    origin: str
    adaptation: str
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
    """The trials of one training."""

    title: str
    """`continued`, or `continued+full on ticket`: for people."""
    job: str
    """The language training, or the arm."""
    task: str | None = None
    trials: tuple[TrialRecord, ...]


class ForgettingRecord(Record):
    """Where an arm's scores on general text are."""

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
    tokenizers: dict[str, TokenizerRecord] = {}


class BudgetRecord(Record):
    """What each arm could spend."""

    flops_per_seed: float
    unit: str
    asked: str
    task_share: float
    trials: int
    held_equal: tuple[str, ...]


class PriceRecord(Record):
    """What an hour of the machine costs, and where that was read."""

    usd_per_hour: float
    source: str
    date: str


class StudyRecord(Record):
    """study.json: all that a report, a verdict, an export or a demo needs to find the rest."""

    format: Literal[2] = FORMAT
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
    return validated(StudyRecord, value if "format" in value else {"format": 1}, str(path))


def write_study(folder: str | Path, record: StudyRecord) -> None:
    """Write study.json."""
    write_json(Path(folder) / STUDY_FILE, record.model_dump(mode="json"))


class StageKind(StrEnum):
    """What a stage does."""

    PREPARE = "prepare"
    TOKENIZER = "tokenizer"
    BASE = "base"
    LANGUAGE = "language"
    TASK = "task"
    BASELINE = "baseline"


class StageKey(Record):
    """Which stage of a study: everything that tells two stages apart."""

    kind: StageKind
    job: TextJob | None = None
    """Of a language stage."""
    task: str | None = None
    """Of a task or baseline stage."""
    arm: Arm | None = None
    """Of a task stage."""
    seed: int = 0
    share: float = 1.0
    """Of the domain text that is trained on."""
    trial: int | None = None
    """Number of a learning rate that is tried; None for the run that counts."""

    @classmethod
    def for_language(
        cls, job: TextJob, *, seed: int = 0, share: float = 1.0, trial: int | None = None
    ) -> StageKey:
        return cls(kind=StageKind.LANGUAGE, job=job, seed=seed, share=share, trial=trial)

    @classmethod
    def for_task(cls, task: str, arm: Arm, *, seed: int = 0, trial: int | None = None) -> StageKey:
        return cls(kind=StageKind.TASK, task=task, arm=arm, seed=seed, trial=trial)

    @classmethod
    def for_baseline(cls, task: str) -> StageKey:
        return cls(kind=StageKind.BASELINE, task=task)

    @property
    def name(self) -> str:
        """The name of its files, and what messages call it; never taken apart."""
        if self.kind is StageKind.LANGUAGE and self.job is not None:
            if self.trial is not None:
                return f"tune.{self.job.name}.{self.trial}"
            return f"language.{self.job.name}.s{self.seed}.f{self.share:g}"
        if self.kind is StageKind.TASK and self.arm is not None:
            if self.trial is not None:
                return f"tune.{self.task}.{self.arm.name}.{self.trial}"
            return f"task.{self.task}.{self.arm.name}.s{self.seed}"
        return f"baseline.{self.task}" if self.kind is StageKind.BASELINE else self.kind.value


PREPARE = StageKey(kind=StageKind.PREPARE)
TOKENIZER = StageKey(kind=StageKind.TOKENIZER)
BASE = StageKey(kind=StageKind.BASE)


class StageResult(Record):
    """What a finished stage left."""

    format: Literal[2] = FORMAT
    seconds: float = 0.0
    """Wall time of the stage."""


class PreparedResult(StageResult):
    """The prepared data."""

    run: str
    data: DataRecord
    labels: dict[str, tuple[str, ...]]
    """Task -> its labels."""


class TokenizerResult(StageResult):
    """The domain tokenizer."""

    path: str
    tokenizer: TokenizerRecord


class BaseResult(StageResult):
    """The generic model, found or made."""

    model: str
    """Its folder."""
    run: str | None
    """The run that made it."""
    kind: ModelKind
    score_run: str | None
    """The run that holds its scores on text; None for masked models."""
    dev: float | None
    """Bits per byte of development text."""
    tokenizer: TokenizerRecord


class LanguageResult(StageResult):
    """One training on text."""

    run: str
    learning_rate: float
    dev: float
    """Score on development text, lower is better."""
    model: str | None = None
    """Its folder; None for a trial, whose model is not kept."""
    score_run: str | None = None


class TaskResult(StageResult):
    """One arm on one task."""

    run: str
    suite: str
    learning_rate: float | None = None
    """None for arms without training."""
    tuning: float | None = None
    """What trials are compared by, lower is better."""
    model_run: str | None = None
    """The run whose model answered; None for the untouched base."""


class BaselineResult(StageResult):
    """Answers without a language model; `run` is None where the kind of task has none."""

    run: str | None = None
    suite: str = ""
    name: str = ""


S = TypeVar("S", bound=StageResult)


def read_result(path: Path, kind: type[S]) -> S:
    """What a finished stage left in its file.

    Raises: DataError for a file of an older release, or one that does not fit.
    """
    return validated(kind, read_json(path), str(path))


def write_result(path: Path, result: StageResult) -> None:
    """Write what a stage left; the stage is finished from then on."""
    write_json(path, result.model_dump(mode="json"))
