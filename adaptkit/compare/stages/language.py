"""Stages that make and score language models: tokenizer, base, and each training on text."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from adaptkit import models
from adaptkit.architecture import default_learning_rate
from adaptkit.compare.lost_text import BYTE_TOKENIZER
from adaptkit.compare.ranks import leave_to_first
from adaptkit.compare.stage import Stage
from adaptkit.compare.stages.chat_habits import chat_rows, has_manners
from adaptkit.compare.stages.distillation_job import Distillation
from adaptkit.compare.stages.language_job import JobOrder, LanguageJob
from adaptkit.compare.stages.pretraining_jobs import (
    Continued,
    ContinuedVocabulary,
    KeepTraining,
    Mixed,
    OwnText,
    Placebo,
    Scratch,
    from_scratch,
    pretrained,
    scratch_objective,
)
from adaptkit.compare.stages.tsdae_job import RestoreTexts, is_headless
from adaptkit.compare.workspace import Workspace, documents, read_scores, rows_of, tidy
from adaptkit.data.shift import measure_shift
from adaptkit.data.tokenizers import CHAT_TEMPLATE, train_tokenizer
from adaptkit.disk import whole_folder
from adaptkit.errors import AdaptkitError, NonFiniteError
from adaptkit.models.bits_per_byte import bits_per_byte, score_documents
from adaptkit.models.folder import saved_shape
from adaptkit.models.round_trip import check_round_trip
from adaptkit.run import Run, write_json, write_jsonl
from adaptkit.run_record import ModelKind, RecipeKind, RunRecord, SuiteRecord
from adaptkit.study.arms import Origin
from adaptkit.study.controls import OWN
from adaptkit.study.data_record import ExpectationRecord, TokenizerRecord
from adaptkit.study.results import CHAT
from adaptkit.study.spend import after_scoring, charge_scoring, meta_model
from adaptkit.study.stage_record import BaseResult, LanguageResult, TokenizerResult
from adaptkit.study.tuning import DIVERGED, check_any_ended, for_length, for_size, grid, one_more
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.device import placed

SHIFT_PASSAGES = 60
"""Of the domain and of general text, that the base reads before anything is expected."""
JOBS: dict[Origin, LanguageJob] = {
    Origin.CONTINUED: Continued(),
    Origin.CONTINUED_LORA: Continued(),
    Origin.CONTINUED_VOCABULARY: ContinuedVocabulary(),
    Origin.MIXED: Mixed(),
    Origin.SCRATCH: Scratch(),
    Origin.TAPT: OwnText(),
    Origin.PLACEBO: Placebo(),
    Origin.DISTILLED: Distillation(),
}


def job_of(workspace: Workspace, origin: Origin) -> LanguageJob:
    """How a training on text is done on this study's base."""
    way = JOBS[origin]
    if isinstance(way, KeepTraining) and is_headless(workspace.base_folder):
        return RestoreTexts(way)
    return way


def tokenizer(workspace: Workspace, stage: Stage, threads: int) -> TokenizerResult:
    """Train the domain tokenizer and count how many bytes of domain text a token of it holds."""
    path, run = _train_tokenizer(workspace, "domain")
    causal = scratch_objective(workspace.config) == "causal"
    fit = _fit(workspace, path, causal, "tokenizer")
    if run is None:
        return TokenizerResult(path="", tokenizer=fit)
    return TokenizerResult(path=workspace.name(path), run=run.path.name, tokenizer=fit)


def base(workspace: Workspace, stage: Stage, threads: int) -> BaseResult:
    """The generic model: found, or made from the general text; scored as it is.

    Raises: ModelError for a base whose tokenizer cannot give back the domain's text.
    """
    config = workspace.config
    run: Run | None = None
    if config.base:
        path = models.find(config.base)
        fit = _fit(workspace, path, models.model_kind(path) == "causal", "base")
    else:
        trainer = TrainerConfig(
            **config.trainer.model_dump(exclude_unset=True) | {"seed": 0, "threads": threads}
        )
        vocabulary, _ = _train_tokenizer(workspace, "general")
        settings = from_scratch(workspace, "base", "general", str(vocabulary), config.base_flops, trainer)
        run, _ = pretrained(workspace, settings)
        path = run.model
        fit = _fit(workspace, path, models.model_kind(path) == "causal", "tokenizer")
    scored = _score(workspace, path, threads, chats=bool(config.base))
    kind = models.model_kind(path)
    return BaseResult(
        model=workspace.name(path) if run else "",
        run=run.path.name if run else None,
        kind=ModelKind(kind),
        params=models.param_count(meta_model(saved_shape(path), kind)).total,
        score_run=scored.path.name if scored else None,
        dev=_dev(scored) if scored else None,
        tokenizer=fit,
        expectation=_expectation(workspace, path) if scored else None,
    )


def _expectation(workspace: Workspace, path: Path) -> ExpectationRecord:
    """What the base makes of both training texts, and what that lets expect, before any arm is trained."""
    domain, general = ([str(workspace.files.train(text))] for text in ("domain", "general"))
    try:
        expected = measure_shift(domain, general, base=path, num_passages=SHIFT_PASSAGES).expectation
    except AdaptkitError as error:  # too little text, or a base that cannot be asked: no reason to stop
        return ExpectationRecord(says="cannot say", reason=error.what)
    return ExpectationRecord(says=expected.says, reason=expected.reason)


def language(workspace: Workspace, stage: Stage, threads: int) -> LanguageResult:
    """Train one language model within the stage's FLOPs and score it on held-out domain and general text."""
    key = stage.key
    assert key.origin is not None
    trial = key.trial is not None
    order = JobOrder(
        workspace,
        key.origin,
        key.portion.text,
        stage.flops,
        key.seed,
        threads,
        task=key.task,
        params=key.size,
    )
    job = job_of(workspace, key.origin)
    rate = carried_rate(job, order) if key.size else learning_rate(job, order, key.trial)
    scoring = job.scoring_flops(order)
    spare = min(to_learn_with(stage, scoring), job.most_flops(order))
    try:
        run, dev = job.train(replace(order, learning_rate=rate, flops=spare))
    except NonFiniteError as error:
        if not trial or error.run is None:
            raise
        return LanguageResult(run=error.run, learning_rate=rate, dev=DIVERGED, diverged=True)
    leave_to_first()
    charge_scoring(run, scoring)
    tidy(run, keep_model=not trial)
    if trial:
        diverged = not math.isfinite(dev)
        dev = DIVERGED if diverged else dev
        return LanguageResult(run=run.path.name, learning_rate=rate, dev=dev, diverged=diverged)
    known_dev = dev if job.text == "domain" else None
    chats = bool(workspace.config.base) and key.origin not in OWN
    scored = _score(workspace, run.model, threads, known_dev, chats=chats)
    return LanguageResult(
        run=run.path.name,
        learning_rate=rate,
        dev=_dev(scored) if scored else dev,
        model=workspace.name(run.model),
        score_run=scored.path.name if scored else None,
    )


def to_learn_with(stage: Stage, scoring: float) -> float:
    """What is left of a stage's FLOPs once its scoring is paid for.

    A smaller training learns with its share of what the largest has left, so that their learning compares;
    its own scoring comes on top.
    """
    share = stage.key.portion.compute
    return after_scoring(stage.flops / share, scoring, stage.describe) * share


def learning_rate(job: LanguageJob, order: JobOrder, trial: int | None) -> float:
    """The rate of a trial, or the best that was tried, corrected to the length of the run.

    The grid lies around what the size of the model that is trained suggests, and the kind of its training.
    """
    workspace, budget = order.workspace, order.workspace.budget
    size = default_learning_rate(job.subject(order).params)
    rates = grid(size * job.rate_share(order.adapter.kind != "none"), budget.trials)
    if trial is not None and trial < len(rates):
        return rates[trial]
    if not budget.num_trials:
        return rates[0]
    if trial is not None:
        tried = workspace.language_trials(order.origin, budget.trials, order.task)
        return one_more([result.learning_rate for result in tried], [result.dev for result in tried])
    trials = workspace.language_trials(order.origin, budget.num_trials, order.task)
    check_any_ended([trial.learning_rate for trial in trials], [trial.dev for trial in trials], order.name)
    best, most = min(trials, key=lambda result: result.dev), job.most_flops(order)
    return for_length(best.learning_rate, min(budget.trial(budget.text), most), min(order.flops, most))


def carried_rate(job: LanguageJob, order: JobOrder) -> float:
    """The rate of another size: that of the study's own, carried over by its width and number of steps."""
    tuned = replace(order, params=0)
    own, other = job.subject(tuned).model, job.subject(order).model
    seq_len = order.workspace.config.size.seq_len
    return for_size(
        learning_rate(job, tuned, None),
        widths=(own.config.hidden_size, other.config.hidden_size),
        per_token=(models.flops_per_token(own, seq_len).train, models.flops_per_token(other, seq_len).train),
    )


def _train_tokenizer(workspace: Workspace, text: str) -> tuple[Path, Run | None]:
    """The folder of a text's tokenizer, and the run that trained it."""
    settings = workspace.config.tokenizer
    if settings.path and text == "domain":
        return Path(settings.path), None
    masked = scratch_objective(workspace.config) == "masked"
    fields = {**settings.identity(lambda key, path: None), "masked": masked}
    run = workspace.open_fields(f"tokenizer-{text}", fields)
    if not run.finished:
        texts = (row.text for row in rows_of(workspace.files.train(text)).rows)
        template = None if masked else CHAT_TEMPLATE
        trained = train_tokenizer(
            texts, settings.kind, settings.vocab_size, chat_template=template, masked=masked
        )
        with whole_folder(run.model) as folder:
            trained.save_pretrained(folder)
        run.finish(record=RunRecord(recipe=RecipeKind.TOKENIZER).model_dump(mode="json"))
    return run.model, run


def _fit(workspace: Workspace, path: Path, causal: bool, where: str) -> TokenizerRecord:
    """Bytes of held-out domain text per token, special tokens left out, and the share of them that the
    tokenizer of a causal model loses.

    Raises: ModelError where that is too much for bits per byte.
    """
    vocabulary = models.load_tokenizer(path)
    texts = [text for _, text in documents(workspace.files.test("domain"))]
    lost_share = 0.0
    if causal:
        lost_share = check_round_trip(vocabulary, texts, where=where, fix=BYTE_TOKENIZER)
    num_tokens = sum(len(ids) for ids in vocabulary(texts, add_special_tokens=False)["input_ids"])
    num_bytes = sum(len(text.encode()) for text in texts)
    return TokenizerRecord(
        bytes_per_token=num_bytes / num_tokens, vocab_size=len(vocabulary), lost_share=lost_share
    )


def _score(
    workspace: Workspace, path: Path, threads: int, known_dev: float | None = None, *, chats: bool = False
) -> Run | None:
    """Bits per byte on held-out domain and general passages, in a run of its own; None for masked models.

    Args:
        known_dev: bits per byte of the development passages of the domain, where a training measured them.
        chats: the model comes from a given base: where that was taught to answer in turns, replies are kept.
    """
    if models.model_kind(path) != "causal":
        return None
    seq_len = workspace.config.size.seq_len
    run = workspace.open_fields("score", {"seq_len": seq_len}, model=workspace.content(path))
    if run.finished:
        return run
    torch.set_num_threads(threads)
    model, vocabulary = placed(models.load(path, "causal")), models.load_tokenizer(path)

    def rows(held_out: Path) -> list[dict[str, Any]]:
        return score_documents(model, vocabulary, documents(held_out), seq_len=seq_len)

    if known_dev is None:
        known_dev = bits_per_byte(rows(workspace.files.dev("domain")))
    dev = {"bits_per_byte": known_dev}
    suites = {}
    for suite, corpus in (("language", "domain"), ("general", "general")):
        items = rows(workspace.files.test(corpus))
        write_jsonl(run.items(suite), items)
        judged = {"metrics": {"bits_per_byte": bits_per_byte(items)}, "num_items": len(items)}
        suites[suite] = SuiteRecord(judged_on="test", dev=dev if suite == "language" else {}, **judged)
        write_json(run.scores(suite), {"suite": suite, **judged, "dev": suites[suite].dev})
    if chats and has_manners(vocabulary):
        write_jsonl(run.items(CHAT), chat_rows(model, vocabulary))
    record = RunRecord(recipe=RecipeKind.SCORE, model_kind=ModelKind.CAUSAL, suite="language", suites=suites)
    run.finish(record=record.model_dump(mode="json"))
    return run


def _dev(scored: Run) -> float:
    """The dev score on domain text, which learning rates are chosen by."""
    return read_scores(scored, "language")["dev"]["bits_per_byte"]
