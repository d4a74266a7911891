"""What was expected of pretraining before anything trained, and whether it held.

The expectation is that of `adaptkit data shift`; the outcome is the verdict's on the task that decides.
"""

from __future__ import annotations

from typing import Literal

from adaptkit.data.shift import DomainShift
from adaptkit.run_record import Record
from adaptkit.study.task_verdict import Outcome


class ExpectationRecord(Record):
    """Whether pretraining on the domain was expected to gain, and what that rests on."""

    says: Literal["likely", "unlikely", "cannot say"]
    reason: str
    base: str
    words_differ: bool | None = None
    """Pairs of words are further apart than chance would show; None without general text."""
    gap: float | None = None
    """The base's bits per byte on the domain less those on general text."""
    gap_low: float | None = None
    gap_high: float | None = None
    noise: float | None = None
    """What two random halves of the general text differ by, 95 % of the time."""


def expectation_record(shift: DomainShift) -> ExpectationRecord:
    """What a study keeps of a measured shift."""
    gap = shift.gap
    return ExpectationRecord(
        says=shift.expectation.says,
        reason=shift.expectation.reason,
        base=shift.base,
        words_differ=None if shift.word_pairs is None else shift.word_pairs.beyond,
        gap=None if gap is None else gap.value,
        gap_low=None if gap is None else gap.low,
        gap_high=None if gap is None else gap.high,
        noise=shift.noise,
    )


def held(expectation: ExpectationRecord, outcome: Outcome) -> bool | None:
    """Whether an expectation came true; None where nothing was expected, or the verdict is undecided."""
    if expectation.says == "cannot say" or outcome == "undecided":
        return None
    return (expectation.says == "likely") == (outcome == "gain")


def describe(expectation: ExpectationRecord, outcome: Outcome) -> str:
    """What was expected and whether it held, in a sentence."""
    if expectation.says == "cannot say":
        return f"Before training nothing could be expected: {expectation.reason}."
    expected = f"Before training, pretraining on the domain was {expectation.says} to gain"
    came_true = held(expectation, outcome)
    if came_true is None:
        return f"{expected}; the verdict is undecided, so it is open whether that held."
    return f"{expected}; that {'held' if came_true else 'did not hold'}."
