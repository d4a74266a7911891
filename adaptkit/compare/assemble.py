"""The record of a study, put together once all stages are done: what the report needs to find everything."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

from adaptkit.compare.plan import Plan, language_trainings, num_trials
from adaptkit.compare.workspace import Workspace, result_path
from adaptkit.run import Run, read_json
from adaptkit.run_record import read_record
from adaptkit.study.arms import Arm, Origin, TextJob
from adaptkit.study.config import StudyConfig
from adaptkit.study.record import (
    ArmRecord,
    BaselineRecord,
    BaseRecord,
    BudgetRecord,
    DataRecord,
    ForgettingRecord,
    PriceRecord,
    ScoreRecord,
    StudyRecord,
    TaskRecord,
    TrialRecord,
    TuningRecord,
)
from adaptkit.study.stage_record import BaselineResult, StageKey, read_result
from adaptkit.study.task import TaskConfig

LANGUAGE, GENERAL = "language", "general"
HELD_EQUAL = (
    "every arm may spend the same FLOPs per seed, its tuning trials included",
    "every arm gets the same number of trials: learning rates for trained arms, prompt formats and "
    "regularisations for the others",
    "all arms see the same held-out documents and rows; intervals are paired on them",
    "bits per byte are counted on the raw text, so vocabularies do not matter",
    "arms are picked on development data and judged on test data, against the best there of the other side",
)
QUESTION = "Fine-tune a generic model, keep pretraining it, or pretrain a small one of our own?"


def study_record(config: StudyConfig, plan: Plan, run: Run) -> StudyRecord:
    """Everything about a study whose stages are done."""
    workspace = Workspace(run.path)
    tuning = _tuning(config, plan, workspace)
    price = config.budget.price
    return StudyRecord(
        name=config.name,
        question=QUESTION,
        command=shlex.join(["adaptkit", *(sys.argv[1:] or ["compare"])]),
        primary=config.primary,
        confidence=config.confidence,
        arms=tuple(_arm(arm) for arm in config.parsed_arms),
        seeds=tuple(range(config.seeds)),
        shares=tuple(config.fractions),
        tasks=tuple(_tasks(config, workspace)),
        data=_data(workspace),
        budget=_budget(config, plan),
        scores=(*_language_scores(config, workspace, tuning), *_task_scores(config, workspace, tuning)),
        tuning=tuple(tuning.values()),
        forgetting=tuple(_forgetting(config, workspace)),
        baselines=tuple(_baselines(config, workspace)),
        base=_base(config, workspace),
        prepared_run=workspace.prepared.run,
        price=PriceRecord(**price.model_dump()) if price else None,
    )


def _arm(arm: Arm) -> ArmRecord:
    return ArmRecord(name=arm.name, origin=arm.origin, adaptation=arm.adaptation, describe=arm.describe)


def _tasks(config: StudyConfig, workspace: Workspace) -> Iterator[TaskRecord]:
    if _scores_language(workspace):
        yield TaskRecord(
            name=LANGUAGE, kind=LANGUAGE, metric="bits_per_byte", higher_is_better=False, margin=config.margin
        )
    for task in config.tasks:
        yield TaskRecord(
            name=task.name,
            kind=task.task_kind.family,
            metric=task.score,
            higher_is_better=True,
            margin=config.margin,
            labels=workspace.prepared.labels[task.name],
        )


def _scores_language(workspace: Workspace) -> bool:
    """Masked models give no bits per byte."""
    return workspace.base.score_run is not None


def _data(workspace: Workspace) -> DataRecord:
    tokenizers = {"domain": workspace.tokenizer.tokenizer, "generic": workspace.base.tokenizer}
    return workspace.prepared.data.model_copy(update={"tokenizers": tokenizers})


def _budget(config: StudyConfig, plan: Plan) -> BudgetRecord:
    return BudgetRecord(
        flops_per_seed=plan.budget.flops,
        unit=config.budget.unit,
        asked=f"{config.budget.amount:g}",
        task_share=config.budget.task_share if config.tasks else 0.0,
        trials=plan.budget.trials,
        held_equal=HELD_EQUAL,
    )


def _base(config: StudyConfig, workspace: Workspace) -> BaseRecord:
    model = config.base or "made on the spot from the general text"
    return BaseRecord(model=model, run=workspace.base.run)


TuningKey = tuple[TextJob | None, str | None, Arm | None]
Tuning = dict[TuningKey, TuningRecord]
"""The trials of a language job, or of a task and an arm."""


def _trials_of(tuning: Tuning, *keys: TuningKey) -> tuple[str, ...]:
    return tuple(trial.run for key in keys if key in tuning for trial in tuning[key].trials)


def _language_scores(config: StudyConfig, workspace: Workspace, tuning: Tuning) -> Iterator[ScoreRecord]:
    if not _scores_language(workspace):
        return
    for arm in config.parsed_arms:
        job = arm.language_job
        shares = [1.0] if job is None or job.origin is Origin.PLACEBO else config.fractions
        for share in shares:
            for seed in range(config.seeds):
                run, scored = _language_runs(workspace, arm, seed, share)
                yield ScoreRecord(
                    arm=arm.name,
                    seed=seed,
                    share=share,
                    task=LANGUAGE,
                    run=scored,
                    suite=LANGUAGE,
                    model_run=run,
                    paid_by=(run,) if job and run else (),
                    tuned_by=_trials_of(tuning, (job, None, None)) if share == 1 and job else (),
                    text_bytes=_text_bytes(config, workspace, arm, run, share),
                )


def _language_runs(workspace: Workspace, arm: Arm, seed: int, share: float) -> tuple[str | None, str]:
    """The run whose model an arm is scored on, and the run that holds the scores."""
    if arm.language_job is None:
        run, scored = workspace.base.run, workspace.base.score_run
    else:
        result = workspace.language(arm.language_job, seed, share)
        run, scored = result.run, result.score_run
    assert scored is not None
    return run, scored


def _text_bytes(config: StudyConfig, workspace: Workspace, arm: Arm, run: str | None, share: float) -> float:
    """Bytes of domain text that a model read, each counted once: what its tokens hold, at most all of it."""
    if arm.language_job is None or arm.origin is Origin.PLACEBO or run is None:
        return 0.0
    trained = Run(workspace.root / run)
    tokens = read_json(trained.cost_path)["tokens"]
    per_token = read_record(trained).facts["tokenizer"]["bytes_per_token"]
    replayed = config.replay_share if arm.origin is Origin.CONTINUED else 0.0
    there = share * workspace.prepared.data.corpora["domain"].train.num_bytes
    return min(there, tokens * (1 - replayed) * per_token)


def _task_scores(config: StudyConfig, workspace: Workspace, tuning: Tuning) -> Iterator[ScoreRecord]:
    for task in config.tasks:
        for arm in config.arms_on(task):
            for seed in range(config.seeds):
                yield _task_score(workspace, task, arm, seed, tuning)


def _task_score(workspace: Workspace, task: TaskConfig, arm: Arm, seed: int, tuning: Tuning) -> ScoreRecord:
    result = workspace.task(task.name, arm, seed)
    origin = (workspace.language(arm.origin_job, seed, 1.0).run,) if arm.origin_job else ()
    return ScoreRecord(
        arm=arm.name,
        seed=seed,
        share=1.0,
        task=task.name,
        run=result.run,
        suite=result.suite,
        model_run=result.model_run,
        paid_by=(*origin, result.run),
        tuned_by=_trials_of(tuning, (arm.origin_job, None, None), (None, task.name, arm)),
    )


def _tuning(config: StudyConfig, plan: Plan, workspace: Workspace) -> Tuning:
    """Each training's learning rates and what they were judged by on development data."""
    if not num_trials(plan.budget):
        return {}
    found: Tuning = {}
    for job in language_trainings(config):
        trials = tuple(
            TrialRecord(run=trial.run, learning_rate=trial.learning_rate, dev=trial.dev)
            for trial in workspace.language_trials(job)
        )
        found[job, None, None] = TuningRecord(title=job.name, job=job.name, trials=trials)
    for task in config.tasks:
        for arm in config.arms_on(task):
            if arm.adaptation.trains:
                found[None, task.name, arm] = _task_tuning(workspace, task, arm)
    return found


def _task_tuning(workspace: Workspace, task: TaskConfig, arm: Arm) -> TuningRecord:
    trials = tuple(
        TrialRecord(run=trial.run, learning_rate=trial.learning_rate or 0.0, dev=trial.tuning or 0.0)
        for trial in workspace.task_trials(task.name, arm)
    )
    return TuningRecord(title=f"{arm.name} on {task.name}", job=arm.name, task=task.name, trials=trials)


def _forgetting(config: StudyConfig, workspace: Workspace) -> Iterator[ForgettingRecord]:
    if not _scores_language(workspace):
        return
    for arm in config.parsed_arms:
        for seed in range(config.seeds):
            _, scored = _language_runs(workspace, arm, seed, 1.0)
            yield ForgettingRecord(arm=arm.name, seed=seed, run=scored, suite=GENERAL)


def _baselines(config: StudyConfig, workspace: Workspace) -> Iterator[BaselineRecord]:
    for task in config.tasks:
        path = result_path(workspace.path, StageKey.for_baseline(task.name))
        result = read_result(path, BaselineResult)
        if result.run is not None:
            yield BaselineRecord(name=result.name, task=task.name, run=result.run, suite=result.suite)
