"""Stages that adapt a language model to a labelled task and score it, and the baseline that needs none."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit import models
from adaptkit.compare.plan import adapter_kind, language_id
from adaptkit.compare.stages.data import WANT, read_prepared
from adaptkit.compare.workspace import StudyFolder, tidy, with_trainer
from adaptkit.data.readers import DataConfig
from adaptkit.run import Run, read_json, write_json, write_jsonl
from adaptkit.study.arms import Arm
from adaptkit.study.config import TASK_METRICS, TaskConfig
from adaptkit.study.scores import score_table

if TYPE_CHECKING:
    from adaptkit.data.readers import Dataset

# Centres of the learning rates tried, relative to training all weights from scratch.
FULL_RATE, LORA_RATE = 0.3, 0.6
CONTRASTIVE_RATES = 0.1, 0.5
HORIZON = 0.32
"""A run takes the best rate of trials that are a share s of its length, times s ** HORIZON: what learns
fastest in a short trial is too fast for a long run (Bjorck et al. 2024, arXiv 2409.19913)."""


def task(
    folder: StudyFolder, threads: int, *, task: str, arm: str, seed: int, flops: float, trial: int | None
) -> dict[str, Any]:
    """Adapt an origin's model to a task and score it."""
    import torch

    torch.set_num_threads(threads)
    parsed, settings = Arm.parse(arm), _task(folder, task)
    stage = language_id(parsed.origin_job, seed, 1.0) if parsed.origin_job else "base"
    origin = Path(folder.result(stage)["model"])
    if parsed.adaptation in ("prompt", "probe"):
        return _frozen(folder, settings, parsed, seed, origin)
    return _trained(folder, settings, parsed, seed, origin, flops, trial, threads)


def baseline(folder: StudyFolder, threads: int, *, task: str) -> dict[str, Any]:
    """TF-IDF and logistic regression on a labelled task, BM25 on a search; nothing for free text."""
    from adaptkit.compare.stages.tfidf import NAME, tfidf_rows

    settings = _task(folder, task)
    if settings.kind == "generate":
        return {}
    if settings.kind == "retrieve":
        return _searched_by_words(folder, settings)
    run = Run.open(folder.root, f"{task}-baseline", {"name": NAME}, {"data": folder.data_digest})
    if not run.finished:
        data = _splits(folder, settings)
        train = [(row.values["text"], row.values["label"]) for row in data["train"].rows]
        rows = tfidf_rows(
            train, [(row.id, row.values["text"], row.values["label"]) for row in data["test"].rows]
        )
        _write(run, settings, rows, {})
    return {"run": run.path.name, "suite": task, "name": NAME}


def _searched_by_words(folder: StudyFolder, task: TaskConfig) -> dict[str, Any]:
    from adaptkit.compare.stages.retrieve import BASELINE, baseline_rows

    run = Run.open(folder.root, f"{task.name}-baseline", {"name": BASELINE}, {"data": folder.data_digest})
    if not run.finished:
        _write(run, task, baseline_rows(folder.data / task.name), {})
    return {"run": run.path.name, "suite": task.name, "name": BASELINE}


def score_rows(task: TaskConfig, rows: list[dict[str, Any]]) -> dict[str, float]:
    """The task's metrics of item rows."""
    return {name: score_table(name, rows).value for name in TASK_METRICS[task.kind]} if rows else {}


def _task(folder: StudyFolder, name: str) -> TaskConfig:
    return next(task for task in folder.config.tasks if task.name == name)


def _splits(folder: StudyFolder, task: TaskConfig) -> dict[str, Dataset]:
    return {
        part: read_prepared(_path(folder, task, part), WANT[task.kind]) for part in ("train", "dev", "test")
    }


def _path(folder: StudyFolder, task: TaskConfig, part: str) -> Path:
    return folder.data / f"{task.name}.{part}.jsonl"


def _write(
    run: Run, task: TaskConfig, rows: list[dict[str, Any]], dev: dict[str, float], **more: Any
) -> None:
    write_jsonl(run.items(task.name), rows)
    scores = {"suite": task.name, "metrics": score_rows(task, rows), "num_items": len(rows), "dev": dev}
    write_json(run.scores(task.name), scores | more)
    run.finish()


def _frozen(folder: StudyFolder, task: TaskConfig, arm: Arm, seed: int, origin: Path) -> dict[str, Any]:
    """Prompting and probing: their trials are cheap and run inside the stage."""
    trials = folder.budget.trials
    fields = {
        "adaptation": arm.adaptation,
        "task": task.name,
        "kind": task.kind,
        "metric": task.score,
        "seed": seed,
        "trials": trials,
    }
    run = Run.open(
        folder.root,
        f"{task.name}-{arm.adaptation}",
        fields,
        {"model": str(origin), "data": folder.data_digest},
    )
    if not run.finished and task.kind == "retrieve":
        from adaptkit.compare.stages.retrieve import frozen

        _write(run, task, *frozen(folder, task, origin, run))
    elif not run.finished:
        data = _splits(folder, task)
        model, vocabulary = models.load(origin, models.model_kind(origin)), models.load_tokenizer(origin)
        found = _method(task, arm, seed, data["train"].labels)(
            model, vocabulary, data["train"], data["dev"], data["test"], trials=trials, metric=task.score
        )
        write_json(run.cost_path, found.cost)
        _write(run, task, found.rows, found.dev, chosen=found.chosen, trials=found.trials)
    return {"run": run.path.name, "suite": task.name}


def _method(task: TaskConfig, arm: Arm, seed: int, label_names: list[str]) -> Any:
    if task.kind == "generate":
        from adaptkit.finetune.answering import answer_rows

        return partial(answer_rows, score=partial(score_rows, task), seed=seed)
    if arm.adaptation == "probe":
        from adaptkit.finetune.probe import probe_rows

        return partial(probe_rows, label_names=label_names, max_length=task.max_length)
    from adaptkit.finetune.prompting import prompt_rows

    return partial(prompt_rows, label_names=label_names, seed=seed)


def _trained(
    folder: StudyFolder,
    task: TaskConfig,
    arm: Arm,
    seed: int,
    origin: Path,
    flops: float,
    trial: int | None,
    threads: int,
) -> dict[str, Any]:
    from adaptkit.finetune.config import FinetuneConfig
    from adaptkit.finetune.recipe import finetune, steps_for_budget

    tuning = trial is not None
    rate = _rates(folder, task, arm)[trial] if tuning else _rate_of_run(folder, task, arm)
    if task.kind == "retrieve":
        from adaptkit.compare.stages.retrieve import trained

        run = trained(folder, task, arm, seed, origin, flops, trial, threads, rate)
        return {"run": run.path.name, "suite": task.name, "learning_rate": rate, "dev": _dev(run, task)}
    settings = FinetuneConfig(
        name=f"{task.name}-{arm.name}",
        task=task.name,
        base=str(origin),
        kind="sft" if task.kind == "generate" else task.kind,
        adapter=folder.config.adapter.model_copy(
            update={"kind": adapter_kind(folder.config, arm.adaptation)}
        ),
        max_length=task.max_length,
        # A trial is judged on dev rows at its end; a run also keeps its best weights on the way and is
        # tested.
        **{
            part: DataConfig(files=[str(_path(folder, task, part))])
            for part in ("train", "dev", "test")[: 2 if tuning else 3]
        },
    )
    when = {"select": "last" if tuning else "best", "learning_rate": rate, "seed": seed, "threads": threads}
    settings = with_trainer(settings, **when)
    settings = with_trainer(settings, num_steps=steps_for_budget(settings, flops, task.max_epochs))
    run = folder.open(settings.name, settings)
    finetune(settings, run, score=partial(score_rows, task))
    tidy(run, keep_model=not tuning)
    return {"run": run.path.name, "suite": task.name, "learning_rate": rate, "dev": _dev(run, task)}


def _dev(run: Run, task: TaskConfig) -> float:
    """What trials are compared by, lower is better. After so few steps accuracies are chance, losses tell
    rates apart already.

    The loss of search is that of a small batch and tells less than the ranks do: there it is what lacks to
        the best score.
    """
    dev = read_json(run.scores(task.name))["dev"]
    return 1 - dev[task.score] if task.kind == "retrieve" else dev["loss"]


def _rates(folder: StudyFolder, task: TaskConfig, arm: Arm) -> list[float]:
    from adaptkit.architecture import default_learning_rate

    full, lora = CONTRASTIVE_RATES if task.kind == "retrieve" else (FULL_RATE, LORA_RATE)
    share = full if arm.adaptation == "full" else lora
    return folder.budget.learning_rates(default_learning_rate(folder.base_params) * share)


def _rate_of_run(folder: StudyFolder, task: TaskConfig, arm: Arm) -> float:
    budget = folder.budget
    if budget.trials == 1:
        return _rates(folder, task, arm)[0]
    tried = (folder.result(f"tune.{task.name}.{arm.name}.{i}") for i in range(budget.trials))
    best = min(tried, key=lambda outcome: outcome["dev"])["learning_rate"]
    return float(f"{best * budget.trial_share**HORIZON:.3g}")
