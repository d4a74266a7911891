"""Masks for rows in which a token's position is not its place: one for each kind of layer of a model.

transformers makes such masks by itself where a row holds one text. Where it holds branches of several texts,
windows must be cut by position, and a mask of four dimensions must be given, which transformers hands to all
layers alike.

Shape letters: B rows, T tokens, K tokens that can be seen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.models.head import text_config, unwrap

Masks = Tensor | dict[str, Tensor]
"""Bool [B, 1, T, K], or one for each kind of layer as `config.layer_types` names them."""


def masks_of_layers(config: Any, visible_BTK: Tensor, position_BT: Tensor, position_BK: Tensor) -> Masks:
    """`visible_BTK` cut to what each kind of layer sees; one mask where no window or chunk cuts anything."""
    kinds = sorted(set(getattr(config, "layer_types", None) or ()))
    if not kinds:
        kinds = ["sliding_attention"]  # Mistral, Phi-3, ...: every layer has the window, if there is one
    masks = {kind: _cut(config, kind, visible_BTK, position_BT, position_BK) for kind in kinds}
    first = masks[kinds[0]]
    if all(torch.equal(mask, first) for mask in masks.values()):
        return first[:, None]
    return {kind: mask[:, None] for kind, mask in masks.items()}


def _cut(config: Any, kind: str, visible_BTK: Tensor, position_BT: Tensor, position_BK: Tensor) -> Tensor:
    window, chunk = getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)
    if kind == "sliding_attention" and window:
        return visible_BTK & (position_BT[:, :, None] - position_BK[:, None] < window)
    if kind == "chunked_attention" and chunk:
        return visible_BTK & (position_BT[:, :, None] // chunk == position_BK[:, None] // chunk)
    return visible_BTK


def as_attention_takes_it(model: nn.Module, masks: Masks) -> Masks:
    """Bool for SDPA; for plain attention, which adds its mask to the scores, 0 and the lowest number."""
    if isinstance(masks, dict):
        return {kind: _as_tensor(model, mask) for kind, mask in masks.items()}
    return _as_tensor(model, masks)


def _as_tensor(model: nn.Module, mask: Tensor) -> Tensor:
    if getattr(text_config(model), "_attn_implementation", None) != "eager":
        return mask
    dtype = next(unwrap(model).parameters()).dtype
    hidden = torch.full_like(mask, torch.finfo(dtype).min, dtype=dtype)
    return hidden.masked_fill(mask, 0.0)
