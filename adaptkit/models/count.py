"""Parameters and floating-point operations of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from adaptkit.models.head import output_projection, text_config, unwrap


@dataclass(frozen=True)
class ParamCount:
    """Numbers of parameters.

    `non_embedding` leaves out token and position tables and the output projection (Kaplan's N).
    """

    total: int
    trainable: int
    non_embedding: int


@dataclass(frozen=True)
class Flops:
    """Floating-point operations per token (a multiply-add is two)."""

    forward: float
    train: float


def param_count(model: nn.Module) -> ParamCount:
    """Count each weight once, tied ones too, and 4-bit ones at their unpacked size."""
    inner = unwrap(model)
    head = output_projection(inner)
    vocabulary = {id(p) for m in inner.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    if head is not None:
        vocabulary |= {id(p) for p in head.parameters()}
    sizes = {id(p): (_size(p), p.requires_grad) for p in model.parameters()}
    return ParamCount(
        total=sum(size for size, _ in sizes.values()),
        trainable=sum(size for size, trains in sizes.values() if trains),
        non_embedding=sum(size for key, (size, _) in sizes.items() if key not in vocabulary),
    )


def flops_per_token(model: nn.Module, seq_len: int) -> Flops:
    """Matrix-product FLOPs per token at `seq_len`, forward and for one training step.

    Forward: 2 per matmul weight (output projection included, tied or not), and 4 * layers * width * seq_len
    for attention, not halved for causality. Backward: the same again for activations above the lowest trained
    weight, and 2 per trained matmul weight. So full training costs 3x forward, and a frozen base about 2x
    plus the adapters.
    Source: Kaplan et al. 2020 (arXiv 2001.08361) section 2.1; PaLM (arXiv 2204.02311) appendix B.
    """
    forward = through = trained = 0.0
    below = False  # is there a trained weight at or below this place?
    for weight, module, share in _weights(model):
        below = below or weight.requires_grad
        if isinstance(module, nn.Embedding) or share == 0:
            continue
        size = _size(weight) * share
        forward += size
        through += size * below
        trained += size * weight.requires_grad
    attention = _attention_flops(text_config(model), seq_len)
    passed_through = through / forward if forward else 0.0
    backward = 2.0 * through + 2.0 * trained + 2.0 * attention * passed_through
    return Flops(forward=2.0 * forward + attention, train=2.0 * forward + attention + backward)


def _attention_flops(config: Any, seq_len: int) -> float:
    """Scores and sums of one token's attention in all layers; nothing for layers that have none."""
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int) or heads < 1:
        return 0.0
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    layers = config.num_hidden_layers
    types = getattr(config, "layer_types", None)
    if types:
        layers = sum("attention" in kind for kind in types)
    return 4.0 * layers * heads * width * seq_len


def _weights(model: nn.Module) -> Iterator[tuple[nn.Parameter, nn.Module, float]]:
    """(parameter, its module, share of tokens that pass it) in order.

    The share is 0 for a parameter that takes no part in a matrix product.
    """
    config = text_config(model)
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 1
    active = 1.0
    if experts > 1:
        active = (getattr(config, "num_experts_per_tok", None) or 1) / experts
    share_of = {2: 1.0, 3: active}  # of matrices, and of stacks of the experts' matrices
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            yield weight, module, share_of.get(len(_shape(weight)), 0.0)


def _shape(weight: Tensor) -> tuple[int, ...]:
    state = getattr(weight, "quant_state", None)  # bitsandbytes packs two 4-bit weights into a byte
    if state is not None:
        return tuple(state.shape)
    return tuple(weight.shape)


def _size(weight: Tensor) -> int:
    size = 1
    for dim in _shape(weight):
        size *= dim
    return size
