"""Turn hidden states into one vector per text, in the way that a model's structure asks for.

Shape suffixes: B = texts, T = tokens, D = hidden size.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

Pooling = Literal["mean", "cls", "last"]


def by_structure(config: Any) -> Pooling:
    """`last` for decoders, whose last token alone has read the whole text; `mean` for encoders."""
    return "last" if is_decoder(config) else "mean"


def is_decoder(config: Any) -> bool:
    """Whether a transformers config is of a model that reads left to right."""
    kind = config.model_type
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return bool(getattr(config, "is_decoder", False))
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def pool(hidden_BTD: Tensor, mask_BT: Tensor, how: Pooling) -> Tensor:
    """One vector per text, at least float32 [B, D]; `mask_BT` is 1 for tokens and 0 for the padding on the
    right."""
    wide = hidden_BTD.dtype if hidden_BTD.dtype == torch.float64 else torch.float32
    if how == "cls":
        return hidden_BTD[:, 0].to(wide)
    lengths_B = mask_BT.sum(1)
    if how == "last":
        return hidden_BTD[torch.arange(len(hidden_BTD), device=hidden_BTD.device), lengths_B - 1].to(wide)
    with torch.autocast(hidden_BTD.device.type, enabled=False):
        sums_BD = torch.bmm(mask_BT[:, None].to(wide), hidden_BTD.to(wide)).squeeze(1)
    return sums_BD / lengths_B[:, None]


def cut(vectors: Tensor, dimensions: int, *, normalised: bool = True) -> Tensor:
    """The first `dimensions` of the last axis (0: all), brought back to unit length (Matryoshka, arXiv
    2205.13147)."""
    if dimensions:
        vectors = vectors[..., :dimensions]
    if normalised:
        vectors = F.normalize(vectors, dim=-1)
    return vectors
