"""A frozen linear layer with its low-rank update as one matrix product: `[X | X A^T] @ [W | s B]^T`.

LoRA (Hu et al. 2021, arXiv 2106.09685) adds `s X A^T B^T` to `X W^T`. Beside the two skinny products, the
usual code scales, adds and often casts a second result as large as the first. Here the update rides in r more
columns of the
inner dimension: the library's product accumulates it, and backward gets `dY W` and `s dY B` from one product
    with the
same augmented weight. That weight is formed anew in each pass, from whatever holds W (a plain matrix of any
dtype, or NF4, which is unpacked right into it), so no state could go stale. Forming it and copying X costs
memory traffic, and so
does the other way, a product that adds the update to Y in place: each pass takes the way that moves fewer
    elements,
which for many tokens, NF4 or autocast is the augmented one.

Shape suffixes: T = tokens, K = inputs, N = outputs, R = rank, P = R rounded up so that K + P is a multiple of
    16.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from . import autograd
from ._ops import add_op_namespace_prefix
from .launch import Shipped, fused_available, jit, on_device, rounded, tl, type_name
from .reference import dequantize_4bit

_BLOCK, _NUM_WARPS = 2048, 4


class FourBit(NamedTuple):
    """How a weight [N, K] lies in bytes: row-major, the earlier of two elements in the high half
    (bitsandbytes' layout)."""

    scales: Tensor
    """float32, one per `block_size` elements"""
    code: Tensor
    """float32 [16], the values that the sixteen 4-bit codes stand for, for a scale of one"""
    block_size: int


def lora_linear(
    x: Tensor,
    weight_NK: Tensor,
    a_RK: Tensor,
    b_NR: Tensor,
    scale: float,
    bias_N: Tensor | None = None,
    *,
    dropped: Tensor | None = None,
    four_bit: FourBit | None = None,
) -> Tensor:
    """`x @ weight^T + bias + scale * dropped @ a^T @ b^T` with gradients for all but the weight.

    Computes in autocast's dtype, else in x's; a and b are rounded to it, and the update is added before Y is
    rounded.

    Args:
        x: float [..., K].
        weight_NK: frozen; float of any dtype, or the bytes of a 4-bit weight together with `four_bit`.
        dropped: what the update sees instead of x: x after dropout, in x's shape.
    """
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    shape = (math.prod(x.shape[:-1]), x.shape[-1])
    scales, code, block_size = four_bit or (None, None, 0)
    bias_N = None if bias_N is None else bias_N.to(dtype)
    dropped = None if dropped is None else dropped.to(dtype).reshape(shape)
    x_TK = x.to(dtype).reshape(shape)
    tensors = x_TK, dropped, weight_NK, a_RK.to(dtype), b_NR.to(dtype), bias_N, scales, code
    y, _ = (_eager if autograd.plain(*tensors) else _operator)(*tensors, block_size, scale)
    return y.view(*x.shape[:-1], len(b_NR))


def extra_columns(width: int, rank: int) -> int:
    """P: the columns that a rank needs beside `width`, so that every row starts at a multiple of 16
    elements."""
    return rank + -(width + rank) % 16


def _forward(
    x: Tensor,
    dropped: Tensor | None,
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    scales: Tensor | None,
    code: Tensor | None,
    block_size: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(y, the update's inner values [T, R], which backward needs)."""
    low_TR = (x if dropped is None else dropped) @ a.t()
    tokens, inputs, outputs = *x.shape, len(b)
    moved = 2 * outputs * inputs * _is_ready(weight, scales, x.dtype) + 2 * tokens * inputs
    if moved >= 2 * tokens * outputs:
        plain = _plain(weight, scales, code, block_size, outputs, inputs, x.dtype)
        y = x @ plain.t() if bias is None else torch.addmm(bias, x, plain.t())
        return y.addmm_(low_TR, b.t(), alpha=scale), low_TR
    extra = extra_columns(inputs, len(a))
    both = x.new_empty(tokens, inputs + extra)
    both[:, :inputs] = x
    _fill(both[:, inputs:], low_TR)
    augmented = _augmented(weight, scales, code, block_size, b, scale, inputs, extra)
    y = both @ augmented.t() if bias is None else torch.addmm(bias, both, augmented.t())
    return y, low_TR


def _backward(
    dy: Tensor,
    x: Tensor,
    dropped: Tensor | None,
    low_TR: Tensor,
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    scales: Tensor | None,
    code: Tensor | None,
    block_size: int,
    scale: float,
    wants_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (x, dropped, a, b); the first is empty if not wanted, the second if nothing was
    dropped."""
    inputs, outputs, rank = x.shape[1], len(b), len(a)
    seen = x if dropped is None else dropped
    db = (dy.t() @ low_TR).mul_(scale)
    moved = 2 * outputs * inputs * _is_ready(weight, scales, x.dtype)
    if wants_x and moved < len(x) * outputs:
        both = dy @ _augmented(
            weight, scales, code, block_size, b, scale, inputs, extra_columns(inputs, rank)
        )
        dx, d_low = both[:, :inputs], both[:, inputs : inputs + rank]
    else:
        d_low = (dy @ b).mul_(scale)
        dx = (
            dy @ _plain(weight, scales, code, block_size, outputs, inputs, x.dtype)
            if wants_x
            else x.new_empty(0)
        )
    da = d_low.t() @ seen
    if dropped is not None:
        return dx, d_low @ a, da, db
    return dx.addmm_(d_low, a) if wants_x else dx, x.new_empty(0), da, db


def _is_ready(weight: Tensor, scales: Tensor | None, dtype: torch.dtype) -> bool:
    """Whether a product can take the weight as it lies; if not, writing it into a wider matrix costs nothing
    more."""
    return scales is None and weight.dtype == dtype


def _plain(
    weight: Tensor,
    scales: Tensor | None,
    code: Tensor | None,
    block_size: int,
    outputs: int,
    inputs: int,
    dtype: torch.dtype,
) -> Tensor:
    if scales is None:
        return weight.to(dtype)
    unpacked = torch.empty(outputs, inputs, dtype=dtype, device=weight.device)
    unpack(weight, FourBit(scales, code, block_size), unpacked)
    return unpacked


def _augmented(
    weight: Tensor,
    scales: Tensor | None,
    code: Tensor | None,
    block_size: int,
    b: Tensor,
    scale: float,
    inputs: int,
    extra: int,
) -> Tensor:
    """[W | s B | 0] in b's dtype."""
    augmented = b.new_empty(len(b), inputs + extra)
    if scales is None:
        augmented[:, :inputs] = weight
    else:
        unpack(weight, FourBit(scales, code, block_size), augmented[:, :inputs])
    _fill(augmented[:, inputs:], b * scale)
    return augmented


def _fill(columns: Tensor, values: Tensor) -> None:
    """The values, and zeros in the columns that only round the width up."""
    columns[:, : values.shape[1]] = values
    columns[:, values.shape[1] :] = 0


_operator, _backward_operator = (
    torch.library.custom_op(add_op_namespace_prefix(name), mutates_args=())(function)
    for name, function in (("lora_linear", _forward), ("lora_linear_backward", _backward))
)


@_operator.register_fake
def _(x, dropped, weight, a, b, bias, scales, code, block_size, scale):
    return x.new_empty(len(x), len(b)), x.new_empty(len(x), len(a))


@_backward_operator.register_fake
def _(dy, x, dropped, low_TR, weight, a, b, scales, code, block_size, scale, wants_x):
    dx = x.new_empty(x.shape) if wants_x else x.new_empty(0)
    if wants_x and 2 * len(b) * x.shape[1] * _is_ready(weight, scales, x.dtype) < len(x) * len(b):
        dx = x.new_empty(len(x), x.shape[1] + extra_columns(x.shape[1], len(a)))[:, : x.shape[1]]
    d_dropped = x.new_empty(0) if dropped is None else x.new_empty(x.shape)
    return dx, d_dropped, x.new_empty(a.shape), x.new_empty(b.shape)


def _keep(ctx, inputs, output) -> None:
    x, dropped, weight, a, b, bias, scales, code, ctx.block_size, ctx.scale = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, dropped, output[1], weight, a, b, scales, code)


def _differentiate(ctx, dy, _, *, backward=_backward_operator):
    *tensors, scales, code = ctx.saved_tensors
    wants_x, wants_bias = ctx.needs_input_grad[0], ctx.needs_input_grad[5]
    dx, d_dropped, da, db = backward(dy, *tensors, scales, code, ctx.block_size, ctx.scale, wants_x)
    d_dropped = None if tensors[1] is None else d_dropped
    return (dx if wants_x else None, d_dropped, None, da, db, dy.sum(0) if wants_bias else None, *[None] * 4)


_operator.register_autograd(_differentiate, setup_context=_keep)
_eager = autograd.eager_layer(_forward, _keep, partial(_differentiate, backward=_backward))


def unpack(packed: Tensor, layout: FourBit, out_NK: Tensor) -> None:
    """Write a 4-bit weight's values into `out_NK`, whose rows may lie further apart than K.

    Args:
        packed: uint8, N * K / 2 bytes of any shape; K is even.
    """
    if not fused_available(packed.device) or out_NK.shape[1] % 2:
        out_NK.copy_(dequantize_4bit(packed, layout.scales, layout.code, layout.block_size, out_NK.shape))
        return
    rows, width = out_NK.shape
    with on_device(packed):
        _unpack_kernel[(rows, -(-width // _BLOCK))](
            packed,
            layout.scales,
            layout.code,
            out_NK,
            width,
            out_NK.stride(0),
            BLOCK_SIZE=layout.block_size,
            BLOCK=_BLOCK,
            num_warps=_NUM_WARPS,
        )


@jit
def _unpack_kernel(
    packed_ptr,
    scales_ptr,
    code_ptr,
    out_ptr,
    width,
    out_stride,
    BLOCK_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    pair = tl.program_id(1) * (BLOCK // 2) + tl.arange(0, BLOCK // 2)
    real = 2 * pair < width
    place = row * (width // 2) + pair
    byte = tl.load(packed_ptr + place, mask=real, other=0).to(tl.int32)
    scale = tl.load(
        scales_ptr + place // (BLOCK_SIZE // 2), mask=real, other=0.0
    )  # a pair never straddles two blocks
    high = tl.load(code_ptr + (byte >> 4)) * scale
    low = tl.load(code_ptr + (byte & 15)) * scale
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    values = rounded(tl.interleave(high, low), out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * out_stride + cols, values, mask=cols < width)


def shipped() -> list[Shipped]:
    """The unpacking kernel for the block size of 4-bit models and both dtypes; the products are the
    library's."""
    return [
        Shipped(
            _unpack_kernel,
            f"{type_name(dtype)} blocks of 64",
            {
                "packed_ptr": "*u8",
                "scales_ptr": "*fp32",
                "code_ptr": "*fp32",
                "out_ptr": f"*{type_name(dtype)}",
                "width": "i32",
                "out_stride": "i32",
            },
            {"BLOCK_SIZE": 64, "BLOCK": _BLOCK},
            ("width", "out_stride"),
            _NUM_WARPS,
            kind="other",
        )
        for dtype in (torch.bfloat16, torch.float32)
    ]
