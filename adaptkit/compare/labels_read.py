"""How many labelled rows a training on a task read, and how many its budget pays for."""

from __future__ import annotations

from adaptkit.compare.workspace import Workspace
from adaptkit.run import Run, read_sealed
from adaptkit.study.arms import Arm
from adaptkit.study.stage_record import TaskResult
from adaptkit.study.task import TaskConfig


def rows_read(task: TaskConfig, arm: Arm, result: TaskResult) -> float | None:
    """Labelled rows that a training read, repeats counted; None for a head on frozen features."""
    return float(result.num_steps * task.task_kind.batch_rows) if arm.trains_on_task else None


def affordable_rows(workspace: Workspace, task: TaskConfig, arm: Arm, result: TaskResult) -> float | None:
    """Labelled rows that the budget pays for, at what each took in a training; None where none is trained."""
    if not arm.trains_on_task:
        return None
    cost = read_sealed(Run(workspace.root / result.run).cost_path)
    scoring = cost.get("scoring_flops", 0.0)
    each = (cost["flops"] - scoring) / (result.num_steps * task.task_kind.batch_rows)
    return float((workspace.budget.run(workspace.budget.on_task(arm.origin)) - scoring) / each)
