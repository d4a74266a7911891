"""Stages that adapt a language model to a labelled task and score it, and the baseline that needs none."""

from __future__ import annotations

from pathlib import Path

import torch

from adaptkit.architecture import default_learning_rate
from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import Workspace, tidy
from adaptkit.run import Run, read_json, write_json, write_jsonl
from adaptkit.run_record import RecipeKind, RunRecord, SuiteRecord
from adaptkit.study.arms import Arm
from adaptkit.study.stage_record import BaselineResult, TaskResult
from adaptkit.study.task import Answers, Assignment, TaskConfig

HORIZON = 0.32
"""A run takes the best rate of trials that are a share s of its length, times s ** HORIZON: what learns
fastest in a short trial is too fast for a long run (Bjorck et al. 2024, arXiv 2409.19913)."""


def task(workspace: Workspace, stage: Stage, threads: int) -> TaskResult:
    """Adapt an origin's model to a task and score it."""
    torch.set_num_threads(threads)
    key = stage.key
    assert key.arm is not None and key.task is not None
    settings = workspace.config.task(key.task)
    origin, origin_run = _origin(workspace, key.arm, key.seed)
    work = Assignment(
        task=settings,
        files=workspace.files.task(settings.name),
        arm=key.arm,
        origin=origin,
        seed=key.seed,
        threads=threads,
        trials=workspace.budget.trials,
        adapter=workspace.config.adapter_of(key.arm.adaptation),
        flops=stage.flops,
        learning_rate=_learning_rate(workspace, settings, key.arm, key.trial),
        tuning=key.trial is not None,
        open=workspace.open,
    )
    if key.arm.adaptation.trains:
        return _trained(work)
    return _frozen(workspace, work, origin_run)


def baseline(workspace: Workspace, stage: Stage, threads: int) -> BaselineResult:
    """Answer a task without any language model, where its kind knows how."""
    assert stage.key.task is not None
    settings = workspace.config.task(stage.key.task)
    found = settings.task_kind.baseline(settings, workspace.files.task(settings.name))
    if found is None:
        return BaselineResult()
    name, answers = found
    run = workspace.open_fields(f"{settings.name}-baseline", {"name": name})
    if not run.finished:
        _write(run, settings, answers, RecipeKind.BASELINE)
    return BaselineResult(run=run.path.name, suite=settings.name, name=name)


def _origin(workspace: Workspace, arm: Arm, seed: int) -> tuple[Path, str | None]:
    """The model that an arm starts from, and the run that made it."""
    if arm.origin_job is None:
        return workspace.base_folder, workspace.base.run
    trained = workspace.language(arm.origin_job, seed, 1.0)
    assert trained.model is not None
    return Path(trained.model), trained.run


def _trained(work: Assignment) -> TaskResult:
    run = work.task.task_kind.train(work)
    tidy(run, keep_model=not work.tuning)
    dev = read_json(run.scores(work.task.name))["dev"]
    return TaskResult(
        run=run.path.name,
        suite=work.task.name,
        learning_rate=work.learning_rate,
        tuning=work.task.task_kind.tuning_score(dev, work.task.score),
        model_run=None if work.tuning else run.path.name,
    )


def _frozen(workspace: Workspace, work: Assignment, origin_run: str | None) -> TaskResult:
    """Prompting and probing: their trials are cheap and run inside the stage."""
    fields = {
        "adaptation": work.arm.adaptation.value,
        "task": work.task.name,
        "kind": work.task.kind,
        "metric": work.task.score,
        "seed": work.seed,
        "trials": work.trials,
    }
    run = workspace.open_fields(f"{work.task.name}-{work.arm.adaptation}", fields, model=str(work.origin))
    if not run.finished:
        answers = work.task.task_kind.frozen(work)
        write_json(run.cost_path, answers.cost)
        _write(run, work.task, answers, RecipeKind.FROZEN)
    served = origin_run if work.arm.adaptation.is_a_model else None
    return TaskResult(run=run.path.name, suite=work.task.name, model_run=served)


def _write(run: Run, task: TaskConfig, answers: Answers, recipe: RecipeKind) -> None:
    judged = {"metrics": task.task_kind.scores(answers.rows), "num_items": len(answers.rows)}
    write_jsonl(run.items(task.name), answers.rows)
    write_json(run.scores(task.name), {"suite": task.name, **judged, "dev": answers.dev, **answers.facts})
    suite = SuiteRecord(judged_on="test", dev=answers.dev, **judged)
    record = RunRecord(recipe=recipe, task=task.name, suite=task.name, suites={task.name: suite})
    run.finish(record=record.model_dump(mode="json"))


def _learning_rate(workspace: Workspace, task: TaskConfig, arm: Arm, trial: int | None) -> float:
    """The rate of a trial, or the best that was tried, scaled to the length of a run; 0 without training."""
    if not arm.adaptation.trains:
        return 0.0
    centre = default_learning_rate(workspace.base_params) * task.task_kind.rates.centre(arm.adaptation)
    rates = workspace.budget.learning_rates(centre)
    if trial is not None:
        return rates[trial]
    if workspace.budget.trials == 1:
        return rates[0]
    best = min(workspace.task_trials(task.name, arm), key=_tuning_score)
    assert best.learning_rate is not None
    return float(f"{best.learning_rate * workspace.budget.trial_share**HORIZON:.3g}")


def _tuning_score(result: TaskResult) -> float:
    assert result.tuning is not None
    return result.tuning
