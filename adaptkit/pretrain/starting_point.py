"""Everything a pretraining needs before its first step: text, tokenizer, token shards, model, sources of
rows."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from adaptkit import data, models
from adaptkit.adapters import attach
from adaptkit.architecture import architecture
from adaptkit.data.readers import Dataset
from adaptkit.data.tokenizers import tokenizer_digest
from adaptkit.errors import ConfigError
from adaptkit.models.separation import kept_apart
from adaptkit.run import Run, digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adaptkit.data.packing import Source
    from adaptkit.pretrain.config import PretrainConfig
    from adaptkit.trainer.parallel import Ranks


@dataclass(frozen=True)
class Text:
    """The text of one pretraining; dev is held out from train."""

    train: Dataset
    dev: Dataset
    replay: Dataset | None

    def parts(self) -> dict[str, Dataset]:
        """Name -> data set, for those that there are."""
        return {name: part for name, part in vars(self).items() if part is not None}


@dataclass(frozen=True)
class Start:
    """Where training starts: a model that requires the right gradients, its tokenizer, and rows to learn and
    to measure on."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    train: Source
    dev: Source
    bytes_per_token: float


def read_text(config: PretrainConfig) -> Text:
    """Read train, dev (or hold some of train out by hash of its text) and replay."""
    train = data.read(config.data, want="text")
    if config.dev is not None:
        dev = data.read(config.dev, want="text")
    else:
        train, dev = data.split(train, config.dev_fraction, seed=0)
    return Text(train, dev, data.read(config.replay, want="text") if config.replay else None)


def prepare(config: PretrainConfig, run: Run, text: Text, ranks: Ranks) -> Start:
    """Tokenizer, shards and model of a run; rank 0 writes what is not on disk yet, the others wait for it."""
    if ranks.rank == 0 and not config.base and not _tokenizer_folder(run).exists():
        save_tokenizer(scratch_tokenizer(config, text.train), _tokenizer_folder(run))
    ranks.share(None)
    if config.base:
        model, tokenizer = continued_model(config, text)
    else:
        model, tokenizer = None, models.load_tokenizer(_tokenizer_folder(run))
    folders = {name: _shard_folder(run, part, tokenizer) for name, part in text.parts().items()}
    if ranks.rank == 0:
        for name, part in text.parts().items():
            data.write_shards(part, tokenizer, folders[name])
    ranks.share(None)
    shards = {name: data.TokenShards.open(folder) for name, folder in folders.items()}
    if model is None:
        model = scratch_model(config, tokenizer, shards["train"].num_tokens)
    separate = kept_apart(model, config.objective, config.size.seq_len, config.base)
    rows = {
        name: data.packed_rows(part, config.size.seq_len, config.objective, separate)
        for name, part in shards.items()
    }
    train = rows["train"]
    if "replay" in rows:
        share = config.replay_share
        train = data.MixedSource([(train, 1 - share), (rows["replay"], share)], seed=config.trainer.seed)
    return Start(model, tokenizer, train, rows["dev"], shards["train"].bytes_per_token)


def continued_model(config: PretrainConfig, text: Text) -> tuple[nn.Module, PreTrainedTokenizerFast]:
    """The base with new vocabulary rows and adapters as asked, and the tokenizer that goes with it."""
    seed = config.trainer.seed
    # an embedding model comes without its masked-LM head: it gets one
    model = models.load(
        config.base, config.objective, quantization=config.adapter.quantization, new_head=True, seed=seed
    )
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest and config.size.seq_len > longest:
        what = f"rows of {config.size.seq_len} tokens, but {config.base} reads at most {longest}"
        raise ConfigError(what, where="size.seq_len", fix=f"set size.seq_len={longest} or less")
    tokenizer, new_ids = models.load_tokenizer(config.base), None
    if config.tokenizer.new_tokens:
        first_new = len(tokenizer)
        tokenizer = data.extend_tokenizer(
            tokenizer, model, [row.text for row in text.train.rows], config.tokenizer.new_tokens
        )
        new_ids = list(range(first_new, len(tokenizer)))
    return attach(model, config.adapter, seed=seed, new_tokens=new_ids), tokenizer


def scratch_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, num_tokens: int) -> nn.Module:
    """Random weights in the shape that the size dial gives for this vocabulary and amount of text."""
    shape = architecture(
        config.size,
        len(tokenizer),
        kind=config.objective,
        flops=config.flops,
        unique_tokens=num_tokens,
        special_ids={
            name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        },
    )
    return models.build(shape, config.objective, seed=config.trainer.seed)


def scratch_tokenizer(config: PretrainConfig, train: Dataset) -> PreTrainedTokenizerFast:
    """The given tokenizer, or one trained on the text; causal ones get a chat template, so that they can be
    tuned to answer."""
    settings = config.tokenizer
    if settings.path:
        return models.load_tokenizer(settings.path)
    masked = config.objective == "masked"
    texts = (row.text for row in train.rows)
    template = None if masked else data.CHAT_TEMPLATE
    return data.train_tokenizer(
        texts, settings.kind, settings.vocab_size, chat_template=template, masked=masked
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a tokenizer folder that is there whole or not at all."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    tokenizer.save_pretrained(temporary)
    os.rename(temporary, folder)


def _tokenizer_folder(run: Run) -> Path:
    return run.path / "tokenizer"


def _shard_folder(run: Run, part: Dataset, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Named by content: runs that read the same text with the same tokenizer share its tokens."""
    return run.shards(digest([part.digest, tokenizer_digest(tokenizer)]))
