"""The generic model of a study before any weight is read: its shape, and what it predicts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

from adaptkit import models
from adaptkit.architecture import architecture
from adaptkit.errors import ConfigError
from adaptkit.models.folder import saved_shape
from adaptkit.models.sentence.layout import num_positions
from adaptkit.models.sentence.pooling import is_decoder
from adaptkit.study.arms import Origin
from adaptkit.study.config import StudyConfig
from adaptkit.study.task import MAX_LENGTH

TextKind = Literal["causal", "masked"]


def base_shape(config: StudyConfig) -> tuple[Any, TextKind]:
    """The transformers config of the generic model, there already or to be made, and what it predicts."""
    if config.base:
        return saved_shape(config.base), text_kind(config.base)
    return architecture(config.size, config.tokenizer.vocab_size, flops=config.base_flops), "causal"


def with_vocabulary(shape: Any, num_entries: int) -> Any:
    """A copy of a transformers config with so many more vocabulary entries."""
    larger = copy.deepcopy(shape)
    larger.get_text_config().vocab_size += num_entries
    return larger


def text_kind(path: str | Path) -> TextKind:
    """Whether a model is `causal` or `masked`; one saved without its head is what its structure allows."""
    kind = models.model_kind(path)
    if kind in ("causal", "masked"):
        return kind
    return "causal" if is_decoder(saved_shape(path)) else "masked"


def max_lengths(config: StudyConfig, shape: Any) -> dict[str, int]:
    """Tokens after which each task cuts its texts: as asked for, or what every model of the study can read.

    Args:
        shape: the base's transformers config.
    Raises: ConfigError for more tokens than a model has positions for.
    """
    positions, whose = num_positions(shape), f"the base '{config.base}'"
    row = config.size.seq_len
    if row > positions:
        what = f"size.seq_len is {row} tokens, and {whose} has {positions} positions"
        raise ConfigError(what, where="size.seq_len", fix=f"set size.seq_len={positions} or less")
    if not config.base or any(config.may_have(origin) for origin in Origin if origin.starts_random):
        positions, whose = row, "a model of size.seq_len"
    lengths = {}
    for index, task in enumerate(config.tasks):
        if task.max_length > positions:
            what = f"task '{task.name}' reads {task.max_length} tokens, and {whose} has {positions} positions"
            fix = f"set tasks.{index}.max_length={positions} or less, or leave it out"
            raise ConfigError(what, where=f"tasks.{index}.max_length", fix=fix)
        lengths[task.name] = task.max_length or min(MAX_LENGTH, positions)
    return lengths
