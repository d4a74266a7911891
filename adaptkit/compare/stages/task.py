"""Stages that adapt a language model to a labelled task and score it, and the baseline that needs none."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch

from adaptkit import models
from adaptkit.architecture import default_learning_rate
from adaptkit.client.connection import PASSING
from adaptkit.client.key_file import read_key
from adaptkit.client.openai import Client
from adaptkit.client.paid import Ledger, PaidClient
from adaptkit.compare.build_stages import choosing_lookup
from adaptkit.compare.labels_read import fewer_labels
from adaptkit.compare.outgoing import token_price
from adaptkit.compare.ranks import leave_to_first
from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import Workspace, api_ledger, api_replies, read_scores, tidy
from adaptkit.errors import NonFiniteError
from adaptkit.finetune.prompt_passages import Lookup
from adaptkit.models.folder import saved_shape
from adaptkit.run import Run, file_digest, write_json, write_jsonl, write_sealed
from adaptkit.run_record import RecipeKind, RunRecord, SuiteRecord, read_record
from adaptkit.study.arms import Adaptation, Arm, Origin
from adaptkit.study.spend import meta_model
from adaptkit.study.stage_record import BaselineResult, TaskResult
from adaptkit.study.task import PROMPT_FIELDS, Assignment, TaskConfig
from adaptkit.study.task_answers import Answers, Rows
from adaptkit.study.tasks.rows import RowKind
from adaptkit.study.tuning import DIVERGED, check_any_ended, grid, one_more

LONGEST_API_PAUSE_S = 30.0
"""Between two tries, where an API does not say when to ask again."""


def task(workspace: Workspace, stage: Stage, threads: int) -> TaskResult:
    """Adapt an origin's model to a task and score it."""
    torch.set_num_threads(threads)
    key = stage.key
    assert key.arm is not None and key.arm.adaptation is not None and key.task is not None
    settings = workspace.config.task(key.task)
    files, flops, fewer = workspace.files.task(settings.name), stage.flops, key.portion.labels < 1
    if fewer:
        files = fewer_labels(workspace, settings, key.seed, key.portion)
        flops = workspace.budget.run(workspace.budget.on_task(key.arm.origin))
    origin, origin_run = _origin(workspace, settings.name, key.arm, key.seed)
    rate, tried_steps = _learning_rate(workspace, settings, key.arm, origin, key.trial)
    work = Assignment(
        task=settings,
        files=files,
        arm=key.arm,
        origin=origin,
        seed=key.seed,
        threads=threads,
        trials=workspace.budget.settings_tried,
        adapter=workspace.config.adapter_of(key.arm.adaptation),
        flops=flops,
        learning_rate=rate,
        tried_steps=tried_steps,
        tuning=key.trial is not None,
        open=workspace.open,
        library=workspace.library if key.arm.looks_up else None,
        lookup=_lookup(workspace, settings.name, key.arm),
    )
    if key.arm.origin is Origin.API:
        with _paid(workspace) as model:
            return _frozen(workspace, dataclasses.replace(work, api=model), None)
    if key.arm.trains_on_task:
        return _trained(work, keep_model=not (work.tuning or fewer))
    return _frozen(workspace, work, None if fewer else origin_run)


def baseline(workspace: Workspace, stage: Stage, threads: int) -> BaselineResult:
    """Answer a task without any language model, where its kind knows how."""
    assert stage.key.task is not None
    settings = workspace.config.task(stage.key.task)
    answered = settings.task_kind.baseline(settings, workspace.files.task(settings.name))
    if answered is None:
        return BaselineResult()
    fields = {"name": answered.name, **_own_metric(settings)}
    run = workspace.open_fields(f"{settings.name}-baseline", fields)
    if not run.finished:
        write_sealed(run.cost_path, answered.cost)
        rows = _judged(workspace, settings, answered.rows)
        _write(run, settings, Answers(rows, dev_rows=answered.dev_rows), RecipeKind.BASELINE)
    score = read_scores(run, settings.name)["metrics"][settings.score]
    return BaselineResult(
        run=run.path.name,
        suite=settings.name,
        name=answered.name,
        describe=answered.describe,
        metric=settings.score,
        score=score,
    )


def _lookup(workspace: Workspace, task: str, arm: Arm) -> Lookup | None:
    """The way to look things up that was best on development rows for an arm that is asked, not trained."""
    chooser = choosing_lookup(workspace.config, task, arm)
    if chooser is None:
        return None
    run = Run(workspace.folder(workspace.task(task, chooser, 0).run))
    chosen = read_scores(run, task)["chosen"]
    return Lookup(chosen["retriever"], chosen["passages"])


def _paid(workspace: Workspace) -> PaidClient:
    """The model behind the study's API, with its key, its kept replies and what may still be spent."""
    api = workspace.config.api
    assert api is not None  # the config's own validation asks for it
    client = Client(
        api.url,
        read_key(api.key_file),
        patience_s=api.patience,
        again=PASSING,
        longest_pause_s=LONGEST_API_PAUSE_S,
    )
    ledger = Ledger(api_ledger(workspace.path), api.ceiling)
    return PaidClient(
        client,
        api.model,
        token_price(api),
        replies=api_replies(workspace.root),
        ledger=ledger,
        at_once=api.at_once,
    )


def _origin(workspace: Workspace, task: str, arm: Arm, seed: int) -> tuple[Path, str | None]:
    """The model that an arm starts from, and the run that made it; no folder for one behind an API."""
    if not arm.origin.has_weights:
        return Path(), None
    if not arm.origin.learns_text:
        return workspace.base_folder, workspace.base.run
    trained = workspace.language(arm.origin, seed, task=arm.text_of(task))
    assert trained.model is not None
    return workspace.folder(trained.model), trained.run


def _trained(work: Assignment, *, keep_model: bool) -> TaskResult:
    try:
        run = work.task.task_kind.train(work)
    except NonFiniteError as error:
        if not work.tuning or error.run is None:
            raise
        return TaskResult(
            run=error.run,
            suite=work.task.name,
            learning_rate=work.learning_rate,
            tuning=DIVERGED,
            diverged=True,
        )
    leave_to_first()
    tidy(run, keep_model=keep_model)
    dev = read_scores(run, work.task.name)["dev"]
    num_steps = read_record(run).num_steps
    tuning = work.task.task_kind.tuning_score(dev, work.task.score)
    diverged = work.tuning and not math.isfinite(tuning)
    return TaskResult(
        run=run.path.name,
        suite=work.task.name,
        learning_rate=work.rate_for(num_steps),
        num_steps=num_steps,
        tuning=DIVERGED if diverged else tuning,
        diverged=diverged,
        model_run=run.path.name if keep_model else None,
    )


def _frozen(workspace: Workspace, work: Assignment, origin_run: str | None) -> TaskResult:
    """Prompting and probing: their trials are cheap and run inside the stage."""
    assert work.arm.adaptation is not None
    fields = {
        "adaptation": work.arm.adaptation.value,
        "task": work.task.name,
        "kind": work.task.kind,
        "metric": work.task.score,
        "seed": work.seed,
        "trials": work.trials,
        "max_length": work.task.max_length,
        **_own_metric(work.task),
    }
    if work.arm.adaptation.is_prompted:
        asked = (
            set(PROMPT_FIELDS) if "fields" in work.task.task_kind.asks else set(PROMPT_FIELDS) - {"fields"}
        )
        fields |= {name: getattr(work.task, name) for name in sorted(asked)}
    inputs: dict[str, str] = {}
    if work.files != workspace.files.task(work.task.name):
        inputs["train"] = file_digest(work.files.train)
    if work.arm.adaptation is Adaptation.RAG:
        assert work.library is not None
        fields["collection"] = work.library.collection.name
        if work.library.encoder is not None:
            inputs["encoder"] = workspace.content(work.library.encoder)
    if work.api is None:
        name, model = f"{work.task.name}-{work.arm.adaptation}", workspace.content(work.origin)
    else:
        name, model = f"{work.task.name}-{work.arm.name}", f"{work.api.model} at {work.api.client.base_url}"
    run = workspace.open_fields(name, fields, model=model, **inputs)
    if not run.finished:
        answers = work.task.task_kind.frozen(work)
        answers = dataclasses.replace(answers, rows=_judged(workspace, work.task, answers.rows))
        write_sealed(run.cost_path, answers.cost)
        _write(run, work.task, answers, RecipeKind.FROZEN)
    served = origin_run if work.arm.adaptation.is_a_model else None
    return TaskResult(run=run.path.name, suite=work.task.name, model_run=served)


def _own_metric(task: TaskConfig) -> dict[str, str]:
    """What tells runs apart that are judged by a metric of the user's: the digest of its file."""
    own = task.own_metric
    return {} if own is None else {"metric_file": own.digest}


def _judged(workspace: Workspace, task: TaskConfig, rows: Rows) -> Rows:
    """Item rows with the number of the user's metric, where there is one."""
    own, kind = task.own_metric, task.task_kind
    if own is None or not isinstance(kind, RowKind):
        return rows
    return own.complete(kind.parts(workspace.files.task(task.name))["test"].rows, rows)


def _write(run: Run, task: TaskConfig, answers: Answers, recipe: RecipeKind) -> None:
    judged = {"metrics": task.task_kind.scores(answers.rows), "num_items": len(answers.rows)}
    write_jsonl(run.items(task.name), answers.rows)
    if answers.dev_rows:
        write_jsonl(run.items(task.name, "dev"), answers.dev_rows)
    write_json(run.scores(task.name), {"suite": task.name, **judged, "dev": answers.dev, **answers.facts})
    suite = SuiteRecord(judged_on="test", dev=answers.dev, **judged)
    record = RunRecord(recipe=recipe, task=task.name, suite=task.name, suites={task.name: suite})
    run.finish(record=record.model_dump(mode="json"))


def _learning_rate(
    workspace: Workspace, task: TaskConfig, arm: Arm, origin: Path, trial: int | None
) -> tuple[float, int]:
    """The rate of a trial, or the best that was tried and the steps of its trial; 0 without training.

    The grid lies around what the size of the arm's own model suggests, and the kind of task.
    """
    if not arm.trains_on_task or arm.adaptation is None:
        return 0.0, 0
    budget = workspace.budget
    params = models.param_count(meta_model(saved_shape(origin), models.model_kind(origin))).total
    centre = default_learning_rate(params) * task.task_kind.rates.centre(arm.adaptation)
    rates = grid(centre, budget.trials)
    if trial is not None and trial < len(rates):
        return rates[trial], 0
    if not budget.num_trials:
        return rates[0], 0
    if trial is not None:
        tried = workspace.task_trials(task.name, arm, budget.trials)
        return one_more([_rate(result) for result in tried], [_tuning_score(result) for result in tried]), 0
    trials = workspace.task_trials(task.name, arm, budget.num_trials)
    check_any_ended([*map(_rate, trials)], [*map(_tuning_score, trials)], f"{arm.name} on {task.name}")
    best = min(trials, key=_tuning_score)
    return _rate(best), best.num_steps


def _rate(result: TaskResult) -> float:
    assert result.learning_rate is not None
    return result.learning_rate


def _tuning_score(result: TaskResult) -> float:
    assert result.tuning is not None
    return result.tuning
