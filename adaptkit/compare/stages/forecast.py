"""The stages between a study's smaller trainings and its largest: what the first say of the others."""

from __future__ import annotations

import numpy as np

from adaptkit.compare.labels_read import affordable_rows, num_labels, rows_read
from adaptkit.compare.stage import Stage
from adaptkit.compare.trained_text import domain_bytes_read
from adaptkit.compare.workspace import Workspace
from adaptkit.run import Run, read_jsonl, read_sealed
from adaptkit.study.arms import Arm
from adaptkit.study.config import LANGUAGE
from adaptkit.study.forecast import KEPT_ON, Measured, predict
from adaptkit.study.forecast_record import Portion, PredictionRecord
from adaptkit.study.label_forecast import Reading, predict_with_all
from adaptkit.study.law import Place, read_once
from adaptkit.study.scores import score_table
from adaptkit.study.stage_record import ForecastResult
from adaptkit.study.task import TaskConfig


def forecast(workspace: Workspace, stage: Stage, threads: int) -> ForecastResult:
    """Predict the largest run of each arm from its smaller ones; written before any of those begins."""
    if stage.key.task is not None:
        task = workspace.config.task(stage.key.task)
        arms = [arm for arm in workspace.config.arms_on(task) if arm.learns_labels]
        return ForecastResult(predictions=tuple(_label_prediction(workspace, task, arm) for arm in arms))
    arms = [arm for arm in workspace.config.text_arms if arm.origin.has_law]
    return ForecastResult(predictions=tuple(_prediction(workspace, arm) for arm in arms))


def _prediction(workspace: Workspace, arm: Arm) -> PredictionRecord:
    portions = workspace.fixed.portions
    cells = [_measured(workspace, arm, portion) for portion in portions]
    whole = _whole(workspace, arm, portions[-1])
    from_base = arm.origin in KEPT_ON
    return predict(arm.name, cells, whole, workspace.config.confidence, from_base=from_base)


def _measured(workspace: Workspace, arm: Arm, portion: Portion) -> Measured:
    """The scores of the seeds trained with one portion, and what they had and read."""
    results = [workspace.language(arm.origin, seed, portion) for seed in range(workspace.config.seeds)]
    scores, read = [], 0.0
    for result in results:
        assert result.score_run is not None
        scores.append(_score(workspace, result.score_run, LANGUAGE, "bits_per_byte"))
        read += domain_bytes_read(workspace, arm.origin, result.run) / len(results)
    return Measured(Place(portion.text * workspace.domain_bytes, read), np.array(scores))


def _score(workspace: Workspace, run: str, suite: str, metric: str) -> float:
    """What a run reached on the test, computed from its items."""
    rows = read_jsonl(Run(workspace.root / run).items(suite))
    return score_table(metric, sorted(rows, key=lambda row: str(row["id"]))).value


def _whole(workspace: Workspace, arm: Arm, largest: Portion) -> Place:
    """What the largest run will read: as much per FLOP that it learns with as a smaller one."""
    result = workspace.language(arm.origin, 0, largest)
    cost = read_sealed(Run(workspace.root / result.run).cost_path)
    scoring = cost.get("scoring_flops", 0.0)
    budget = workspace.budget
    learnt = budget.run(budget.text) - scoring
    read = domain_bytes_read(workspace, arm.origin, result.run) * learnt / (cost["flops"] - scoring)
    return Place(float(workspace.domain_bytes), read)


def _label_prediction(workspace: Workspace, task: TaskConfig, arm: Arm) -> PredictionRecord:
    portions, all_labels = workspace.fixed.label_portions[task.name], num_labels(workspace, task.name)
    cells = []
    for portion in portions:
        results = [workspace.task(task.name, arm, seed, portion) for seed in range(workspace.config.seeds)]
        scores = [_score(workspace, result.run, result.suite, task.score) for result in results]
        labels = portion.labels * all_labels
        reads = [rows_read(task, arm, result) or labels for result in results]
        cells.append(Measured(read_once(labels, sum(reads) / len(reads)), np.array(scores)))
    largest = workspace.task(task.name, arm, 0, portions[-1])
    reading = Reading(task.max_epochs, affordable_rows(workspace, task, arm, largest))
    whole = reading.place(all_labels)
    return predict_with_all(arm.name, task.score, cells, whole, workspace.config.confidence)
