"""Read report/verdict.json: what a study's report decided, and each arm's scores with their intervals.

verdict = read_verdict("runs/study-1a2b3c4d")
verdict.line, verdict.of("ticket").recommended, verdict.scores
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydantic
from pydantic import ConfigDict

from adaptkit.errors import DataError
from adaptkit.run import Run, read_sealed
from adaptkit.run_record import Record

VERDICT_FILE = "verdict.json"


class _Reading(Record):
    """Part of verdict.json; keys that only people and other tools read are passed over."""

    model_config = ConfigDict(extra="ignore")


class DifferenceRecord(_Reading):
    """One arm's score minus another's, with its interval."""

    difference: float
    low: float
    high: float


class TaskVerdictRecord(_Reading):
    """The answer for one task."""

    task: str
    title: str
    """The metric in words."""
    ledger: Literal["text", "jobs"]
    line: str
    outcome: Literal["gain", "no gain", "enough", "undecided"]
    recommended: str
    """The preferred contender."""
    settled: bool
    """It is shown to be within the margin of the best arm."""
    contenders: tuple[str, ...]
    """Arms that none beats by more than the margin, the preferred first."""
    best: str
    margin: float
    pair: DifferenceRecord | None
    """What the line shows."""
    rival: str | None
    """The arm that `pair` compares the recommended one with."""


class ArmScoreRecord(_Reading):
    """An arm's mean score on a task over seeds, and its interval."""

    arm: str
    task: str
    metric: str
    mean: float
    low: float
    high: float
    num_seeds: int
    num_items: int


class VerdictRecord(_Reading):
    """verdict.json."""

    line: str
    """The one sentence that a terminal shows."""
    exit_code: int
    recommended: str
    """On the task that decides."""
    primary: str
    """The task that decides."""
    confidence: float
    tasks: tuple[TaskVerdictRecord, ...]
    scores: tuple[ArmScoreRecord, ...]

    def of(self, task: str) -> TaskVerdictRecord:
        """The answer for one task."""
        return next(entry for entry in self.tasks if entry.task == task)


def read_verdict(study: str | Path) -> VerdictRecord:
    """What the report of a finished study decided.

    Raises: DataError for a study without a report, or with one that cannot be read.
    """
    path = Run(study).report / VERDICT_FILE
    fix = f"adaptkit report {study}"
    if not path.is_file():
        raise DataError("this study has no report yet", where=str(study), fix=fix)
    try:
        return VerdictRecord.model_validate(read_sealed(path))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        what = f"the verdict does not fit at '{'.'.join(map(str, first['loc']))}': {first['msg']}"
        raise DataError(what, where=str(path), fix=fix) from None
