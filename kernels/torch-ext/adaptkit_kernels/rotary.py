"""Attention modules that rotate queries and keys through a function of their own Python module.

transformers' attention calls such a function as a global name, so it can be replaced for all models of an
architecture or,
as here, for one instance: the instance gets the same code with that one global bound to `rope`. No source is
    copied, and
class and Python module stay as they are.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import reference
from .rope import rope
from .structure import Kept

Rotation = Callable[..., tuple[Tensor, Tensor]]


def rotating_forward(module: nn.Module) -> Callable[..., Any] | None:
    """The module's own forward, rotating through `rope`; None for modules that call no rotation.

    Raises: Kept for a rotation that computes something else.
    """
    forward = type(module).forward
    code = getattr(forward, "__code__", None)
    names = (
        [name for name in code.co_names if "rotary" in name and _is_function(forward, name)] if code else []
    )
    if not names:
        return None
    original = forward.__globals__[names[0]]
    if len(names) > 1 or not _rotates_halves(original):
        raise Kept("rotates in another way than `rope`")
    found = types.FunctionType(
        code,
        {**forward.__globals__, names[0]: _rotation(original)},
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    found.__kwdefaults__ = forward.__kwdefaults__

    def rotating(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # the compiler fuses the rotation with its neighbours by itself
            return type(self).forward(self, *args, **kwargs)
        return found(self, *args, **kwargs)

    return rotating


def _is_function(forward: Any, name: str) -> bool:
    return isinstance(forward.__globals__.get(name), types.FunctionType)


def _rotation(original: Rotation) -> Rotation:
    def rotate(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        usual = (
            not args
            and kwargs.get("unsqueeze_dim", 1) == 1
            and kwargs.keys() <= {"unsqueeze_dim"}
            and cos.ndim == 3
        )
        return rope(q, k, cos, sin) if usual else original(q, k, cos, sin, *args, **kwargs)

    return rotate


@torch.no_grad()
def _rotates_halves(original: Rotation) -> bool:
    """Does it compute what `rope` does? Tried on random heads, the two halves of each angle equal."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, heads, 3, 8, generator=generator) for heads in (4, 2))
    angle = torch.randn(2, 3, 4, generator=generator).repeat(1, 1, 2)
    try:
        found = original(q, k, angle.cos(), angle.sin())
    except Exception:  # another signature, or whatever a function of another kind raises
        return False
    expected = reference.rope(q, k, angle.cos(), angle.sin())
    if not isinstance(found, tuple) or len(found) != 2:
        return False
    return all(
        a.shape == b.shape and torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True)
    )
