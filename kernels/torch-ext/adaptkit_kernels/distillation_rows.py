"""Distillation of a chunk of logits with Triton's kernels: what is launched, with which blocks, and what is
shipped.

A top-k teacher compares k + 1 events. Its tokens are taken out of the student's row first (torch's gather and
scatter, which leaves -inf), so that the other tokens' mass is summed directly: 1 minus the rest would cancel.
Their gradient is put back afterwards. Shape suffixes: C = rows, V = columns, K = kept tokens.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from .distillation import KINDS, Divergence, TopKRows
from .distillation_kernels import distillation_row, distillation_top_k_row
from .launch import Launch, Shipped, on_device, power_of_two, type_name
from .reference import IGNORE_INDEX
from .teachers import MIN_TAIL

BLOCK, SMALLEST = 2048, 1024
"""Columns of a block for long rows, and the smallest; 8 logits of each model per thread."""
GRADIENTS = (torch.bfloat16, torch.float32)
KEPT = (16, 64, 128, 256)
"""Sizes of the block of a top-k teacher's tokens."""


def distillation_rows(
    logits_CV: Tensor,
    teacher: Tensor | TopKRows,
    labels_C: Tensor,
    loss: Divergence,
    dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `chunked.distillation_rows`; rows labelled IGNORE_INDEX give zeros, labels that do not exist give
    NaN.

    The memory between a row's columns and the next row is scratch: see `head.project`.

    Raises: TypeError for logits that are not float32, and gradients that are neither float32 nor bfloat16.
    """
    if logits_CV.dtype != torch.float32 or dtype not in (None, *GRADIENTS):
        what = "the fused distillation takes float32 logits and gives float32 or bfloat16"
        raise TypeError(f"{what}, not {logits_CV.dtype} and {dtype}")
    out_CV = logits_CV
    if dtype not in (None, torch.float32):
        out_CV = logits_CV.new_empty((len(logits_CV), logits_CV.stride(0)), dtype=dtype)[
            :, : logits_CV.shape[1]
        ]
    with on_device(logits_CV):
        launch = _top_k if isinstance(teacher, TopKRows) else _dense
        ce_C, kd_C = launch(logits_CV, teacher, out_CV, labels_C.contiguous(), loss, dtype is not None)
    return ce_C, kd_C, None if dtype is None else out_CV


def _dense(
    logits_CV: Tensor, teacher_CV: Tensor, out_CV: Tensor, labels_C: Tensor, loss: Divergence, gradient: bool
) -> tuple[Tensor, Tensor]:
    if teacher_CV.stride(1) != 1:
        teacher_CV = teacher_CV.contiguous()
    ce_C, kd_C = torch.empty_like(logits_CV[:, 0]), torch.empty_like(logits_CV[:, 0])
    blocks = row_launch(logits_CV.stride(0))
    distillation_row[(len(logits_CV),)](
        logits_CV,
        teacher_CV,
        out_CV,
        labels_C,
        ce_C,
        kd_C,
        logits_CV.stride(0),
        teacher_CV.stride(0),
        out_CV.stride(0),
        *_scalars(loss),
        **_constants(blocks, loss.kind, loss.temperature == 1, gradient),
        num_warps=blocks.num_warps,
        num_stages=blocks.num_stages,
    )
    return ce_C, kd_C


def _top_k(
    logits_CV: Tensor, teacher: TopKRows, out_CV: Tensor, labels_C: Tensor, loss: Divergence, gradient: bool
) -> tuple[Tensor, Tensor]:
    targets_C = logits_CV.gather(1, labels_C.clamp(0, loss.vocab_size - 1).unsqueeze(1))
    taken_CK = logits_CV.gather(1, teacher.ids_CK)
    logits_CV.scatter_(1, teacher.ids_CK, -torch.inf)
    taken_out_CK = torch.empty_like(taken_CK, dtype=out_CV.dtype)
    ce_C, kd_C = torch.empty_like(logits_CV[:, 0]), torch.empty_like(logits_CV[:, 0])
    blocks, kept = row_launch(logits_CV.stride(0)), taken_CK.shape[1]
    distillation_top_k_row[(len(logits_CV),)](
        logits_CV,
        taken_CK,
        teacher.ids_CK.contiguous(),
        teacher.logprobs_CK.contiguous(),
        targets_C,
        out_CV,
        taken_out_CK,
        labels_C,
        ce_C,
        kd_C,
        logits_CV.stride(0),
        out_CV.stride(0),
        kept,
        *_scalars(loss),
        MIN_TAIL,
        KEPT=kept_block(kept),
        **_constants(blocks, loss.kind, loss.temperature == 1, gradient),
        num_warps=blocks.num_warps,
        num_stages=blocks.num_stages,
    )
    if gradient:
        out_CV.scatter_(1, teacher.ids_CK, taken_out_CK)
    return ce_C, kd_C


def _scalars(loss: Divergence) -> tuple[float, ...]:
    return loss.vocab_size, 1 / loss.temperature, loss.beta, loss.ce_weight, loss.slope


def _constants(blocks: Launch, kind: str, unit: bool, gradient: bool) -> dict[str, object]:
    return {
        "BLOCK": blocks.block,
        "KIND": KINDS.index(kind),
        "UNIT": unit,
        "GRADIENT": gradient,
        "IGNORE": IGNORE_INDEX,
    }


def row_launch(columns: int) -> Launch:
    """Block and warps for rows of so many columns."""
    block = min(max(SMALLEST, power_of_two(columns)), BLOCK)
    return Launch(block, num_warps=block // 128)


def kept_block(kept: int) -> int:
    """The block that holds a top-k teacher's tokens.

    Raises: ValueError for more tokens than the largest block has.
    """
    if kept > KEPT[-1]:
        raise ValueError(f"a top-k teacher keeps at most {KEPT[-1]} tokens here, not {kept}")
    return next(size for size in KEPT if size >= kept)


def shipped() -> list[Shipped]:
    """Both kernels at both blocks: every divergence and dtype of gradient, with and without temperature."""
    entries = []
    for columns, name, unit, kind in itertools.product(
        (SMALLEST, BLOCK), map(type_name, GRADIENTS), (True, False), KINDS
    ):
        label = f"{kind} {name} block {row_launch(columns).block}{'' if unit else ' temperature'}"
        entries.append(_shipped(distillation_row, label, columns, name, kind, unit))
        entries += [
            _shipped(distillation_top_k_row, f"{label} top {kept}", columns, name, kind, unit, KEPT=kept)
            for kept in (KEPT if columns == BLOCK and not unit else KEPT[1:2])
        ]
    return entries


def _shipped(
    kernel: Any, label: str, columns: int, name: str, kind: str, unit: bool, **extra: int
) -> Shipped:
    types = dict.fromkeys(
        ("student_ptr", "teacher_ptr", "taken_ptr", "logprobs_ptr", "targets_ptr", "ce_ptr", "kd_ptr"),
        "*fp32",
    )
    types |= dict.fromkeys(("labels_ptr", "ids_ptr"), "*i64") | dict.fromkeys(
        ("out_ptr", "taken_out_ptr"), f"*{name}"
    )
    types |= dict.fromkeys(("student_stride", "teacher_stride", "out_stride", "kept", "vocab_size"), "i32")
    types |= dict.fromkeys(("cold", "beta", "ce_weight", "kd_slope", "min_tail"), "fp32")
    blocks = row_launch(columns)
    constants = _constants(blocks, kind, unit, True) | extra
    signature = {parameter: types[parameter] for parameter in kernel.arg_names if parameter not in constants}
    strides = tuple(parameter for parameter in signature if parameter.endswith("stride"))
    return Shipped(kernel, label, signature, constants, strides, blocks.num_warps, blocks.num_stages)
