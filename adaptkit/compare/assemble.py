"""The record of a study, put together once all stages are done: what the report needs to find everything."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence

import torch

from adaptkit.client.paid import Ledger
from adaptkit.compare.account import (
    forecast_record,
    label_forecast_records,
    ladder_record,
    plan_record,
    spends,
)
from adaptkit.compare.build_stages import scores_text, trained_texts
from adaptkit.compare.held_equal import held_equal
from adaptkit.compare.labels_read import rows_read
from adaptkit.compare.plan import Plan
from adaptkit.compare.trained_text import domain_bytes_read
from adaptkit.compare.workspace import Workspace, api_ledger, result_path
from adaptkit.run import Run, read_sealed
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.config import LANGUAGE, StudyConfig, learns
from adaptkit.study.controls import LATER_CONTROLS
from adaptkit.study.data_record import DataRecord
from adaptkit.study.forecast_record import WHOLE, Portion
from adaptkit.study.record import (
    ApiRecord,
    ArmRecord,
    BaseRecord,
    BudgetRecord,
    DecisionRecord,
    ForgettingRecord,
    MachineRecord,
    PriceRecord,
    ScoreRecord,
    StudyRecord,
    TaskRecord,
    TrialRecord,
    TuningRecord,
)
from adaptkit.study.results import BASELINE, CHAT, GENERAL, trained_on
from adaptkit.study.scores import METRICS
from adaptkit.study.stage_record import BaselineResult, LanguageResult, StageKey, TaskResult, read_result
from adaptkit.study.task import TaskConfig

QUESTION = "Fine-tune a generic model, keep pretraining it, or pretrain a small one of our own?"

Tuning = dict[tuple[str, str], TuningRecord]
"""The trials by arm and task."""


def study_record(plan: Plan, run: Run) -> StudyRecord:
    """Everything about a study whose stages are done."""
    config, workspace = plan.config, Workspace(run.path)
    tuning = _tuning(plan, workspace)
    texts = _language_scores(config, workspace, tuning, plan.fixed.portions)
    scores = (*texts, *_task_scores(config, workspace, tuning, plan.fixed.label_portions))
    baselines = list(_baselines(config, workspace))
    price = config.budget.price
    return StudyRecord(
        name=config.name,
        question=QUESTION,
        command=shlex.join(["adaptkit", *(sys.argv[1:] or ["compare"])]),
        primary=config.decides,
        confidence=config.confidence,
        arms=(*map(_arm, _scored_arms(config)), *_baseline_arms(baselines)),
        seeds=tuple(range(config.seeds)),
        shares=tuple(sorted({1.0, *(portion.text for portion in plan.fixed.portions)})),
        tasks=tuple(_tasks(config, workspace)),
        data=_data(workspace),
        budget=_budget(plan),
        scores=(*scores, *(_baseline_score(task, result) for task, result in baselines)),
        tuning=tuple(tuning.values()),
        spends=spends(plan, workspace.root, scores),
        left_out=plan.fixed.left_out,
        without=tuple(config.without),
        plan=plan_record(plan, run.path),
        forgetting=tuple(_forgetting(config, workspace)),
        base=_base(config, workspace),
        prepared_run=workspace.prepared.run,
        api=_api(config, run),
        forecast=forecast_record(plan, workspace),
        label_forecasts=label_forecast_records(plan, workspace),
        ladder=ladder_record(plan, workspace),
        price=PriceRecord(**price.model_dump()) if price else None,
        decision=DecisionRecord(**config.decision.model_dump(exclude={"base_tokens"})),
        machine=_machine(plan),
    )


def _scored_arms(config: StudyConfig) -> list[Arm]:
    texts = config.text_arms if scores_text(config) else []
    return [*texts, *(arm for arm in config.job_arms if config.tasks_of(arm))]


def _arm(arm: Arm) -> ArmRecord:
    return ArmRecord(
        name=arm.name, ledger=arm.ledger, origin=arm.origin, adaptation=arm.adaptation, describe=arm.describe
    )


def _tasks(config: StudyConfig, workspace: Workspace) -> Iterator[TaskRecord]:
    if scores_text(config):
        yield TaskRecord(
            name=LANGUAGE,
            kind=LANGUAGE,
            metric="bits_per_byte",
            higher_is_better=False,
            margin=config.margin,
            controls=tuple(name for name in LATER_CONTROLS if Arm.parse(name).ledger == "text"),
        )
    for task in config.tasks:
        yield TaskRecord(
            name=task.name,
            kind=task.task_kind.family,
            metric=task.score,
            higher_is_better=METRICS[task.score].higher_is_better,
            margin=config.margin,
            labels=workspace.prepared.labels[task.name],
            controls=tuple(name for name in LATER_CONTROLS if learns(task, Arm.parse(name))),
        )


def _data(workspace: Workspace) -> DataRecord:
    tokenizers = {"domain": workspace.tokenizer.tokenizer, "generic": workspace.base.tokenizer}
    return workspace.prepared.data.model_copy(
        update={"tokenizers": tokenizers, "expectation": workspace.base.expectation}
    )


def _budget(plan: Plan) -> BudgetRecord:
    config, budget = plan.config, plan.budget
    return BudgetRecord(
        flops_per_seed=budget.flops,
        text_flops_per_seed=budget.text,
        unit=config.budget.unit,
        asked=f"{config.budget.amount:g}",
        task_share=config.budget.task_share if config.tasks else 0.0,
        trials=budget.settings_tried,
        held_equal=held_equal(config, budget),
    )


def _base(config: StudyConfig, workspace: Workspace) -> BaseRecord:
    """The base with what making it took: measured, or 6 N D of the tokens that the user gives."""
    model, params = config.base or "made on the spot from the general text", workspace.base.params
    flops = 6.0 * params * config.decision.base_tokens
    if workspace.base.run is not None:
        flops = read_sealed(Run(workspace.root / workspace.base.run).cost_path)["flops"]
    return BaseRecord(model=model, run=workspace.base.run, params=params, flops=flops)


def _api(config: StudyConfig, run: Run) -> ApiRecord | None:
    """The API that arms asked; None where nothing was sent."""
    if config.api is None or all(arm.origin is not Origin.API for arm in config.job_arms):
        return None
    price = config.api.price.model_dump()
    spent = Ledger(api_ledger(run.path), config.api.ceiling).spent
    return ApiRecord(**{**price, "name": config.api.price.name or config.api.model}, spent=spent)


def _machine(plan: Plan) -> MachineRecord:
    device = "CPU"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return MachineRecord(
        flops_per_second=plan.machine.flops_per_second, device=device, cores=os.cpu_count() or 1
    )


def _trials_of(tuning: Tuning, *keys: tuple[str, str]) -> tuple[str, ...]:
    return tuple(trial.run for key in keys if key in tuning for trial in tuning[key].trials)


def _language_scores(
    config: StudyConfig, workspace: Workspace, tuning: Tuning, portions: Sequence[Portion]
) -> Iterator[ScoreRecord]:
    if not scores_text(config):
        return
    for arm in config.text_arms:
        for portion in (*(portions if arm.origin.has_law else ()), WHOLE):
            for seed in range(config.seeds):
                run, scored = _language_runs(workspace, arm.origin, seed, portion)
                read = domain_bytes_read(workspace, arm.origin, run) if run else 0.0
                yield ScoreRecord(
                    arm=arm.name,
                    seed=seed,
                    share=portion.text,
                    compute=portion.compute,
                    task=LANGUAGE,
                    run=scored,
                    suite=LANGUAGE,
                    model_run=run,
                    paid_by=(run,) if arm.origin.learns_text and run else (),
                    tuned_by=_trials_of(tuning, (arm.name, LANGUAGE)) if portion == WHOLE else (),
                    text_bytes=min(portion.text * workspace.domain_bytes, read),
                    read_bytes=read,
                )


def _language_runs(
    workspace: Workspace, origin: Origin, seed: int, portion: Portion = WHOLE
) -> tuple[str | None, str]:
    """The run whose model a text arm is scored by, and the run that holds the scores."""
    if not origin.learns_text:
        run, scored = workspace.base.run, workspace.base.score_run
    else:
        result = workspace.language(origin, seed, portion)
        run, scored = result.run, result.score_run
    assert scored is not None
    return run, scored


def _task_scores(
    config: StudyConfig, workspace: Workspace, tuning: Tuning, labels: Mapping[str, Sequence[Portion]]
) -> Iterator[ScoreRecord]:
    for task in config.tasks:
        for arm in config.arms_on(task):
            for portion in (*(labels.get(task.name, ()) if arm.learns_labels else ()), WHOLE):
                for seed in range(config.seeds):
                    yield _task_score(workspace, task, arm, seed, tuning, portion)


def _task_score(
    workspace: Workspace, task: TaskConfig, arm: Arm, seed: int, tuning: Tuning, portion: Portion
) -> ScoreRecord:
    result = workspace.task(task.name, arm, seed, portion)
    origin: tuple[str, ...] = ()
    if arm.origin.learns_text:
        origin = (workspace.language(arm.origin, seed, task=arm.text_of(task.name)).run,)
    text = (arm.origin.value, arm.text_of(task.name) or LANGUAGE)
    tuned_by = _trials_of(tuning, text, (arm.name, task.name))
    return ScoreRecord(
        arm=arm.name,
        seed=seed,
        share=1.0,
        labels=portion.labels,
        task=task.name,
        run=result.run,
        suite=result.suite,
        model_run=result.model_run,
        paid_by=(*origin, result.run),
        tuned_by=tuned_by if portion == WHOLE else (),
        read_labels=rows_read(task, arm, result),
    )


def _tuning(plan: Plan, workspace: Workspace) -> Tuning:
    """Each training's learning rates and what they were judged by on development data."""
    num, trainings = plan.budget.num_trials, Tuning()
    if not num:
        return trainings
    for origin, own in trained_texts(plan.config):
        title = trained_on(origin.value, own)
        trials, chosen = workspace.language_trials(origin, num, own), workspace.language(origin, 0, task=own)
        trainings[origin.value, own or LANGUAGE] = _tuned(
            title, origin.value, own or LANGUAGE, trials, chosen
        )
    for task in plan.config.tasks:
        for arm in plan.config.arms_on(task):
            if arm.trains_on_task:
                title, chosen_on_task = f"{arm.name} on {task.name}", workspace.task(task.name, arm, 0)
                on_task = workspace.task_trials(task.name, arm, num)
                trainings[arm.name, task.name] = _tuned(title, arm.name, task.name, on_task, chosen_on_task)
    return trainings


def _tuned(
    title: str,
    arm: str,
    task: str,
    trials: Sequence[LanguageResult | TaskResult],
    chosen: LanguageResult | TaskResult,
) -> TuningRecord:
    tried = tuple(
        TrialRecord(
            run=trial.run,
            learning_rate=trial.learning_rate or 0.0,
            dev=_judged_by(trial),
            diverged=trial.diverged,
        )
        for trial in trials
    )
    return TuningRecord(title=title, arm=arm, task=task, trials=tried, rate=chosen.learning_rate or 0.0)


def _judged_by(trial: LanguageResult | TaskResult) -> float:
    if isinstance(trial, LanguageResult):
        return trial.dev
    assert trial.tuning is not None
    return trial.tuning


def _forgetting(config: StudyConfig, workspace: Workspace) -> Iterator[ForgettingRecord]:
    if not scores_text(config):
        return
    for arm in config.text_arms:
        for seed in range(config.seeds):
            _, scored = _language_runs(workspace, arm.origin, seed)
            for suite in (GENERAL, CHAT):
                if Run(workspace.root / scored).items(suite).exists():
                    yield ForgettingRecord(arm=arm.name, seed=seed, run=scored, suite=suite)
    for origin, task in trained_texts(config):
        for seed in range(config.seeds) if task is not None else ():
            own = workspace.language(origin, seed, task=task).score_run
            for suite in (GENERAL, CHAT):
                if own is not None and Run(workspace.root / own).items(suite).exists():
                    yield ForgettingRecord(arm=origin.value, seed=seed, run=own, suite=suite, task=task)


def _baselines(config: StudyConfig, workspace: Workspace) -> Iterator[tuple[str, BaselineResult]]:
    """Tasks that were answered without a language model."""
    for task in config.tasks:
        path = result_path(workspace.path, StageKey.for_baseline(task.name))
        result = read_result(path, BaselineResult)
        if result.run is not None:
            yield task.name, result


def _baseline_arms(baselines: Sequence[tuple[str, BaselineResult]]) -> Iterator[ArmRecord]:
    """Baselines are arms like the others, each once."""
    words = {result.name: result.describe for _, result in baselines}
    for name, describe in words.items():
        yield ArmRecord(name=name, ledger="jobs", origin=BASELINE, describe=describe)


def _baseline_score(task: str, result: BaselineResult) -> ScoreRecord:
    assert result.run is not None
    return ScoreRecord(
        arm=result.name,
        seed=0,
        share=1.0,
        task=task,
        run=result.run,
        suite=result.suite,
        paid_by=(result.run,),
    )
