"""Give the layers of one model fused forwards, and take them back.

    fused = fuse(model)          # any transformers model, with or without peft adapters
    print(fused.record())        # what was replaced, what was not, and why
    fused.undo()

A forward is replaced on the module instance; classes and libraries stay as they are. The new forward reads
the module's own parameters at each call, so moving, casting, sharding, loading, saving and copying the model
work as before and no name in its state dict changes. Gradient checkpointing, autocast and torch.compile see
ordinary modules.

Rotary embeddings are reached where attention calls a function for them: that instance runs the same code with
    the one
global name bound to `rope`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from . import launch
from .blocks import AddNorm, Norm, post_norm_forward, post_norm_parts, pre_norm_forward, pre_norm_parts
from .gated import gated, gated_pair
from .lora import FourBit, lora_linear
from .norms import MAX_WIDTH, add_layer_norm, add_rms_norm, layer_norm, rms_norm
from .rotary import rotating_forward
from .structure import GatedParts, Kept, gated_parts, is_layer_norm, rms_norm_offset

IMPLEMENTATIONS = ("auto", "fused", "chunked", "reference")
_MARK = "adaptkit_fused_kind"


@dataclass
class Fused:
    """What `fuse` did to a model.

    Attributes:
        implementation: "fused", "chunked" (no Triton: only what plain torch speeds up) or "reference"
            (nothing).
        replaced: module name -> kind: "rms_norm", "layer_norm", "add_norm" (a block whose norm makes the sum
            before it), "gated", "rope" (an attention module) or "lora_linear".
        kept: module name -> why a module that looks like one of these keeps its forward.
    """

    model: nn.Module
    implementation: str
    replaced: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The same as plain data, for a manifest."""
        kinds = {
            kind: [name for name, k in self.replaced.items() if k == kind]
            for kind in sorted(set(self.replaced.values()))
        }
        return {"implementation": self.implementation, "replaced": kinds, "kept": dict(self.kept)}

    def undo(self) -> None:
        """Give every module its own forward back."""
        for _, module in self.model.named_modules():
            if _kind(module):
                del module.forward
        self.replaced.clear()


def fuse(model: nn.Module, *, implementation: str = "auto") -> Fused:
    """Replace the forwards of norms, gated feed-forward blocks and LoRA layers by fused ones, where that is
    proven equal.

    A model that is fused already is taken apart first, so a second call sees what the first saw; `fuse` on a
    deep copy gives the handle that undoes the copy's.

    Args:
        implementation: "fused" replaces all of them and needs Triton on the model's device; "chunked"
            replaces LoRA layers, which need no kernel; "reference" replaces nothing; "auto" is "fused" on a
            GPU with Triton, else "chunked".
    Raises: ValueError for another name, or "fused" where Triton kernels cannot run.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"no implementation '{implementation}': choose one of {', '.join(IMPLEMENTATIONS)}")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if implementation == "auto":
        implementation = "fused" if device.type == "cuda" and launch.fused_available(device) else "chunked"
    if implementation == "fused" and not launch.fused_available(device):
        raise ValueError(
            f"fused kernels need Triton and a GPU, and this model is on {device}: use 'auto' or 'chunked'"
        )
    result = Fused(model, implementation)
    result.undo()
    matchers = {"fused": (_norm, _gated, _block, _rope, _lora), "chunked": (_lora,), "reference": ()}[
        implementation
    ]
    for name, module in model.named_modules():
        for matcher in matchers:
            try:
                found = _checked(module, matcher)
            except Kept as reason:
                result.kept[name] = str(reason)
                break
            if found:
                _replace(module, *found)
                result.replaced[name] = found[0]
                break
    return result


Replacement = tuple[str, Callable[..., Any]]


def _checked(module: nn.Module, matcher: Callable[[nn.Module], Replacement | None]) -> Replacement | None:
    found = matcher(module)
    if found and "forward" in module.__dict__:
        raise Kept("something else has replaced its forward")
    return found


def _replace(module: nn.Module, kind: str, forward: Callable[..., Any]) -> None:
    setattr(forward, _MARK, kind)
    module.forward = types.MethodType(forward, module)


def _kind(module: nn.Module) -> str | None:
    return getattr(getattr(module.__dict__.get("forward"), "__func__", None), _MARK, None)


def _norm(module: nn.Module) -> Replacement | None:
    found = _norm_functions(module)
    return found and (found[0], found[1])


def _norm_functions(module: nn.Module) -> tuple[str, Norm, AddNorm] | None:
    """(kind, forward, forward of a sum) of a norm; None for other modules."""
    if is_layer_norm(module):
        _check_width(module.normalized_shape[0])
        return "layer_norm", _layer_norm_forward, _add_layer_norm
    settings = rms_norm_offset(module)
    if settings is None:
        return None
    _check_width(module.weight.shape[0])
    eps, offset, widens = settings

    def forward(self: nn.Module, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        if torch.compiler.is_compiling():  # the compiler fuses the norm and the casts around it by itself
            return type(self).forward(self, x)
        dtype = dtype or (None if widens else x.dtype)
        return rms_norm(x, self.weight, eps, offset=offset, dtype=dtype)

    def add_norm(
        self: nn.Module, x: Tensor, residual: Tensor, dtype: torch.dtype | None
    ) -> tuple[Tensor, Tensor]:
        dtype = dtype or (None if widens else torch.promote_types(x.dtype, residual.dtype))
        return add_rms_norm(x, residual, self.weight, eps, offset=offset, dtype=dtype)

    return "rms_norm", forward, add_norm


def _layer_norm_forward(self: nn.LayerNorm, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    if torch.compiler.is_compiling():
        return type(self).forward(self, x)
    return layer_norm(x, self.weight, self.bias, self.eps, dtype=dtype or _layer_norm_dtype(x))


def _add_layer_norm(
    self: nn.LayerNorm, x: Tensor, residual: Tensor, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    return add_layer_norm(
        x, residual, self.weight, self.bias, self.eps, dtype=dtype or _layer_norm_dtype(x, residual)
    )


def _layer_norm_dtype(*tensors: Tensor) -> torch.dtype | None:
    """Autocast runs LayerNorm in float32 on GPUs, and as it comes on CPUs."""
    return torch.float32 if tensors[0].is_cuda and torch.is_autocast_enabled("cuda") else None


def _block(module: nn.Module) -> Replacement | None:
    norms = {
        name: found
        for name, child in module._modules.items()
        if child is not None and (found := _fusible_norm(child))
    }
    if pre := pre_norm_parts(module, list(norms)):
        return "add_norm", pre_norm_forward(pre, norms[pre.first][0], norms[pre.second][1], _only_multiplies)
    if post := post_norm_parts(module, list(norms)):
        return "add_norm", post_norm_forward(post, norms[post.norm][1])
    return None


def _fusible_norm(module: nn.Module) -> tuple[Norm, AddNorm] | None:
    try:
        found = _norm_functions(module)
    except Kept:  # reported where the norm itself is visited
        return None
    return found and found[1:]


def _only_multiplies(module: nn.Module) -> bool:
    """Known of gated units, and of attention that rotates: their inputs go into projections and nowhere
    else."""
    return _kind(module) in ("gated", "rope")


def _check_width(width: int) -> None:
    if width > MAX_WIDTH:
        raise Kept(f"has rows of {width} elements, and the kernels hold {MAX_WIDTH}")


def _rope(module: nn.Module) -> Replacement | None:
    found = rotating_forward(module)
    return found and ("rope", found)


def _gated(module: nn.Module) -> Replacement | None:
    parts = gated_parts(module)
    return parts and ("gated", _gated_forward(parts))


def _gated_forward(parts: GatedParts) -> Callable[[nn.Module, Tensor], Tensor]:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # the compiler fuses the activation with its neighbours by itself
            return type(self).forward(self, x)
        made = [getattr(self, name)(x) for name in parts.into]
        hidden = gated(*made, parts.kind) if len(made) == 2 else gated_pair(*made, parts.kind)
        if parts.drop:
            hidden = getattr(self, parts.drop)(hidden)
        return getattr(self, parts.out)(hidden)

    return forward


def _lora(module: nn.Module) -> Replacement | None:
    if not all(
        hasattr(module, name) for name in ("base_layer", "lora_A", "lora_B", "active_adapters", "scaling")
    ):
        return None
    reason = _why_not_lora(module)
    if reason:
        raise Kept(reason)
    return "lora_linear", _lora_forward


def _why_not_lora(module: Any) -> str | None:
    base, active = module.base_layer, module.active_adapters
    if not isinstance(base, nn.Linear):
        return "adapts a layer that is not linear"
    if len(active) != 1 or active[0] not in module.lora_A:
        return "has no single active adapter"
    if active[0] in module.lora_variant:
        return "uses a variant of LoRA (DoRA or another)"
    if any(getattr(part[active[0]], "bias", None) is not None for part in (module.lora_A, module.lora_B)):
        return "has an adapter with a bias"
    if base.weight.requires_grad:
        return "trains its base weight"
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        return None if base.weight.is_floating_point() else "has a base quantised in a way that is not 4-bit"
    if getattr(state, "packing_format_for_cpu", False):
        return "has a 4-bit base that an evaluation pass has repacked"
    return (
        None
        if base.in_features % state.blocksize == 0
        else "has 4-bit rows that are no whole number of blocks"
    )


def _lora_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    active = self.active_adapters
    if (
        args
        or kwargs
        or self.disable_adapters
        or self.merged
        or len(active) != 1
        or active[0] in self.lora_variant
    ):
        return type(self).forward(self, x, *args, **kwargs)
    base, name = self.base_layer, active[0]
    dropout = self.lora_dropout[name]
    weight, bias, state = base.weight, base.bias, getattr(base.weight, "quant_state", None)
    wanted = x.dtype
    if state is not None and base.compute_dtype is not None:
        x = x.to(base.compute_dtype)
    dropped = dropout(x) if self.training and getattr(dropout, "p", 0) > 0 else None
    y = lora_linear(
        x,
        weight,
        self.lora_A[name].weight,
        self.lora_B[name].weight,
        self.scaling[name],
        bias,
        dropped=dropped,
        four_bit=None if state is None else _four_bit(state),
    )
    return y if state is None else y.to(wanted)


@torch.no_grad()
def _four_bit(state: Any) -> FourBit:
    """bitsandbytes' state of a 4-bit weight; scales that are quantised themselves are opened."""
    scales = state.absmax
    if state.nested:
        inner = state.state2
        steps = inner.absmax.repeat_interleave(inner.blocksize)[: scales.numel()]
        scales = inner.code[scales.int()] * steps + state.offset
    return FourBit(scales, state.code, state.blocksize)
