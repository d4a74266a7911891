"""Find out by trying what keeps two documents apart that share a row.

Shape letters: B rows, T tokens, D hidden size.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.models import packed
from adaptkit.models.head import split, text_config

Separation = Literal["positions", "mask", "rows"]


def separation(model: nn.Module, objective: str, seq_len: int) -> Separation:
    """The cheapest way that keeps two documents in one row apart in this model, tried on random tokens.

    The attention for packed rows is switched on where the model gives with it what it gives without it.
    """
    if packed.use(model) and _packs_exactly(model, objective, seq_len, "positions"):
        return "positions"
    packed.leave(model)
    own: Separation = "positions" if objective == "causal" else "mask"
    if _packs_exactly(model, objective, seq_len, own):
        return own
    return "rows"


def kept_apart(model: nn.Module, objective: str, seq_len: int, name: str) -> Separation:
    """`separation` for training.

    Raises: ModelError, naming the base, for a causal model in which packed documents see each other.
    """
    separate = separation(model, objective, seq_len)
    if separate == "rows" and objective == "causal":
        what = "documents packed into one row see each other in this architecture"
        fix = "choose a base whose attention follows position ids (Llama, Qwen, Mistral, GPT-NeoX, ...)"
        raise ModelError(what, where=name, fix=fix)
    return separate


@torch.no_grad()
def _packs_exactly(model: nn.Module, objective: str, seq_len: int, separate: Separation) -> bool:
    """Two documents that fill a row, together and apart; long ones, or a sliding window would not show."""
    device, vocab = next(model.parameters()).device, text_config(model).vocab_size
    shape, generator = (1, max(4, seq_len)), torch.Generator().manual_seed(0)
    tokens = torch.randint(vocab // 2, vocab, shape, generator=generator).to(device)
    first, second = tokens.tensor_split([tokens.shape[1] * 2 // 5], 1)
    positions = torch.cat([torch.arange(part.shape[1], device=device) for part in (first, second)])
    batch: dict[str, Any] = {"input_ids": tokens, "position_ids": positions[None]}
    bounds = packed.document_bounds(batch["position_ids"])
    if separate == "mask":
        batch["attention_mask"] = packed.block_mask(bounds, *tokens.shape, causal=False)
    elif packed.in_use(model):
        batch = packed.inputs(model, batch, bounds, causal=objective == "causal")
    training = model.training
    model.eval()
    try:
        backbone, *_ = split(model)
        apart_BTD = torch.cat([backbone(input_ids=first), backbone(input_ids=second)], 1)
        together_BTD = backbone(**batch)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False  # no position ids, or no mask of this shape
    finally:
        model.train(training)
    return bool((apart_BTD - together_BTD).abs().max() <= 1e-3 * apart_BTD.abs().max())
