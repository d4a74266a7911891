"""What a finished study spent beside what it was granted, and how long it took beside what was predicted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from adaptkit import models
from adaptkit.compare.choose_labels import label_flops, label_learners, why_no_curve, why_too_few
from adaptkit.compare.labels_read import affordable_rows, num_labels
from adaptkit.compare.plan import Plan
from adaptkit.compare.trained_text import domain_bytes_read
from adaptkit.compare.workspace import Workspace, result_path
from adaptkit.models.folder import saved_shape
from adaptkit.run import Run, read_sealed
from adaptkit.run_record import read_record
from adaptkit.study.account_record import PlanRecord, SpendRecord, StageTimeRecord
from adaptkit.study.arms import Arm
from adaptkit.study.config import LANGUAGE, StudyConfig
from adaptkit.study.forecast_record import WHOLE, ForecastRecord, LabelForecastRecord, LabelledArmRecord
from adaptkit.study.ladder_record import LadderRecord, RungScoreRecord
from adaptkit.study.record import ScoreRecord
from adaptkit.study.spend import meta_model
from adaptkit.study.stage_record import FORECAST, RESULTS, ForecastResult, StageKey, StageResult, read_result
from adaptkit.study.task import TaskConfig

MOST = 0.98
"""Of a grant: who spent less says why."""
MORE_THAN_ROUNDING = 3
"""Steps: a training that leaves more than these has made all the passes that it may make."""


def spends(plan: Plan, root: Path, scores: Sequence[ScoreRecord]) -> tuple[SpendRecord, ...]:
    """What each arm spent on each task, mean of the seeds, its share of the tuning included."""
    return tuple(_spend(plan, root, arm, task, scores) for arm, task in _entries(plan.config, scores))


def _entries(config: StudyConfig, scores: Sequence[ScoreRecord]) -> Iterator[tuple[Arm, str]]:
    scored = {(score.arm, score.task) for score in scores}
    for arm in config.parsed_arms:
        for task in (LANGUAGE, *(task.name for task in config.tasks)):
            if (arm.name, task) in scored:
                yield arm, task


def _spend(plan: Plan, root: Path, arm: Arm, task: str, scores: Sequence[ScoreRecord]) -> SpendRecord:
    mine = [score for score in scores if (score.arm, score.task, score.portion) == (arm.name, task, WHOLE)]
    budget = plan.budget
    granted = budget.text if task == LANGUAGE else budget.flops
    runs = sum(flops_of(root, score.paid_by) for score in mine) / len(mine)
    spent = runs + flops_of(root, mine[0].tuned_by) / budget.num_seeds
    reason = "" if spent >= MOST * granted else _why_unspent(plan, root, arm, task, mine)
    return SpendRecord(arm=arm.name, task=task, granted=granted, spent=spent, reason=reason)


def flops_of(root: Path, runs: Iterable[str]) -> float:
    """FLOPs of runs, by their cost.json."""
    return sum(read_sealed(Run(root / run).cost_path)["flops"] for run in runs)


def _why_unspent(plan: Plan, root: Path, arm: Arm, task: str, scores: Sequence[ScoreRecord]) -> str:
    if any(Run(root / run).manifest().get("status") == "failed" for run in scores[0].tuned_by):
        return "a trial diverged before its end"
    if task == LANGUAGE:
        return "only whole steps can be taken" if arm.origin.learns_text else "nothing is trained"
    if not arm.trains_on_task:
        return f"{arm.adaptation} trains nothing on the task"
    run = Run(root / scores[0].run)
    cost, steps = read_sealed(run.cost_path), read_record(run).num_steps
    one_step = (cost["flops"] - cost.get("scoring_flops", 0.0)) / steps
    on_text = flops_of(root, scores[0].paid_by[:1])
    if arm.origin.per_task and on_text < MOST * plan.budget.run(plan.budget.text):
        passes = f"{plan.config.tapt.repetitions:g} passes over the text of its rows"
        return f"tapt.repetitions: {passes} were made"
    granted = plan.budget.run(plan.budget.on_task(arm.origin))
    if granted - cost["flops"] > MORE_THAN_ROUNDING * one_step:
        return f"max_epochs: {plan.config.task(task).max_epochs} passes over the rows were made"
    return "only whole steps can be taken"


def plan_record(plan: Plan, study: Path) -> PlanRecord:
    """The prediction of the study's first start, and what its stages took."""
    results = {stage.key: _result(study, stage.key) for stage in plan.stages}
    kinds = []
    for kind in dict.fromkeys(key.kind for key in results):
        taken = [result.seconds for key, result in results.items() if key.kind is kind]
        predicted = plan.fixed.predicted.get(kind.value, 0.0)
        kinds.append(
            StageTimeRecord(
                kind=kind.value,
                num_stages=len(taken),
                predicted_seconds=round(predicted, 1),
                taken_seconds=round(sum(taken), 1),
            )
        )
    spans = [(result.ended - result.seconds, result.ended) for result in results.values()]
    return PlanRecord(
        predicted_seconds=round(plan.fixed.predicted_seconds, 1),
        taken_seconds=round(covered(spans), 1),
        stages_at_once=plan.machine.jobs,
        kinds=tuple(kinds),
    )


def _result(study: Path, key: StageKey) -> StageResult:
    return read_result(result_path(study, key), RESULTS[key.kind])


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that lie in at least one span: pauses of a study that was killed do not count."""
    total, reached = 0.0, float("-inf")
    for begun, ended in sorted(spans):
        total += max(0.0, ended - max(begun, reached))
        reached = max(reached, ended)
    return total


def forecast_record(plan: Plan, workspace: Workspace) -> ForecastRecord | None:
    """The smaller trainings and what they predicted; None where none were asked for."""
    portions = plan.fixed.portions
    if not plan.config.forecast.share:
        return None
    flops = sum(portion.compute for portion in portions) * plan.budget.run(plan.budget.text)
    if not portions:
        return ForecastRecord(portions=(), flops=flops)
    written = read_result(result_path(workspace.path, FORECAST), ForecastResult)
    largest = [
        Run(workspace.root / workspace.language(Arm.parse(prediction.arm).origin, seed).run)
        for prediction in written.predictions
        for seed in range(plan.config.seeds)
    ]
    return ForecastRecord(
        portions=portions,
        flops=flops,
        predicted=math.floor(written.ended),
        largest_begun=min(map(created_at, largest)),
        predictions=written.predictions,
    )


def label_forecast_records(plan: Plan, workspace: Workspace) -> tuple[LabelForecastRecord, ...]:
    """The trainings with fewer labels of each task, and what they predicted; none where not asked for."""
    if not plan.config.forecast.labels_share:
        return ()
    return tuple(_label_forecast_record(plan, workspace, task) for task in plan.config.tasks)


def _label_forecast_record(plan: Plan, workspace: Workspace, task: TaskConfig) -> LabelForecastRecord:
    config, portions = plan.config, plan.fixed.label_portions.get(task.name, ())
    stated = {"task": task.name, "max_epochs": task.max_epochs, "portions": portions}
    if not portions:
        reason = f"no forecast: {why_no_curve(config, task) or why_too_few(config)}"
        return LabelForecastRecord(**stated, num_labels=0, flops=0.0, reason=reason)
    arms, costs = label_learners(config, task), plan.predictor.costs
    written = read_result(result_path(workspace.path, StageKey.for_label_forecast(task.name)), ForecastResult)
    flops = [
        sum(label_flops(config, plan.budget, costs, task, arm, portion) for portion in portions)
        for arm in arms
    ]
    largest = [
        Run(workspace.root / workspace.task(task.name, arm, seed).run)
        for arm in arms
        for seed in range(config.seeds)
    ]
    return LabelForecastRecord(
        **stated,
        num_labels=num_labels(workspace, task.name),
        flops=max(flops),
        arms=tuple(
            LabelledArmRecord(
                arm=arm.name,
                affordable_rows=affordable_rows(workspace, task, arm, workspace.task(task.name, arm, 0)),
            )
            for arm in arms
        ),
        predicted=math.floor(written.ended),
        largest_begun=min(map(created_at, largest)),
        predictions=written.predictions,
    )


def ladder_record(plan: Plan, workspace: Workspace) -> LadderRecord | None:
    """Models from scratch of other sizes; None where none were asked for."""
    config, rungs = plan.config, plan.fixed.rungs
    if not config.sizes:
        return None
    own = config.size.params
    trained = tuple(sorted((*rungs, own)))
    return LadderRecord(
        own=own,
        sizes=trained,
        left_out=tuple(size for size in config.ladder if size not in trained),
        scores=tuple(
            _rung_score(workspace, arm, size, seed)
            for arm in config.text_arms
            if arm.origin.starts_random
            for size in rungs
            for seed in range(config.seeds)
        ),
    )


def _rung_score(workspace: Workspace, arm: Arm, size: int, seed: int) -> RungScoreRecord:
    result = workspace.language(arm.origin, seed, size=size)
    assert result.score_run is not None and result.model is not None
    shape = saved_shape(workspace.folder(result.model))
    return RungScoreRecord(
        arm=arm.name,
        seed=seed,
        size=size,
        params=models.param_count(meta_model(shape, "causal")).total,
        learning_rate=result.learning_rate,
        run=result.score_run,
        model_run=result.run,
        read_bytes=domain_bytes_read(workspace, arm.origin, result.run),
    )


def created_at(run: Run) -> float:
    """When a run's folder was made, in seconds since 1970."""
    return datetime.fromisoformat(run.manifest()["created"]).timestamp()
