"""The stage between a study's smaller trainings and its largest: what the first say of the others."""

from __future__ import annotations

from adaptkit.compare.stage import Stage
from adaptkit.compare.trained_text import domain_bytes_read
from adaptkit.compare.workspace import Workspace
from adaptkit.run import Run, read_jsonl, read_sealed
from adaptkit.study.arms import Arm
from adaptkit.study.config import LANGUAGE
from adaptkit.study.forecast import Measured, predict
from adaptkit.study.forecast_record import Portion, PredictionRecord
from adaptkit.study.law import Place
from adaptkit.study.scores import score_table
from adaptkit.study.stage_record import ForecastResult


def forecast(workspace: Workspace, stage: Stage, threads: int) -> ForecastResult:
    """Predict the largest run of each arm from its smaller ones; written before any of those begins."""
    arms = [arm for arm in workspace.config.text_arms if arm.origin.has_law]
    return ForecastResult(predictions=tuple(_prediction(workspace, arm) for arm in arms))


def _prediction(workspace: Workspace, arm: Arm) -> PredictionRecord:
    portions = workspace.fixed.portions
    cells = [_measured(workspace, arm, portion) for portion in portions]
    whole = _whole(workspace, arm, portions[-1])
    return predict(arm.name, arm.origin, cells, whole, workspace.config.confidence)


def _measured(workspace: Workspace, arm: Arm, portion: Portion) -> Measured:
    """The score tables of the seeds trained with one portion, and what they had and read."""
    results = [workspace.language(arm.origin, seed, portion) for seed in range(workspace.config.seeds)]
    tables, read = [], 0.0
    for result in results:
        assert result.score_run is not None
        items = Run(workspace.root / result.score_run).items(LANGUAGE)
        rows = sorted(read_jsonl(items), key=lambda row: str(row["id"]))
        tables.append(score_table("bits_per_byte", rows))
        read += domain_bytes_read(workspace, arm.origin, result.run) / len(results)
    return Measured(Place(portion.text * workspace.domain_bytes, read), tuple(tables))


def _whole(workspace: Workspace, arm: Arm, largest: Portion) -> Place:
    """What the largest run will read: as much per FLOP that it learns with as a smaller one."""
    result = workspace.language(arm.origin, 0, largest)
    cost = read_sealed(Run(workspace.root / result.run).cost_path)
    scoring = cost.get("scoring_flops", 0.0)
    budget = workspace.budget
    learnt = budget.run(budget.text) - scoring
    read = domain_bytes_read(workspace, arm.origin, result.run) * learnt / (cost["flops"] - scoring)
    return Place(float(workspace.domain_bytes), read)
