"""The answer for one task of a study, and the answers of all: what verdict.py decides and reports show."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from adaptkit.errors import EXIT_DECIDED, EXIT_UNDECIDED
from adaptkit.study.controls import Control
from adaptkit.study.statistics import Comparison

Outcome = Literal["gain", "no gain", "enough", "undecided"]
Ledger = Literal["text", "jobs"]


@dataclass(frozen=True)
class Power:
    """What would settle an open question, if the difference and its variances stay as they are.

    Attributes:
        seeds: per arm; None where no number up to 50 would.
        items: test items; None where no reasonable number would.
    """

    seeds: int | None
    items: int | None


@dataclass(frozen=True)
class TaskVerdict:
    """The answer for one task.

    Attributes:
        recommended: the preferred contender.
        preferred_by: what it is preferred by, a clause.
        settled: it is shown to be within the margin of the best arm.
        contenders: arms that none beats by more than the margin, the preferred first.
        best: the arm with the best score.
        rival: the arm that `pair` compares with.
        pair: what the line shows. For a gain: recommended minus the best of the other side. Else: the arm
            that comes closest to beating the recommended one, minus the recommended one.
        safe: the preferred among the arms shown to be within the margin of the best; None where none is.
        differences: every other arm minus the recommended one, in intervals that hold together.
        missing: controls that did not run.
        power: what would settle an undecided task; None where it is decided.
        confidence: of this task's intervals together, Holm over the labelled tasks.
        reason: why it is undecided beside width, a clause; mostly empty.
        own_text: an arm was pretrained on the text of the task's own rows, which needs no domain text: the
            question is then what domain text adds, not pretraining.
        margin_share: the margin as a share of the best arm's score, where it was set as one; 0 where it was
            set in the metric's units.
        line: the answer in one sentence.
    """

    task: str
    ledger: Ledger
    metric: str
    title: str
    higher_is_better: bool
    margin: float
    outcome: Outcome
    recommended: str
    preferred_by: str
    settled: bool
    contenders: tuple[str, ...]
    best: str
    rival: str | None
    pair: Comparison | None
    safe: str | None
    differences: dict[str, Comparison]
    missing: tuple[Control, ...]
    power: Power | None
    confidence: float
    reason: str = ""
    own_text: bool = False
    margin_share: float = 0.0
    line: str = ""

    @property
    def decided(self) -> bool:
        return self.outcome != "undecided"


@dataclass(frozen=True)
class Verdict:
    """All tasks' answers; the primary one decides the line and the exit code."""

    primary: str
    confidence: float
    tasks: tuple[TaskVerdict, ...]

    @property
    def line(self) -> str:
        """The one line that a terminal, a log and CI read."""
        return self.main.line

    @property
    def main(self) -> TaskVerdict:
        return next(task for task in self.tasks if task.task == self.primary)

    @property
    def exit_code(self) -> int:
        return EXIT_DECIDED if self.main.decided else EXIT_UNDECIDED

    def as_json(self) -> dict[str, Any]:
        """verdict.json."""
        main = {"line": self.line, "exit_code": self.exit_code, "recommended": self.main.recommended}
        return {**main, **dataclasses.asdict(self)}
