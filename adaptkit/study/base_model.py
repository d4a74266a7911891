"""The generic model of a study before any weight is read: its shape, and what it predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig

from adaptkit import models
from adaptkit.architecture import architecture
from adaptkit.models.sentence.pooling import is_decoder
from adaptkit.study.config import StudyConfig

TextKind = Literal["causal", "masked"]


def base_shape(config: StudyConfig) -> tuple[Any, TextKind]:
    """The transformers config of the generic model, there already or to be made, and what it predicts."""
    if config.base:
        shape = AutoConfig.from_pretrained(models.find(config.base), local_files_only=True)
        return shape, text_kind(config.base)
    return architecture(config.size, config.tokenizer.vocab_size, flops=config.base_flops), "causal"


def text_kind(path: str | Path) -> TextKind:
    """Whether a model is `causal` or `masked`; one saved without its head is what its structure allows."""
    kind = models.model_kind(path)
    if kind in ("causal", "masked"):
        return kind
    decoder = is_decoder(AutoConfig.from_pretrained(models.find(path), local_files_only=True))
    return "causal" if decoder else "masked"
