"""The kernel of `rope` backward where heads are normed: gradients of the heads and of the norms' scales."""

from __future__ import annotations

from .launch import jit, tl
from .rope_kernels import inverse_rms, load_angles, load_head, load_scale, places, store_head


@jit
def _norm_gradients(
    d_ptr,
    x_ptr,
    out_ptr,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    weight_ptr,
    d_weight_ptr,
    num_tokens,
    tokens_per_example,
    d_stride_b,
    d_stride_h,
    d_stride_t,
    stride_b,
    stride_h,
    stride_t,
    angle_stride,
    eps,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
    SIZE: tl.constexpr,
    HALF: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    REST: tl.constexpr,
    REST_BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
    GATHERS: tl.constexpr,
):
    """Turn a program's gradients back and take them through RMSNorm; its share of the scale's gradient goes
    to its own row."""
    scale_a, scale_b, scale_c = load_scale(weight_ptr, HALF, HALF_BLOCK, REST, REST_BLOCK)
    d_scale_a = tl.zeros((HALF_BLOCK,), tl.float32)
    d_scale_b = tl.zeros((HALF_BLOCK,), tl.float32)
    d_scale_c = tl.zeros((REST_BLOCK,), tl.float32)
    for first in range(tl.program_id(0) * TOKENS, num_tokens, tl.num_programs(0) * TOKENS):
        token, place, result, real = places(
            first, num_tokens, tokens_per_example, stride_b, stride_h, stride_t, HEADS, BLOCK, TOKENS
        )
        _, d_place, _, _ = places(
            first, num_tokens, tokens_per_example, d_stride_b, d_stride_h, d_stride_t, HEADS, BLOCK, TOKENS
        )
        cos, sin = load_angles(
            cos_ptr, sin_ptr, positions_ptr, token, real, angle_stride, HALF, HALF_BLOCK, GATHERS
        )
        a, b, c = load_head(x_ptr, place, real, HALF, HALF_BLOCK, REST, REST_BLOCK)
        turned_a, turned_b, d_c = load_head(d_ptr, d_place, real, HALF, HALF_BLOCK, REST, REST_BLOCK)
        d_a, d_b = turned_a * cos + turned_b * sin, turned_b * cos - turned_a * sin
        rstd = inverse_rms(a, b, c, eps, SIZE)
        a, b, c = a * rstd, b * rstd, c * rstd
        d_scale_a += tl.sum(d_a * a, axis=0)
        d_scale_b += tl.sum(d_b * b, axis=0)
        d_scale_c += tl.sum(d_c * c, axis=0)
        d_a, d_b, d_c = d_a * scale_a, d_b * scale_b, d_c * scale_c
        mean = ((tl.sum(d_a * a, axis=1) + tl.sum(d_b * b, axis=1) + tl.sum(d_c * c, axis=1)) / SIZE)[:, None]
        d_a, d_b, d_c = (d_a - a * mean) * rstd, (d_b - b * mean) * rstd, (d_c - c * mean) * rstd
        store_head(out_ptr, result * SIZE, real, d_a, d_b, d_c, HALF, HALF_BLOCK, REST, REST_BLOCK)
    row = tl.zeros((1,), tl.int64) + tl.program_id(0) * SIZE
    store_head(
        d_weight_ptr,
        row,
        row >= 0,
        d_scale_a[None, :],
        d_scale_b[None, :],
        d_scale_c[None, :],
        HALF,
        HALF_BLOCK,
        REST,
        REST_BLOCK,
    )


@jit
def rope_norm_backward_kernel(
    dq_ptr,
    dk_ptr,
    q_ptr,
    k_ptr,
    q_out_ptr,
    k_out_ptr,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    q_weight_ptr,
    k_weight_ptr,
    d_q_weight_ptr,
    d_k_weight_ptr,
    num_tokens,
    tokens_per_example,
    dq_stride_b,
    dq_stride_h,
    dq_stride_t,
    dk_stride_b,
    dk_stride_h,
    dk_stride_t,
    q_stride_b,
    q_stride_h,
    q_stride_t,
    k_stride_b,
    k_stride_h,
    k_stride_t,
    angle_stride,
    eps,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    Q_BLOCK: tl.constexpr,
    K_BLOCK: tl.constexpr,
    SIZE: tl.constexpr,
    HALF: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    REST: tl.constexpr,
    REST_BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
    GATHERS: tl.constexpr,
):
    _norm_gradients(
        dq_ptr,
        q_ptr,
        q_out_ptr,
        cos_ptr,
        sin_ptr,
        positions_ptr,
        q_weight_ptr,
        d_q_weight_ptr,
        num_tokens,
        tokens_per_example,
        dq_stride_b,
        dq_stride_h,
        dq_stride_t,
        q_stride_b,
        q_stride_h,
        q_stride_t,
        angle_stride,
        eps,
        Q_HEADS,
        Q_BLOCK,
        SIZE,
        HALF,
        HALF_BLOCK,
        REST,
        REST_BLOCK,
        TOKENS,
        GATHERS,
    )
    _norm_gradients(
        dk_ptr,
        k_ptr,
        k_out_ptr,
        cos_ptr,
        sin_ptr,
        positions_ptr,
        k_weight_ptr,
        d_k_weight_ptr,
        num_tokens,
        tokens_per_example,
        dk_stride_b,
        dk_stride_h,
        dk_stride_t,
        k_stride_b,
        k_stride_h,
        k_stride_t,
        angle_stride,
        eps,
        K_HEADS,
        K_BLOCK,
        SIZE,
        HALF,
        HALF_BLOCK,
        REST,
        REST_BLOCK,
        TOKENS,
        GATHERS,
    )
