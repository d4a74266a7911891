"""Gated activations, `act(gate) * up`, one pass forward and one backward.

Backward computes the activation again from gate and up, so a layer keeps those two and not act(gate). Nothing
is written in
place: autograd may run a graph twice, and what it saved is not ours to overwrite.
Kinds: "silu" (SwiGLU), "gelu" (exact, with erf) and "gelu_tanh" (GeGLU); Shazeer 2020 (arXiv 2002.05202).

Shape suffixes: N = rows, F = feed-forward width, G = 2 F (gate and up beside each other).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import autograd
from ._ops import add_op_namespace_prefix
from .launch import Shipped, jit, on_device, power_of_two, rounded, tl, type_name

KINDS = ("silu", "gelu", "gelu_tanh")
_TILE, _NUM_WARPS = 2048, 4


def gated(gate: Tensor, up: Tensor, kind: str) -> Tensor:
    """`act(gate) * up` for two float tensors of one shape and dtype [..., F]; `kind` is one of KINDS."""
    rows = _rows(gate), _rows(up)
    return (_eager_separate if autograd.plain(*rows) else _separate_operator)(*rows, kind).view(gate.shape)


def gated_pair(both: Tensor, kind: str) -> Tensor:
    """`act(a) * b` for `a, b = both.chunk(2, -1)`, float [..., 2 F] -> [..., F]; the gradient is written as
    one tensor."""
    rows = _rows(both)
    return (_eager_joint if autograd.plain(rows) else _joint_operator)(rows, kind).view(
        *both.shape[:-1], both.shape[-1] // 2
    )


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`."""
    return gated(gate, up, "silu")


def geglu(gate: Tensor, up: Tensor, *, approximate: str = "none") -> Tensor:
    """`gelu(gate) * up`; `approximate` as in torch: "none" is exact, "tanh" is not."""
    return gated(gate, up, "gelu_tanh" if approximate == "tanh" else "gelu")


def _rows(x: Tensor) -> Tensor:
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _separate(gate_NF: Tensor, up_NF: Tensor, kind: str) -> Tensor:
    out = torch.empty_like(gate_NF, memory_format=torch.contiguous_format)
    _forward(gate_NF, up_NF, out, kind)
    return out


def _separate_backward(d_out_NF: Tensor, gate_NF: Tensor, up_NF: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    d_gate, d_up = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (gate_NF, up_NF))
    _backward(d_out_NF, gate_NF, up_NF, d_gate, d_up, kind)
    return d_gate, d_up


def _joint(both_NG: Tensor, kind: str) -> Tensor:
    gate, up = both_NG.chunk(2, 1)
    out = both_NG.new_empty(gate.shape)
    _forward(gate, up, out, kind)
    return out


def _joint_backward(d_out_NF: Tensor, both_NG: Tensor, kind: str) -> Tensor:
    d_both = torch.empty_like(both_NG, memory_format=torch.contiguous_format)
    _backward(d_out_NF, *both_NG.chunk(2, 1), *d_both.chunk(2, 1), kind)
    return d_both


_separate_operator, _separate_backward_operator, _joint_operator, _joint_backward_operator = (
    torch.library.custom_op(add_op_namespace_prefix(name), mutates_args=())(function)
    for name, function in (
        ("gated", _separate),
        ("gated_backward", _separate_backward),
        ("gated_pair", _joint),
        ("gated_pair_backward", _joint_backward),
    )
)


@_separate_operator.register_fake
def _(gate_NF, up_NF, kind):
    return torch.empty_like(gate_NF, memory_format=torch.contiguous_format)


@_separate_backward_operator.register_fake
def _(d_out_NF, gate_NF, up_NF, kind):
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (gate_NF, up_NF))


@_joint_operator.register_fake
def _(both_NG, kind):
    return both_NG.new_empty(both_NG.shape[0], both_NG.shape[1] // 2)


@_joint_backward_operator.register_fake
def _(d_out_NF, both_NG, kind):
    return torch.empty_like(both_NG, memory_format=torch.contiguous_format)


def _keep(ctx, inputs, output) -> None:
    *tensors, ctx.kind = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(backward: Any, ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    found = backward(_unit(d_out), *ctx.saved_tensors, ctx.kind)
    return *(found if isinstance(found, tuple) else (found,)), None


_separate_operator.register_autograd(
    partial(_differentiate, _separate_backward_operator), setup_context=_keep
)
_joint_operator.register_autograd(partial(_differentiate, _joint_backward_operator), setup_context=_keep)
_eager_separate = autograd.eager_layer(_separate, _keep, partial(_differentiate, _separate_backward))
_eager_joint = autograd.eager_layer(_joint, _keep, partial(_differentiate, _joint_backward))


def _unit(rows: Tensor) -> Tensor:
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _forward(gate: Tensor, up: Tensor, out: Tensor, kind: str) -> None:
    if out.numel():
        rows, block = _tile(gate.shape[1])
        with on_device(out):
            _gated_forward_kernel[_grid(gate, rows, block)](
                gate,
                up,
                out,
                *gate.shape,
                gate.stride(0),
                up.stride(0),
                out.stride(0),
                KIND=KINDS.index(kind),
                ROWS=rows,
                BLOCK=block,
                num_warps=_NUM_WARPS,
            )


def _backward(d_out: Tensor, gate: Tensor, up: Tensor, d_gate: Tensor, d_up: Tensor, kind: str) -> None:
    if gate.numel():
        rows, block = _tile(gate.shape[1])
        with on_device(gate):
            _gated_backward_kernel[_grid(gate, rows, block)](
                d_out,
                gate,
                up,
                d_gate,
                d_up,
                *gate.shape,
                d_out.stride(0),
                gate.stride(0),
                up.stride(0),
                d_gate.stride(0),
                d_up.stride(0),
                KIND=KINDS.index(kind),
                ROWS=rows,
                BLOCK=block,
                num_warps=_NUM_WARPS,
            )


def _tile(width: int) -> tuple[int, int]:
    """(rows, columns) of a tile of 2048 elements, 16 per thread: several rows where they are narrow, a part
    of one where wide."""
    block = min(max(power_of_two(width), 32), _TILE)
    return _TILE // block, block


def _grid(x_NF: Tensor, rows: int, block: int) -> tuple[int, int]:
    return -(-len(x_NF) // rows), -(-x_NF.shape[1] // block)


@jit
def _activation(x, KIND: tl.constexpr):
    """act(x) and its derivative, float32. KIND indexes KINDS; tanh is written by sigmoid, so that it needs no
    libdevice."""
    if KIND == 0:
        s = tl.sigmoid(x)
        return x * s, s * (1.0 + x * (1.0 - s))
    elif KIND == 1:
        cdf = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
        return x * cdf, cdf + x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    else:
        z = 1.5957691216057308 * (x + 0.044715 * x * x * x)  # (1 + tanh(z / 2)) / 2 = sigmoid(z)
        s = tl.sigmoid(z)
        return x * s, s + x * s * tl.sigmoid(-z) * 1.5957691216057308 * (
            1.0 + 0.134145 * x * x
        )  # 1 - s would cancel


@jit
def _gated_forward_kernel(
    gate_ptr,
    up_ptr,
    out_ptr,
    num_rows,
    width,
    gate_stride,
    up_stride,
    out_stride,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    cols = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    real = (row < num_rows) & (cols < width)
    gate = tl.load(gate_ptr + row * gate_stride + cols, mask=real, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + cols, mask=real, other=0.0).to(tl.float32)
    value, _ = _activation(gate, KIND)
    tl.store(out_ptr + row * out_stride + cols, rounded(value * up, out_ptr.dtype.element_ty), mask=real)


@jit
def _gated_backward_kernel(
    d_out_ptr,
    gate_ptr,
    up_ptr,
    d_gate_ptr,
    d_up_ptr,
    num_rows,
    width,
    d_out_stride,
    gate_stride,
    up_stride,
    d_gate_stride,
    d_up_stride,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    cols = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    real = (row < num_rows) & (cols < width)
    d_out = tl.load(d_out_ptr + row * d_out_stride + cols, mask=real, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + row * gate_stride + cols, mask=real, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + cols, mask=real, other=0.0).to(tl.float32)
    value, slope = _activation(gate, KIND)
    tl.store(
        d_up_ptr + row * d_up_stride + cols, rounded(d_out * value, d_up_ptr.dtype.element_ty), mask=real
    )
    tl.store(
        d_gate_ptr + row * d_gate_stride + cols,
        rounded(d_out * up * slope, d_gate_ptr.dtype.element_ty),
        mask=real,
    )


def shipped() -> list[Shipped]:
    """Every kind in bf16 and float32, for narrow rows and for wide ones; the width is no constant."""
    return [
        entry
        for kind in KINDS
        for width in (256, 2048)
        for dtype in (torch.bfloat16, torch.float32)
        for entry in _shipped(kind, width, type_name(dtype))
    ]


def _shipped(kind: str, width: int, name: str) -> list[Shipped]:
    rows, block = _tile(width)
    constexprs = {"KIND": KINDS.index(kind), "ROWS": rows, "BLOCK": block}
    entries = []
    for kernel, tensors in (
        (_gated_forward_kernel, ("gate", "up", "out")),
        (_gated_backward_kernel, ("d_out", "gate", "up", "d_gate", "d_up")),
    ):
        strides = tuple(f"{tensor}_stride" for tensor in tensors)
        pointers = {f"{tensor}_ptr": f"*{name}" for tensor in tensors}
        signature = pointers | {"num_rows": "i32", "width": "i32"} | dict.fromkeys(strides, "i32")
        label = f"{kind} {name} tile {rows}x{block}"
        entries.append(Shipped(kernel, label, signature, constexprs, ("width", *strides), _NUM_WARPS))
    return entries
