"""What a module is, told from its parts and proven by running it: nothing here knows an architecture's name.

A match means two things: the parts have a known form (a weight and an epsilon; gate, up and down
    projections), and the
module's own forward, run on random numbers with small stand-ins for its projections, gives what the plain
definition in `reference` gives. A module whose forward does anything else keeps it. Probes run on the CPU on
copies that share nothing with the model, so they neither launch a kernel nor touch a weight.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import reference

_WIDTH = 16
_EPSILON_NAMES = ("variance_epsilon", "eps")
_GATED_PARTS = ((("gate_proj", "up_proj"), "down_proj"), (("gate_up_proj",), "down_proj"), (("Wi",), "Wo"))


class Kept(Exception):
    """The module looks like something that could be fused and is left alone; the message says why."""


def rms_norm_offset(module: nn.Module) -> tuple[float, float, bool] | None:
    """(epsilon, offset of the weight, whether the result takes the wider dtype) of an RMSNorm; None for other
    modules.

    Raises: Kept if the module has an RMSNorm's parts and computes something else.
    """
    names = [name for name in _EPSILON_NAMES if isinstance(getattr(module, name, None), float)]
    parameters = dict(module.named_parameters())
    if list(parameters) != ["weight"] or not names or parameters["weight"].ndim != 1 or _has_more(module):
        return None
    if isinstance(module, nn.LayerNorm):
        return None
    eps, width = getattr(module, names[0]), parameters["weight"].shape[0]
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator) for shape in ((3, width), (width,)))
    double = stand_in(module, weight=nn.Parameter(weight, requires_grad=False))
    try:
        found, narrow = (type(module).forward(double, value) for value in (x, x.bfloat16()))
    except Exception as error:  # another signature, another shape: whatever it is, it is no plain norm
        raise Kept(
            f"has a weight and an epsilon, but does not run as a norm ({type(error).__name__})"
        ) from None
    for offset in (0.0, 1.0):
        expected, _ = reference.add_rms_norm(x, None, weight, eps, offset=offset)
        if same(found, expected):
            return eps, offset, narrow.dtype == torch.float32
    raise Kept("has a weight and an epsilon, but computes no RMSNorm")


def is_layer_norm(module: nn.Module) -> bool:
    """True for torch's own LayerNorm over the last dimension.

    Raises: Kept for one over several dimensions, or a subclass with its own forward.
    """
    if not isinstance(module, nn.LayerNorm):
        return False
    if type(module).forward is not nn.LayerNorm.forward:
        raise Kept("is a LayerNorm with a forward of its own")
    if len(module.normalized_shape) != 1:
        raise Kept("normalises more than the last dimension")
    return True


class GatedParts:
    """A gated feed-forward block: `down(drop(act(gate(x)) * up(x)))`.

    Attributes:
        into: names of the projections that come first: gate and up, or one that makes both.
        out: name of the last projection.
        drop: name of the dropout between, or None.
        kind: the activation, one of `gated.KINDS`.
    """

    def __init__(self, into: tuple[str, ...], out: str, drop: str | None, kind: str):
        self.into, self.out, self.drop, self.kind = into, out, drop, kind


def gated_parts(module: nn.Module) -> GatedParts | None:
    """The parts of a gated feed-forward block; None for other modules.

    Raises: Kept if the module has such parts and computes something else.
    """
    children = dict(module.named_children())
    for into, out in _GATED_PARTS:
        if {*into, out} <= children.keys():
            break
    else:
        return None
    others = {name: child for name, child in children.items() if name not in (*into, out)}
    drops = [name for name, child in others.items() if isinstance(child, nn.Dropout)]
    acts = [child for name, child in others.items() if name not in drops and not any(child.parameters())]
    if len(acts) != 1 or len(drops) > 1 or len(others) != len(acts) + len(drops):
        raise Kept("has gate, up and down projections, and other parts")
    kind = activation_kind(acts[0])
    if kind is None:
        raise Kept("has an activation other than silu, gelu and tanh-gelu")
    parts = GatedParts(into, out, drops[0] if drops else None, kind)
    if len(inspect.signature(module.forward).parameters) != 1 or not _computes_gated(module, parts):
        raise Kept("has gate, up and down projections, but combines them in another way")
    return parts


def activation_kind(act: Callable[[Tensor], Tensor]) -> str | None:
    """Which of `gated.KINDS` a function computes, in float64 on a range of numbers; None for another one."""
    x = torch.linspace(-6, 6, 97, dtype=torch.float64)
    known = {"silu": F.silu(x), "gelu": F.gelu(x), "gelu_tanh": F.gelu(x, approximate="tanh")}
    try:
        found = act(x)
    except Exception:  # an activation that takes no float64 vector is none of ours
        return None
    return next(
        (
            kind
            for kind, value in known.items()
            if found.shape == x.shape and torch.allclose(found, value, rtol=0, atol=1e-9)
        ),
        None,
    )


def stand_in(module: nn.Module, **parts: nn.Module | nn.Parameter) -> nn.Module:
    """A module of the same class and settings with other children or parameters, for
    `type(module).forward(it, ...)`.

    The two share what is not replaced; hooks and a replaced forward are passed by.
    """
    double = module.__class__.__new__(module.__class__)
    double.__dict__.update(module.__dict__)
    for kind, form in (("_modules", nn.Module), ("_parameters", nn.Parameter)):
        double.__dict__[kind] = {
            **getattr(module, kind),
            **{name: part for name, part in parts.items() if isinstance(part, form)},
        }
    return double


def _computes_gated(module: nn.Module, parts: GatedParts) -> bool:
    generator = torch.Generator().manual_seed(0)
    joint = len(parts.into) == 1
    projections = {name: _Linear(_WIDTH, _WIDTH * (1 + joint), generator) for name in parts.into}
    down = _Linear(_WIDTH, _WIDTH, generator)
    drop = {parts.drop: nn.Identity()} if parts.drop else {}
    x = torch.randn(3, _WIDTH, generator=generator)
    gate, up = (
        projections[parts.into[0]](x).chunk(2, -1) if joint else (projections[name](x) for name in parts.into)
    )
    try:
        found = type(module).forward(stand_in(module, **projections, **{parts.out: down}, **drop), x)
    except Exception:  # reads something that the stand-ins lack, so it does more than a gated block
        return False
    return same(found, down(reference.gated(gate, up, parts.kind)))


class _Linear(nn.Module):
    """A random linear layer for probes, drawn from a generator of its own."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(outputs, inputs, generator=generator) / inputs**0.5, requires_grad=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


def _has_more(module: nn.Module) -> bool:
    return any(True for _ in module.children()) or any(True for _ in module.buffers())


def same(found: Any, expected: Tensor) -> bool:
    """Whether a probe gave what the definition gives, to float32's accuracy."""
    return (
        isinstance(found, Tensor)
        and found.shape == expected.shape
        and torch.allclose(found.float(), expected, rtol=1e-4, atol=1e-5)
    )
