"""Take a language model apart into backbone and output projection, for losses that never hold all logits.

Shape letters: B rows, T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptkit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_plain_logits: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def unwrap(model: nn.Module, *, keep_peft: bool = False) -> PreTrainedModel:
    """The transformers model inside DDP, torch.compile and (unless `keep_peft`) peft wrappers."""
    inner: Any = model
    while True:
        if hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod
        elif isinstance(inner, nn.parallel.DistributedDataParallel):
            inner = inner.module
        elif not keep_peft and hasattr(inner, "get_base_model") and hasattr(inner, "base_model"):
            inner = inner.get_base_model()
        else:
            return inner


def output_projection(model: nn.Module) -> nn.Module | None:
    """The module that turns the last hidden states into logits over the vocabulary; None without one."""
    inner = unwrap(model)
    if not hasattr(inner, "get_output_embeddings"):
        return None
    return inner.get_output_embeddings()


def text_config(model: nn.Module) -> Any:
    """The part of the model's config that describes the language model."""
    return unwrap(model).config.get_text_config()


@contextmanager
def _replaced_forward(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let `module` do something else inside the block."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _no_cache(inner: nn.Module) -> dict[str, bool]:
    if hasattr(inner.config, "use_cache"):
        return {"use_cache": False}
    return {}


def logits_at(model: nn.Module, batch: Mapping[str, Any], places_BS: Tensor) -> Tensor:
    """The model's logits at some places of each row, float32 [B, S, V].

    Whatever the model does to its logits is done: scaling, soft caps, a bias. Only the states at these places
    go through the projection, so the logits of all others are never held.
    """
    inner, head = unwrap(model), output_projection(model)
    if head is None:
        return _at_places(model(**batch, **_no_cache(inner)).logits, places_BS).float()
    shape, seen = batch["input_ids"].shape, []
    project_all = head.forward

    def project(hidden_BTD: Tensor) -> Tensor:
        seen.append(hidden_BTD.shape[:2])
        if hidden_BTD.shape[:2] != shape:
            return project_all(hidden_BTD)
        return _wide_projection(head, project_all, _at_places(hidden_BTD, places_BS))

    with _replaced_forward(head, project):
        logits = model(**batch, **_no_cache(inner)).logits
    if seen == [shape]:
        return logits.float()
    return _at_places(logits, places_BS).float()


def _at_places(states_BTD: Tensor, places_BS: Tensor) -> Tensor:
    return states_BTD.gather(1, places_BS[..., None].expand(-1, -1, states_BTD.shape[-1]))


def _wide_projection(head: nn.Module, forward: Callable[[Tensor], Tensor], hidden_BSD: Tensor) -> Tensor:
    """The projection in float32 where the head is a plain matrix, else as the head does it."""
    if type(head) is not nn.Linear or not head.weight.is_floating_point():
        return forward(hidden_BSD)
    bias_V = None if head.bias is None else head.bias.float()
    return functional.linear(hidden_BSD.float(), head.weight.float(), bias_V)


class Backbone:
    """Calls a language model without its vocabulary projection.

    The model runs as it is, wrappers, adapters and prediction-head transform included; only the output
    projection passes its input on during the call. So nothing here depends on the architecture.
    """

    def __init__(self, model: nn.Module, head: nn.Module):
        self.model, self.head, self.inner = model, head, unwrap(model)

    def __call__(self, **batch: Tensor | int) -> Tensor:
        """Inputs as the model takes them (no labels); returns what the projection would be given, [B, T, D].

        Raises: ModelError if the model scales or caps its logits after the projection.
        """
        seen: list[Tensor] = []

        def keep(hidden_BTD: Tensor) -> Tensor:
            seen.append(hidden_BTD)
            return hidden_BTD

        with _replaced_forward(self.head, keep):
            hidden_BTD = self.model(**batch, **_no_cache(self.inner)).logits
        self._check(hidden_BTD, seen)
        return hidden_BTD.to(seen[0].dtype)

    def _check(self, hidden_BTD: Tensor, seen: list[Tensor]) -> None:
        """Refuse a model that changes its logits: what it does to logits it now did to hidden states.

        Each model is looked at once.
        """
        if self.inner in _plain_logits or torch.compiler.is_compiling():
            return
        if len(seen) != 1 or not torch.equal(hidden_BTD.detach().to(seen[0].dtype), seen[0].detach()):
            what = "the model scales or caps its logits after the output projection"
            raise ModelError(
                f"{what}, which the fused loss would leave out",
                where=type(self.inner).__name__,
                fix="choose a base that does neither (Llama, Qwen, Mistral, GPT-NeoX, BERT, ...)",
            )
        _plain_logits.add(self.inner)


def split(model: nn.Module) -> tuple[Backbone, Tensor, Tensor | None]:
    """Take a language model apart: `F.linear(backbone(**batch), weight_VD, bias_V)` equals
    `model(**batch).logits`.

    Works for causal and masked heads, tied or not, through peft, DDP and torch.compile. Call it for each
    loss: the weight of a head with trained tokens is computed on the call, and under FSDP the weight is whole
    only after the backbone ran (take it from a second `split` then).

    Returns: the backbone, the projection [V, D] with its autograd history, its bias [V] or None.

    Raises: ModelError if there is no vocabulary projection, or an adapter sits on it.
    """
    head = output_projection(model)
    name = type(unwrap(model)).__name__
    if head is None:
        raise ModelError(
            "has no vocabulary projection", where=name, fix="load it as a causal or masked language model"
        )
    if "base_layer" in head._modules:
        fix = "leave the output head out of `targets` (all-linear does), or train the head as a whole"
        raise ModelError("an adapter sits on the output head", where=name, fix=fix)
    weight_VD = cast(Tensor, head.weight)
    if not weight_VD.is_floating_point():
        fix = "load the model again: nf4 and int8 leave the head alone"
        raise ModelError("the output head is quantised", where=name, fix=fix)
    vocab_size = text_config(model).vocab_size
    if vocab_size != weight_VD.shape[0]:
        what = f"the output head has {weight_VD.shape[0]} rows, config.vocab_size is {vocab_size}"
        raise ModelError(what, where=name)
    return Backbone(model, head), weight_VD, getattr(head, "bias", None)
