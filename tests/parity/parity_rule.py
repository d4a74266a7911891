"""The rule for every operator: err(ours, float64 truth) <= 2 * err(reference in the same dtype, float64
truth) + eps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EPS = 1e-6

Loss = Callable[..., Tensor]
"""(leaves) -> scalar."""


def results(loss: Loss, leaves: Sequence[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """The loss and the gradient of every leaf, for copies of the leaves in `dtype`; backward starts from 1 /
    7."""
    copies = [leaf.detach().to(dtype or leaf.dtype).requires_grad_() for leaf in leaves]
    value = loss(*copies)
    (value / 7).backward()
    return [value.detach(), *(copy.grad for copy in copies)]


def assert_parity(
    reference: Loss, ours: Loss, leaves: Sequence[Tensor], eps: float = EPS, plain: Loss | None = None
) -> None:
    """`plain`: what a user would write in the leaves' dtype, where the reference is more exact than that."""
    truth, eager, mine = (
        results(reference, leaves, torch.float64),
        results(plain or reference, leaves),
        results(ours, leaves),
    )
    for number, (exact, usual, value) in enumerate(zip(truth, eager, mine, strict=True)):
        name = "loss" if number == 0 else f"gradient of leaf {number - 1}"
        assert value.dtype == usual.dtype and value.shape == usual.shape, name
        scale = exact.abs().max().clamp_min(1.0) if exact.numel() else 1.0
        error, allowed = ((x.double() - exact).abs().max() if x.numel() else 0.0 for x in (value, usual))
        assert error <= 2 * allowed + eps * scale, f"{name}: {error} against {allowed}"
