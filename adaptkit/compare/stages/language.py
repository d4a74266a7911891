"""Stages that make and score language models: tokenizer, base, and each training on text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adaptkit import models
from adaptkit.architecture import default_learning_rate
from adaptkit.compare.stage import Stage
from adaptkit.compare.stages.distillation_job import Distillation
from adaptkit.compare.stages.language_job import JobOrder, LanguageJob
from adaptkit.compare.stages.pretraining_jobs import (
    Continued,
    KeepTraining,
    Placebo,
    Scratch,
    from_scratch,
    pretrained,
    scratch_objective,
)
from adaptkit.compare.stages.tsdae_job import RestoreTexts, is_headless
from adaptkit.compare.workspace import Workspace, documents, rows_of, tidy
from adaptkit.data.tokenizers import CHAT_TEMPLATE, train_tokenizer
from adaptkit.models.bits_per_byte import bits_per_byte, score_documents
from adaptkit.run import Run, read_json, write_json, write_jsonl
from adaptkit.run_record import ModelKind, RecipeKind, RunRecord, SuiteRecord
from adaptkit.study.arms import Adaptation, Origin, TextJob
from adaptkit.study.record import TokenizerRecord
from adaptkit.study.stage_record import BaseResult, LanguageResult, TokenizerResult
from adaptkit.trainer.config import TrainerConfig

JOBS: dict[Origin, LanguageJob] = {
    Origin.GENERIC: KeepTraining(),
    Origin.CONTINUED: Continued(),
    Origin.SCRATCH: Scratch(),
    Origin.PLACEBO: Placebo(),
    Origin.DISTILLED: Distillation(),
}


def job_of(workspace: Workspace, job: TextJob) -> LanguageJob:
    """How a job is done on this study's base."""
    way = JOBS[job.origin]
    if isinstance(way, KeepTraining) and is_headless(workspace.base_folder):
        return RestoreTexts(way.text)
    return way


def tokenizer(workspace: Workspace, stage: Stage, threads: int) -> TokenizerResult:
    """Train the domain tokenizer and count how many bytes of domain text a token of it holds."""
    path = _train_tokenizer(workspace, "domain")
    return TokenizerResult(path=str(path), tokenizer=_fit(workspace, path))


def base(workspace: Workspace, stage: Stage, threads: int) -> BaseResult:
    """The generic model: found, or made from the general text; scored as it is."""
    config = workspace.config
    run: Run | None = None
    if config.base:
        path = models.find(config.base)
        identity = str(path)
    else:
        trainer = TrainerConfig(
            **config.trainer.model_dump(exclude_unset=True) | {"seed": 0, "threads": threads}
        )
        vocabulary = str(_train_tokenizer(workspace, "general"))
        settings = from_scratch(workspace, "base", "general", vocabulary, config.base_flops, trainer)
        run, _ = pretrained(workspace, settings)
        path, identity = run.model, run.path.name
    scored = _score(workspace, path, identity, threads)
    return BaseResult(
        model=str(path),
        run=run.path.name if run else None,
        kind=ModelKind(models.model_kind(path)),
        score_run=scored.path.name if scored else None,
        dev=_dev(scored) if scored else None,
        tokenizer=_fit(workspace, path),
    )


def language(workspace: Workspace, stage: Stage, threads: int) -> LanguageResult:
    """Train one language model within the stage's FLOPs and score it on held-out domain and general text."""
    key = stage.key
    assert key.job is not None
    trial = key.trial is not None
    rate = (
        learning_rates(workspace, key.job)[key.trial]
        if key.trial is not None
        else best_rate(workspace, key.job)
    )
    order = JobOrder(workspace, key.job, key.share, stage.flops, key.seed, threads, rate)
    run, dev = job_of(workspace, key.job).train(order)
    tidy(run, keep_model=not trial)
    if trial:
        return LanguageResult(run=run.path.name, learning_rate=rate, dev=dev)
    scored = _score(workspace, run.model, run.path.name, threads)
    return LanguageResult(
        run=run.path.name,
        learning_rate=rate,
        dev=_dev(scored) if scored else dev,
        model=str(run.model),
        score_run=scored.path.name if scored else None,
    )


def learning_rates(workspace: Workspace, job: TextJob) -> list[float]:
    """The learning rates tried for a job, around what its size and kind of training suggest."""
    weights = job.weights(Adaptation(workspace.config.continue_with))
    share = job_of(workspace, job).rate_share(weights)
    return workspace.budget.learning_rates(default_learning_rate(workspace.base_params) * share)


def best_rate(workspace: Workspace, job: TextJob) -> float:
    """The rate whose trial did best on development text; the centre where nothing was tried."""
    if workspace.budget.trials == 1:
        return learning_rates(workspace, job)[0]
    return min(workspace.language_trials(job), key=lambda trial: trial.dev).learning_rate


def _train_tokenizer(workspace: Workspace, text: str) -> Path:
    settings = workspace.config.tokenizer
    if settings.path and text == "domain":
        return Path(settings.path)
    masked = scratch_objective(workspace.config) == "masked"
    fields = {**settings.model_dump(mode="json"), "masked": masked}
    run = workspace.open_fields(f"tokenizer-{text}", fields)
    if not run.finished:
        texts = (row.text for row in rows_of(workspace.files.train(text)).rows)
        template = None if masked else CHAT_TEMPLATE
        trained = train_tokenizer(
            texts, settings.kind, settings.vocab_size, chat_template=template, masked=masked
        )
        trained.save_pretrained(run.model)
        run.finish(record=RunRecord(recipe=RecipeKind.TOKENIZER).model_dump(mode="json"))
    return run.model


def _fit(workspace: Workspace, path: Path) -> TokenizerRecord:
    """Bytes of held-out domain text per token, special tokens left out."""
    vocabulary = models.load_tokenizer(path)
    texts = [text for _, text in documents(workspace.files.test("domain"))]
    num_tokens = sum(len(ids) for ids in vocabulary(texts, add_special_tokens=False)["input_ids"])
    num_bytes = sum(len(text.encode()) for text in texts)
    return TokenizerRecord(bytes_per_token=num_bytes / num_tokens, vocab_size=len(vocabulary))


def _score(workspace: Workspace, path: Path, identity: str, threads: int) -> Run | None:
    """Bits per byte on held-out domain and general passages, in a run of its own; None for masked models."""
    if models.model_kind(path) != "causal":
        return None
    seq_len = workspace.config.size.seq_len
    run = workspace.open_fields("score", {"seq_len": seq_len}, model=identity)
    if run.finished:
        return run
    torch.set_num_threads(threads)
    model, vocabulary = models.load(path, "causal"), models.load_tokenizer(path)

    def rows(held_out: Path) -> list[dict[str, Any]]:
        return score_documents(model, vocabulary, documents(held_out), seq_len=seq_len)

    dev = {"bits_per_byte": bits_per_byte(rows(workspace.files.dev("domain")))}
    suites = {}
    for suite, corpus in (("language", "domain"), ("general", "general")):
        items = rows(workspace.files.test(corpus))
        write_jsonl(run.items(suite), items)
        judged = {"metrics": {"bits_per_byte": bits_per_byte(items)}, "num_items": len(items)}
        suites[suite] = SuiteRecord(judged_on="test", dev=dev if suite == "language" else {}, **judged)
        write_json(run.scores(suite), {"suite": suite, **judged, "dev": suites[suite].dev})
    record = RunRecord(recipe=RecipeKind.SCORE, model_kind=ModelKind.CAUSAL, suite="language", suites=suites)
    run.finish(record=record.model_dump(mode="json"))
    return run


def _dev(scored: Run) -> float:
    """The dev score on domain text, which learning rates are chosen by."""
    return read_json(scored.scores("language"))["dev"]["bits_per_byte"]
