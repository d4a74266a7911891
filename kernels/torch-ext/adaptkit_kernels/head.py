"""The one loop of every loss on a model's head: a chunk of rows at a time, so that [T, V] logits never exist.

The gradient of such a loss needs nothing that the forward pass does not have, so each chunk's gradients are
formed right after its loss, in the chunk's own logits, and added up. Peak memory is one chunk of logits plus
the gradients themselves. The idea is old; see Wijmans et al. 2024 (arXiv 2411.09009) and Hsu et al. 2024
(arXiv 2410.10989).

Chunks have a fixed number of rows. A size that shrinks with V / D makes hundreds of launches of a small
model's step.

Shape suffixes: T = tokens, R = rows that count, C = rows of one chunk, D = hidden size, V = rows of the
    head's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .reference import IGNORE_INDEX

CPU_ROWS, CPU_LOGITS = 256, 2 << 20
"""A chunk on a CPU has this many rows or logits, whichever is more rows: within 3 % of the fastest size at
every vocabulary from 4k to 32k (fewer rows starve the matrix products, more only cost memory)."""
GPU_ROWS, GPU_BYTES, GPU_TILE = 4096, 512 << 20, 128
"""A chunk on a GPU has at most this many rows and, from 8 tiles of rows on, this many bytes of logits: few,
large launches."""

Rows = Tensor | slice
"""Which rows a chunk has: a view where all of them count, else indices."""
Rowwise = Callable[[Tensor, Rows], tuple[Tensor, Tensor | None]]
"""(logits of a chunk, its rows) -> (sums of the losses' parts [P], gradient of the logits in the products'
dtype)."""


@dataclass(frozen=True)
class Head:
    """What makes logits, how it is multiplied, and which gradients are wanted.

    Attributes:
        dtype: of the products' inputs.
        wide: whether the logits are float32 even when `dtype` is not.
        wanted: gradients of (hidden, weight, bias).
    """

    hidden_TD: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None
    dtype: torch.dtype
    wanted: Sequence[bool]
    wide: bool = False


def loss_and_gradients(
    head: Head, chunks: Sequence[Rows], parts: int, rowwise: Rowwise
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(sums [parts], d_hidden, d_weight, d_bias) of a loss that is separable over rows; unwanted gradients
    are empty.

    d_weight and d_bias add up in float32 also for bf16 weights; d_hidden has the dtype of hidden.
    """
    weight_VD, bias_V = (
        head.weight_VD.to(head.dtype),
        None if head.bias_V is None else head.bias_V.to(head.dtype),
    )
    sums, d_hidden_TD, d_weight_VD, d_bias_V = empty_results(
        head.hidden_TD, head.weight_VD, head.bias_V, head.wanted, parts
    )
    sums.zero_(), d_hidden_TD.zero_(), d_bias_V.zero_()
    for number, rows in enumerate(chunks):
        hidden_CD = head.hidden_TD[rows].to(head.dtype)
        losses_P, d_logits_CV = rowwise(project(hidden_CD, weight_VD, bias_V, head.wide), rows)
        sums += losses_P
        if d_logits_CV is None:
            continue
        if head.wanted[0]:
            put_product(d_hidden_TD, rows, d_logits_CV, weight_VD)
        if head.wanted[1]:
            add_product(d_weight_VD, d_logits_CV.t(), hidden_CD, first=number == 0)
        if head.wanted[2]:
            d_bias_V += d_logits_CV.sum(0, dtype=d_bias_V.dtype)
    if not chunks:
        d_weight_VD.zero_()
    return sums, d_hidden_TD, d_weight_VD, d_bias_V


def empty_results(
    hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, wanted: Sequence[bool], parts: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory for what `loss_and_gradients` returns; also what torch.compile is told that it returns."""
    total = loss_dtype(weight_VD.dtype)
    nothing = (0,)
    return (
        hidden_TD.new_empty((parts,), dtype=loss_dtype(hidden_TD.dtype)),
        hidden_TD.new_empty(hidden_TD.shape if wanted[0] else nothing),
        weight_VD.new_empty(weight_VD.shape if wanted[1] else nothing, dtype=total),
        weight_VD.new_empty(bias_V.shape if wanted[2] and bias_V is not None else nothing, dtype=total),
    )


def project(hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, wide: bool) -> Tensor:
    """Logits of a chunk. The rows of the memory start 256 bytes apart on a GPU, so that kernels may load 16
    at a time."""
    if not hidden_CD.is_cuda:
        to = loss_dtype(hidden_CD.dtype) if wide else hidden_CD.dtype
        return torch.nn.functional.linear(
            hidden_CD.to(to), weight_VD.to(to), None if bias_V is None else bias_V.to(to)
        )
    columns = len(weight_VD)
    dtype = loss_dtype(hidden_CD.dtype) if wide else hidden_CD.dtype
    logits_CV = hidden_CD.new_empty((len(hidden_CD), -(-columns // 128) * 128), dtype=dtype)[:, :columns]
    if dtype != hidden_CD.dtype:
        torch.mm(hidden_CD, weight_VD.t(), out_dtype=dtype, out=logits_CV)
        return logits_CV if bias_V is None else logits_CV.add_(bias_V)
    if bias_V is None:
        return torch.mm(hidden_CD, weight_VD.t(), out=logits_CV)
    return torch.addmm(bias_V, hidden_CD, weight_VD.t(), out=logits_CV)


def put_product(total: Tensor, rows: Rows, a: Tensor, b: Tensor) -> None:
    """total[rows] = a @ b."""
    if isinstance(rows, slice) and a.dtype == total.dtype:
        torch.mm(a, b, out=total[rows])
    elif isinstance(rows, slice):
        total[rows] = a @ b
    else:
        total.index_copy_(0, rows, (a @ b).to(total.dtype))


def add_product(total: Tensor, a: Tensor, b: Tensor, *, first: bool) -> None:
    """total += a @ b, or total = a @ b for the first one; float32 sums of bf16 products where the device has
    them."""
    if a.dtype == total.dtype:
        torch.mm(a, b, out=total) if first else total.addmm_(a, b)
    elif a.is_cuda and first:
        torch.mm(a, b, out_dtype=total.dtype, out=total)
    elif a.is_cuda:
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.copy_(a @ b) if first else total.add_(a @ b)


def chunked_rows(labels_T: Tensor, rows_R: Tensor | None, columns: int, logit_bytes: int = 4) -> list[Rows]:
    """Equal chunks of the rows that count. Without `rows_R` they are looked up, which makes a GPU wait for
    its labels."""
    if rows_R is None:
        rows_R = (labels_T != IGNORE_INDEX).nonzero().squeeze(1)
        if len(rows_R) == len(labels_T):
            rows_R = None
    count = len(labels_T) if rows_R is None else len(rows_R)
    size = chunk_size(count, columns * logit_bytes, columns, labels_T.device)
    starts = range(0, count, size)
    return [
        slice(start, start + size) if rows_R is None else rows_R[start : start + size] for start in starts
    ]


def chunk_size(count: int, row_bytes: int, columns: int, device: torch.device) -> int:
    """Rows of a chunk. On a GPU chunks are whole tiles and even out: 4200 rows are two chunks of 2176 and
    2024."""
    if device.type == "cpu":
        return max(CPU_ROWS, CPU_LOGITS // columns)
    most = max(8, min(GPU_ROWS, GPU_BYTES // row_bytes) // GPU_TILE) * GPU_TILE
    number = max(1, -(-count // most))
    return -(-count // (number * GPU_TILE)) * GPU_TILE or GPU_TILE


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """What the products are made in: autocast's dtype where it is on, as for torch's own linear."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def loss_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
