"""Distillation of a head as an operator: the loop of `head` around a function of one chunk's logits, which
differs by implementation. `operator` builds it; `reference.linear_distillation` says what it computes.

Neither the student's nor an online teacher's logits exist beyond one chunk. They are float32 also for bf16
products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import autograd
from ._ops import add_op_namespace_prefix
from .head import (
    IGNORE_INDEX,
    Head,
    Rows,
    chunked_rows,
    compute_dtype,
    empty_results,
    loss_and_gradients,
    project,
)
from .teachers import DenseTeacher, HiddenTeacher, Teacher, TopKTeacher

KINDS = ("forward_kl", "reverse_kl", "jsd")


@dataclass(frozen=True)
class Divergence:
    """What a row's loss is made of; see reference.linear_distillation."""

    kind: str
    beta: float
    temperature: float
    ce_weight: float
    kd_weight: float
    vocab_size: int

    @property
    def slope(self) -> float:
        """Factor of dKD / d(logits / temperature) in the gradient of the logits."""
        return self.kd_weight * self.temperature


@dataclass(frozen=True)
class TopKRows:
    """A chunk of a top-k teacher: ids int64 [C, K] and log-probabilities float32 [C, K]."""

    ids_CK: Tensor
    logprobs_CK: Tensor


RowFunction = Callable[
    [Tensor, Tensor | TopKRows, Tensor, Divergence, torch.dtype | None], tuple[Tensor, Tensor, Tensor | None]
]
"""(student logits [C, V] it may overwrite, teacher logits [C, V] or top-k rows, labels [C], divergence, dtype
of the gradient or None for no gradient) -> (cross-entropies [C], divergences [C], gradient of the student's
logits)."""


def operator(
    name: str, row_function: RowFunction, *, reads_ignored: bool
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """linear_distillation, registered with torch under `name`; `reads_ignored` as in
    cross_entropy.operators."""
    sweep = _register(name, row_function, reads_ignored)

    def linear_distillation(
        student_TD: Tensor,
        student_weight_VD: Tensor,
        teacher: Teacher,
        labels_T: Tensor,
        student_bias_V: Tensor | None = None,
        *,
        kind: str = "forward_kl",
        beta: float = 0.5,
        temperature: float = 1.0,
        ce_weight: float = 0.0,
        kd_weight: float = 1.0,
        rows_R: Tensor | None = None,
        vocab_size: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Equals `reference.linear_distillation`, with gradients for the student's hidden, weight and bias.

        Raises: ValueError for an unknown kind, a beta outside (0, 1), a temperature that is not positive, or
            a teacher with fewer tokens than the student.
        """
        if kind not in KINDS or not 0 < beta < 1 or not temperature > 0:
            raise ValueError(
                f"kind is one of {KINDS}, 0 < beta < 1, temperature > 0; not {kind!r}, {beta}, {temperature}"
            )
        vocab_size = len(student_weight_VD) if vocab_size is None else vocab_size
        if _columns(teacher, vocab_size) < vocab_size:
            raise ValueError(
                f"the teacher has {_columns(teacher, vocab_size)} tokens, the student {vocab_size}"
            )
        student = (student_TD, student_weight_VD, student_bias_V)
        wanted = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in student]
        settings = [beta, temperature, ce_weight, kd_weight]
        dtypes = [compute_dtype(student_TD), _teacher_dtype(teacher)]
        told = [None if x is None else x.detach() for x in _tensors(teacher)]
        sums = sweep(
            *student,
            labels_T,
            rows_R,
            *told,
            type(teacher).__name__,
            kind,
            settings,
            vocab_size,
            wanted,
            *dtypes,
        )[0]
        total, ce, kd = sums.unbind()
        return total, ce.detach(), kd.detach()

    return linear_distillation


def _columns(teacher: Teacher, vocab_size: int) -> int:
    if isinstance(teacher, HiddenTeacher):
        return len(teacher.weight_VE)
    return teacher.logprobs_TV.shape[1] if isinstance(teacher, DenseTeacher) else vocab_size


def _tensors(teacher: Teacher) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if isinstance(teacher, HiddenTeacher):
        return teacher.hidden_TE, teacher.weight_VE, teacher.bias_V
    if isinstance(teacher, DenseTeacher):
        return teacher.logprobs_TV, None, None
    return teacher.ids_TK, teacher.logprobs_TK, None


def _teacher_dtype(teacher: Teacher) -> torch.dtype:
    """Of the products of an online teacher: autocast's, else the wider of its hidden states' and its
    head's."""
    if not isinstance(teacher, HiddenTeacher):
        return torch.float32
    dtype = compute_dtype(teacher.hidden_TE)
    return dtype if dtype != teacher.hidden_TE.dtype else torch.promote_types(dtype, teacher.weight_VE.dtype)


def _teacher_chunk(name: str, tensors: Sequence[Tensor | None], rows: Rows) -> Tensor | TopKRows:
    first, second, third = tensors
    if name == TopKTeacher.__name__:
        return TopKRows(first[rows], second[rows].float())
    if name == DenseTeacher.__name__:
        return first[rows].float()
    return project(first[rows].to(second.dtype), second, third, wide=True)


def _register(name: str, row_function: RowFunction, reads_ignored: bool) -> Callable[..., tuple[Tensor, ...]]:
    @torch.library.custom_op(add_op_namespace_prefix(f"linear_distillation_{name}"), mutates_args=())
    def sweep(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        rows: Tensor | None,
        teacher_1: Tensor,
        teacher_2: Tensor | None,
        teacher_3: Tensor | None,
        teacher: str,
        kind: str,
        settings: Sequence[float],
        vocab_size: int,
        wanted: Sequence[bool],
        dtype: torch.dtype,
        teacher_dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        loss, gradient = Divergence(kind, *settings, vocab_size), dtype if any(wanted) else None
        if teacher == HiddenTeacher.__name__:
            teacher_2, teacher_3 = (
                None if x is None else x.to(teacher_dtype) for x in (teacher_2, teacher_3)
            )

        def rowwise(logits_CV: Tensor, chosen: Rows) -> tuple[Tensor, Tensor | None]:
            told = _teacher_chunk(teacher, (teacher_1, teacher_2, teacher_3), chosen)
            ce_C, kd_C, d_logits_CV = row_function(logits_CV, told, labels[chosen], loss, gradient)
            ce, kd = ce_C.sum(), kd_C.sum()
            return torch.stack(
                [loss.ce_weight * ce + loss.kd_weight * loss.temperature**2 * kd, ce, kd]
            ), d_logits_CV

        with torch.autocast(hidden.device.type, enabled=False):
            if rows is not None and not reads_ignored:
                rows = rows[labels[rows] != IGNORE_INDEX]
            chunks = chunked_rows(labels, rows, len(weight), 8 + dtype.itemsize)
            return loss_and_gradients(
                Head(hidden, weight, bias, dtype, wanted, wide=True), chunks, 3, rowwise
            )

    @sweep.register_fake
    def _(
        hidden,
        weight,
        bias,
        labels,
        rows,
        t1,
        t2,
        t3,
        teacher,
        kind,
        settings,
        vocab_size,
        wanted,
        dtype,
        t_dtype,
    ):  # noqa: ANN001, ANN202
        return empty_results(hidden, weight, bias, wanted, 3)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        dtypes = [x.dtype if want else None for x, want in zip(inputs[:3], inputs[12], strict=True)]
        autograd.keep_gradients(ctx, output[1:], dtypes)

    @once_differentiable
    def scale_kept(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        return *autograd.scaled_gradients(ctx, grad[0]), *[None] * 12

    sweep.register_autograd(scale_kept, setup_context=keep)
    return sweep
