"""Set every arm of a task on all axes that matter to an owner, and find those that another arm dominates."""

from __future__ import annotations

from dataclasses import dataclass

from adaptkit.study.ownership import Ownership, ownerships
from adaptkit.study.preference import forgotten, text_model
from adaptkit.study.record import ArmRecord, TaskRecord
from adaptkit.study.results import BASELINE, Results
from adaptkit.study.statistics import Interval


@dataclass(frozen=True)
class FrontRow:
    """One arm on all axes.

    Attributes:
        forgotten: bits per byte lost on general text by the model it starts from; None where there is no such
            model or nothing was measured.
        dominated_by: an arm that is at least as good on every axis known of both, and better on one.
    """

    arm: ArmRecord
    score: Interval
    owned: Ownership
    forgotten: float | None
    dominated_by: str | None = None


def front(results: Results, task: TaskRecord) -> list[FrontRow]:
    """All arms of a task, the best score first."""
    owned = ownerships(results, task.name)
    rows = [
        FrontRow(
            arm=arm,
            score=results.interval(task.name, arm.name),
            owned=owned[arm.name],
            forgotten=_forgotten(results, arm, task),
        )
        for arm in results.scored_arms(task.name)
    ]
    rows.sort(key=lambda row: row.score.mean, reverse=task.higher_is_better)
    return [
        FrontRow(row.arm, row.score, row.owned, row.forgotten, _dominating(row, rows, task)) for row in rows
    ]


def _forgotten(results: Results, arm: ArmRecord, task: TaskRecord) -> float | None:
    measured = {"generic", text_model(results, arm, task)} <= results.forgetting.keys()
    return forgotten(results, arm, task) if measured and arm.origin != BASELINE else None


def _dominating(row: FrontRow, rows: list[FrontRow], task: TaskRecord) -> str | None:
    return next((other.arm.name for other in rows if other is not row and _dominates(other, row, task)), None)


def _dominates(other: FrontRow, row: FrontRow, task: TaskRecord) -> bool:
    """Whether `other` is nowhere worse on the axes known of both, and somewhere better."""
    ours, theirs = _axes(row, task), _axes(other, task)
    shared = [axis for axis in ours if ours[axis] is not None and theirs[axis] is not None]
    pairs = [(theirs[axis] or 0.0, ours[axis] or 0.0) for axis in shared]
    complete = len(shared) == sum(value is not None for value in ours.values())
    return complete and all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _axes(row: FrontRow, task: TaskRecord) -> dict[str, float | None]:
    """Lower is better on each."""
    requests_per_s = row.owned.requests_per_s
    return {
        "quality": -row.score.mean if task.higher_is_better else row.score.mean,
        "requests": None if requests_per_s is None else -requests_per_s,
        "latency": row.owned.latency_s,
        "memory": row.owned.memory_bytes,
        "training": row.owned.training_hours,
        "forgotten": row.forgotten,
    }
