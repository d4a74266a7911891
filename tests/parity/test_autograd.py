"""A layer on plain tensors runs beside torch's dispatcher; whoever traces gets the registered operator, with
equal results."""

from __future__ import annotations

import pytest
import torch
from adaptkit_kernels import autograd, lora
from layer_rule import randn, results
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class Watched(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def layer(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return lora.lora_linear(x, weight, a, b, 0.7)


weight = randn(24, 16, seed=3)
leaves = [randn(5, 16), randn(4, 16, seed=1), randn(24, 4, seed=2)]


def test_plain_tensors_pass_the_dispatcher_by_and_traced_ones_do_not(monkeypatch):
    asked = []
    eager = lora._eager
    monkeypatch.setattr(lora, "_eager", lambda *inputs: asked.append(1) or eager(*inputs))
    plain = results(layer, leaves)
    assert asked
    with Watched() as seen:
        traced = results(layer, leaves)
    assert len(asked) == 1 and any("lora_linear" in name for name in seen.names)
    for mine, theirs in zip(plain, traced, strict=True):
        assert torch.equal(mine, theirs)


def test_parameters_are_plain_and_stand_ins_are_not():
    class Other(torch.Tensor):
        pass

    assert autograd.plain(torch.ones(1), None, nn.Parameter(torch.ones(1)))
    assert not autograd.plain(torch.ones(1), torch.ones(1).as_subclass(Other))


def test_a_second_derivative_is_refused():
    x = randn(5, 16).requires_grad_()
    (grad,) = torch.autograd.grad(layer(x, *leaves[1:]).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
