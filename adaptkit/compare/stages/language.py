"""Stages that make and score language models: the tokenizer, the base, and one training per job, seed and
share of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptkit import models
from adaptkit.compare.plan import language_adapter
from adaptkit.compare.speed import text_kind
from adaptkit.compare.stages.data import documents, read_prepared, train_path
from adaptkit.compare.workspace import StudyFolder, tidy
from adaptkit.data.readers import DataConfig
from adaptkit.run import Run, read_json, write_json, write_jsonl
from adaptkit.study.arms import job_adapter

# Centres of the learning rates tried, relative to training all weights from scratch.
CONTINUED_RATE, LORA_RATE = 0.5, 3.0
SCRATCH = ("scratch", "base")


def tokenizer(folder: StudyFolder, threads: int) -> dict[str, Any]:
    """Train the domain tokenizer and count how many bytes of domain text a token of it holds."""
    path = _train_tokenizer(folder, "domain")
    return {"path": str(path), "tokenizers": {"domain": _bytes_per_token(folder, path)}}


def base(folder: StudyFolder, threads: int) -> dict[str, Any]:
    """The generic model: found, or made from the general text; scored as it is."""
    from adaptkit.pretrain.recipe import pretrain

    made: Run | None = None
    if folder.config.base:
        path = models.find(folder.config.base)
    else:
        settings = _settings(folder, "base", "general", 1.0, folder.config.base_flops, 0, threads)
        made = folder.open("base", settings)
        pretrain(settings, made)
        path = made.model
    scored = _score(folder, path, str(path) if made is None else made.path.name, threads)
    told = {"model": str(path), "run": made.path.name if made else None, "kind": models.model_kind(path)}
    return told | _scores(scored) | {"tokenizers": {"generic": _bytes_per_token(folder, path)}}


def language(
    folder: StudyFolder,
    threads: int,
    *,
    job: str,
    seed: int,
    fraction: float,
    flops: float,
    trial: int | None,
) -> dict[str, Any]:
    """Train one language model within `flops` and score it on held-out domain and general text."""
    from adaptkit.compare.stages import student, tsdae
    from adaptkit.distill.recipe import distill
    from adaptkit.embed.recipe import EmbedResult, embed
    from adaptkit.pretrain.recipe import pretrain

    rate = _rates(folder, job)[trial] if trial is not None else _best_rate(folder, job)
    text = "general" if job == "placebo" else "domain"
    if job == "distilled":
        settings, recipe = student.settings(folder, fraction, flops, seed, threads, rate), distill
    elif job not in SCRATCH and tsdae.fits(folder.base):
        settings, recipe = tsdae.settings(folder, job, text, fraction, flops, seed, threads, rate), embed
    else:
        settings, recipe = _settings(folder, job, text, fraction, flops, seed, threads, rate), pretrain
    run = folder.open(job, settings)
    result = recipe(settings, run)
    scores = result.dev if isinstance(result, EmbedResult) else result.scores
    tidy(run, keep_model=trial is None)
    # Tuned on the kind of text it learns: the placebo must be as good at general text as trials can make it.
    outcome = {"run": run.path.name, "learning_rate": rate, "dev": min(scores.values())}
    if trial is not None:
        return outcome
    return outcome | {"model": str(run.model)} | _scores(_score(folder, run.model, run.path.name, threads))


def _settings(
    folder: StudyFolder,
    job: str,
    text: str,
    fraction: float,
    flops: float,
    seed: int,
    threads: int,
    rate: float = 0.0,
) -> Any:
    """The pretraining that a job is."""
    from adaptkit.pretrain.config import PretrainConfig

    config, scratch = folder.config, job in SCRATCH
    replay = {"replay": _files(folder.data / "general.train.jsonl"), "replay_share": config.replay_share}
    trainer = {"seed": seed, "threads": threads} | ({"learning_rate": rate} if rate else {})
    kind = "none" if scratch else language_adapter(config, job)
    return PretrainConfig(
        name=job,
        objective="masked"
        if not scratch and text_kind(folder.base) == "masked"
        else _scratch_objective(folder),
        base="" if scratch else str(folder.base),
        data=_files(train_path(folder.data, text, fraction)),
        dev=_files(folder.data / f"{text}.dev.jsonl"),
        flops=flops,
        size=config.size,
        tokenizer=config.tokenizer.model_copy(
            update={"path": str(_train_tokenizer(folder, text)) if scratch else ""}
        ),
        adapter=config.adapter.model_copy(update={"kind": kind}),
        trainer=config.trainer.model_dump(exclude_unset=True) | trainer,
        **(replay if job == "continued" and config.replay_share else {}),
    )


def _scratch_objective(folder: StudyFolder) -> str:
    """Scratch models are of the base's kind, so that arms are compared like with like."""
    return "masked" if folder.config.base and text_kind(folder.config.base) == "masked" else "causal"


def _files(path: Path) -> DataConfig:
    return DataConfig(files=[str(path)])


def _train_tokenizer(folder: StudyFolder, text: str) -> Path:
    from adaptkit.data.tokenizers import CHAT_TEMPLATE, train_tokenizer

    settings = folder.config.tokenizer
    if settings.path and text == "domain":
        return Path(settings.path)
    masked = _scratch_objective(folder) == "masked"
    run = Run.open(
        folder.root,
        f"tokenizer-{text}",
        settings.model_dump(mode="json") | {"masked": masked},
        {"data": folder.data_digest},
    )
    if not run.finished:
        texts = (row.text for row in read_prepared(folder.data / f"{text}.train.jsonl").rows)
        template = None if masked else CHAT_TEMPLATE
        made = train_tokenizer(
            texts, settings.kind, settings.vocab_size, chat_template=template, masked=masked
        )
        made.save_pretrained(run.model)
        run.finish()
    return run.model


def _bytes_per_token(folder: StudyFolder, path: Path) -> dict[str, Any]:
    """Bytes of held-out domain text per token, special tokens left out."""
    vocabulary = models.load_tokenizer(path)
    texts = [text for _, text in documents(folder.data / "domain.test.jsonl")]
    tokens = sum(len(ids) for ids in vocabulary(texts, add_special_tokens=False)["input_ids"])
    return {"bytes_per_token": sum(len(t.encode()) for t in texts) / tokens, "vocab_size": len(vocabulary)}


def _rates(folder: StudyFolder, job: str) -> list[float]:
    """The learning rates tried for a job, around what its size and kind of training suggest."""
    from adaptkit.architecture import default_learning_rate
    from adaptkit.compare.stages import tsdae

    kind = job_adapter(job, folder.config.continue_with)
    share = 1.0 if job == "scratch" else CONTINUED_RATE if kind == "full" else LORA_RATE
    if job not in (*SCRATCH, "distilled") and tsdae.fits(folder.base):
        share *= tsdae.RATE / CONTINUED_RATE
    return folder.budget.learning_rates(default_learning_rate(folder.base_params) * share)


def _best_rate(folder: StudyFolder, job: str) -> float:
    trials = folder.budget.trials
    if trials == 1:
        return _rates(folder, job)[0]
    return min((folder.result(f"tune.{job}.{i}") for i in range(trials)), key=lambda tried: tried["dev"])[
        "learning_rate"
    ]


def _score(folder: StudyFolder, path: Path, identity: str, threads: int) -> Run | None:
    """Bits per byte on held-out domain and general passages, in a run of its own; None for masked models."""
    import torch

    from adaptkit.trainer.metrics import bits_per_byte, score_documents

    if models.model_kind(path) != "causal":
        return None
    seq_len = folder.config.size.seq_len
    scored = Run.open(
        folder.root, "score", {"seq_len": seq_len}, {"model": identity, "data": folder.data_digest}
    )
    if scored.finished:
        return scored
    torch.set_num_threads(threads)
    model, vocabulary = models.load(path, "causal"), models.load_tokenizer(path)

    def rows(name: str) -> list[dict[str, Any]]:
        return score_documents(model, vocabulary, documents(folder.data / name), seq_len=seq_len)

    dev = {"bits_per_byte": bits_per_byte(rows("domain.dev.jsonl"))}
    for suite, name in (("language", "domain.test.jsonl"), ("general", "general.test.jsonl")):
        items = rows(name)
        write_jsonl(scored.items(suite), items)
        metrics = {"bits_per_byte": bits_per_byte(items)}
        kept = dev if suite == "language" else {}
        write_json(
            scored.scores(suite), {"suite": suite, "metrics": metrics, "num_items": len(items), "dev": kept}
        )
    scored.finish()
    return scored


def _scores(scored: Run | None) -> dict[str, Any]:
    """Where a model's scores are, and its dev score on domain text, which learning rates are chosen by."""
    if scored is None:
        return {"score_run": None}
    return {
        "score_run": scored.path.name,
        "dev": read_json(scored.scores("language"))["dev"]["bits_per_byte"],
    }
