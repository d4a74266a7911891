"""Cross-entropy of a head as an operator: the loop of `head` around a function of one chunk's logits, which
differs by implementation. `operators` builds them; `reference.linear_cross_entropy` says what they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    loss_dtype,
    project,
)

RowFunction = Callable[[Tensor, Tensor, int, torch.dtype | None], tuple[Tensor, Tensor | None]]
"""(logits [C, V] it may overwrite, labels [C], number of real tokens, dtype of the gradient or None for no
gradient)
-> (losses [C], gradient of the logits [C, V])."""


def operators(
    name: str, row_function: RowFunction, *, reads_ignored: bool
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """(linear_cross_entropy, token_nll), registered with torch under `name`.

    `reads_ignored`: whether the row function takes rows labelled IGNORE_INDEX; else they are dropped from
    given rows.
    """
    sweep = _register_sweep(name, row_function, reads_ignored)

    def linear_cross_entropy(
        hidden_TD: Tensor,
        weight_VD: Tensor,
        labels_T: Tensor,
        bias_V: Tensor | None = None,
        *,
        rows_R: Tensor | None = None,
        vocab_size: int | None = None,
    ) -> Tensor:
        """Equals `reference.linear_cross_entropy`, with gradients for hidden, weight and bias; no second
        derivative."""
        dtype = compute_dtype(hidden_TD)
        data = (hidden_TD, weight_VD, labels_T, bias_V, rows_R)
        vocab_size = len(weight_VD) if vocab_size is None else vocab_size
        wanted = [
            torch.is_grad_enabled() and x is not None and x.requires_grad
            for x in (hidden_TD, weight_VD, bias_V)
        ]
        return sweep(*data, vocab_size, wanted, dtype)[0].squeeze(0)

    return linear_cross_entropy, _register_token_nll(name, row_function)


def _register_sweep(
    name: str, row_function: RowFunction, reads_ignored: bool
) -> Callable[..., tuple[Tensor, ...]]:
    @torch.library.custom_op(add_op_namespace_prefix(f"linear_cross_entropy_{name}"), mutates_args=())
    def sweep(
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        vocab_size: int,
        wanted: Sequence[bool],
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gradient = dtype if any(wanted) else None

        def rowwise(logits_CV: Tensor, chosen: Rows) -> tuple[Tensor, Tensor | None]:
            losses_C, d_logits_CV = row_function(logits_CV, labels[chosen], vocab_size, gradient)
            return losses_C.sum(), d_logits_CV

        with torch.autocast(hidden.device.type, enabled=False):
            if rows is not None and not reads_ignored:
                rows = rows[labels[rows] != IGNORE_INDEX]
            chunks = chunked_rows(labels, rows, len(weight), dtype.itemsize)
            return loss_and_gradients(Head(hidden, weight, bias, dtype, wanted), chunks, 1, rowwise)

    @sweep.register_fake
    def _(hidden, weight, labels, bias, rows, vocab_size, wanted, dtype):  # noqa: ANN001, ANN202
        return empty_results(hidden, weight, bias, wanted, 1)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        dtypes = [
            x.dtype if want else None
            for x, want in zip((inputs[0], inputs[1], inputs[3]), inputs[6], strict=True)
        ]
        autograd.keep_gradients(ctx, output[1:], dtypes)

    @once_differentiable
    def scale_kept(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight, d_bias = autograd.scaled_gradients(ctx, grad)
        return d_hidden, d_weight, None, d_bias, *[None] * 4

    sweep.register_autograd(scale_kept, setup_context=keep)
    return sweep


def _register_token_nll(name: str, row_function: RowFunction) -> Callable[..., Tensor]:
    @torch.library.custom_op(add_op_namespace_prefix(f"token_nll_{name}"), mutates_args=())
    def scores(
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        bias: Tensor | None,
        vocab_size: int,
        dtype: torch.dtype,
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
            nll = torch.zeros(len(labels), dtype=loss_dtype(dtype), device=hidden.device)
            for rows in chunked_rows(labels, None, len(weight), dtype.itemsize):
                logits = project(hidden[rows].to(dtype), weight, bias, wide=False)
                nll[rows] = row_function(logits, labels[rows], vocab_size, None)[0]
        return nll

    @scores.register_fake
    def _(hidden, weight, labels, bias, vocab_size, dtype):  # noqa: ANN001, ANN202
        return hidden.new_empty(len(labels), dtype=loss_dtype(dtype))

    @torch.no_grad()
    def token_nll(
        hidden_TD: Tensor,
        weight_VD: Tensor,
        labels_T: Tensor,
        bias_V: Tensor | None = None,
        *,
        vocab_size: int | None = None,
    ) -> Tensor:
        """Equals `reference.token_nll`; carries no gradient."""
        columns = len(weight_VD) if vocab_size is None else vocab_size
        return scores(hidden_TD, weight_VD, labels_T, bias_V, columns, compute_dtype(hidden_TD))

    return token_nll
