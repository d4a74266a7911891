"""Records of what a study could spend and did, what it left out, and how long it took beside the plan."""

from __future__ import annotations

from adaptkit.run_record import Record


class SpendRecord(Record):
    """What an arm could spend on a task per seed, and what it did; tuning and its scoring included."""

    arm: str
    task: str
    granted: float
    """FLOPs."""
    spent: float
    """FLOPs, mean of the seeds."""
    reason: str = ""
    """Why more than 2 % stayed unspent; empty where it did not."""


class StageTimeRecord(Record):
    """How long the stages of one kind were predicted to take, and took, one after another."""

    kind: str
    num_stages: int
    predicted_seconds: float
    taken_seconds: float


class PlanRecord(Record):
    """What the plan predicted, beside what happened. Wall time, over all sittings of a study."""

    predicted_seconds: float
    taken_seconds: float
    stages_at_once: int
    kinds: tuple[StageTimeRecord, ...] = ()


class LeftOutRecord(Record):
    """An arm that was not run, and why."""

    arm: str
    task: str | None = None
    """Where it is left out on one task only."""
    reason: str
