"""Prepare a pretraining: read its text, make tokenizer, token shards and model, pack rows to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptkit import models
from adaptkit.adapters import attach
from adaptkit.architecture import architecture
from adaptkit.data.canaries import plant, planted_sentence
from adaptkit.data.extension import extend_tokenizer
from adaptkit.data.packing import MixedSource, Source, packed_rows
from adaptkit.data.readers import Dataset, read
from adaptkit.data.shards import TokenShards, write_shards
from adaptkit.data.splitting import split
from adaptkit.data.tokenizers import CHAT_TEMPLATE, tokenizer_digest, train_tokenizer
from adaptkit.disk import whole_folder
from adaptkit.errors import ConfigError, ModelError
from adaptkit.model_uses import Use
from adaptkit.models.capabilities import Capabilities, capabilities
from adaptkit.models.round_trip import check_known, check_round_trip, lost_sentence
from adaptkit.models.separation import UNPACKED, kept_apart
from adaptkit.models.stretching import Stretch, why_not
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.run import Run, digest
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.progress import announce

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class StartingPoint:
    """A model that requires the right gradients, its tokenizer, and rows to learn and to measure on.

    Attributes:
        added: entries that were added to the base's vocabulary.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerFast
    train: Source
    dev: Source
    bytes_per_token: float
    added: int = 0


def check_base(config: PretrainConfig) -> None:
    """Refuse a base that cannot be trained so, before anything is read.

    Raises: ModelError; ConfigError for rows of more tokens than the base has positions for.
    """
    if not config.base:
        return
    base = capabilities(config.base)
    base.check(Use.EXTEND if config.tokenizer.new_tokens else Use.CONTINUE, config.adapter)
    if base.form in ("causal", "masked") and base.form != config.objective:
        what = f"holds a {base.form} model, asked for a {config.objective} one"
        fix = f"set objective={base.form}, or choose a base that is a {config.objective} language model"
        raise ModelError(what, where=config.base, fix=fix)
    if config.stretch != "none":
        _check_stretch(base, config)
    elif base.positions and config.size.seq_len > base.positions and not why_not(base.config):
        what = f"{config.size.seq_len} tokens, and {base.folder.name} has {base.positions} positions"
        fix = f"set size.seq_len={base.positions} or less, or train longer positions with stretch=yarn"
        raise ConfigError(what, where="size.seq_len", fix=fix)
    else:
        base.fitting(config.size.seq_len, "size.seq_len", chosen=True)


def _check_stretch(base: Capabilities, config: PretrainConfig) -> None:
    """Raises: ConfigError where the base reads such rows already, or its positions cannot be stretched."""
    if base.positions is None or config.size.seq_len <= base.positions:
        reads = "texts of any length" if base.positions is None else f"{base.positions} tokens"
        what = f"stretch={config.stretch}, and {base.folder.name} reads {reads} as it is"
        raise ConfigError(what, where="stretch", fix="leave it out, or raise size.seq_len")
    reason = why_not(base.config)
    if reason:
        fix = f"leave stretch out, and set size.seq_len={base.positions} or less; or choose another base"
        raise ConfigError(f"{base.folder.name} cannot be stretched: {reason}", where="stretch", fix=fix)


def stretch_of(config: PretrainConfig) -> Stretch | None:
    """How the base is stretched; None where it is not."""
    return None if config.stretch == "none" else Stretch(config.stretch, config.size.seq_len)


def read_splits(config: PretrainConfig) -> dict[str, Dataset]:
    """The text of a pretraining: train, dev and, where it is named, replay.

    Without dev data, some of train is held out by hash of its text. Canaries are planted in what is left.
    """
    train = read(config.data, want="text")
    if config.dev is None:
        train, dev = split(train, config.dev_fraction, seed=0)
    else:
        dev = read(config.dev, want="text")
    if config.canaries is not None:
        train = plant(train, config.canaries)
    splits = {"train": train, "dev": dev}
    if config.replay is not None:
        splits["replay"] = read(config.replay, want="text")
    return splits


def prepare(config: PretrainConfig, run: Run, splits: dict[str, Dataset], ranks: Ranks) -> StartingPoint:
    """Make tokenizer, shards and model of a run; rank 0 writes what is not on disk yet, the others wait."""
    model: PreTrainedModel | PeftModel | None = None
    added = 0
    if config.base:
        model, tokenizer, added = continued_model(config, splits["train"])
    else:
        tokenizer = _own_tokenizer(config, run, splits["train"], ranks)
    _check_tokenizer(config, tokenizer, splits["dev"], ranks)
    if config.canaries is not None and ranks.rank == 0:
        announce(config.name, {"note": planted_sentence(config.canaries, splits["train"].num_bytes)})
    shards = _shards(run, splits, tokenizer, ranks)
    if model is None:
        model = scratch_model(config, tokenizer, shards["train"].num_tokens)
    seq_len = config.size.seq_len
    separate = kept_apart(model, config.objective, seq_len, config.base)
    if separate == "rows" and config.objective == "causal" and ranks.rank == 0:
        announce(config.name, {"note": UNPACKED})
    rows = {name: packed_rows(part, seq_len, config.objective, separate) for name, part in shards.items()}
    train: Source = rows["train"]
    if "replay" in rows:
        share = config.replay_share
        train = MixedSource([(train, 1 - share), (rows["replay"], share)], seed=config.trainer.seed)
    return StartingPoint(model, tokenizer, train, rows["dev"], shards["train"].bytes_per_token, added)


def _check_tokenizer(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, dev: Dataset, ranks: Ranks
) -> None:
    """Say what share of the dev text the tokenizer of a causal model cannot give back, if any.

    Raises: ModelError where that is too much for bits per byte, or most of it is unknown to any tokenizer.
    """
    where, fix = config.base, "choose a base whose tokenizer works on bytes"
    if not config.base:
        where, fix = "tokenizer", "set tokenizer.kind=bpe, and leave tokenizer.path out"
    if config.objective == "masked":
        check_known(tokenizer, (row.text for row in dev.rows), where=where, fix=fix)
        return
    share = check_round_trip(tokenizer, (row.text for row in dev.rows), where=where, fix=fix)
    if share and ranks.rank == 0:
        announce(config.name, {"note": lost_sentence(share)})


def continued_model(
    config: PretrainConfig, train: Dataset
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerFast, int]:
    """Load the base and its tokenizer; add new vocabulary rows and adapters where the config says so.

    Returns: also how many entries were added.
    """
    seed = config.trainer.seed
    # an embedding model comes without its masked-LM head: it gets one
    model = models.load(
        config.base,
        config.objective,
        quantization=config.adapter.quantization,
        new_head=True,
        seed=seed,
        stretch=stretch_of(config),
    )
    tokenizer, new_ids = models.load_tokenizer(config.base), None
    if config.stretch != "none":
        tokenizer.model_max_length = max(tokenizer.model_max_length, config.size.seq_len)
    if config.tokenizer.new_tokens:
        first_new = len(tokenizer)
        texts = [row.text for row in train.rows]
        tokenizer = extend_tokenizer(tokenizer, model, texts, config.tokenizer.new_tokens)
        new_ids = list(range(first_new, len(tokenizer)))
    return attach(model, config.adapter, seed=seed, new_tokens=new_ids), tokenizer, len(new_ids or ())


def scratch_model(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, num_tokens: int
) -> PreTrainedModel:
    """Random weights in the shape that `size` gives for this vocabulary and amount of text."""
    special_ids = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    shape = architecture(
        config.size,
        len(tokenizer),
        kind=config.objective,
        flops=config.flops,
        unique_tokens=num_tokens,
        special_ids=special_ids,
    )
    return models.build(shape, config.objective, seed=config.trainer.seed)


def scratch_tokenizer(config: PretrainConfig, train: Dataset) -> PreTrainedTokenizerFast:
    """Load the tokenizer that the config names, or train one on the text.

    A causal one gets a chat template, so that the model can be tuned to answer.
    """
    settings = config.tokenizer
    if settings.path:
        return models.load_tokenizer(settings.path)
    masked = config.objective == "masked"
    texts = (row.text for row in train.rows)
    template = None if masked else CHAT_TEMPLATE
    return train_tokenizer(texts, settings.kind, settings.vocab_size, chat_template=template, masked=masked)


def _own_tokenizer(config: PretrainConfig, run: Run, train: Dataset, ranks: Ranks) -> PreTrainedTokenizerFast:
    """The tokenizer of a model from scratch, which the run keeps, so that a resumed one has the same."""
    if ranks.rank == 0 and not run.tokenizer.exists():
        with whole_folder(run.tokenizer) as folder:
            scratch_tokenizer(config, train).save_pretrained(folder)
    ranks.share(None)
    return models.load_tokenizer(run.tokenizer)


def _shards(
    run: Run, splits: dict[str, Dataset], tokenizer: PreTrainedTokenizerFast, ranks: Ranks
) -> dict[str, TokenShards]:
    """Token shards of each split.

    They are named by content: runs that read the same text with the same tokenizer share its tokens.
    """
    vocabulary = tokenizer_digest(tokenizer)
    folders = {name: run.shards(digest([part.digest, vocabulary])) for name, part in splits.items()}
    if ranks.rank == 0:
        for name, part in splits.items():
            write_shards(part, tokenizer, folders[name])
    ranks.share(None)
    return {name: TokenShards.open(folder) for name, folder in folders.items()}
