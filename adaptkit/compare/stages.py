"""What each kind of stage does. Every function runs in a process of its own, reads what earlier stages left in the
study's folder, and returns JSON; trainings live in run directories beside the study and are found again by any study.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from adaptkit import models
from adaptkit.compare.arms import Arm, job_adapter
from adaptkit.compare.budget import Budget, steps_within
from adaptkit.compare.executor import result
from adaptkit.compare.plan import adapter_kind, language_adapter
from adaptkit.compare.prepare import documents, folder_digest, prepare_data, read_prepared, train_path
from adaptkit.compare.study import StudyConfig, TaskConfig
from adaptkit.config import load
from adaptkit.data.readers import DataConfig
from adaptkit.run import Run, read_json, write_json, write_jsonl

LORA_RATE, CONTINUED_RATE = 3.0, 0.5  # learning-rate centres relative to training all weights from scratch
TASK_RATE = 0.3


# ---- data, tokenizer, base ----------------------------------------------------------------------------------------------
def prepare(study: Path, threads: int) -> dict[str, Any]:
    """Read, deduplicate, decontaminate, split."""
    run, facts = prepare_data(_config(study), study.parent)
    return {"run": run.path.name, "facts": {k: v for k, v in facts.items() if k != "labels"}, "labels": facts["labels"]}


def tokenizer(study: Path, threads: int) -> dict[str, Any]:
    """Train the domain tokenizer and count how many bytes of domain text a token of it holds."""
    config = _config(study)
    path = _train_tokenizer(study, config, "domain", threads)
    return {"path": str(path), "tokenizers": {"domain": _bytes_per_token(study, path)}}


def base(study: Path, threads: int) -> dict[str, Any]:
    """The generic model: found, or made from the general text; scored as it is."""
    from adaptkit.pretrain.recipe import pretrain

    config = _config(study)
    if config.base:
        folder, made = models.find(config.base), None
    else:
        vocabulary = _train_tokenizer(study, config, "general", threads)
        data = _data(study)
        settings = _pretrain_config(
            config,
            study,
            "base",
            data / "general.train.jsonl",
            data / "general.dev.jsonl",
            vocabulary,
            config.base_flops,
            0,
            threads,
        )
        made = _open(study, "base", settings, data)
        pretrain(settings, made)
        folder = made.model
    scored = _score(study, config, folder, None, threads)
    return {
        "model": str(folder),
        "run": made.path.name if made else None,
        "score_run": scored.path.name,
        "dev": read_json(scored.scores("language"))["dev"]["bits_per_byte"],
        "tokenizers": {"generic": _bytes_per_token(study, folder)},
    }


def _train_tokenizer(study: Path, config: StudyConfig, text: str, threads: int) -> Path:
    from adaptkit.data.tokenizers import train_tokenizer

    if config.tokenizer.path and text == "domain":
        return Path(config.tokenizer.path)
    data = _data(study)
    fields = config.tokenizer.model_dump(mode="json")
    run = Run.open(study.parent, f"tokenizer-{text}", fields, {"data": folder_digest(data)})
    if not run.finished:
        texts = (row.values["text"] for row in read_prepared(data / f"{text}.train.jsonl").rows)
        train_tokenizer(texts, config.tokenizer.kind, config.tokenizer.vocab_size).save_pretrained(run.model)
        run.finish()
    return run.model


def _bytes_per_token(study: Path, folder: Path) -> dict[str, Any]:
    """Bytes of held-out domain text per token, special tokens left out."""
    vocabulary = models.load_tokenizer(folder)
    texts = [text for _, text in documents(_data(study) / "domain.test.jsonl")]
    tokens = sum(len(ids) for ids in vocabulary(texts, add_special_tokens=False)["input_ids"])
    return {"bytes_per_token": sum(len(t.encode()) for t in texts) / tokens, "vocab_size": len(vocabulary)}


# ---- language -----------------------------------------------------------------------------------------------------------
def language(study: Path, threads: int, *, job: str, seed: int, fraction: float, flops: float, trial: int | None) -> dict[str, Any]:
    """Train one language model within `flops` and score it on held-out domain and general text."""
    from adaptkit.pretrain.recipe import pretrain

    config, data = _config(study), _data(study)
    text = "general" if job == "placebo" else "domain"
    rate = _language_rates(study, config, job)[trial] if trial is not None else _best_rate(study, config, job)
    start = result(study, "tokenizer")["path"] if job == "scratch" else None
    settings = _pretrain_config(
        config, study, job, train_path(data, text, fraction), data / f"{text}.dev.jsonl", start, flops, seed, threads, rate
    )
    run = _open(study, job, settings, data)
    pretrain(settings, run)
    scored = _score(study, config, run.model, run, threads)
    outcome = {
        "run": run.path.name,
        "score_run": scored.path.name,
        "model": str(run.model),
        "learning_rate": rate,
        "dev": read_json(scored.scores("language"))["dev"]["bits_per_byte"],
    }
    _tidy(run, keep_model=trial is None)
    return outcome


def _pretrain_config(
    config: StudyConfig,
    study: Path,
    job: str,
    train: Path,
    dev: Path,
    tokenizer_path: Path | str | None,
    flops: float,
    seed: int,
    threads: int,
    rate: float = 0.0,
) -> Any:
    from adaptkit.pretrain.recipe import PretrainConfig

    scratch = job in ("scratch", "base")
    replay = config.replay_share if job == "continued" else 0.0
    trainer = config.trainer.model_copy(update={"seed": seed, "threads": threads} | ({"learning_rate": rate} if rate else {}))
    return PretrainConfig(
        name=job,
        base="" if scratch else result(study, "base")["model"],
        data=DataConfig(files=[str(train)]),
        dev=DataConfig(files=[str(dev)]),
        flops=flops,
        size=config.size,
        tokenizer=config.tokenizer.model_copy(update={"path": str(tokenizer_path)}) if tokenizer_path else config.tokenizer,
        adapter=config.adapter.model_copy(update={"kind": language_adapter(config, job) if not scratch else "none"}),
        replay=DataConfig(files=[str(_data(study) / "general.train.jsonl")]) if replay else None,
        replay_share=replay,
        trainer=trainer,
    )


def _language_rates(study: Path, config: StudyConfig, job: str) -> list[float]:
    """The learning rates tried for a language job, around what its size and kind of training suggest."""
    from adaptkit.pretrain.architecture import default_learning_rate

    kind = job_adapter(job, config.continue_with)
    centre = default_learning_rate(_num_params(study)) * (
        1.0 if job == "scratch" else CONTINUED_RATE if kind == "full" else LORA_RATE
    )
    return _budget(study).learning_rates(centre)


def _best_rate(study: Path, config: StudyConfig, job: str) -> float:
    trials = _budget(study).trials
    if trials == 1:
        return _language_rates(study, config, job)[0]
    return min((result(study, f"tune.{job}.{i}") for i in range(trials)), key=lambda r: r["dev"])["learning_rate"]


def _score(study: Path, config: StudyConfig, folder: Path, run: Run | None, threads: int) -> Run:
    """Bits per byte on held-out domain and general passages, in a run of its own."""
    import torch

    from adaptkit.trainer.metrics import bits_per_byte, score_documents

    data = _data(study)
    inputs = {"model": run.path.name if run else str(folder), "data": folder_digest(data)}
    scored = Run.open(study.parent, "score", {"seq_len": config.size.seq_len}, inputs)
    if scored.finished:
        return scored
    torch.set_num_threads(threads)
    kind = models.model_kind(folder)
    model, vocabulary = models.load(folder, kind), models.load_tokenizer(folder)

    def rows(name: str) -> list[dict[str, Any]]:
        return score_documents(model, vocabulary, documents(data / name), seq_len=config.size.seq_len)

    dev = {"bits_per_byte": bits_per_byte(rows("domain.dev.jsonl"))}
    for suite, name in (("language", "domain.test.jsonl"), ("general", "general.test.jsonl")):
        items = rows(name)
        write_jsonl(scored.items(suite), items)
        scores = {"suite": suite, "metrics": {"bits_per_byte": bits_per_byte(items)}, "num_items": len(items)}
        write_json(scored.scores(suite), scores | {"dev": dev if suite == "language" else {}})
    scored.finish()
    return scored


# ---- labelled tasks -----------------------------------------------------------------------------------------------------
def task(study: Path, threads: int, *, task: str, arm: str, seed: int, flops: float, trial: int | None) -> dict[str, Any]:
    """Adapt an origin's model to a task and score it."""
    import torch

    torch.set_num_threads(threads)
    config, parsed = _config(study), Arm.parse(arm)
    settings = next(t for t in config.tasks if t.name == task)
    origin = _origin(study, parsed, seed)
    if parsed.adaptation in ("prompt", "probe"):
        return _frozen_task(study, settings, parsed, seed, origin)
    return _trained_task(study, config, settings, parsed, seed, origin, flops, trial, threads)


def _origin(study: Path, arm: Arm, seed: int) -> Path:
    from adaptkit.compare.plan import language_id

    stage = language_id(arm.origin_job, seed, 1.0) if arm.origin_job else "base"
    return Path(result(study, stage)["model"])


def _task_data(study: Path, task: TaskConfig) -> dict[str, Any]:
    from adaptkit.compare.prepare import WANT

    return {part: read_prepared(_data(study) / f"{task.name}.{part}.jsonl", WANT[task.kind]) for part in ("train", "dev", "test")}


def _frozen_task(study: Path, task: TaskConfig, arm: Arm, seed: int, origin: Path) -> dict[str, Any]:
    from adaptkit.finetune.probe import probe_rows
    from adaptkit.finetune.prompting import prompt_rows

    trials = _budget(study).trials
    fields = {"arm": arm.name, "task": task.name, "kind": task.kind, "metric": task.score, "seed": seed, "trials": trials}
    run = Run.open(
        study.parent, f"{task.name}-{arm.adaptation}", fields, {"model": str(origin), "data": folder_digest(_data(study))}
    )
    if not run.finished:
        data = _task_data(study, task)
        model, vocabulary = models.load(origin, models.model_kind(origin)), models.load_tokenizer(origin)
        names = data["train"].labels
        splits = (data["train"], data["dev"], data["test"])
        if arm.adaptation == "probe":
            found = probe_rows(model, vocabulary, *splits, names, trials=trials, metric=task.score)
        else:
            found = prompt_rows(model, vocabulary, *splits, names, trials=trials, seed=seed, metric=task.score)
        write_jsonl(run.items(task.name), found.rows)
        write_json(
            run.scores(task.name),
            {"suite": task.name, "num_items": len(found.rows), "dev": found.dev, "chosen": found.chosen, "trials": found.trials},
        )
        write_json(run.cost_path, found.cost)
        run.finish()
    return {"run": run.path.name, "suite": task.name, "dev": read_json(run.scores(task.name))["dev"][task.score]}


def _trained_task(
    study: Path,
    config: StudyConfig,
    task: TaskConfig,
    arm: Arm,
    seed: int,
    origin: Path,
    flops: float,
    trial: int | None,
    threads: int,
) -> dict[str, Any]:
    from adaptkit.finetune.recipe import FinetuneConfig, finetune

    data = _data(study)
    rate = _task_rates(study, arm)[trial] if trial is not None else _best_task_rate(study, task, arm)
    adapter = config.adapter.model_copy(update={"kind": adapter_kind(config, arm.adaptation)})
    files = {part: DataConfig(files=[str(data / f"{task.name}.{part}.jsonl")]) for part in ("train", "dev", "test")}
    kind = "sft" if task.kind == "generate" else task.kind
    settings = FinetuneConfig(name=f"{task.name}-{arm.name}", task=task.name, base=str(origin), kind=kind, adapter=adapter, **files)
    steps = _task_steps(task, settings, origin, flops)
    trainer = settings.trainer.model_copy(update={"num_steps": steps, "learning_rate": rate, "seed": seed, "threads": threads})
    settings = settings.model_copy(update={"trainer": trainer})
    run = _open(study, settings.name, settings, data)
    finetune(settings, run)
    suite = read_json(run.scores(task.name))
    outcome = {"run": run.path.name, "suite": task.name, "learning_rate": rate, "dev": suite["dev"][task.score]}
    _tidy(run, keep_model=trial is None)
    return outcome


def _task_steps(task: TaskConfig, settings: Any, origin: Path, flops: float) -> int:
    """Steps that the budget buys, at most `max_epochs` passes over the rows."""
    dataset = read_prepared(Path(settings.train.files[0]), "sft" if task.kind == "generate" else "labelled")
    vocabulary = models.load_tokenizer(origin)
    sample = [row.text for row in dataset.rows[:200]]
    length = sum(min(len(ids), settings.max_length) for ids in vocabulary(sample)["input_ids"]) / len(sample)
    model = models.load(origin, models.model_kind(origin))
    per_step = models.flops_per_token(model, round(length)).train * length * settings.trainer.global_batch_size
    epochs = max(1, task.max_epochs * len(dataset.rows) // settings.trainer.global_batch_size)
    return min(steps_within(flops, per_step, what=settings.name), epochs)


def _task_rates(study: Path, arm: Arm) -> list[float]:
    from adaptkit.pretrain.architecture import default_learning_rate

    centre = default_learning_rate(_num_params(study)) * TASK_RATE * (1.0 if arm.adaptation == "full" else LORA_RATE)
    return _budget(study).learning_rates(centre)


def _best_task_rate(study: Path, task: TaskConfig, arm: Arm) -> float:
    trials = _budget(study).trials
    if trials == 1:
        return _task_rates(study, arm)[0]
    return max((result(study, f"tune.{task.name}.{arm.name}.{i}") for i in range(trials)), key=lambda r: r["dev"])["learning_rate"]


def baseline(study: Path, threads: int, *, task: str) -> dict[str, Any]:
    """TF-IDF and logistic regression on a labelled task; nothing for free text."""
    from adaptkit.compare.baseline import NAME, tfidf_rows

    settings = next(t for t in _config(study).tasks if t.name == task)
    if settings.kind == "generate":
        return {}
    data = _task_data(study, settings)
    run = Run.open(study.parent, f"{task}-baseline", {"name": NAME}, {"data": folder_digest(_data(study))})
    if not run.finished:
        rows = tfidf_rows(
            [(r.values["text"], r.values["label"]) for r in data["train"].rows],
            [(r.id, r.values["text"], r.values["label"]) for r in data["test"].rows],
        )
        write_jsonl(run.items(task), rows)
        write_json(run.scores(task), {"suite": task, "num_items": len(rows), "dev": {}})
        run.finish()
    return {"run": run.path.name, "suite": task, "name": NAME}


# ---- shared by the stages -------------------------------------------------------------------------------------------------
def _config(study: Path) -> StudyConfig:
    return load(StudyConfig, study / "config.yaml").config


def _budget(study: Path) -> Budget:
    return Budget(**read_json(study / "plan.json")["budget"])


def _data(study: Path) -> Path:
    return study.parent / result(study, "prepare")["run"]


def _num_params(study: Path) -> int:
    """Parameters of the generic model: the size that learning rates are scaled from."""
    import torch
    from transformers import AutoConfig

    folder = result(study, "base")["model"]
    with torch.device("meta"):
        return models.param_count(
            models.build(AutoConfig.from_pretrained(folder, local_files_only=True), models.model_kind(folder), seed=0)
        ).total


def _open(study: Path, name: str, settings: Any, data: Path) -> Run:
    """The run of a recipe's settings; how many threads it may use is no part of its identity."""
    fields = settings.model_dump(mode="json")
    fields["trainer"].pop("threads")
    return Run.open(study.parent, name, fields, {"data": folder_digest(data)})


def _tidy(run: Run, *, keep_model: bool) -> None:
    """A finished run needs no checkpoints; a trial's model is never used again."""
    for folder in [run.checkpoints, run.path / "shards"] + ([] if keep_model else [run.model]):
        shutil.rmtree(folder, ignore_errors=True)
