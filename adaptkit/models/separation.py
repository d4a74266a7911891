"""Find out by trying what keeps two documents apart that share a row.

Shape letters: B rows, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.models import packed
from adaptkit.models.head import split, text_config, unwrap

Separation = Literal["positions", "mask", "rows"]
FULL_TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-3
"""How far states may differ, as a share of the largest, by the precision of the weights."""
FEW = 2
"""Tokens of the document that stands before one of nearly a whole row, whose windows and chunks show."""
UNPACKED = (
    "documents packed into one row would see each other in this architecture: each gets rows of its own, "
    "which takes longer where documents are shorter than size.seq_len"
)
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
_ROPE_BY_LENGTH = {"dynamic", "longrope"}


def state_runs_on(model: nn.Module) -> bool:
    """Whether the model says of itself that a state runs from token to token (Mamba, LFM2, hybrids)."""
    layers = set(getattr(text_config(model), "layer_types", None) or ())
    return bool(getattr(unwrap(model), "_is_stateful", False) or layers - _ATTENTION)


def rotations_follow_longest(model: nn.Module, longest: int) -> bool:
    """Whether rotations depend on the longest text of a batch, so that no shorter one may stand beside it."""
    config = text_config(model)
    positions = getattr(config, "max_position_embeddings", None) or 0
    rope = getattr(config, "rope_parameters", None) or {}
    for settings in (rope, *(value for value in rope.values() if isinstance(value, Mapping))):
        trained = int(settings.get("original_max_position_embeddings") or positions)
        if settings.get("rope_type") in _ROPE_BY_LENGTH and longest > trained:
            return True
    return False


def separation(model: nn.Module, objective: str, seq_len: int) -> Separation:
    """The cheapest way that keeps two documents in one row apart in this model, tried on random tokens.

    The attention for packed rows is switched on where the model gives with it what it gives without it.
    """
    if state_runs_on(model) or rotations_follow_longest(model, seq_len):
        return "rows"
    if packed.use(model) and _packs_exactly(model, objective, seq_len, "positions"):
        return "positions"
    packed.leave(model)
    own: Separation = "positions" if objective == "causal" else "mask"
    if _packs_exactly(model, objective, seq_len, own):
        return own
    return "rows"


def kept_apart(model: nn.Module, objective: str, seq_len: int, name: str) -> Separation:
    """`separation` for training. A causal model may get rows of one document each where padding does nothing.

    Raises: ModelError, naming the base, for another causal model in which packed documents see each other.
    """
    separate = separation(model, objective, seq_len)
    if separate == "rows" and objective == "causal" and not _pads_exactly(model, seq_len):
        what = "documents packed into one row see each other in this architecture"
        fix = "choose a base whose attention follows position ids (Llama, Qwen, Mistral, GPT-NeoX, ...)"
        raise ModelError(what, where=name, fix=fix)
    return separate


@torch.no_grad()
def takes_padding_as_documents(model: nn.Module, length: int) -> bool:
    """Whether a model with a head for whole texts answers the same where the padding behind a text is a
    document of its own, and no mask. The attention for packed rows is then switched on.

    Tried on random tokens, with rows of three lengths.
    """
    if state_runs_on(model) or rotations_follow_longest(model, length) or not packed.use(model):
        return False
    config, device = text_config(model), next(model.parameters()).device
    size, generator = max(4, length), torch.Generator().manual_seed(0)
    tokens = torch.randint(config.vocab_size // 2, config.vocab_size, (3, size), generator=generator)
    mask = (torch.arange(size) < torch.tensor([[size], [size // 2], [1]])).long()
    tokens[mask == 0] = unwrap(model).config.pad_token_id or 0
    bounds = cast(Tensor, packed.padding_bounds(mask))
    batch = {"input_ids": tokens.to(device), "attention_mask": mask.to(device)}
    training = model.training
    model.eval()
    try:
        masked = model(**batch).logits
        bounded = model(**packed.padded_inputs(batch, bounds.to(device), size)).logits
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, KeyError):
        packed.leave(model)
        return False
    finally:
        model.train(training)
    tolerance = FULL_TOLERANCE if masked.dtype == torch.float32 else HALF_TOLERANCE
    alike = bounded.shape == masked.shape
    if alike and bool((masked - bounded).abs().max() <= tolerance * masked.abs().max()):
        return True
    packed.leave(model)
    return False


@torch.no_grad()
def _packs_exactly(model: nn.Module, objective: str, seq_len: int, separate: Separation) -> bool:
    """Two documents that fill a row, together and apart: both long, and one of nearly the whole row."""
    device, vocab = next(model.parameters()).device, text_config(model).vocab_size
    shape, generator = (1, max(4, seq_len)), torch.Generator().manual_seed(0)
    tokens = torch.randint(vocab // 2, vocab, shape, generator=generator).to(device)
    places = {max(1, shape[1] * 2 // 5), FEW}
    return all(_apart_at(model, objective, separate, tokens, place) for place in sorted(places))


@torch.no_grad()
def _pads_exactly(model: nn.Module, seq_len: int) -> bool:
    """Whether a document with padding behind it has the states of the document alone."""
    device, vocab = next(model.parameters()).device, text_config(model).vocab_size
    size, generator = max(4, seq_len), torch.Generator().manual_seed(0)
    tokens = torch.randint(vocab // 2, vocab, (1, size), generator=generator).to(device)
    mask = (torch.arange(size, device=device) < size // 2)[None].long()
    training = model.training
    model.eval()
    try:
        backbone, *_ = split(model)
        alone_BTD = backbone(input_ids=tokens[:, : size // 2])
        padded_BTD = backbone(input_ids=tokens, attention_mask=mask)[:, : size // 2]
    finally:
        model.train(training)
    tolerance = FULL_TOLERANCE if alone_BTD.dtype == torch.float32 else HALF_TOLERANCE
    return bool((alone_BTD - padded_BTD).abs().max() <= tolerance * alone_BTD.abs().max())


def _apart_at(model: nn.Module, objective: str, separate: Separation, tokens: Tensor, place: int) -> bool:
    """Whether the states of a row whose second document begins at `place` are those of the two alone."""
    device = tokens.device
    first, second = tokens.tensor_split([place], 1)
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
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, KeyError):
        return False  # no position ids, or no mask of this shape
    finally:
        model.train(training)
    tolerance = FULL_TOLERANCE if apart_BTD.dtype == torch.float32 else HALF_TOLERANCE
    return bool((apart_BTD - together_BTD).abs().max() <= tolerance * apart_BTD.abs().max())
