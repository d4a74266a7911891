"""Cross-entropy of one row of logits and its gradient, in place: one Triton program per row.

A row of up to 8192 logits is read once and held in registers. A longer one is walked twice, and the rows in flight on a
GPU (a thousand of 50k bf16 logits are 100 MB, of 32k 64 MB) mostly still lie in its cache the second time. Everything is
float32 between the load and the store. Shape suffixes: C = rows, V = columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .cross_entropy import RowLoss
from .launch import Launch, Shipped, jit, on_device, power_of_two, rounded, tl, type_name
from .reference import IGNORE_INDEX

WHOLE_ROW = 8192
"""The longest row that is held in registers; 16 warps of it still leave room for a second program on a multiprocessor."""
WALKED, SMALLEST = 4096, 1024
"""The block of a longer row, which is walked twice, and the smallest block."""
DTYPES = (torch.bfloat16, torch.float32)


@jit
def _capped(x, softcap, SOFTCAP: tl.constexpr):
    """softcap * tanh(x / softcap) and its derivative; without libdevice, so by a series near zero, where 1 - exp cancels.

    The derivative means nothing without SOFTCAP.
    """
    if SOFTCAP:
        y = x / softcap
        size = tl.minimum(tl.abs(y), 20.0)
        t = tl.exp(-2.0 * size)
        far = tl.where(y < 0, -1.0, 1.0) * (1.0 - t) / (1.0 + t)
        y2 = y * y
        near = y * (1.0 + y2 * (-1.0 / 3.0 + y2 * (2.0 / 15.0 + y2 * (-17.0 / 315.0))))
        share = tl.where(size < 0.125, near, far)
        share = tl.where(y == y, share, y)
        return share * softcap, 1.0 - share * share
    else:
        return x, x


@jit
def cross_entropy_row(
    logits_ptr,
    labels_ptr,
    factors_ptr,
    losses_ptr,
    stride,
    vocab_size,
    label_smoothing,
    z_loss,
    softcap,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
    SOFTCAP: tl.constexpr,
    FACTORS: tl.constexpr,
    GRADIENT: tl.constexpr,
    IGNORE: tl.constexpr,
):
    """One row: its loss, and with GRADIENT its logits replaced by their gradient.

    Columns from vocab_size to stride are padding: read without meaning, written with zeros. Masks end at the stride, a
    multiple of 16: a mask that ends at an odd vocabulary would split every 16-byte access into single elements.
    """
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * stride
    offsets = tl.arange(0, BLOCK)
    label = tl.load(labels_ptr + row)
    if label == IGNORE:
        tl.store(losses_ptr + row, 0.0)
        if GRADIENT:
            for start in range(0, stride, BLOCK):
                at = start + offsets
                tl.store(logits_ptr + at, tl.zeros([BLOCK], tl.float32), mask=at < stride)
        return
    exists = (label >= 0) & (label < vocab_size)
    target = tl.load(logits_ptr + tl.where(exists, label, 0)).to(tl.float32)
    target, _ = _capped(target, softcap, SOFTCAP)
    target = tl.where(exists, target, float("nan"))

    if WHOLE:
        x = tl.load(logits_ptr + offsets, mask=offsets < stride, other=0.0).to(tl.float32)
        z, slope = _capped(x, softcap, SOFTCAP)
        z = tl.where(offsets < vocab_size, z, -float("inf"))
        largest = tl.max(z, 0)
        total = tl.sum(tl.exp(z - largest), 0)
        added = tl.sum(tl.where(offsets < vocab_size, z, 0.0), 0)
    else:
        largest = -float("inf")
        total = 0.0
        added = 0.0
        for start in range(0, vocab_size, BLOCK):
            at = start + offsets
            x = tl.load(logits_ptr + at, mask=at < stride, other=0.0).to(tl.float32)
            z, slope = _capped(x, softcap, SOFTCAP)
            z = tl.where(at < vocab_size, z, -float("inf"))
            larger = tl.maximum(largest, tl.max(z, 0))
            total = total * tl.exp(largest - larger) + tl.sum(tl.exp(z - larger), 0)
            added += tl.sum(tl.where(at < vocab_size, z, 0.0), 0)
            largest = larger
    lse = largest + tl.log(total)
    loss = lse - (1.0 - label_smoothing) * target - label_smoothing * (added / vocab_size) + z_loss * lse * lse
    tl.store(losses_ptr + row, loss)

    if GRADIENT:
        factor = tl.where(exists, 1.0, float("nan"))
        if FACTORS:
            factor *= tl.load(factors_ptr + row)
        grow = (1.0 + 2.0 * z_loss * lse) * factor
        even = label_smoothing / vocab_size * factor
        pull = (1.0 - label_smoothing) * factor
        tl.debug_barrier()  # every thread has read the label's logit before one of them overwrites it
        if WHOLE:
            d = tl.exp(z - lse) * grow - even - tl.where(offsets == label, pull, 0.0)
            d = tl.where(offsets < vocab_size, d * slope if SOFTCAP else d, 0.0)
            tl.store(logits_ptr + offsets, rounded(d, logits_ptr.dtype.element_ty), mask=offsets < stride)
        else:
            for start in range(0, stride, BLOCK):
                at = start + offsets
                x = tl.load(logits_ptr + at, mask=at < stride, other=0.0).to(tl.float32)
                z, slope = _capped(x, softcap, SOFTCAP)
                d = tl.exp(z - lse) * grow - even - tl.where(at == label, pull, 0.0)
                d = tl.where(at < vocab_size, d * slope if SOFTCAP else d, 0.0)
                tl.store(logits_ptr + at, rounded(d, logits_ptr.dtype.element_ty), mask=at < stride)


def row_launch(columns: int) -> tuple[Launch, bool]:
    """(block and warps for rows of so many columns, whether the block holds the whole row); 8 or 16 logits per thread."""
    whole = columns <= WHOLE_ROW
    block = max(SMALLEST, power_of_two(columns)) if whole else WALKED
    return Launch(block, num_warps=max(4, block // 512)), whole


def cross_entropy_rows(
    logits_CV: Tensor, labels_C: Tensor, factors_C: Tensor | None, loss: RowLoss, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor | None]:
    """As `chunked.cross_entropy_rows`; rows labelled IGNORE_INDEX give zeros, labels that do not exist give NaN.

    The memory between a row's columns and the next row is scratch: see `head.project`.

    Raises: TypeError for logits that are neither float32 nor bfloat16.
    """
    if logits_CV.dtype not in DTYPES:
        raise TypeError(f"the fused cross-entropy reads float32 or bfloat16 logits, not {logits_CV.dtype}")
    rows = len(logits_CV)
    losses_C = logits_CV.new_empty(rows, dtype=torch.float32)
    launch, whole = row_launch(logits_CV.stride(0))
    with on_device(logits_CV):
        cross_entropy_row[(rows,)](
            logits_CV,
            labels_C.contiguous(),
            losses_C if factors_C is None else factors_C,
            losses_C,
            logits_CV.stride(0),
            loss.vocab_size,
            loss.label_smoothing,
            loss.z_loss,
            loss.softcap,
            BLOCK=launch.block,
            WHOLE=whole,
            SOFTCAP=loss.softcap > 0,
            FACTORS=factors_C is not None,
            GRADIENT=dtype is not None,
            IGNORE=IGNORE_INDEX,
            num_warps=launch.num_warps,
            num_stages=launch.num_stages,
        )
    return losses_C, None if dtype is None else logits_CV


def shipped() -> list[Shipped]:
    """Every block x dtype x softcap, with and without gradient; factors only add a scalar load, so they are on."""
    widths = (SMALLEST, 2048, 4096, WHOLE_ROW, WHOLE_ROW + 1)
    return [
        _shipped(type_name(dtype), *row_launch(width), softcap, gradient)
        for width in widths
        for dtype in DTYPES
        for softcap in (False, True)
        for gradient in (False, True)
    ]


def _shipped(name: str, launch: Launch, whole: bool, softcap: bool, gradient: bool) -> Shipped:
    words = [name, "whole row" if whole else "walked", f"block {launch.block}", "softcap" * softcap, "gradient" * gradient]
    signature = {
        "logits_ptr": f"*{name}", "labels_ptr": "*i64", "factors_ptr": "*fp32", "losses_ptr": "*fp32", "stride": "i32",
        "vocab_size": "i32", "label_smoothing": "fp32", "z_loss": "fp32", "softcap": "fp32",
    }  # fmt: skip
    constexprs = {
        "BLOCK": launch.block, "WHOLE": whole, "SOFTCAP": softcap, "FACTORS": True, "GRADIENT": gradient, "IGNORE": IGNORE_INDEX,
    }  # fmt: skip
    label = " ".join(filter(None, words))
    return Shipped(cross_entropy_row, label, signature, constexprs, ("stride",), launch.num_warps, launch.num_stages)
