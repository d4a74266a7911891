"""Rotary position embedding of queries and keys in one launch, with per-head RMSNorm before it if asked,
forward and backward.

A program takes some tokens with all their heads: angles are read once per token, and queries and keys go
    through the
same code. The rotation is orthogonal, so backward is the same rotation by the opposite angle and needs
nothing saved; with QK-norm the inputs are kept and the statistics computed again. Heads wider than the table
pass their rest through.

RoPE is Su et al. 2021 (arXiv 2104.09864), halves paired as in GPT-NeoX and Llama; QK-norm is Henry et al.
2020 (arXiv 2010.04245) in the RMSNorm form of Qwen3.
Shape suffixes: B = examples, H = heads, T = tokens, D = head size, R = rotated part of it, S = rows of the
    angle table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from . import autograd
from ._ops import add_op_namespace_prefix
from .launch import INTERPRETED, Shipped, on_device, power_of_two, type_name
from .rope_backward_kernels import rope_norm_backward_kernel
from .rope_kernels import rope_kernel

_TILE = 2048
_PROGRAMS_PER_SM = 4
_INTERPRETED_PROGRAMS = 4


def rope(
    q_BHTD: Tensor,
    k_BHTD: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    positions_BT: Tensor | None = None,
    q_weight_D: Tensor | None = None,
    k_weight_D: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys; equals `q * cos + rotate_half(q) * sin` on the first R elements of every head.

    Args:
        q_BHTD, k_BHTD: float, any strides with unit stride inside a head (a transposed [B, T, H, D] view is
            best); they may differ in H.
        cos, sin: angles per token [B or 1, T, R], or a table [S, R] when positions are given; both halves of
            R are equal, as transformers makes them. They get no gradient.
        positions_BT: int64 rows of the table; positions of packed documents restart at zero.
        q_weight_D, k_weight_D: scales of an RMSNorm over each head before the rotation; both or neither.
    Returns: rotated q and k in their dtypes, [B, H, T, D] views of [B, T, H, D] memory.
    """
    if positions_BT is None:
        cos, sin = (
            angle.expand(q_BHTD.shape[0], -1, -1).reshape(-1, angle.shape[-1]) for angle in (cos, sin)
        )
    positions_N = None if positions_BT is None else positions_BT.expand(q_BHTD.shape[0], -1).reshape(-1)
    q_BHTD, k_BHTD = _unit(q_BHTD), _unit(k_BHTD)
    tensors = q_BHTD, k_BHTD, _unit(cos), _unit(sin), positions_N, q_weight_D, k_weight_D
    return (_eager if autograd.plain(*tensors) else _operator)(*tensors, eps)


def _unit(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _forward(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    q_out, k_out = _heads_last(q), _heads_last(k)
    _rotate(q, k, q_out, k_out, cos, sin, positions, q_weight, k_weight, eps, opposite=False)
    return q_out, k_out


def _backward(
    dq: Tensor, dk: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None
) -> tuple[Tensor, Tensor]:
    q_out, k_out = _heads_last(dq), _heads_last(dk)
    _rotate(dq, dk, q_out, k_out, cos, sin, positions, None, None, 0.0, opposite=True)
    return q_out, k_out


def _norm_backward(
    dq: Tensor,
    dk: Tensor,
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    q_weight: Tensor,
    k_weight: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q_out, k_out = _heads_last(q), _heads_last(k)
    size, tile = q.shape[3], _tile(q, k, cos)
    num_tokens = q.shape[0] * q.shape[2]
    programs = max(1, min(-(-num_tokens // tile.tokens), _most_programs(q)))
    d_weights = q.new_zeros(2, programs, size, dtype=torch.float32)
    if num_tokens:
        with on_device(q):
            rope_norm_backward_kernel[(programs,)](
                dq,
                dk,
                q,
                k,
                q_out,
                k_out,
                cos,
                sin,
                positions,
                q_weight,
                k_weight,
                d_weights[0],
                d_weights[1],
                num_tokens,
                q.shape[2],
                *_strides(dq),
                *_strides(dk),
                *_strides(q),
                *_strides(k),
                cos.stride(0),
                eps,
                **_constants(q, k, cos, positions, tile),
                num_warps=_norm_backward_warps(tile, type_name(q.dtype)),
            )
    return q_out, k_out, d_weights[0].sum(0), d_weights[1].sum(0)


_operator, _backward_operator, _norm_backward_operator = (
    torch.library.custom_op(add_op_namespace_prefix(name), mutates_args=())(function)
    for name, function in (
        ("rope", _forward),
        ("rope_backward", _backward),
        ("rope_norm_backward", _norm_backward),
    )
)


@_operator.register_fake
def _(q, k, cos, sin, positions, q_weight, k_weight, eps):
    return _heads_last(q), _heads_last(k)


@_backward_operator.register_fake
def _(dq, dk, cos, sin, positions):
    return _heads_last(dq), _heads_last(dk)


@_norm_backward_operator.register_fake
def _(dq, dk, q, k, cos, sin, positions, q_weight, k_weight, eps):
    sums = [q.new_empty(q.shape[3], dtype=torch.float32) for _ in range(2)]
    return _heads_last(q), _heads_last(k), *sums


def _keep(ctx, inputs, output) -> None:
    q, k, cos, sin, positions, q_weight, k_weight, ctx.eps = inputs
    normed = q_weight is not None
    ctx.save_for_backward(cos, sin, positions, *((q, k, q_weight, k_weight) if normed else ()))


def _differentiate(ctx, dq, dk, *, backward=_backward_operator, norm_backward=_norm_backward_operator):
    cos, sin, positions, *normed = ctx.saved_tensors
    dq, dk = _unit(dq), _unit(dk)
    if not normed:
        return *backward(dq, dk, cos, sin, positions), None, None, None, None, None, None
    q, k, q_weight, k_weight = normed
    dq, dk, d_q_weight, d_k_weight = norm_backward(
        dq, dk, q, k, cos, sin, positions, q_weight, k_weight, ctx.eps
    )
    return dq, dk, None, None, None, d_q_weight.to(q_weight.dtype), d_k_weight.to(k_weight.dtype), None


_operator.register_autograd(_differentiate, setup_context=_keep)
_eager = autograd.eager_layer(
    _forward, _keep, partial(_differentiate, backward=_backward, norm_backward=_norm_backward)
)


def _heads_last(x_BHTD: Tensor) -> Tensor:
    """Room for a result: the layout that a projection's output has, and attention kernels like."""
    batch, heads, tokens, size = x_BHTD.shape
    return x_BHTD.new_empty(batch, tokens, heads, size).transpose(1, 2)


@dataclass(frozen=True)
class _Tile:
    tokens: int
    num_warps: int


def _tile(q: Tensor, k: Tensor, cos: Tensor) -> _Tile:
    return _tile_of(max(q.shape[1], k.shape[1]), q.shape[3])


def _tile_of(heads: int, size: int) -> _Tile:
    """Tokens per program: a tile of 2048 elements or one token; 16 elements per thread, 32 at most."""
    per_token = power_of_two(heads) * power_of_two(size)
    return _Tile(max(1, _TILE // per_token), num_warps=min(max(4, per_token // 1024), 16))


def _norm_backward_warps(tile: _Tile, name: str) -> int:
    """It holds twice as much as the others: in float32 it spills unless the threads are twice as many."""
    return min(16, tile.num_warps * (2 if name == "fp32" else 1))


def _strides(x_BHTD: Tensor) -> tuple[int, int, int]:
    return x_BHTD.stride(0), x_BHTD.stride(1), x_BHTD.stride(2)


def _constants(
    q: Tensor, k: Tensor, cos: Tensor, positions: Tensor | None, tile: _Tile
) -> dict[str, int | bool]:
    return _constants_of(q.shape[1], k.shape[1], q.shape[3], cos.shape[-1], positions is not None, tile)


def _constants_of(
    q_heads: int, k_heads: int, size: int, rotated: int, gathers: bool, tile: _Tile
) -> dict[str, int | bool]:
    return {
        "Q_HEADS": q_heads,
        "K_HEADS": k_heads,
        "Q_BLOCK": power_of_two(q_heads),
        "K_BLOCK": power_of_two(k_heads),
        "SIZE": size,
        "HALF": rotated // 2,
        "HALF_BLOCK": power_of_two(rotated // 2),
        "REST": size - rotated,
        "REST_BLOCK": power_of_two(size - rotated),
        "TOKENS": tile.tokens,
        "GATHERS": gathers,
    }


def _rotate(
    q: Tensor,
    k: Tensor,
    q_out: Tensor,
    k_out: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    eps: float,
    *,
    opposite: bool,
) -> None:
    num_tokens, tile = q.shape[0] * q.shape[2], _tile(q, k, cos)
    if num_tokens:
        with on_device(q):
            rope_kernel[(-(-num_tokens // tile.tokens),)](
                q,
                k,
                q_out,
                k_out,
                cos,
                sin,
                positions,
                q_weight,
                k_weight,
                num_tokens,
                q.shape[2],
                *_strides(q),
                *_strides(k),
                cos.stride(0),
                eps,
                **_constants(q, k, cos, positions, tile),
                OPPOSITE=opposite,
                NORMS=q_weight is not None,
                num_warps=tile.num_warps,
            )


def _most_programs(x: Tensor) -> int:
    if INTERPRETED:
        return _INTERPRETED_PROGRAMS
    return _PROGRAMS_PER_SM * torch.cuda.get_device_properties(x.device).multi_processor_count


def shipped() -> list[Shipped]:
    """Heads of 64 (12 of them, packed or not), of 128 (16, 4 for keys) and a quarter turned, with and without
    QK-norm."""
    shapes = [
        ((12, 12, 64, 64), False),
        ((12, 12, 64, 64), True),
        ((16, 4, 128, 128), False),
        ((8, 8, 64, 16), False),
    ]
    return [
        entry
        for shape, gathers in shapes
        for dtype in (torch.bfloat16, torch.float32)
        for entry in _shipped(shape, gathers, type_name(dtype))
    ]


def _shipped(shape: tuple[int, int, int, int], gathers: bool, name: str) -> list[Shipped]:
    q_heads, k_heads, size, rotated = shape
    tile = _tile_of(q_heads, size)
    constants = _constants_of(q_heads, k_heads, size, rotated, gathers, tile)
    label = f"{name} {q_heads}/{k_heads} heads of {size}, {rotated} turned{', packed' if gathers else ''}"
    entries = []
    for kernel, extra in (
        (rope_kernel, {"OPPOSITE": False, "NORMS": False}),
        (rope_kernel, {"OPPOSITE": True, "NORMS": False}),
        (rope_kernel, {"OPPOSITE": False, "NORMS": True}),
        (rope_norm_backward_kernel, {}),
    ):
        unused = {"positions_ptr"} if not gathers else set()
        unused |= {"q_weight_ptr", "k_weight_ptr"} if extra and not extra["NORMS"] else set()
        signature, aligned = {}, []
        for parameter in kernel.arg_names:
            if parameter.isupper() or parameter in unused:
                continue
            signature[parameter] = _type_of(parameter, name)
            aligned += [parameter] if "stride" in parameter else []
        constexprs = {**constants, **extra, **dict.fromkeys(unused)}
        kind = " norm" if not extra or extra["NORMS"] else " back" if extra["OPPOSITE"] else ""
        warps = tile.num_warps if extra else _norm_backward_warps(tile, name)
        entries.append(Shipped(kernel, label + kind, signature, constexprs, tuple(aligned), warps))
    return entries


def _type_of(parameter: str, name: str) -> str:
    if parameter == "positions_ptr":
        return "*i64"
    if parameter.endswith("weight_ptr"):
        return "*fp32"
    if parameter.endswith("_ptr"):
        return f"*{name}"
    return "fp32" if parameter == "eps" else "i32"
