"""Records of a study's forecast: its smaller trainings, and what they predicted before the largest ran."""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.run_record import Record


class Portion(Record):
    """What one training has of the domain text, and of the compute of the run that is compared."""

    text: float = 1.0
    """Share of the domain text."""
    compute: float = 1.0
    """Share of the FLOPs."""

    @property
    def title(self) -> str:
        """`25% of the text, 12.5% of the compute`."""
        return f"{100 * self.text:.3g}% of the text, {100 * self.compute:.3g}% of the compute"


WHOLE = Portion()
"""The run that is compared."""


MOST_REACH = 4.0


def reach_of(portions: Sequence[Portion]) -> float:
    """How many times the study's text and compute laws are read at: as far as the largest run lay beyond the
    smaller ones, from which it was predicted."""
    return min(MOST_REACH, 1 / max(portion.compute for portion in portions))


class PredictionRecord(Record):
    """What the smaller trainings of an arm say of its largest: the score, mean of the seeds."""

    arm: str
    mean: float
    low: float
    high: float
    """The interval at the study's confidence."""


class ForecastRecord(Record):
    """The smaller trainings of a study, and the prediction that was written before the largest ran."""

    portions: tuple[Portion, ...]
    """The same for every arm."""
    flops: float
    """What an arm may learn with in them per seed, beside the budget."""
    predicted: float = 0.0
    """When the prediction was written, in seconds since 1970; 0 where the portions are too few for one."""
    largest_begun: float = 0.0
    """When the first of the largest trainings began."""
    predictions: tuple[PredictionRecord, ...] = ()

    @property
    def largest_flops(self) -> float:
        """What the run that is compared may spend, counted as `flops` are."""
        return self.flops / sum(portion.compute for portion in self.portions)

    @property
    def came_first(self) -> bool:
        """Whether the prediction was written before any of the largest trainings began."""
        return 0 < self.predicted <= self.largest_begun
