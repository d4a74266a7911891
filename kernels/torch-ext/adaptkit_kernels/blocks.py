"""Blocks that add a branch to the residual stream and normalise the sum: where `add_rms_norm` and
`add_layer_norm` fit.

Two forms are known. A pre-norm block computes `r = x + attention(norm(x)); r + feed_forward(norm(r))`, so its
second norm follows an addition; a post-norm block computes `norm(drop(dense(x)) + residual)`. Both are found
by running the module's own forward with recording stand-ins for all of its children: which child plays which
part and which arguments attention is given are observed, and the result has to equal the form's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .structure import Kept, same, stand_in

_EXTRA = "adaptkit_probe"
Norm = Callable[[nn.Module, Tensor, torch.dtype | None], Tensor]
"""(norm, x, dtype of the result or None for the norm's own) -> norm(x)."""
AddNorm = Callable[[nn.Module, Tensor, Tensor, torch.dtype | None], tuple[Tensor, Tensor]]
"""(norm, branch, residual, dtype) -> (norm(branch + residual), branch + residual)."""


@dataclass(frozen=True)
class PreNorm:
    """Names of a pre-norm block's children in the order of their calls, and how attention is called.

    Attributes:
        keyword: the name under which attention takes its hidden states, or None for the first position.
        returns_tuple: whether attention returns its output as the first of several.
        hidden: the block's name for its hidden states.
        defaults: the block's own optional arguments, which it passes on to attention.
    """

    first: str
    attention: str
    second: str
    feed_forward: str
    keyword: str | None
    returns_tuple: bool
    hidden: str
    defaults: dict[str, Any]


@dataclass(frozen=True)
class PostNorm:
    """Names of a post-norm block's children."""

    dense: str
    drop: str
    norm: str


class _Part(nn.Module):
    """Stands in for a child: a smooth function of its own, and a note of the call."""

    def __init__(self, name: str, slope: float, calls: list[_Call], returns_tuple: bool):
        super().__init__()
        self.name, self.slope, self.calls, self.returns_tuple = name, slope, calls, returns_tuple

    def value(self, x: Tensor) -> Tensor:
        return torch.tanh(self.slope * x) + self.slope

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        tensors = [
            (key, value) for key, value in (*enumerate(args), *kwargs.items()) if isinstance(value, Tensor)
        ]
        (key, x), *_ = tensors
        given = {name: value for name, value in kwargs.items() if name != key}
        self.calls.append(_Call(self.name, key if isinstance(key, str) else None, len(args), given))
        return (self.value(x), None) if self.returns_tuple and given else self.value(x)


@dataclass(frozen=True)
class _Call:
    name: str
    keyword: str | None
    num_positional: int
    given: dict[str, Any]


def pre_norm_parts(module: nn.Module, norms: list[str]) -> PreNorm | None:
    """The parts of a pre-norm block, given which of its children are norms; None for other modules.

    Raises: Kept if the module has two norms and two other parts and computes something else.
    """
    if len(norms) != 2 or len(module._modules) != 4:
        return None
    for returns_tuple in (True, False):
        parts = _observed(module, returns_tuple)
        if parts and {parts.first, parts.second} == set(norms):
            return parts
    raise Kept("has two norms and two other parts, and combines them in another way")


def _observed(module: nn.Module, returns_tuple: bool) -> PreNorm | None:
    """What one run of the module with stand-ins shows, if it is a pre-norm block."""
    hidden, *options = inspect.signature(type(module).forward.__get__(module)).parameters.values()
    named = [p for p in options if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    given = {p.name: object() for p in named} | (
        {_EXTRA: object()} if any(p.kind == p.VAR_KEYWORD for p in options) else {}
    )
    calls: list[_Call] = []
    parts = {name: _Part(name, 0.3 + 0.2 * i, calls, returns_tuple) for i, name in enumerate(module._modules)}
    x = torch.linspace(-1, 1, 12).view(1, 3, 4)
    try:
        found = type(module).forward(stand_in(module, **parts), x, **given)
    except Exception:  # uses its parts or its arguments otherwise than a pre-norm block does
        return None
    if (
        len(calls) != 4
        or calls[1].given != given
        or any(call.given or call.keyword for call in (calls[0], *calls[2:]))
    ):
        return None
    if calls[1].num_positional != (calls[1].keyword is None):
        return None
    first, attention, second, feed_forward = (parts[call.name] for call in calls)
    total = x + attention.value(first.value(x))
    if not same(found, total + feed_forward.value(second.value(total))):
        return None
    defaults = {p.name: p.default for p in named if p.default is not p.empty}
    return PreNorm(*(call.name for call in calls), calls[1].keyword, returns_tuple, hidden.name, defaults)


def post_norm_parts(module: nn.Module, norms: list[str]) -> PostNorm | None:
    """The parts of a post-norm block, given which of its children are norms; None for other modules."""
    drops = [name for name, child in module._modules.items() if isinstance(child, nn.Dropout)]
    others = [name for name in module._modules if name not in (*norms, *drops)]
    if (
        not len(norms) == len(drops) == len(others) == 1
        or len(inspect.signature(type(module).forward).parameters) != 3
    ):
        return None
    names = PostNorm(others[0], drops[0], norms[0])
    calls: list[_Call] = []
    dense, drop, norm = (
        _Part(name, 0.3 + 0.2 * i, calls, False)
        for i, name in enumerate((names.dense, names.drop, names.norm))
    )
    x, residual = torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(2, -1, 12).view(3, 4)
    try:
        found = type(module).forward(
            stand_in(module, **{part.name: part for part in (dense, drop, norm)}), x, residual
        )
    except Exception:  # not two tensors in: some other block with these children
        return None
    return names if same(found, norm.value(drop.value(dense.value(x)) + residual)) else None


def pre_norm_forward(
    parts: PreNorm, norm: Norm, add_norm: AddNorm, only_multiplies: Callable[[nn.Module], bool]
) -> Callable[..., Tensor]:
    """A pre-norm block's forward in which the second norm makes the sum.

    Args:
        only_multiplies: whether a part does nothing with its input but matrix products. Under autocast on a
            GPU these round it to autocast's dtype, each for itself; so for such a part the norm writes that
            dtype.
    """

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        if len(args) > 1 or torch.compiler.is_compiling() or _is_watched(getattr(self, parts.second)):
            return type(self).forward(self, *args, **kwargs)
        options = {**parts.defaults, **kwargs}
        x = args[0] if args else options.pop(parts.hidden)
        first, attention, feed_forward = (
            getattr(self, name) for name in (parts.first, parts.attention, parts.feed_forward)
        )
        dtype = _autocast_dtype(x) if only_multiplies(attention) and not _is_watched(first) else None
        normed = first(x) if dtype is None else norm(first, x, dtype)
        branch = (
            attention(**{parts.keyword: normed}, **options) if parts.keyword else attention(normed, **options)
        )
        branch = branch[0] if parts.returns_tuple else branch
        dtype = _autocast_dtype(x) if only_multiplies(feed_forward) else None
        normed, total = add_norm(getattr(self, parts.second), branch, x, dtype)
        return total + feed_forward(normed)

    return forward


def post_norm_forward(parts: PostNorm, add_norm: AddNorm) -> Callable[..., Tensor]:
    """A post-norm block's forward in which the norm makes the sum."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        norm = getattr(self, parts.norm)
        if kwargs or len(args) != 2 or torch.compiler.is_compiling() or _is_watched(norm):
            return type(self).forward(self, *args, **kwargs)
        x, residual = args
        return add_norm(norm, getattr(self, parts.drop)(getattr(self, parts.dense)(x)), residual, None)[0]

    return forward


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    return torch.get_autocast_dtype("cuda") if x.is_cuda and torch.is_autocast_enabled("cuda") else None


def _is_watched(norm: nn.Module) -> bool:
    """Whether somebody listens to the norm's calls, which a forward that passes it by would hide."""
    return bool(
        norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks
    )
