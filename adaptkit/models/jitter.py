"""Monte Carlo arithmetic (Parker 1997): every number is moved by as much as rounding may move it.

with jittered(model, torch.finfo(torch.bfloat16).eps / 2, seed=0):
    moved = model(**batch)       # what another kernel or machine of bfloat16 may answer
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextlib.contextmanager
def jittered(model: nn.Module, unit: float, seed: int) -> Iterator[None]:
    """Inside, what linear layers take in and all layers give is moved by up to `unit` of itself."""
    generator = torch.Generator().manual_seed(seed)

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        noise = torch.rand(value.shape, generator=generator).to(value.device, value.dtype)
        return value * (1 + unit * (2 * noise - 1))

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        # once for the input and once for the weights, which are rounded as well
        return tuple(moved(moved(value)) for value in inputs)

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        return moved(output)

    handles: list[RemovableHandle] = []
    for module in model.modules():
        if any(True for _ in module.children()):
            continue
        if isinstance(module, nn.Linear):
            handles.append(module.register_forward_pre_hook(before, prepend=True))
        if any(True for _ in module.parameters()):
            handles.append(module.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
