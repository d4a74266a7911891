"""The kernels of the norms, how many rows a program takes, and the configurations that are shipped.

Shape suffixes: N = rows, D = row width, P = programs of the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .launch import Shipped, jit, power_of_two, rounded, tl, type_name

MAX_WIDTH = 8192
"""Widest row that a program keeps in registers without spilling; wider ones are refused."""
_TILE = 2048


@dataclass(frozen=True)
class Tile:
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


def tile_of(width: int) -> Tile:
    """A tile of 2048 elements or one row, 16 elements per thread; half of that for narrow rows, whose
    reductions need registers."""
    block = max(power_of_two(width), 32)
    return Tile(
        max(1, (_TILE if block >= 128 else _TILE // 2) // block), block, num_warps=max(4, block // 512)
    )


@jit
def norm_forward_kernel(
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
def norm_backward_kernel(
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
    tile = tile_of(width)
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
            norm_forward_kernel, label, forward, {**constexprs, **unused}, aligned[0], tile.forward_warps
        ),
        Shipped(
            norm_backward_kernel,
            label,
            backward,
            {**constexprs, "KEEPS": tile.keeps_weight},
            aligned[1],
            tile.num_warps,
        ),
    ]
