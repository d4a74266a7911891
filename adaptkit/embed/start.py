"""What a training of an encoder does, step by step."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adaptkit import models
from adaptkit.adapters import attach, merge, save_adapter
from adaptkit.embed.card import write_card
from adaptkit.embed.encoder import Encoder, closed_by_eos
from adaptkit.embed.examples import (
    FROM_TEXT,
    SCORED,
    Examples,
    in_pieces,
    read_examples,
    retrieval_folder,
    set_of,
    train_and_dev,
)
from adaptkit.embed.metrics import retrieval_scores
from adaptkit.embed.mining import mine
from adaptkit.embed.objective import MARGIN, Contrastive, Scored
from adaptkit.embed.pooled_model import Tower
from adaptkit.embed.retrieval import read_set, retrieval_rows, scored_split
from adaptkit.embed.rows import Example, TextRows, groups_of
from adaptkit.embed.tsdae import Denoising, NoisyTexts, decoder_of
from adaptkit.errors import ConfigError, ModelError
from adaptkit.models.sentence.layout import changed
from adaptkit.models.sentence.pooling import by_structure
from adaptkit.run import read_jsonl, write_json, write_jsonl
from adaptkit.trainer.cost import affordable_steps
from adaptkit.trainer.trainer import Trainer

if TYPE_CHECKING:
    from adaptkit.embed.config import EmbedConfig
    from adaptkit.run import Run
    from adaptkit.trainer.parallel import Ranks
    from adaptkit.trainer.result import TrainResult

TOKENS_PER_WORD = 2
"""At most, in plain text; vocabularies of their domain need 1.5 and fewer."""
MERGE_TOLERANCE = 1e-4
"""Cosine distance between vectors before and after merging an adapter; exact merges measure 1e-7."""


def train(config: EmbedConfig, run: Run, suite: str) -> None:
    """Everything from the data to the scores, in `run`."""
    from adaptkit.trainer.parallel import join

    ranks = join(config.trainer.parallel)
    encoder = base_encoder(config)
    learnt, dev = examples_of(config)
    groups = groups_of([*learnt.rows, *dev.rows])
    if config.hard_negatives:
        parts = {"train": learnt, "dev": dev}
        learnt, dev = (
            _mined(config, run, ranks, encoder, part, groups, name) for name, part in parts.items()
        )
        groups = groups_of([*learnt.rows, *dev.rows])
    sources = [_source(config, encoder, examples, groups) for examples in (learnt, dev)]
    model = _attached(config, encoder)
    if ranks.rank == 0:
        facts = {
            "train": learnt.facts | {"examples": len(learnt.rows)},
            "dev": dev.facts | {"examples": len(dev.rows)},
        }
        run.update_manifest(data=facts, parameters=vars(models.param_count(encoder.model)))
    result = Trainer(
        model, objective(config, encoder), sources[0], config.trainer, run=run, eval=sources[1]
    ).fit()
    if ranks.rank == 0:
        _deliver(config, run, suite, encoder, dev, result)
    ranks.share(None)  # the other ranks return when the files are there


def steps_for_budget(config: EmbedConfig, flops: float, epochs: float = 0) -> int:
    """Steps of a training that a budget pays for, at most so many passes over the examples (0: no matter how
    many).

    Raises: BudgetError if it does not pay for one; DataError, ModelError.
    """
    encoder, (learnt, _) = base_encoder(config), examples_of(config)
    source = _source(config, encoder, learnt, groups_of(learnt.rows))
    return affordable_steps(
        _attached(config, encoder), objective(config, encoder), source, config.trainer, flops, epochs=epochs
    )


def examples_of(config: EmbedConfig) -> tuple[Examples, Examples]:
    """What is learnt from and what is measured on; plain texts come in pieces that the encoder can read."""
    parts = train_and_dev(config.train, config.dev, config.loss)
    if config.loss not in FROM_TEXT:
        return parts
    learnt, dev = (in_pieces(part, config.max_length // TOKENS_PER_WORD) for part in parts)
    return learnt, dev


def base_encoder(config: EmbedConfig) -> Encoder:
    """The base with the layout that the config asks for."""
    encoder = Encoder.load(config.base)
    layout, model = encoder.layout, encoder.model
    if config.loss == "simcse" and not _has_dropout(model):
        fix = "choose a base with dropout, or set loss: infonce to learn from the text's structure"
        raise ModelError(
            "the base has no dropout, which simcse sets a text apart from itself by",
            where=config.base,
            fix=fix,
        )
    pooling = config.pooling
    if pooling == "auto":
        pooling = (
            layout.pooling
            if (models.find(config.base) / "modules.json").exists()
            else by_structure(model.config)
        )
    if pooling == "last":
        encoder.tokenizer = closed_by_eos(encoder.tokenizer)
    encoder.layout = changed(
        layout,
        encoder.width,
        pooling=pooling,
        normalised=True,
        max_length=min(config.max_length, layout.longest),
        prompts={**layout.prompts, **config.prompts},
        dimensions=tuple(sorted({*config.dimensions, encoder.width}, reverse=True))
        if config.dimensions
        else (),
    )
    return encoder


def objective(config: EmbedConfig, encoder: Encoder) -> Contrastive | Scored | Denoising:
    """The loss that a config names."""
    layout = encoder.layout
    if config.loss == "tsdae":
        return Denoising(layout.pooling)
    given = config.dimensions if isinstance(config.dimensions, dict) else {}
    weights = tuple(float(given.get(size, 1)) for size in layout.dimensions) if given else ()
    if config.loss in ("triplet", *SCORED):
        return Scored(config.loss, layout.pooling, layout.dimensions, weights, config.margin or MARGIN)
    symmetric = config.loss == "symmetric"
    return Contrastive(
        layout.pooling, config.temperature, symmetric, layout.dimensions, weights, config.margin
    )


def _attached(config: EmbedConfig, encoder: Encoder) -> torch.nn.Module:
    """What the trainer trains: the encoder's model with its adapter, and what stands behind its pooling.

    Raises: ConfigError or ModelError for a decoder that cannot be trained beside it.
    """
    seed, decoder = config.trainer.seed, None
    if config.loss == "tsdae":
        if config.trainer.parallel == "fsdp":
            what = "the decoder of tsdae shares weights with the encoder, which cannot be sharded"
            raise ConfigError(what, where="trainer.parallel", fix="set trainer.parallel=ddp")
        if len(encoder.dense):
            fix = "train it by loss: infonce or simcse"
            raise ModelError(
                "tsdae restores text from pooled states, this model has a Dense module",
                where=config.base,
                fix=fix,
            )
        decoder = decoder_of(encoder, seed)
    encoder.model = attach(encoder.model, config.adapter, seed)
    encoder.dense.requires_grad_(config.adapter.kind == "none")
    _freeze_unused(encoder.model)
    after = decoder if decoder is not None else encoder.dense
    return Tower(encoder.model, after) if config.loss == "tsdae" or len(encoder.dense) else encoder.model


def _source(
    config: EmbedConfig, encoder: Encoder, examples: Examples, groups: dict[str, int]
) -> TextRows | NoisyTexts:
    words = _words(config, encoder)
    if config.loss == "tsdae":
        return NoisyTexts(examples.rows, encoder, words[1])
    return TextRows(examples.rows, encoder, words, groups)


def _words(config: EmbedConfig, encoder: Encoder) -> tuple[str, str]:
    """The words before anchors and before other texts; texts that are scored or told from themselves have one
    role."""
    prompts = encoder.layout.prompts
    other = prompts.get("document", encoder.layout.prompt(None))
    if config.loss in (*SCORED, *FROM_TEXT):
        return other, other
    return prompts.get("query", encoder.layout.prompt(None)), other


def _mined(
    config: EmbedConfig,
    run: Run,
    ranks: Ranks,
    encoder: Encoder,
    part: Examples,
    groups: dict[str, int],
    name: str,
) -> Examples:
    """Mined once, kept with the run, so that a resumed training learns from the same."""
    path = run.path / f"negatives.{name}.jsonl"
    if ranks.rank == 0 and not path.exists():
        names = [name if name in encoder.layout.prompts else None for name in ("query", "document")]
        rows = mine(part.rows, encoder, part.corpus, groups, config.hard_negatives, (names[0], names[1]))
        write_jsonl(path, ({"texts": row.texts, "where": row.where} for row in rows))
    ranks.share(None)
    return dataclasses.replace(
        part, rows=[Example(tuple(row["texts"]), row["where"]) for row in read_jsonl(path)]
    )


def _has_dropout(model: torch.nn.Module) -> bool:
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


def _freeze_unused(model: torch.nn.Module) -> None:
    """BERT's pooler takes no part in the vectors: ranks would wait for its gradient for ever."""
    for name, weight in model.named_parameters():
        if "pooler." in name:
            weight.requires_grad_(False)


def _deliver(
    config: EmbedConfig, run: Run, suite: str, encoder: Encoder, dev: Examples, result: TrainResult
) -> None:
    """Save the adapter, merge it, save the merged encoder, and score that."""
    probe = [text for row in dev.rows[:8] for text in row.texts]
    before = encoder.encode(probe)
    if config.adapter.kind != "none":
        save_adapter(encoder.model, run.adapter, base=config.base)
    encoder.model = merge(encoder.model).eval()
    difference = float(1 - (before * encoder.encode(probe)).sum(1).min())
    if not difference <= MERGE_TOLERANCE:
        what = f"the merged model's vectors are {difference:.2g} away from the trained one's"
        raise ModelError(what, where=str(run.path), fix="use kind: lora, and please report this")
    encoder.save(run.model)
    write_json(run.cost_path, result.cost())
    _score(
        config, run, suite, encoder, dev, {"loss": result.eval_loss} if result.eval_loss is not None else {}
    )
    write_card(run, config, encoder, suite)
    run.finish(merge_difference=difference, best_step=result.best_step)


def _score(
    config: EmbedConfig, run: Run, suite: str, encoder: Encoder, dev: Examples, loss: dict[str, float]
) -> None:
    """Item rows and scores of the test data where it is named, and the scores of the dev data."""
    test = [] if config.test is None else _rows(config, encoder, _test_examples(config), config.test)
    found = {**loss, **_metrics(_rows(config, encoder, dev, None))}
    write_jsonl(run.items(suite), test)
    write_json(
        run.scores(suite), {"suite": suite, "metrics": _metrics(test), "num_items": len(test), "dev": found}
    )


def _test_examples(config: EmbedConfig) -> Examples | None:
    return None if retrieval_folder(config.test) else read_examples(config.test, config.loss)


def _rows(
    config: EmbedConfig, encoder: Encoder, examples: Examples | None, data: Any
) -> list[dict[str, Any]]:
    """Item rows: of a retrieval set, of pairs searched among each other, of scored pairs; none for text
    without pairs."""
    if examples is None:
        folder = retrieval_folder(data)
        return retrieval_rows(encoder, read_set(folder, scored_split(folder), data.max_bytes))
    if config.loss in FROM_TEXT:
        return []
    if config.loss in SCORED:
        left, right = (encoder.encode([row.texts[side] for row in examples.rows]) for side in (0, 1))
        cosines = (left * right).sum(1).tolist()
        return [
            {"id": row.where, "score": row.target, "cosine": c}
            for row, c in zip(examples.rows, cosines, strict=True)
        ]
    return retrieval_rows(encoder, set_of(examples))


def _metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    if rows and "cosine" in rows[0]:
        from scipy.stats import spearmanr

        return {
            "spearman": float(
                spearmanr(*(np.array([row[key] for row in rows]) for key in ("score", "cosine"))).statistic
            )
        }
    return retrieval_scores(rows)
