"""Turn hidden states into one vector per text, in the way that a model's structure asks for.

Shape suffixes: B = texts, T = tokens, D = hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

Pooling = str
"""One of MODES, or several with `+` between them, whose vectors stand one behind the other."""
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "last")


def by_structure(config: Any) -> Pooling:
    """`last` for decoders, whose last token alone has read the whole text; `mean` for encoders."""
    return "last" if is_decoder(config) else "mean"


def is_decoder(config: Any) -> bool:
    """Whether a transformers config is of a model that reads left to right."""
    kind = config.model_type
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return bool(getattr(config, "is_decoder", False))
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def num_modes(how: Pooling) -> int:
    """How many vectors of the hidden size make up one of a text."""
    return how.count("+") + 1


def pool(hidden_BTD: Tensor, mask_BT: Tensor, how: Pooling, skip: int = 0) -> Tensor:
    """One vector per text, at least float32 [B, D * modes].

    Args:
        mask_BT: 1 for tokens and 0 for the padding on the right.
        skip: first tokens of every text that take no part: those of a prompt.
    """
    wide = hidden_BTD.dtype if hidden_BTD.dtype == torch.float64 else torch.float32
    if skip:
        mask_BT = mask_BT.clone()
        mask_BT[:, :skip] = 0
    return torch.cat([_pool_one(hidden_BTD, mask_BT, mode, wide) for mode in how.split("+")], dim=-1)


def _pool_one(hidden_BTD: Tensor, mask_BT: Tensor, mode: str, wide: torch.dtype) -> Tensor:
    rows = torch.arange(len(hidden_BTD), device=hidden_BTD.device)
    place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    if mode == "cls":
        return hidden_BTD[rows, mask_BT.argmax(1)].to(wide)
    if mode == "last":
        return hidden_BTD[rows, (mask_BT * place_T).argmax(1)].to(wide)
    if mode == "max":
        return hidden_BTD.masked_fill(mask_BT[..., None] == 0, float("-inf")).amax(1).to(wide)
    weights_BT = mask_BT.to(wide)
    if mode == "weightedmean":
        weights_BT = weights_BT * (place_T + 1)
    with torch.autocast(hidden_BTD.device.type, enabled=False):
        sums_BD = torch.bmm(weights_BT[:, None], hidden_BTD.to(wide)).squeeze(1)
    totals_B = weights_BT.sum(1).clamp(min=1e-9)
    if mode == "mean_sqrt_len_tokens":
        totals_B = totals_B.sqrt()
    return sums_BD / totals_B[:, None]


def cut(vectors: Tensor, dimensions: int, *, normalised: bool = True) -> Tensor:
    """The first `dimensions` of the last axis (0: all), brought back to unit length (Matryoshka, arXiv
    2205.13147)."""
    if dimensions:
        vectors = vectors[..., :dimensions]
    if normalised:
        vectors = F.normalize(vectors, dim=-1)
    return vectors
