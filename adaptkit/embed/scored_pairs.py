"""Scores of text pairs as targets: as they are given, or brought to 0..1 by the range of the training's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adaptkit.data.readers import Dataset
from adaptkit.embed.config import Loss
from adaptkit.embed.rows import Example
from adaptkit.errors import DataError

_LABELS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
BEYOND = 0.5
"""How far a score may lie beyond the training's, as a share of their range, to be of the same scale."""


@dataclass(frozen=True)
class Scale:
    """What the scores of a training are, and how they become targets.

    Attributes:
        low, high: the training's range.
    """

    low: float
    high: float

    @classmethod
    def of(cls, scores: Sequence[float], where: str) -> Scale:
        """Raises: DataError for scores that are all the same and no cosine: what scale they are on is not
        known."""
        scale = cls(min(scores), max(scores))
        if not scale.as_given and scale.low == scale.high:
            what = f"all scores are {scale.low:g}, which tells no scale"
            raise DataError(what, where=where, fix="write scores from 0 to 1, or give pairs of other scores")
        return scale

    @property
    def as_given(self) -> bool:
        """Whether the scores are what a cosine can be, and so the targets themselves."""
        return self.low >= -1 and self.high <= 1

    def target(self, score: float, where: str) -> float:
        """Raises: DataError for a score of another scale than the training's."""
        target, beyond = score, not -1 <= score <= 1
        if not self.as_given:
            target = (score - self.low) / (self.high - self.low)
            beyond = not -BEYOND <= target <= 1 + BEYOND
        if beyond:
            what = (
                f"the score {score:g} is of another scale than the training's, {self.low:g} to {self.high:g}"
            )
            raise DataError(what, where=where, fix="write all scores on one scale")
        return target

    def __str__(self) -> str:
        """What a user is told."""
        if self.low == self.high:
            return f"all are {self.low:g}, which teaches no difference"
        if self.as_given:
            return f"{self.low:g} to {self.high:g}, as given"
        return f"{self.low:g} to {self.high:g} in training, scaled to 0 to 1; dev and test by the same rule"


def scored_examples(dataset: Dataset, loss: Loss, scale: Scale | None) -> tuple[list[Example], Scale]:
    """Pairs with their targets, and the scale these are on.

    Args:
        scale: the training's; None for the training itself.
    Raises: DataError for rows that are no scored pairs.
    """
    value = "score" if loss == "cosine" and "score" in dataset.roles else "label"
    if "text1" not in dataset.roles or value not in dataset.roles:
        wanted = "score" if loss == "cosine" else "label (0 or 1)"
        fix = f"give text1, text2 and {wanted}, or set loss: infonce"
        raise DataError(f"loss '{loss}' needs scored pairs", where=dataset.rows[0].where, fix=fix)
    scores = [_number(row.values[value], row.where) for row in dataset.rows]
    if scale is None:
        scale = Scale.of(scores, dataset.rows[0].where)
    examples = [
        Example((row.values["text1"], row.values["text2"]), row.where, scale.target(score, row.where))
        for row, score in zip(dataset.rows, scores, strict=True)
    ]
    return examples, scale


def _number(value: Any, where: str) -> float:
    try:
        return _LABELS[value] if value in _LABELS else float(value)
    except ValueError:
        fix = "write scores as numbers, labels as 0 or 1"
        raise DataError(f"'{value}' is no number", where=where, fix=fix) from None
