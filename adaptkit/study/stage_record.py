"""The records of a study's stages: which stage it is, and what it left. The only reader and the only writer.

key = StageKey.for_task("ticket", arm, seed=0)
result = read_result(path, TaskResult)
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeVar

from adaptkit.run import FORMAT, read_sealed, write_sealed
from adaptkit.run_record import ModelKind, Record, validated
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.data_record import DataRecord, ExpectationRecord, TokenizerRecord
from adaptkit.study.forecast_record import WHOLE, Portion, PredictionRecord


class StageKind(StrEnum):
    """What a stage does."""

    PREPARE = "prepare"
    TOKENIZER = "tokenizer"
    BASE = "base"
    LANGUAGE = "language"
    FORECAST = "forecast"
    TASK = "task"
    BASELINE = "baseline"


class StageKey(Record):
    """Which stage of a study: everything that tells two stages apart."""

    kind: StageKind
    origin: Origin | None = None
    """Of a language stage: the training on text."""
    task: str | None = None
    """Of a task or baseline stage, and of a training on a task's own text."""
    arm: Arm | None = None
    """Of a task stage."""
    seed: int = 0
    portion: Portion = WHOLE
    """Of the domain text and of the compute, for a training on text; of the labels, for one on a task."""
    trial: int | None = None
    """Number of a learning rate that is tried; None for the run that counts."""
    size: int = 0
    """Parameters, for a training from scratch at another size than the study's; 0 at the study's own."""

    @classmethod
    def for_language(
        cls,
        origin: Origin,
        *,
        seed: int = 0,
        portion: Portion = WHOLE,
        trial: int | None = None,
        task: str | None = None,
        size: int = 0,
    ) -> StageKey:
        return cls(
            kind=StageKind.LANGUAGE,
            origin=origin,
            seed=seed,
            portion=portion,
            trial=trial,
            task=task,
            size=size,
        )

    @classmethod
    def for_task(
        cls, task: str, arm: Arm, *, seed: int = 0, trial: int | None = None, portion: Portion = WHOLE
    ) -> StageKey:
        return cls(kind=StageKind.TASK, task=task, arm=arm, seed=seed, trial=trial, portion=portion)

    @classmethod
    def for_baseline(cls, task: str) -> StageKey:
        return cls(kind=StageKind.BASELINE, task=task)

    @classmethod
    def for_label_forecast(cls, task: str) -> StageKey:
        """What trainings with fewer labels say of those with all."""
        return cls(kind=StageKind.FORECAST, task=task)

    @property
    def name(self) -> str:
        """The name of its files, and what messages call it; never taken apart."""
        if self.kind is StageKind.LANGUAGE and self.origin is not None:
            trained = self.origin if self.task is None else f"{self.origin}.{self.task}"
            if self.trial is not None:
                return f"tune.{trained}.{self.trial}"
            name = f"language.{trained}.s{self.seed}.f{self.portion.text:g}"
            name += "" if self.portion.compute == 1 else f".c{self.portion.compute:g}"
            return f"{name}.n{self.size}" if self.size else name
        if self.kind is StageKind.TASK and self.arm is not None:
            if self.trial is not None:
                return f"tune.{self.task}.{self.arm.name}.{self.trial}"
            name = f"task.{self.task}.{self.arm.name}.s{self.seed}"
            return name if self.portion.labels == 1 else f"{name}.l{self.portion.labels:g}"
        return self.kind.value if self.task is None else f"{self.kind.value}.{self.task}"


PREPARE = StageKey(kind=StageKind.PREPARE)
TOKENIZER = StageKey(kind=StageKind.TOKENIZER)
BASE = StageKey(kind=StageKind.BASE)
FORECAST = StageKey(kind=StageKind.FORECAST)


class StageResult(Record):
    """What a finished stage left."""

    format: Literal[2] = FORMAT
    seconds: float = 0.0
    """Wall time of the stage."""
    ended: float = 0.0
    """When it ended, in seconds since 1970."""


class PreparedResult(StageResult):
    """The prepared data."""

    run: str
    data: DataRecord
    labels: dict[str, tuple[str, ...]]
    """Task -> its labels."""


class TokenizerResult(StageResult):
    """The domain tokenizer."""

    path: str
    """Its folder below the root of all runs; empty for one that was given."""
    run: str | None = None
    """The run that trained it."""
    tokenizer: TokenizerRecord


class BaseResult(StageResult):
    """The generic model, found or made."""

    model: str
    """Its folder below the root of all runs; empty for one that was given."""
    run: str | None
    """The run that made it."""
    kind: ModelKind
    params: int
    """Its parameters."""
    score_run: str | None
    """The run that holds its scores on text; None for masked models."""
    dev: float | None
    """Bits per byte of development text."""
    tokenizer: TokenizerRecord
    expectation: ExpectationRecord | None = None
    """What this base and the texts let expect of pretraining; None for masked models."""


class LanguageResult(StageResult):
    """One training on text."""

    run: str
    learning_rate: float
    dev: float
    """Score on development text, lower is better."""
    diverged: bool = False
    """A trial whose loss was no number; its score is the worst there is."""
    model: str | None = None
    """Its folder below the root of all runs; None for a trial, whose model is not kept."""
    score_run: str | None = None


class ForecastResult(StageResult):
    """What the smaller trainings say of the largest, written before any of those begins: of text, or of the
    labels of one task."""

    predictions: tuple[PredictionRecord, ...]


class TaskResult(StageResult):
    """One arm on one task."""

    run: str
    suite: str
    learning_rate: float | None = None
    """None for arms without training."""
    num_steps: int = 0
    tuning: float | None = None
    """What trials are compared by, lower is better."""
    diverged: bool = False
    """A trial whose loss was no number; its score is the worst there is."""
    model_run: str | None = None
    """The run whose model answered; None for the untouched base."""


class BaselineResult(StageResult):
    """Answers without a language model; `run` is None where the kind of task has none."""

    run: str | None = None
    suite: str = ""
    name: str = ""
    describe: str = ""
    """What answers, in words."""
    metric: str = ""
    score: float | None = None
    """What it reaches on the test, to be shown at once."""


RESULTS: dict[StageKind, type[StageResult]] = {
    StageKind.PREPARE: PreparedResult,
    StageKind.TOKENIZER: TokenizerResult,
    StageKind.BASE: BaseResult,
    StageKind.LANGUAGE: LanguageResult,
    StageKind.FORECAST: ForecastResult,
    StageKind.TASK: TaskResult,
    StageKind.BASELINE: BaselineResult,
}
"""What each kind of stage leaves."""

S = TypeVar("S", bound=StageResult)


def read_result(path: Path, kind: type[S]) -> S:
    """What a finished stage left in its file.

    Raises: DataError for a file of an older release, or one that does not fit.
    """
    return validated(kind, read_sealed(path), str(path))


def runs_of_result(path: Path) -> set[str]:
    """The names of the runs that a finished stage of any kind left or needs."""
    value = read_sealed(path)
    names = (value.get(key) for key in ("run", "score_run", "model_run"))
    return {name for name in names if isinstance(name, str) and name}


def write_result(path: Path, result: StageResult) -> None:
    """Write what a stage left; the stage is finished from then on."""
    write_sealed(path, result.model_dump(mode="json"))
