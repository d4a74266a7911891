"""Cross-entropy of one row of logits and its gradient, in place: one Triton program per row.

A row is walked twice, for its partition sum and for its gradient. What is in flight on a GPU still lies in
its caches the second time (a thousand rows of 32k bf16 logits are 64 MB), so memory sees little more than one
read and one write. Everything is float32 between the load and the store. Masks end at the stride, a multiple
of 16: a mask that ends at an odd vocabulary would split every 16-byte access into single elements. Shape
suffixes: C = rows, V = columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .launch import Launch, Shipped, jit, on_device, power_of_two, rounded, tl, type_name
from .reference import IGNORE_INDEX

BLOCK, SMALLEST = 2048, 1024
"""Columns of a block for long rows, and the smallest; 8 logits per thread."""
DTYPES = (torch.bfloat16, torch.float32)


@jit
def _logits(row_ptr, at, stride, vocab_size):
    """The logits of a block of columns; -inf from vocab_size on."""
    z = tl.load(row_ptr + at, mask=at < stride, other=0.0).to(tl.float32)
    return tl.where(at < vocab_size, z, -float("inf"))


@jit
def _row_logsumexp(row_ptr, stride, vocab_size, BLOCK: tl.constexpr):
    """The logsumexp of a row in two parts, the largest logit and the rest. Added up they would be rounded to
    a multiple of 3e-5 where logits are several hundred, and with them every probability."""
    largest, total = -float("inf"), 0.0
    for start in range(0, vocab_size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        z = _logits(row_ptr, at, stride, vocab_size)
        larger = tl.maximum(largest, tl.max(z, 0))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(z - larger), 0)
        largest = larger
    return largest, tl.log(total)


@jit
def _store_zeros(row_ptr, stride, BLOCK: tl.constexpr):
    for start in range(0, stride, BLOCK):
        at = start + tl.arange(0, BLOCK)
        tl.store(row_ptr + at, tl.zeros([BLOCK], row_ptr.dtype.element_ty), mask=at < stride)


@jit
def cross_entropy_row(
    logits_ptr,
    labels_ptr,
    losses_ptr,
    stride,
    vocab_size,
    BLOCK: tl.constexpr,
    GRADIENT: tl.constexpr,
    IGNORE: tl.constexpr,
):
    """One row: its loss, and with GRADIENT its logits replaced by their gradient.

    Columns from vocab_size to stride are padding: read without meaning, written with zeros.
    """
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * stride
    label = tl.load(labels_ptr + row)
    if label == IGNORE:
        tl.store(losses_ptr + row, 0.0)
        if GRADIENT:
            _store_zeros(row_ptr, stride, BLOCK)
        return
    exists = (label >= 0) & (label < vocab_size)
    target = tl.load(row_ptr + tl.where(exists, label, 0)).to(tl.float32)
    largest, rest = _row_logsumexp(row_ptr, stride, vocab_size, BLOCK)
    nan_if_wrong = tl.where(exists, 0.0, float("nan"))
    tl.store(losses_ptr + row, (largest - target) + rest + nan_if_wrong)
    if GRADIENT:
        factor = nan_if_wrong + 1.0
        tl.debug_barrier()  # every thread has read the label's logit before one of them overwrites it
        for start in range(0, stride, BLOCK):
            at = start + tl.arange(0, BLOCK)
            z = _logits(row_ptr, at, stride, vocab_size)
            d = (tl.exp((z - largest) - rest) - tl.where(at == label, 1.0, 0.0)) * factor
            d = tl.where(at < vocab_size, d, 0.0)
            tl.store(row_ptr + at, rounded(d, row_ptr.dtype.element_ty), mask=at < stride)


def row_launch(columns: int) -> Launch:
    """Block and warps for rows of so many columns."""
    block = min(max(SMALLEST, power_of_two(columns)), BLOCK)
    return Launch(block, num_warps=max(4, block // 256))


def cross_entropy_rows(
    logits_CV: Tensor, labels_C: Tensor, vocab_size: int, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor | None]:
    """As `chunked.cross_entropy_rows`; rows labelled IGNORE_INDEX give zeros, labels that do not exist give
    NaN.

    The memory between a row's columns and the next row is scratch: see `head.project`.

    Raises: TypeError for logits that are neither float32 nor bfloat16.
    """
    if logits_CV.dtype not in DTYPES:
        raise TypeError(f"the fused cross-entropy reads float32 or bfloat16 logits, not {logits_CV.dtype}")
    rows = len(logits_CV)
    losses_C = logits_CV.new_empty(rows, dtype=torch.float32)
    launch = row_launch(logits_CV.stride(0))
    with on_device(logits_CV):
        cross_entropy_row[(rows,)](
            logits_CV,
            labels_C.contiguous(),
            losses_C,
            logits_CV.stride(0),
            vocab_size,
            BLOCK=launch.block,
            GRADIENT=dtype is not None,
            IGNORE=IGNORE_INDEX,
            num_warps=launch.num_warps,
            num_stages=launch.num_stages,
        )
    return losses_C, None if dtype is None else logits_CV


def shipped() -> list[Shipped]:
    """Every block x dtype, with and without gradient."""
    return [
        _shipped(type_name(dtype), row_launch(width), gradient)
        for width in (SMALLEST, BLOCK)
        for dtype in DTYPES
        for gradient in (False, True)
    ]


def _shipped(name: str, launch: Launch, gradient: bool) -> Shipped:
    label = " ".join(filter(None, [name, f"block {launch.block}", "gradient" * gradient]))
    signature = {
        "logits_ptr": f"*{name}",
        "labels_ptr": "*i64",
        "losses_ptr": "*fp32",
        "stride": "i32",
        "vocab_size": "i32",
    }
    constexprs = {"BLOCK": launch.block, "GRADIENT": gradient, "IGNORE": IGNORE_INDEX}
    return Shipped(
        cross_entropy_row, label, signature, constexprs, ("stride",), launch.num_warps, launch.num_stages
    )
