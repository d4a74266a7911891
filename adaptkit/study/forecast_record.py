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
    labels: float = 1.0
    """Share of a task's labelled training rows, for a training on a task."""

    @property
    def title(self) -> str:
        """`25% of the text, 12.5% of the compute`, or `25% of the labels`."""
        if self.labels < 1:
            return f"{100 * self.labels:.3g}% of the labels"
        return f"{100 * self.text:.3g}% of the text, {100 * self.compute:.3g}% of the compute"


WHOLE = Portion()
"""The run that is compared."""


MOST_REACH = 4.0


def reach_of(portions: Sequence[Portion]) -> float:
    """How many times the study's text and compute laws are read at, or its labels: as far as the largest run
    lay beyond the smaller ones, from which it was predicted."""
    return min(MOST_REACH, 1 / max(portion.compute * portion.labels for portion in portions))


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


class LabelledArmRecord(Record):
    """An arm that learns from labels, trained with fewer of them too."""

    arm: str
    affordable_rows: float | None = None
    """Labelled rows that the budget pays for, repeats counted; None where nothing limits them (a probe)."""


class LabelForecastRecord(Record):
    """The trainings of a task with fewer labels, and what they predicted of those with all of them."""

    task: str
    num_labels: int
    """Labelled rows that the runs which are compared learn from; development rows come on top."""
    max_epochs: int
    """Passes over the labelled rows at most."""
    portions: tuple[Portion, ...]
    """Shares of the labels, the same for every arm of the task; empty where too few can be paid for."""
    flops: float
    """What the dearest arm learns with in them per seed, beside the budget."""
    reason: str = ""
    """Why there is none; empty where there is one."""
    arms: tuple[LabelledArmRecord, ...] = ()
    predicted: float = 0.0
    """When the prediction was written, in seconds since 1970; 0 where there is none."""
    largest_begun: float = 0.0
    """When the first of the trainings with all labels began."""
    predictions: tuple[PredictionRecord, ...] = ()

    @property
    def came_first(self) -> bool:
        """Whether the prediction was written before any training with all labels began."""
        return 0 < self.predicted <= self.largest_begun
