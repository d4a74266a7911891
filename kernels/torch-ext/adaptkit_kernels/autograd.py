"""Losses that form their gradients in the forward pass, as operators that torch.compile, export and opcheck understand.

An operator returns its sums and the gradients for a loss of derivative one; the backward pass scales them, in place, so
it runs once. A lean operator returns the sums only and forms the gradients in the backward pass, from its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

ONCE = "this loss scales its gradients in place: backward runs once per forward"


def keep_gradients(ctx: Any, gradients: Sequence[Tensor], dtypes: Sequence[torch.dtype | None]) -> None:
    """Remembers an operator's outputs after the first as the gradients of the inputs with these dtypes."""
    ctx.mark_non_differentiable(*gradients)
    ctx.set_materialize_grads(False)
    ctx.gradients, ctx.dtypes = list(gradients), list(dtypes)


def scaled_gradients(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """The gradients kept, times the derivative of the loss, in the dtypes of their inputs.

    Raises: RuntimeError when it runs a second time.
    """
    if ctx.gradients is None:
        raise RuntimeError(ONCE)
    gradients, ctx.gradients = ctx.gradients, None
    return [_scaled(gradient, grad, dtype) for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)]


def _scaled(gradient: Tensor, grad: Tensor, dtype: torch.dtype | None) -> Tensor | None:
    if dtype is None:
        return None
    factor = grad.reshape(1)  # not a scalar, which would be rounded to the dtype of a bf16 gradient before the product
    traced = type(gradient) is not Tensor  # a compiler's stand-in: what may be overwritten is for the compiler to decide
    return (gradient * factor if traced else torch.mul(gradient, factor, out=gradient)).to(dtype)
