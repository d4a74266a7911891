"""Residual addition, RMSNorm and LayerNorm in one pass over the rows, forward and backward.

A row is read once and kept in registers: sum, statistics, scaling and store happen there, in float32. Rows of
    up to
1024 elements share a program, so that a program always moves a tile of 2048 elements or more. Backward runs a
fixed number of programs that walk the rows in strides; each adds up its share of the weight gradient in
registers and
writes it once, and one reduction over programs ends it: no atomics, the same bits in every run on one device.

RMSNorm is Zhang and Sennrich 2019 (arXiv 1910.07467), LayerNorm Ba et al. 2016 (arXiv 1607.06450).
Shape suffixes: N = rows, D = row width, P = programs of the backward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import autograd
from ._ops import add_op_namespace_prefix
from .launch import INTERPRETED, Shipped, jit, on_device, power_of_two, rounded, tl, type_name

MAX_WIDTH = 8192
"""Widest row that a program keeps in registers without spilling; wider ones are refused."""
_TILE = 2048
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


@dataclass(frozen=True)
class _Tile:
    rows: int
    block: int
    num_warps: int

    @property
    def keeps_weight(self) -> bool:
        """Whether backward holds the weight in registers over its rows; a whole row per program leaves no
        room for it."""
        return self.rows > 1

    @property
    def forward_warps(self) -> int:
        """Twice as many for the widest rows: forward's addresses and sums do not fit beside 16 elements per
        thread."""
        return self.num_warps * (2 if self.block > 4096 else 1)


def _tile(width: int) -> _Tile:
    """A tile of 2048 elements or one row, 16 elements per thread; half of that for narrow rows, whose
    reductions need registers."""
    block = max(power_of_two(width), 32)
    return _Tile(
        max(1, (_TILE if block >= 128 else _TILE // 2) // block), block, num_warps=max(4, block // 512)
    )


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
        tile = _tile(width)
        with on_device(x_ND):
            _norm_forward_kernel[(-(-num_rows // tile.rows),)](
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
    tile = _tile(width)
    programs = max(1, min(-(-num_rows // tile.rows), _most_programs(total_ND)))
    d_sum = torch.empty_like(total_ND, memory_format=torch.contiguous_format)
    d_weight = total_ND.new_empty(programs if weight_D is not None else 0, width, dtype=torch.float32)
    d_bias = total_ND.new_empty(programs if shifts else 0, width, dtype=torch.float32)
    if num_rows:
        with on_device(total_ND):
            _norm_backward_kernel[(programs,)](
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


@jit
def _norm_forward_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    total_ptr,
    mean_ptr,
    rstd_ptr,
    num_rows,
    x_stride,
    residual_stride,
    eps,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
    CENTERED: tl.constexpr,
    ADDS: tl.constexpr,
    SCALES: tl.constexpr,
    SHIFTS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK)
    real = (rows < num_rows)[:, None] & (cols < WIDTH)[None, :]
    row = rows.to(tl.int64)[:, None]
    x = tl.load(x_ptr + row * x_stride + cols[None, :], mask=real, other=0.0).to(tl.float32)
    if ADDS:
        x += tl.load(residual_ptr + row * residual_stride + cols[None, :], mask=real, other=0.0).to(
            tl.float32
        )
        total = rounded(x, total_ptr.dtype.element_ty)
        tl.store(total_ptr + row * WIDTH + cols[None, :], total, mask=real)
        x = total.to(tl.float32)
    if CENTERED:
        mean = tl.sum(x, axis=1) / WIDTH
        tl.store(mean_ptr + rows, mean, mask=rows < num_rows)
        x = tl.where(real, x - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(x * x, axis=1) / WIDTH + eps)
    tl.store(rstd_ptr + rows, rstd, mask=rows < num_rows)
    y = x * rstd[:, None]
    if SCALES:
        y *= tl.load(weight_ptr + cols, mask=cols < WIDTH, other=0.0).to(tl.float32)[None, :] + OFFSET
    if SHIFTS:
        y += tl.load(bias_ptr + cols, mask=cols < WIDTH, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + row * WIDTH + cols[None, :], rounded(y, y_ptr.dtype.element_ty), mask=real)


@jit
def _norm_backward_kernel(
    dy_ptr,
    d_total_ptr,
    total_ptr,
    weight_ptr,
    mean_ptr,
    rstd_ptr,
    d_sum_ptr,
    d_weight_ptr,
    d_bias_ptr,
    num_rows,
    dy_stride,
    d_total_stride,
    total_stride,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
    CENTERED: tl.constexpr,
    ADDS: tl.constexpr,
    SCALES: tl.constexpr,
    SHIFTS: tl.constexpr,
    KEEPS: tl.constexpr,
):
    cols = tl.arange(0, BLOCK)
    if SCALES and KEEPS:
        weight = tl.load(weight_ptr + cols, mask=cols < WIDTH, other=0.0).to(tl.float32) + OFFSET
    d_weight = tl.zeros((ROWS, BLOCK), tl.float32)
    d_bias = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(tl.program_id(0) * ROWS, num_rows, tl.num_programs(0) * ROWS):
        rows = start + tl.arange(0, ROWS)
        real = (rows < num_rows)[:, None] & (cols < WIDTH)[None, :]
        row = rows.to(tl.int64)[:, None]
        x = tl.load(total_ptr + row * total_stride + cols[None, :], mask=real, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row * dy_stride + cols[None, :], mask=real, other=0.0).to(tl.float32)
        rstd = tl.load(rstd_ptr + rows, mask=rows < num_rows, other=0.0)[:, None]
        if CENTERED:
            x -= tl.load(mean_ptr + rows, mask=rows < num_rows, other=0.0)[:, None]
        normed = tl.where(real, x * rstd, 0.0)
        if SHIFTS:
            d_bias += dy
        if SCALES:
            d_weight += dy * normed
            if not KEEPS:
                weight = tl.load(weight_ptr + cols, mask=cols < WIDTH, other=0.0).to(tl.float32) + OFFSET
            dy *= weight[None, :]
        d_sum = dy - normed * (tl.sum(dy * normed, axis=1) / WIDTH)[:, None]
        if CENTERED:
            d_sum -= (tl.sum(dy, axis=1) / WIDTH)[:, None]
        d_sum *= rstd
        if ADDS:
            d_sum += tl.load(d_total_ptr + row * d_total_stride + cols[None, :], mask=real, other=0.0).to(
                tl.float32
            )
        tl.store(
            d_sum_ptr + row * WIDTH + cols[None, :], rounded(d_sum, d_sum_ptr.dtype.element_ty), mask=real
        )
    place = tl.program_id(0) * WIDTH + cols
    if SCALES:
        tl.store(d_weight_ptr + place, tl.sum(d_weight, axis=0), mask=cols < WIDTH)
    if SHIFTS:
        tl.store(d_bias_ptr + place, tl.sum(d_bias, axis=0), mask=cols < WIDTH)


def shipped() -> list[Shipped]:
    """Widths from a head's to MAX_WIDTH, both norms, the residual added, bf16 throughout and the float32
    stream of autocast."""
    return [
        entry
        for width in (64, 256, 768, 2048, MAX_WIDTH)
        for centered in (False, True)
        for dtype in (torch.bfloat16, torch.float32)
        for entry in _shipped(width, centered, type_name(dtype))
    ]


def _shipped(width: int, centered: bool, name: str) -> list[Shipped]:
    tile = _tile(width)
    label = f"{'layer' if centered else 'rms'} {name} width {width}"
    constexprs = {
        "WIDTH": width,
        "ROWS": tile.rows,
        "BLOCK": tile.block,
        "OFFSET": 0.0,
        "CENTERED": centered,
        "ADDS": True,
        "SCALES": True,
        "SHIFTS": centered,
    }
    whole, exact = f"*{name}", "*fp32"
    unused = {} if centered else {"bias_ptr": None}
    forward = {
        "x_ptr": whole,
        "residual_ptr": whole,
        "weight_ptr": exact,
        "bias_ptr": exact,
        "y_ptr": whole,
        "total_ptr": whole,
        "mean_ptr": exact,
        "rstd_ptr": exact,
        "num_rows": "i32",
        "x_stride": "i32",
        "residual_stride": "i32",
        "eps": "fp32",
    }
    backward = {
        "dy_ptr": whole,
        "d_total_ptr": whole,
        "total_ptr": whole,
        "weight_ptr": exact,
        "mean_ptr": exact,
        "rstd_ptr": exact,
        "d_sum_ptr": whole,
        "d_weight_ptr": exact,
        "d_bias_ptr": exact,
        "num_rows": "i32",
        "dy_stride": "i32",
        "d_total_stride": "i32",
        "total_stride": "i32",
    }
    forward = {key: kind for key, kind in forward.items() if key not in unused}
    aligned = ("x_stride", "residual_stride"), ("dy_stride", "d_total_stride", "total_stride")
    return [
        Shipped(
            _norm_forward_kernel, label, forward, {**constexprs, **unused}, aligned[0], tile.forward_warps
        ),
        Shipped(
            _norm_backward_kernel,
            label,
            backward,
            {**constexprs, "KEEPS": tile.keeps_weight},
            aligned[1],
            tile.num_warps,
        ),
    ]
