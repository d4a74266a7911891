"""Attention for packed rows: each document is computed as if it were alone, without a [T, T] mask where that
pays.

Registered with transformers as an attention implementation, so any model that dispatches through its registry
can use it; which route is taken depends on the machine, what is computed does not:

- CUDA, half precision, no dropout: cuDNN's dense attention for the rows at the front that are one document
  each, torch's variable-length flash attention over document bounds for the others;
- CPU, long documents: one SDPA call per document;
- otherwise: SDPA under a block mask, cut to the layer's sliding window.

Shape letters: B rows, T tokens of a row, N = B * T, H heads, K head size, P documents.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from adaptkit.models.head import unwrap

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10: no GPU route without a mask
    varlen_attn = None  # type: ignore[assignment]

NAME = "adaptkit_packed"
FEWEST_BOUNDS, SHORTEST_LONGEST = 64, 128
"""On a GPU the number of bounds and the length of the longest document are rounded up to powers of two, at
least these: few different shapes to compile and record. Documents past the end are empty and cost little."""
CUDNN_HEAD = 128
"""The largest head that cuDNN's attention takes."""
_ASKS_FOR_GROUPS = varlen_attn is not None and "enable_gqa" in inspect.signature(varlen_attn).parameters
"""Whether `varlen_attn` wants to be told of fewer key heads; torch 2.11's takes them as they are."""
CALL_COST = 160**2
"""What one more SDPA call costs on a CPU, in attention scores computed under a mask: measured with 4 heads of
64 at rows of 128, 512 and 1024 tokens, forward and backward."""


def use(model: nn.Module) -> bool:
    """Switch `model` to this attention; False, and nothing changed, if it does not dispatch through
    transformers' registry."""
    inner = unwrap(model)
    if (
        getattr(inner.config, "_attn_implementation", None) != "sdpa"
        or not inner._can_set_attn_implementation()
    ):
        return in_use(model)
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    inner.set_attn_implementation(NAME)
    return True


def leave(model: nn.Module) -> None:
    """Back to plain SDPA."""
    if in_use(model):
        unwrap(model).set_attn_implementation("sdpa")


def in_use(model: nn.Module) -> bool:
    """Whether `use` was called on this model."""
    return getattr(unwrap(model).config, "_attn_implementation", None) == NAME


def document_bounds(position_ids_BT: Tensor) -> Tensor:
    """Where documents begin in the flattened rows, and the end: int32 [P + 1]. Positions restart at 0 with
    each document.

    Made on the host, before the batch goes to a device: finding them there would make the host wait.
    """
    starts = (position_ids_BT.flatten() == 0).nonzero().flatten()
    return F.pad(starts, (0, 1), value=position_ids_BT.numel()).to(torch.int32)


def longest_document(bounds: Tensor, length: int) -> int:
    """Tokens of the longest document in rows of `length`, rounded up; for bounds on the host."""
    return min(length, max(SHORTEST_LONGEST, _power_of_two(int(bounds.diff().max()))))


def cudnn_is_faster() -> bool:
    """Whether cuDNN's dense attention is made for this machine's GPU: Hopper and later.

    That over bounds is not used: torch 2.11 to 2.13 give its backward the head size as the longest document
    (pytorch #186142).
    """
    if not torch.cuda.is_available() or torch.are_deterministic_algorithms_enabled():
        return False
    return torch.backends.cudnn.is_available() and torch.cuda.get_device_capability() >= (9, 0)


def whole_rows_first(position_ids_BT: Tensor) -> Tensor:
    """An order of the rows, int64 [B], in which those that are one document come first."""
    return torch.argsort((position_ids_BT == 0).sum(1).ne(1).long(), stable=True)


def whole_rows(bounds: Tensor, rows: int, length: int) -> int:
    """How many rows at the front are one document each, rounded down to a quarter of all rows (so that few
    different numbers occur); for bounds on the host."""
    ends = bounds[1 : rows + 1]
    whole = ends == length * torch.arange(1, len(ends) + 1, device=ends.device)
    step = max(1, rows // 4)
    return int(whole.long().cumprod(0).sum()) // step * step


def padded_bounds(bounds: Tensor, num_tokens: int) -> Tensor:
    """The bounds with empty documents at the end, so that few different numbers of them occur."""
    return F.pad(bounds, (0, max(FEWEST_BOUNDS, _power_of_two(len(bounds))) - len(bounds)), value=num_tokens)


def inputs(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    bounds: Tensor,
    *,
    causal: bool,
    longest: int | None = None,
    whole: int = 0,
) -> dict[str, Tensor | int]:
    """`batch` as `model` takes it, given this attention, the bounds of the documents, the length of the
    longest, and how many rows at the front are `whole`: one document each.

    transformers hands a mask of four dimensions to the attention as it is. So a block mask goes in where one
    is needed, and a single True where none is: without it a mask would be made from the position ids.
    """
    shape = batch["input_ids"].shape
    if batch["input_ids"].device.type == "cuda":
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=bounds.device)
        bounds = padded_bounds(bounds, shape.numel())
        about: dict[str, Tensor | int] = {
            "cu_seq_lens_q": bounds,
            "max_length_q": longest or shape[1],
            "whole_rows": whole,
        }
        return {**batch, "attention_mask": mask, **about}
    if _calls_pay(bounds, *shape):
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=bounds.device)
    else:
        mask = block_mask(bounds, *shape, causal=causal)
    return {**batch, "attention_mask": mask, "cu_seq_lens_q": bounds}


def padding_bounds(attention_mask_BT: Tensor) -> Tensor | None:
    """Where texts and the padding behind them begin in the flattened rows, and the end: each is a document.
    For a mask on the host; None where padding stands elsewhere."""
    rows, length = attention_mask_BT.shape
    sizes = attention_mask_BT.sum(1)
    if not torch.equal(attention_mask_BT.bool(), torch.arange(length) < sizes[:, None]):
        return None
    starts = torch.arange(rows) * length
    paddings = (starts + sizes)[sizes < length]
    ends = torch.tensor([rows * length])
    return torch.cat([starts, paddings, ends]).unique().to(torch.int32)


def padded_inputs(batch: Mapping[str, Tensor], bounds: Tensor, longest: int) -> dict[str, Tensor | int]:
    """`batch` of padded rows as a model takes it, given this attention and `padding_bounds`."""
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=bounds.device)
    return {**batch, "attention_mask": mask, "cu_seq_lens_q": bounds, "max_length_q": longest}


def block_mask(bounds: Tensor, rows: int, length: int, *, causal: bool, window: int | None = None) -> Tensor:
    """Who sees whom, bool [B, 1, T, T]; `window` counts the token itself and those before (and, not causal,
    after)."""
    at_N = torch.arange(rows * length, device=bounds.device, dtype=bounds.dtype)
    document_BT = torch.bucketize(at_N, bounds, right=True).view(rows, length)
    mask_BTT = document_BT[:, :, None] == document_BT[:, None, :]
    if causal or window:
        distance_TT = at_N[:length, None] - at_N[None, :length]
        reach = length if window is None else window
        mask_BTT &= (distance_TT < reach) & (distance_TT > -reach)
        if causal:
            mask_BTT &= distance_TT >= 0
    return mask_BTT[:, None]


def attention(
    module: nn.Module,
    query_BHTK: Tensor,
    key_BHTK: Tensor,
    value_BHTK: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    whole_rows: int = 0,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """transformers' attention interface: [B, T, H, K] and no weights. Without bounds it is transformers' own
    SDPA.

    Keys and values may have fewer heads than queries (a divisor of their number). Under autocast all three
    are taken in its dtype: rotations may have made queries and keys float32, which flash attention refuses.
    """
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        settings: dict[str, Any] = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal, **others}
        return sdpa_attention_forward(module, query_BHTK, key_BHTK, value_BHTK, attention_mask, **settings)
    bounds = cu_seq_lens_q
    causal = bool(module.is_causal if is_causal is None else is_causal)
    rows, _, length, _ = query_BHTK.shape
    on_gpu = query_BHTK.is_cuda
    if on_gpu and torch.is_autocast_enabled("cuda"):
        half = torch.get_autocast_dtype("cuda")
        query_BHTK, key_BHTK, value_BHTK = query_BHTK.to(half), key_BHTK.to(half), value_BHTK.to(half)
    if (
        on_gpu
        and query_BHTK.dtype in (torch.float16, torch.bfloat16)
        and not dropout
        and varlen_attn is not None
    ):
        longest = max_length_q or length
        size = query_BHTK.shape[-1]
        dense = whole_rows if sliding_window is None and size % 8 == 0 and size <= CUDNN_HEAD else 0
        tensors = query_BHTK, key_BHTK, value_BHTK
        return _by_rows(tensors, bounds, longest, dense, scaling, causal, sliding_window), None
    whole = sliding_window is None or sliding_window > length
    if not on_gpu and whole and attention_mask is not None and attention_mask.shape[-1] == 1:
        return _by_document(query_BHTK, key_BHTK, value_BHTK, bounds.tolist(), dropout, scaling, causal), None
    if attention_mask is None or attention_mask.shape[-1] == 1 or not whole:
        window = None if whole else sliding_window
        attention_mask = block_mask(bounds, rows, length, causal=causal, window=window)
    keys_BHTK, values_BHTK = _for_each_head(query_BHTK, key_BHTK, value_BHTK)
    out_BHTK = F.scaled_dot_product_attention(
        query_BHTK, keys_BHTK, values_BHTK, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return out_BHTK.transpose(1, 2).contiguous(), None


def _by_rows(
    query_key_value: tuple[Tensor, Tensor, Tensor],
    bounds: Tensor,
    longest: int,
    dense: int,
    scaling: float | None,
    causal: bool,
    window: int | None,
) -> Tensor:
    """The first `dense` rows, one document each, by cuDNN; the others over the bounds of their documents."""
    rows, _, length, _ = query_key_value[0].shape
    if dense == 0:
        return _flash(*query_key_value, bounds, longest, scaling, causal, window)
    if dense == rows:
        return _cudnn(*query_key_value, scaling, causal)
    (query, query_rest), (key, key_rest), (value, value_rest) = (
        x.split([dense, rows - dense]) for x in query_key_value
    )
    bounds = bounds.narrow(0, dense, len(bounds) - dense) - dense * length
    front = _cudnn(query, key, value, scaling, causal)
    rest = _flash(query_rest, key_rest, value_rest, bounds, longest, scaling, causal, window)
    return torch.cat((front, rest))


def _cudnn(
    query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, scaling: float | None, causal: bool
) -> Tensor:
    out_BHTK = torch.ops.aten._scaled_dot_product_cudnn_attention(
        query_BHTK, key_BHTK, value_BHTK, None, True, 0.0, causal, False, scale=scaling
    )[0]
    return cast(Tensor, out_BHTK).transpose(1, 2).contiguous()


def _flash(
    query_BHTK: Tensor,
    key_BHTK: Tensor,
    value_BHTK: Tensor,
    bounds: Tensor,
    longest: int,
    scaling: float | None,
    causal: bool,
    window: int | None,
) -> Tensor:
    rows, heads, length, size = query_BHTK.shape
    query_NHK, key_NHK, value_NHK = (
        x.transpose(1, 2).flatten(0, 1) for x in (query_BHTK, key_BHTK, value_BHTK)
    )
    back = -1 if window is None else window - 1
    ahead = 0 if causal else back
    grouped: dict[str, Any] = {}
    if _ASKS_FOR_GROUPS and key_BHTK.shape[1] != heads:
        grouped["enable_gqa"] = True
    out_NHK = varlen_attn(
        query_NHK,
        key_NHK,
        value_NHK,
        bounds,
        bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(back, ahead),
        **grouped,
    )
    return cast(Tensor, out_NHK).view(rows, length, heads, size)


def _by_document(
    query_BHTK: Tensor,
    key_BHTK: Tensor,
    value_BHTK: Tensor,
    bounds: list[int],
    dropout: float,
    scaling: float | None,
    causal: bool,
) -> Tensor:
    rows, heads, length, size = query_BHTK.shape
    query_HNK, key_HNK, value_HNK = (
        x.transpose(0, 1).flatten(1, 2) for x in (query_BHTK, key_BHTK, value_BHTK)
    )
    grouped = key_BHTK.shape[1] != heads
    sizes = [stop - start for start, stop in zip(bounds, bounds[1:], strict=False)]
    parts = zip(*(x.split(sizes, dim=1) for x in (query_HNK, key_HNK, value_HNK)), strict=True)
    out_HNK = torch.cat(
        [
            F.scaled_dot_product_attention(
                q[None], k[None], v[None], None, dropout, causal, scale=scaling, enable_gqa=grouped
            )[0]
            for q, k, v in parts
        ],
        dim=1,
    )
    return out_HNK.view(heads, rows, length, size).permute(1, 2, 0, 3).contiguous()


def _for_each_head(query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor) -> tuple[Tensor, Tensor]:
    groups = query_BHTK.shape[1] // key_BHTK.shape[1]
    return key_BHTK.repeat_interleave(groups, 1), value_BHTK.repeat_interleave(groups, 1)


def _calls_pay(bounds: Tensor, rows: int, length: int) -> bool:
    """One call per document, against all pairs of tokens under a mask."""
    sizes = bounds.diff().double()
    return float((sizes.square() + CALL_COST).sum()) < rows * length**2


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
