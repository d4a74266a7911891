"""Residual addition, RMSNorm and LayerNorm in one pass over the rows, forward and backward.

A row is read once and kept in registers: sum, statistics, scaling and store happen there, in float32. Rows
of up to 1024 elements share a program, so that a program always moves a tile of 2048 elements or more.
Backward runs a fixed number of programs that walk the rows in strides; each adds up its share of the weight
gradient in registers and writes it once, and one reduction over programs ends it: no atomics, the same bits
    in
every run on one device.

RMSNorm is Zhang and Sennrich 2019 (arXiv 1910.07467), LayerNorm Ba et al. 2016 (arXiv 1607.06450).
Shape suffixes: N = rows, D = row width, P = programs of the backward pass.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import autograd
from ._ops import add_op_namespace_prefix
from .launch import INTERPRETED, on_device
from .norm_kernels import MAX_WIDTH, norm_backward_kernel, norm_forward_kernel, tile_of

_PROGRAMS_PER_SM = 4
_INTERPRETED_PROGRAMS = 4


def rms_norm(
    x: Tensor, weight_D: Tensor, eps: float, *, offset: float = 0.0, dtype: torch.dtype | None = None
) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * (offset + weight)` over the last dimension; `offset` 1 is Gemma's
    convention.

    Args:
        x: float [..., D], D <= MAX_WIDTH.
        dtype: of the result; the promoted dtype of x and weight unless given.
    """
    rows = _rows(x)
    dtype = dtype or torch.promote_types(x.dtype, weight_D.dtype)
    y, *_ = _norm(rows, None, weight_D, None, eps, offset, False, dtype)
    return _like(y, x)


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight_D: Tensor,
    eps: float,
    *,
    offset: float = 0.0,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual); the sum is rounded to its dtype before it is normalised, as in
    torch."""
    dtype = dtype or torch.promote_types(torch.promote_types(x.dtype, residual.dtype), weight_D.dtype)
    y, total, *_ = _norm(_rows(x), _rows(residual), weight_D, None, eps, offset, False, dtype)
    return _like(y, x), total.view(x.shape)


def layer_norm(
    x: Tensor, weight_D: Tensor | None, bias_D: Tensor | None, eps: float, *, dtype: torch.dtype | None = None
) -> Tensor:
    """`(x - mean(x)) / sqrt(var(x) + eps) * weight + bias` over the last dimension, in x's dtype unless
    given."""
    y, *_ = _norm(_rows(x), None, weight_D, bias_D, eps, 0.0, True, dtype or x.dtype)
    return _like(y, x)


def add_layer_norm(
    x: Tensor,
    residual: Tensor,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    *,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """(layer_norm(x + residual), x + residual)."""
    dtype = dtype or torch.promote_types(x.dtype, residual.dtype)
    y, total, *_ = _norm(_rows(x), _rows(residual), weight_D, bias_D, eps, 0.0, True, dtype)
    return _like(y, x), total.view(x.shape)


def _rows(x: Tensor) -> Tensor:
    """[..., D] as [N, D] with unit stride inside a row; a view where the layout allows one."""
    if x.shape[-1] > MAX_WIDTH:
        raise ValueError(f"rows of {x.shape[-1]} elements: the norm kernels hold at most {MAX_WIDTH}")
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _like(y_ND: Tensor, x: Tensor) -> Tensor:
    return y_ND.view(x.shape) if x.ndim != 2 else y_ND


def _norm(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (_eager if autograd.plain(*inputs[:4]) else _operator)(*inputs)


def _forward(
    x_ND: Tensor,
    residual_ND: Tensor | None,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    offset: float,
    centered: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(normed, x + residual or nothing, mean or nothing, 1 / standard deviation)."""
    y, total, mean, rstd = _outputs(x_ND, residual_ND, centered, dtype)
    num_rows, width = x_ND.shape
    if num_rows:
        tile = tile_of(width)
        with on_device(x_ND):
            norm_forward_kernel[(-(-num_rows // tile.rows),)](
                x_ND,
                residual_ND,
                weight_D,
                bias_D,
                y,
                total,
                mean,
                rstd,
                num_rows,
                x_ND.stride(0),
                residual_ND.stride(0) if residual_ND is not None else 0,
                eps,
                WIDTH=width,
                ROWS=tile.rows,
                BLOCK=tile.block,
                OFFSET=offset,
                CENTERED=centered,
                ADDS=residual_ND is not None,
                SCALES=weight_D is not None,
                SHIFTS=bias_D is not None,
                num_warps=tile.forward_warps,
            )
    return y, total, mean, rstd


def _outputs(
    x_ND: Tensor, residual_ND: Tensor | None, centered: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_rows, width = x_ND.shape
    y = x_ND.new_empty(num_rows, width, dtype=dtype)
    total = x_ND.new_empty(0)
    if residual_ND is not None:
        total = x_ND.new_empty(num_rows, width, dtype=torch.promote_types(x_ND.dtype, residual_ND.dtype))
    mean = x_ND.new_empty(num_rows if centered else 0, dtype=torch.float32)
    return y, total, mean, x_ND.new_empty(num_rows, dtype=torch.float32)


_operator = torch.library.custom_op(add_op_namespace_prefix("norm"), mutates_args=())(_forward)


@_operator.register_fake
def _(x_ND, residual_ND, weight_D, bias_D, eps, offset, centered, dtype):
    return _outputs(x_ND, residual_ND, centered, dtype)


def _backward(
    dy_ND: Tensor,
    d_total_ND: Tensor | None,
    total_ND: Tensor,
    weight_D: Tensor | None,
    mean_N: Tensor,
    rstd_N: Tensor,
    offset: float,
    centered: bool,
    shifts: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (x + residual, weight, bias); the last two are empty where there is none."""
    num_rows, width = total_ND.shape
    tile = tile_of(width)
    programs = max(1, min(-(-num_rows // tile.rows), _most_programs(total_ND)))
    d_sum = torch.empty_like(total_ND, memory_format=torch.contiguous_format)
    d_weight = total_ND.new_empty(programs if weight_D is not None else 0, width, dtype=torch.float32)
    d_bias = total_ND.new_empty(programs if shifts else 0, width, dtype=torch.float32)
    if num_rows:
        with on_device(total_ND):
            norm_backward_kernel[(programs,)](
                dy_ND,
                d_total_ND,
                total_ND,
                weight_D,
                mean_N,
                rstd_N,
                d_sum,
                d_weight,
                d_bias,
                num_rows,
                dy_ND.stride(0),
                d_total_ND.stride(0) if d_total_ND is not None else 0,
                total_ND.stride(0),
                WIDTH=width,
                ROWS=tile.rows,
                BLOCK=tile.block,
                OFFSET=offset,
                CENTERED=centered,
                ADDS=d_total_ND is not None,
                SCALES=weight_D is not None,
                SHIFTS=shifts,
                KEEPS=tile.keeps_weight,
                num_warps=tile.num_warps,
            )
    else:
        d_weight, d_bias = d_weight.zero_(), d_bias.zero_()
    return d_sum, _reduced(d_weight), _reduced(d_bias)


def _most_programs(x: Tensor) -> int:
    """Enough to keep every multiprocessor's memory pipeline full, and not one more: each costs a row of
    partial sums."""
    if INTERPRETED:
        return _INTERPRETED_PROGRAMS
    return _PROGRAMS_PER_SM * torch.cuda.get_device_properties(x.device).multi_processor_count


def _reduced(partial_PD: Tensor) -> Tensor:
    return partial_PD.sum(0) if len(partial_PD) else partial_PD.new_empty(0)


_backward_operator = torch.library.custom_op(add_op_namespace_prefix("norm_backward"), mutates_args=())(
    _backward
)


@_backward_operator.register_fake
def _(dy_ND, d_total_ND, total_ND, weight_D, mean_N, rstd_N, offset, centered, shifts):
    width = total_ND.shape[1]
    d_sum = torch.empty_like(total_ND, memory_format=torch.contiguous_format)
    d_weight, d_bias = (
        total_ND.new_empty(width if wanted else 0, dtype=torch.float32)
        for wanted in (weight_D is not None, shifts)
    )
    return d_sum, d_weight, d_bias


def _keep(ctx, inputs, output) -> None:
    x, residual, weight, bias, _, ctx.offset, ctx.centered, *_ = inputs
    _, total, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    ctx.adds = residual is not None
    ctx.save_for_backward(total if ctx.adds else x, weight, mean, rstd)
    ctx.dtypes = [None if t is None else t.dtype for t in (x, residual, weight, bias)]


def _differentiate(ctx, dy, d_total, *_, backward=_backward_operator):
    total, weight, mean, rstd = ctx.saved_tensors
    dtypes = ctx.dtypes
    if dy is None:  # only the sum was used
        grads = (d_total, d_total if ctx.adds else None, None, None)
    else:
        dy, d_total = _unit(dy), _unit(d_total) if ctx.adds and d_total is not None else None
        d_sum, d_weight, d_bias = backward(
            dy, d_total, total, weight, mean, rstd, ctx.offset, ctx.centered, dtypes[3] is not None
        )
        grads = (
            d_sum,
            d_sum if ctx.adds else None,
            d_weight if weight is not None else None,
            d_bias if dtypes[3] else None,
        )
    cast = [None if g is None else g.to(dtype) for g, dtype in zip(grads, dtypes, strict=True)]
    return *cast, None, None, None, None


def _unit(rows: Tensor) -> Tensor:
    return rows if rows.stride(1) == 1 else rows.contiguous()


_operator.register_autograd(_differentiate, setup_context=_keep)
_eager = autograd.eager_layer(_forward, _keep, partial(_differentiate, backward=_backward))
