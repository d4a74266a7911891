"""Prepare the training of an encoder: read its examples, load the base, choose the loss, make the batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from adaptkit import models
from adaptkit.adapters import attach
from adaptkit.data.cut_texts import CutTexts, tell_cuts
from adaptkit.data.heldout import HeldOut, held_out_texts
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder, closed_by_eos
from adaptkit.embed.examples import FROM_TEXT, SCORED, Examples, in_pieces, train_and_dev
from adaptkit.embed.mining import mine
from adaptkit.embed.objective import MARGIN, Contrastive, PooledModel, Scored
from adaptkit.embed.rows import Example, TextRows, groups_of
from adaptkit.embed.tsdae import Denoising, NoisyTexts, decoder_of
from adaptkit.errors import ConfigError, ModelError
from adaptkit.model_uses import Use
from adaptkit.models.capabilities import capabilities
from adaptkit.models.sentence.dense import width_of
from adaptkit.models.sentence.layout import changed
from adaptkit.models.sentence.pooling import Pooling, by_structure, num_modes
from adaptkit.run import Run, read_jsonl, write_jsonl
from adaptkit.trainer.cost import affordable_steps
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.progress import announce

TOKENS_PER_WORD = 2
"""At most, in plain text; vocabularies of their domain need 1.5 and fewer."""
Loss = Contrastive | Scored | Denoising
Source = TextRows | NoisyTexts


@dataclass(frozen=True)
class Start:
    """What is trained, on what, and what it is measured on.

    Attributes:
        model: what the trainer trains; the encoder's model is inside.
        train, dev: batches.
        learnt, watched: the examples that these are made of.
        held_out: dev texts that the run keeps for exports.
    """

    encoder: Encoder
    model: nn.Module
    objective: Loss
    train: Source
    dev: Source
    learnt: Examples
    watched: Examples
    held_out: HeldOut


def prepare(config: EmbedConfig, run: Run, ranks: Ranks) -> Start:
    """Read examples and base; mine hard negatives, attach the adapter, make the batches.

    Raises: DataError, ModelError, ConfigError.
    """
    encoder = base_encoder(config)
    read, watched = train_and_dev(config.train, config.dev, config.loss)
    if read.scale is not None and ranks.rank == 0:
        announce(config.name, {"scores": str(read.scale)})
    held_out = held_out_texts(text for row in watched.rows for text in row.texts)
    learnt, watched = _readable(config, read), _readable(config, watched)
    groups = groups_of([*learnt.rows, *watched.rows])
    if config.hard_negatives:
        learnt = _mined(config, run, ranks, encoder, learnt, groups, "train")
        watched = _mined(config, run, ranks, encoder, watched, groups, "dev")
        groups = groups_of([*learnt.rows, *watched.rows])
    encoder.cut = CutTexts()  # of the texts that are learnt from, not of those that were mined
    train = _source(config, encoder, learnt.rows, groups)
    tell_cuts({"texts": encoder.cut}, "max_length")
    dev = _source(config, encoder, watched.rows, groups)
    model = _attached(config, encoder)
    return Start(encoder, model, objective(config, encoder), train, dev, learnt, watched, held_out)


def steps_for_budget(config: EmbedConfig, flops: float, epochs: float = 0) -> int:
    """Steps of a training that a budget pays for, at most so many passes over the examples (0: no matter how
    many).

    Raises: BudgetError if it does not pay for one; DataError, ModelError.
    """
    encoder = base_encoder(config)
    read, _ = train_and_dev(config.train, config.dev, config.loss)
    learnt = _readable(config, read)
    source = _source(config, encoder, learnt.rows, groups_of(learnt.rows))
    model = _attached(config, encoder)
    return affordable_steps(model, objective(config, encoder), source, config.trainer, flops, epochs=epochs)


def base_encoder(config: EmbedConfig) -> Encoder:
    """The base with the layout that the config asks for.

    Raises: ModelError for a base that gives no vectors; ConfigError for more tokens than it has positions
        for.
    """
    base = capabilities(config.base)
    base.check(Use.EMBED, config.adapter)
    chosen = "max_length" in config.model_fields_set
    max_length = base.fitting(config.max_length, "max_length", chosen=chosen)
    encoder = Encoder.load(config.base)
    if config.loss == "simcse" and not _has_dropout(encoder.model):
        what = "the base has no dropout, which simcse sets a text apart from itself by"
        fix = "choose a base with dropout, or set loss: infonce to learn from the text's structure"
        raise ModelError(what, where=config.base, fix=fix)
    pooling = _pooling(config, encoder)
    says_how = (models.find(config.base) / "modules.json").exists() and pooling == encoder.layout.pooling
    if pooling == "last" and not says_how and encoder.layout.chat is None:
        encoder.tokenizer = closed_by_eos(encoder.tokenizer)
    if pooling != encoder.layout.pooling and len(encoder.dense):
        what = f"has Dense modules behind {encoder.layout.pooling} pooling, asked for {pooling}"
        raise ModelError(what, where=config.base, fix="leave pooling at auto")
    encoder.width = width_of(encoder.dense, encoder.hidden * num_modes(pooling))
    layout, dimensions = encoder.layout, set(config.dimensions)
    if dimensions:
        dimensions.add(encoder.width)
    encoder.layout = changed(
        layout,
        encoder.width,
        pooling=pooling,
        normalised=True,
        max_length=max_length,
        prompts={**layout.prompts, **config.prompts},
        dimensions=tuple(sorted(dimensions, reverse=True)),
        include_prompt=True,
        truncated=0,
        similarity="cosine",
    )
    return encoder


def objective(config: EmbedConfig, encoder: Encoder) -> Loss:
    """The loss that a config names."""
    layout = encoder.layout
    if config.loss == "tsdae":
        return Denoising(layout.pooling)
    weights: tuple[float, ...] = ()
    if config.dimensions and isinstance(config.dimensions, dict):
        weights = tuple(float(config.dimensions.get(size, 1)) for size in layout.dimensions)
    if config.loss in ("triplet", "cosine", "margin"):
        return Scored(config.loss, layout.pooling, layout.dimensions, weights, config.margin or MARGIN)
    symmetric = config.loss == "symmetric"
    return Contrastive(
        layout.pooling, config.temperature, symmetric, layout.dimensions, weights, config.margin
    )


def _pooling(config: EmbedConfig, encoder: Encoder) -> Pooling:
    """How the base's token states become a vector: as asked for, else as its folder says, else by its
    structure."""
    if config.pooling != "auto":
        return config.pooling
    if (models.find(config.base) / "modules.json").exists():
        return encoder.layout.pooling
    return by_structure(encoder.model.config)


def _readable(config: EmbedConfig, examples: Examples) -> Examples:
    """Plain texts in pieces that the encoder can read; other examples as they are."""
    if config.loss not in FROM_TEXT:
        return examples
    return in_pieces(examples, config.max_length // TOKENS_PER_WORD)


def _attached(config: EmbedConfig, encoder: Encoder) -> nn.Module:
    """What the trainer trains: the encoder's model with its adapter, and what stands behind its pooling.

    Raises: ConfigError or ModelError for a decoder that cannot be trained beside it.
    """
    decoder = None
    if config.loss == "tsdae":
        decoder = _decoder(config, encoder)
    encoder.model = attach(encoder.model, config.adapter, config.trainer.seed)
    encoder.dense.requires_grad_(config.adapter.kind == "none")
    _freeze_unused(encoder.model)
    if decoder is not None:
        return PooledModel(encoder.model, decoder)
    if len(encoder.dense):
        return PooledModel(encoder.model, encoder.dense)
    return encoder.model


def _decoder(config: EmbedConfig, encoder: Encoder) -> nn.Module:
    if config.trainer.parallel == "fsdp":
        what = "the decoder of tsdae shares weights with the encoder, which cannot be sharded"
        raise ConfigError(what, where="trainer.parallel", fix="set trainer.parallel=ddp")
    if num_modes(encoder.layout.pooling) > 1:
        what = f"tsdae restores text from one state, and this model has {encoder.layout.pooling} pooling"
        raise ModelError(what, where=config.base, fix="set pooling: mean, or train it by loss: infonce")
    if len(encoder.dense):
        what = "tsdae restores text from pooled states, and this model has a Dense module"
        raise ModelError(what, where=config.base, fix="train it by loss: infonce or simcse")
    return decoder_of(encoder, config.trainer.seed)


def _source(config: EmbedConfig, encoder: Encoder, rows: Sequence[Example], groups: dict[str, int]) -> Source:
    of_anchors, of_others = _prompts(config, encoder)
    if config.loss == "tsdae":
        return NoisyTexts(rows, encoder, of_others)
    return TextRows(rows, encoder, (of_anchors, of_others), groups)


def _prompts(config: EmbedConfig, encoder: Encoder) -> tuple[str, str]:
    """The words before anchors and before other texts; the same where both texts of an example have one
    role."""
    layout = encoder.layout
    query, other = (layout.prompt(layout.prompt_if_any(name)) for name in ("query", "document"))
    if config.loss in (*SCORED, *FROM_TEXT):
        return other, other
    return query, other


def _mined(
    config: EmbedConfig,
    run: Run,
    ranks: Ranks,
    encoder: Encoder,
    examples: Examples,
    groups: dict[str, int],
    split: str,
) -> Examples:
    """Mined once, kept with the run, so that a resumed training learns from the same."""
    path = run.negatives(split)
    if ranks.rank == 0 and not path.exists():
        prompts = encoder.layout.prompt_if_any("query"), encoder.layout.prompt_if_any("document")
        rows = mine(examples.rows, encoder, examples.corpus, groups, config.hard_negatives, prompts)
        write_jsonl(path, ({"texts": row.texts, "where": row.where} for row in rows))
    ranks.share(None)
    rows = [Example(tuple(row["texts"]), row["where"]) for row in read_jsonl(path)]
    return replace(examples, rows=rows)


def _has_dropout(model: nn.Module) -> bool:
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


def _freeze_unused(model: nn.Module) -> None:
    """BERT's pooler takes no part in the vectors: ranks would wait for its gradient for ever."""
    for name, weight in model.named_parameters():
        if "pooler." in name:
            weight.requires_grad_(False)
