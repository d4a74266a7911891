"""What keeps documents apart that share a row, found out by trying.

Shape letters: B rows, T tokens, D hidden size.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.models import packed
from adaptkit.models.head import split

Separation = Literal["positions", "mask", "rows"]


def separation(model: nn.Module, objective: str, seq_len: int) -> Separation:
    """What keeps two documents in one row apart in this model, the cheapest first. Tried on random tokens,
    not looked up.

    The attention for packed rows is switched on where the model gives with it what it gives without it.
    """
    if packed.use(model) and _packs_exactly(model, objective, seq_len, "positions"):
        return "positions"
    packed.leave(model)
    own = "positions" if objective == "causal" else "mask"
    return own if _packs_exactly(model, objective, seq_len, own) else "rows"


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
    device, vocab = next(model.parameters()).device, model.config.get_text_config().vocab_size
    tokens = torch.randint(
        vocab // 2, vocab, (1, max(4, seq_len)), generator=torch.Generator().manual_seed(0)
    ).to(device)
    first, second = tokens.tensor_split([tokens.shape[1] * 2 // 5], 1)
    batch: dict[str, Tensor] = {
        "input_ids": tokens,
        "position_ids": torch.cat([torch.arange(part.shape[1], device=device) for part in (first, second)])[
            None
        ],
    }
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
