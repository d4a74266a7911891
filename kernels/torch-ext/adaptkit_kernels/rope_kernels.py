"""The kernels of `rope`: one program turns some tokens' heads, queries first, then keys.

A head is held as its two turning halves `a`, `b` and the rest `c`; [lanes, elements] tiles, a lane per
(token, head).
"""

from __future__ import annotations

from .launch import jit, rounded, tl


@jit
def places(
    first,
    num_tokens,
    tokens_per_example,
    strides_b,
    strides_h,
    strides_t,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """For each (token, head) of a program: the token, where the head starts in the input and in a result, and
    whether it exists."""
    lane = tl.arange(0, TOKENS * BLOCK)
    token, head = first + lane // BLOCK, lane % BLOCK
    real = (token < num_tokens) & (head < HEADS)
    example, step = (token // tokens_per_example).to(tl.int64), (token % tokens_per_example).to(tl.int64)
    source = example * strides_b + head * strides_h + step * strides_t
    return token, source, token.to(tl.int64) * HEADS + head, real


@jit
def load_angles(
    cos_ptr,
    sin_ptr,
    positions_ptr,
    token,
    real,
    stride,
    HALF: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    GATHERS: tl.constexpr,
):
    line = token.to(tl.int64)
    if GATHERS:
        line = tl.load(positions_ptr + token, mask=real, other=0)
    half = tl.arange(0, HALF_BLOCK)[None, :]
    place, mask = line[:, None] * stride + half, real[:, None] & (half < HALF)
    cos = tl.load(cos_ptr + place, mask=mask, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + place, mask=mask, other=0.0).to(tl.float32)
    return cos, sin


@jit
def load_head(
    ptr,
    place,
    real,
    HALF: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    REST: tl.constexpr,
    REST_BLOCK: tl.constexpr,
):
    """The two halves that turn and the rest of each head, float32."""
    half, place, real = tl.arange(0, HALF_BLOCK)[None, :], place[:, None], real[:, None]
    a = tl.load(ptr + place + half, mask=real & (half < HALF), other=0.0).to(tl.float32)
    b = tl.load(ptr + place + HALF + half, mask=real & (half < HALF), other=0.0).to(tl.float32)
    rest = tl.arange(0, REST_BLOCK)[None, :]
    if REST:
        c = tl.load(ptr + place + 2 * HALF + rest, mask=real & (rest < REST), other=0.0).to(tl.float32)
    else:
        c = tl.zeros((real.shape[0], REST_BLOCK), tl.float32)
    return a, b, c


@jit
def store_head(
    ptr,
    place,
    real,
    a,
    b,
    c,
    HALF: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    REST: tl.constexpr,
    REST_BLOCK: tl.constexpr,
):
    half, place, real = tl.arange(0, HALF_BLOCK)[None, :], place[:, None], real[:, None]
    tl.store(ptr + place + half, rounded(a, ptr.dtype.element_ty), mask=real & (half < HALF))
    tl.store(ptr + place + HALF + half, rounded(b, ptr.dtype.element_ty), mask=real & (half < HALF))
    if REST:
        rest = tl.arange(0, REST_BLOCK)[None, :]
        tl.store(ptr + place + 2 * HALF + rest, rounded(c, ptr.dtype.element_ty), mask=real & (rest < REST))


@jit
def load_scale(
    ptr, HALF: tl.constexpr, HALF_BLOCK: tl.constexpr, REST: tl.constexpr, REST_BLOCK: tl.constexpr
):
    one = tl.zeros((1,), tl.int64)
    return load_head(ptr, one, one == 0, HALF, HALF_BLOCK, REST, REST_BLOCK)


@jit
def inverse_rms(a, b, c, eps, SIZE: tl.constexpr):
    return tl.rsqrt((tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1) + tl.sum(c * c, axis=1)) / SIZE + eps)[
        :, None
    ]


@jit
def turn_heads(
    x_ptr,
    out_ptr,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    weight_ptr,
    num_tokens,
    tokens_per_example,
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
    OPPOSITE: tl.constexpr,
    NORMS: tl.constexpr,
):
    first = tl.program_id(0) * TOKENS
    token, source, result, real = places(
        first, num_tokens, tokens_per_example, stride_b, stride_h, stride_t, HEADS, BLOCK, TOKENS
    )
    cos, sin = load_angles(
        cos_ptr, sin_ptr, positions_ptr, token, real, angle_stride, HALF, HALF_BLOCK, GATHERS
    )
    if OPPOSITE:
        sin = -sin
    a, b, c = load_head(x_ptr, source, real, HALF, HALF_BLOCK, REST, REST_BLOCK)
    if NORMS:
        rstd = inverse_rms(a, b, c, eps, SIZE)
        scale_a, scale_b, scale_c = load_scale(weight_ptr, HALF, HALF_BLOCK, REST, REST_BLOCK)
        a, b, c = a * rstd * scale_a, b * rstd * scale_b, c * rstd * scale_c
    store_head(
        out_ptr,
        result * SIZE,
        real,
        a * cos - b * sin,
        b * cos + a * sin,
        c,
        HALF,
        HALF_BLOCK,
        REST,
        REST_BLOCK,
    )


@jit
def rope_kernel(
    q_ptr,
    k_ptr,
    q_out_ptr,
    k_out_ptr,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    q_weight_ptr,
    k_weight_ptr,
    num_tokens,
    tokens_per_example,
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
    OPPOSITE: tl.constexpr,
    NORMS: tl.constexpr,
):
    turn_heads(
        q_ptr,
        q_out_ptr,
        cos_ptr,
        sin_ptr,
        positions_ptr,
        q_weight_ptr,
        num_tokens,
        tokens_per_example,
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
        OPPOSITE,
        NORMS,
    )
    turn_heads(
        k_ptr,
        k_out_ptr,
        cos_ptr,
        sin_ptr,
        positions_ptr,
        k_weight_ptr,
        num_tokens,
        tokens_per_example,
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
        OPPOSITE,
        NORMS,
    )
