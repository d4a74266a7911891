"""The labelled rows of a task: all, shares of them, and how many a training read or may read."""

from __future__ import annotations

from dataclasses import replace

from adaptkit.compare.workspace import Workspace
from adaptkit.run import Run, read_jsonl, read_sealed, write_jsonl
from adaptkit.study.arms import Arm
from adaptkit.study.forecast_record import Portion
from adaptkit.study.stage_record import TaskResult
from adaptkit.study.task import TaskConfig, TaskFiles
from adaptkit.study.tasks.rows import RowKind


def num_labels(workspace: Workspace, task: str) -> int:
    """Labelled rows that the runs which are compared learn from."""
    return sum(1 for _ in read_jsonl(workspace.files.task(task).train))


def fewer_labels(workspace: Workspace, task: TaskConfig, seed: int, portion: Portion) -> TaskFiles:
    """A task's files with a share of its labels in place of all; the other files are the same."""
    files, kind = workspace.files.task(task.name), task.task_kind
    path = workspace.labels / f"{task.name}.s{seed}.l{portion.labels:g}.jsonl"
    assert isinstance(kind, RowKind)  # the plan has no shares for others
    if not path.exists():
        rows = kind.fewer_labels(files, portion.labels, seed)
        write_jsonl(path, (row.values for row in rows))
    return replace(files, train=path)


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
