"""For layers, whose results are tensors: err(ours, float64 truth) <= 2 * err(definition in the same dtype,
truth) + eps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EPS = 1e-6

Layer = Callable[..., Tensor | tuple[Tensor, ...]]
"""(leaves) -> one tensor or several."""


def results(layer: Layer, leaves: Sequence[Tensor], wide: bool = False) -> list[Tensor]:
    """What a layer returns and the gradient of every leaf, for fixed random gradients of the outputs; `wide`:
    in float64."""
    copies = [leaf.detach().double() if wide else leaf.detach() for leaf in leaves]
    copies = [copy.requires_grad_() for copy in copies]
    made = layer(*copies)
    outputs = made if isinstance(made, tuple) else (made,)
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(out.shape, generator=generator).bfloat16().to(out.dtype) for out in outputs]
    gradients = torch.autograd.grad(outputs, copies, directions, allow_unused=True, materialize_grads=True)
    return [out.detach() for out in outputs] + list(gradients)


def assert_parity(reference: Layer, ours: Layer, leaves: Sequence[Tensor], eps: float = EPS) -> None:
    truth, eager, mine = (
        results(reference, leaves, wide=True),
        results(reference, leaves),
        results(ours, leaves),
    )
    num_outputs = len(truth) - len(leaves)
    for number, (exact, plain, value) in enumerate(zip(truth, eager, mine, strict=True)):
        name = f"output {number}" if number < num_outputs else f"gradient of leaf {number - num_outputs}"
        assert value.dtype == plain.dtype and value.shape == plain.shape, name
        if exact.numel():
            error, allowed = ((x.double() - exact).abs().max() for x in (value, plain))
            assert error <= 2 * allowed + eps * exact.abs().max().clamp_min(1.0), (
                f"{name}: {error} against {allowed}"
            )


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(dtype)
