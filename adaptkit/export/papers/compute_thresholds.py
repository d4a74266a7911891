"""Hold the FLOPs that trained a model against the thresholds of the EU's AI Act: figures, sources, dates.

    checks = check_thresholds(TrainingCompute(trained=4e18, base=None, generates=True))
    checks[0].answer     # "cannot say": what the base took is not known

It counts and compares, and is no legal advice: whether a rule applies hangs on more than compute.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from adaptkit.export.papers.lineage import Lineage
from adaptkit.study.record import read_study

Answer = Literal["reached", "not reached", "cannot say", "does not apply"]
ACT = "Regulation (EU) 2024/1689 (AI Act), Art. 51(2)"
ACT_DATE = "OJ of 12 July 2024"
GUIDELINES = "Commission guidelines C(2025) 7719 final"
GUIDELINES_DATE = "published 18 July 2025, adopted 19 November 2025"
READ = "November 2026"
"""When these were last looked up; the Commission may change the first by a delegated act (Art. 51(3))."""
SYSTEMIC_RISK, GENERAL_PURPOSE = 1e25, 1e23
"""FLOPs that must be exceeded."""
NO_ADVICE = (
    f"This compares FLOPs with published thresholds, as read in {READ}. It is not legal advice: whether a "
    "rule applies hangs on more than compute."
)


@dataclass(frozen=True)
class TrainingCompute:
    """What made a model, in FLOPs.

    Attributes:
        trained: of all trainings done here, one after the other; trials that look for a learning rate and a
            teacher's own training are not counted.
        base: of the model from elsewhere that they began with; 0 where they began with random weights, None
            where it is not known.
        generates: whether the model writes text.
        complete: whether `trained` counts every training; one without a record makes it a lower bound.
    """

    trained: float
    base: float | None
    generates: bool
    complete: bool = True

    @property
    def total(self) -> float:
        """All that is known."""
        return self.trained + (self.base or 0.0)

    @property
    def known(self) -> bool:
        """Whether `total` is all there was."""
        return self.complete and self.base is not None


@dataclass(frozen=True)
class ThresholdCheck:
    """One threshold and whether it is reached.

    Attributes:
        rule: what follows from reaching it, in words.
        limit: FLOPs that must be exceeded; None where it is not known.
        flops: what is held against it; a lower bound where the answer is `cannot say`.
        why: the reason of an answer that the two numbers do not give.
    """

    rule: str
    limit: float | None
    flops: float
    answer: Answer
    why: str
    source: str
    date: str

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    def cells(self) -> tuple[str, str, str, str, str]:
        """Rule, limit, FLOPs, answer and source, as a table shows them."""
        limit = "-" if self.limit is None else f"{self.limit:.3g}"
        answer = f"{self.answer}: {self.why}" if self.why else self.answer
        return self.rule, limit, f"{self.flops:.3g}", answer, f"{self.source}, {self.date}"


def training_compute(
    lineage: Lineage, *, generates: bool, study: Path | None = None, base_flops: float | None = None
) -> TrainingCompute:
    """Add up what made a model: its trainings, and the base where a study's record says what that took.

    Args:
        base_flops: what the base took, for who knows it; it comes before what the record says.
    """
    flops = [training.flops for training in lineage.trainings]
    base = base_flops
    if lineage.base is None:
        base = 0.0
    elif base is None and study is not None:
        base = read_study(study).base.flops or None
    known = bool(flops) and None not in flops
    return TrainingCompute(sum(each or 0.0 for each in flops), base, generates, known)


def check_thresholds(compute: TrainingCompute) -> tuple[ThresholdCheck, ...]:
    """Answer each threshold: systemic risk, general-purpose model, provider by modification."""
    systemic = _check(
        "presumed to have systemic risk", SYSTEMIC_RISK, compute.total, compute.known, ACT, ACT_DATE
    )
    source = f"{GUIDELINES}, point 17"
    general = ThresholdCheck(
        rule="a general-purpose model, by its compute",
        limit=GENERAL_PURPOSE,
        flops=compute.total,
        answer="does not apply",
        why="the criterion names models that generate language, and this one does not",
        source=source,
        date=GUIDELINES_DATE,
    )
    if compute.generates:
        general = _check(general.rule, GENERAL_PURPOSE, compute.total, compute.known, source, GUIDELINES_DATE)
    return systemic, general, _by_modification(compute)


def _by_modification(compute: TrainingCompute) -> ThresholdCheck:
    """Whether what was done here took more than a third of what the base did.

    Of a base whose compute is not known, a third of the threshold for general-purpose models stands for it.
    """
    rule, source = "provider of a modified model: a third of its base", f"{GUIDELINES}, points 60 and 61"
    if compute.base == 0:
        why = "no model from elsewhere was modified"
        return ThresholdCheck(rule, None, compute.trained, "does not apply", why, source, GUIDELINES_DATE)
    if compute.base is not None:
        return _check(rule, compute.base / 3, compute.trained, compute.complete, source, GUIDELINES_DATE)
    limit = GENERAL_PURPOSE / 3
    check = _check(rule, limit, compute.trained, compute.complete, source, GUIDELINES_DATE)
    why = "the base's FLOPs are not known: a third of 1e23 stands for them (of 1e25 for one of systemic risk)"
    return ThresholdCheck(rule, limit, check.flops, check.answer, why, source, GUIDELINES_DATE)


def _check(rule: str, limit: float, flops: float, known: bool, source: str, date: str) -> ThresholdCheck:
    answer: Answer = "not reached" if known else "cannot say"
    why = "" if known else "not all of the FLOPs behind it are known: this is a lower bound"
    if flops > limit:
        answer, why = "reached", ""
    return ThresholdCheck(rule, limit, flops, answer, why, source, date)
