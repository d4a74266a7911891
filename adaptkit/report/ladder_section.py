"""The report's section on other sizes of the models from scratch: rows and sentences."""

from __future__ import annotations

from dataclasses import dataclass

from adaptkit.report.forecast_section import interval_words
from adaptkit.study.ladder import Fate, Ladder, Step

WORDS: dict[Fate, str] = {
    "held": "held",
    "turned": "turned",
    "open": "open at the larger size",
    "undecided": "not decided at the smaller size",
}
ANCHOR = "For comparison: of data sets compared in pairs at 150M, about 80 % are decided the same at 1B"
SOURCE = "(DataDecide, arXiv 2504.11393)"


@dataclass(frozen=True)
class SizeRow:
    """An arm's score at every size."""

    arm: str
    scores: tuple[str, ...]


@dataclass(frozen=True)
class StepRow:
    """A pair of arms between two sizes."""

    pair: str
    sizes: str
    before: str
    after: str
    outcome: str


@dataclass(frozen=True)
class LadderSection:
    """Everything that the section shows."""

    lead: str
    sizes: tuple[str, ...]
    scores: tuple[SizeRow, ...]
    steps: tuple[StepRow, ...]
    note: str


def ladder_section(ladder: Ladder | None) -> LadderSection | None:
    """The section of a study with several sizes; None for others."""
    if ladder is None:
        return None
    arms = dict.fromkeys(rung.arm for rung in ladder.rungs)
    scores = [
        SizeRow(arm, tuple(interval_words(rung.score) for rung in ladder.rungs if rung.arm == arm))
        for arm in arms
    ]
    return LadderSection(
        lead=_lead(ladder),
        sizes=tuple(map(_size, ladder.record.sizes)),
        scores=tuple(scores),
        steps=tuple(map(_step_row, ladder.steps)),
        note=_note(ladder),
    )


def _lead(ladder: Ladder) -> str:
    """How often a decision held at the next size, over how many pairs."""
    pairs = f"{len(ladder.steps)} pairs of arms and neighbouring sizes"
    if not ladder.decided:
        return f"Of {pairs} none was decided at the smaller size, so nothing is said of the next."
    share = f"{ladder.held} of {ladder.decided} decisions held at the next size"
    rest = f"{ladder.count('turned')} turned, {ladder.count('open')} are open there"
    undecided = f"not decided at the smaller size: {ladder.count('undecided')} of {pairs}"
    return f"{share} ({ladder.held / ladder.decided:.0%}); {rest}; {undecided}."


def _step_row(step: Step) -> StepRow:
    smaller, larger = step.smaller, step.larger
    return StepRow(
        pair=f"{smaller.arm} against {smaller.against}",
        sizes=f"{_size(smaller.size)} to {_size(larger.size)}",
        before=smaller.decision,
        after=larger.decision,
        outcome=WORDS[step.fate],
    )


def _note(ladder: Ladder) -> str:
    record = ladder.record
    same = "Every size spends the FLOPs of the run that is compared, so a larger model reads less text"
    rates = (
        f"Learning rates are tuned at {_size(record.own)} and carried over by 1 / width and number of steps"
    )
    each = f"Each pair has its own {ladder.confidence:.0%} interval"
    left = ""
    if record.left_out:
        left = f" Left out: {', '.join(map(_size, record.left_out))} (see the dry run)."
    return f"{same}. {rates}. {each}. {ANCHOR} {SOURCE}.{left}"


def _size(params: int) -> str:
    return f"{params / 1e6:.3g}M"
