"""How layers and losses of this package join torch's autograd.

A layer is registered with torch as an operator, which torch.compile, export and opcheck understand; called on
plain tensors it is an autograd.Function around the same code instead, at a fraction of the host's time.

Losses form their gradients in the forward pass. An operator returns its sums and the gradients for a loss of
derivative one; the backward pass scales them, in place, so it runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
    factor = grad.reshape(
        1
    )  # not a scalar, which would be rounded to the dtype of a bf16 gradient before the product
    traced = (
        type(gradient) is not Tensor
    )  # a compiler's stand-in: what may be overwritten is for the compiler to decide
    return (gradient * factor if traced else torch.mul(gradient, factor, out=gradient)).to(dtype)


def eager_layer(
    forward: Callable[..., Any], keep: Callable[..., None], differentiate: Callable[..., Any]
) -> Callable[..., Any]:
    """`forward` with its derivative, for plain tensors.

    Args:
        keep, differentiate: what `torch.library.register_autograd` takes as setup_context and backward.
    """

    class Layer(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = forward(*inputs)
            keep(ctx, inputs, output)
            return output

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            return differentiate(ctx, *grads)

    return Layer.apply


def plain(*tensors: Tensor | None) -> bool:
    """Whether nobody traces: no compiler, no dispatch mode, no stand-in among the tensors."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    return all(tensor is None or type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)
