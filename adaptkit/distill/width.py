"""Choose and copy hidden units, heads and feed-forward units of a teacher: the student's width.

Importance is the mean size of an activation on a few batches of the domain's text: of a hidden unit at the
output of all norms, of a head at its output, of a feed-forward unit behind its nonlinearity (Minitron, arXiv
2407.14679, section 2.2). Hidden units are chosen once for the whole model, heads and feed-forward units in
each block.

Axis names: hidden, heads (queries), keys (key and value heads), qkv (all three in one matrix), ffn, gated
(twice ffn), vocab.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adaptkit.distill.depth import WeightCutter
from adaptkit.trainer.parallel import repeated_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Axes = tuple[str | None, ...]
# The first pattern found in a weight's name tells its axes; biases have the first of them.
_AXES: tuple[tuple[str, Axes], ...] = (
    (r"(query|q_proj)\.", ("heads", "hidden")),
    (r"(self\.key|self\.value|k_proj|v_proj)\.", ("keys", "hidden")),
    (r"Wqkv\.", ("qkv", "hidden")),
    (r"(o_proj|attn\.Wo|attention\.output\.dense)\.", ("hidden", "heads")),
    (r"(intermediate\.dense|gate_proj|up_proj)\.", ("ffn", "hidden")),
    (r"mlp\.Wi\.", ("gated", "hidden")),
    (r"(\d\.output\.dense|down_proj|mlp\.Wo)\.", ("hidden", "ffn")),
    (
        r"(word_embeddings|tok_embeddings|embed_tokens|lm_head|decoder)\.|predictions\.bias",
        ("vocab", "hidden"),
    ),
    (r"(position_embeddings|token_type_embeddings|classifier|score)\.", (None, "hidden")),
    (r"(q_norm|k_norm)\.", (None,)),
    (r"", ("hidden", "hidden")),
)
_HEAD_OUTPUT = re.compile(r"(o_proj|attn\.Wo|attention\.output\.dense)$")
_FFN_OUTPUT = re.compile(r"(^output\.dense|down_proj|mlp\.Wo)$")


@dataclass(frozen=True)
class Importance:
    """Mean activation sizes: `hidden` [D]; per block `heads` [number of key heads] and `ffn` [feed-forward
    units]."""

    hidden: Tensor
    heads: list[Tensor]
    ffn: list[Tensor]


@dataclass(frozen=True)
class SelectedUnits:
    """Indices of what stays, ascending; by block for heads (key heads, with their queries) and feed-forward
    units."""

    hidden: Tensor
    heads: list[Tensor]
    ffn: list[Tensor]
    vocab: Tensor


@torch.no_grad()
def importance(
    model: PreTrainedModel, batches: Iterable[dict[str, Tensor]], run: Callable[[nn.Module, Any], object]
) -> Importance:
    """Activation sizes of `model` while `run(model, batch)` reads each batch."""
    config, blocks = model.config, repeated_blocks(model)
    groups = key_heads(config)
    sums: dict[Any, Tensor] = {}

    def add(key: Any, activation: Tensor) -> None:
        sums[key] = sums.get(key, 0) + activation.detach().float().abs().flatten(0, -2).mean(0)

    with _hooks(model, blocks, config.hidden_size, add):
        for batch in batches:
            run(model.eval(), batch)
    heads = [sums["heads", i].view(groups, -1).mean(1) for i in range(len(blocks))]
    return Importance(sums["hidden"], heads, [sums["ffn", i] for i in range(len(blocks))])


@contextmanager
def _hooks(
    model: nn.Module, blocks: Sequence[nn.Module], width: int, add: Callable[[Any, Tensor], None]
) -> Iterator[None]:
    def norm(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.shape[-1] == width:
            add("hidden", output)

    def entering(key: Any) -> Callable[..., None]:
        return lambda module, inputs: add(key, inputs[0])

    hooks = [part.register_forward_hook(norm) for part in model.modules() if "Norm" in type(part).__name__]
    for index, block in enumerate(blocks):
        for name, part in block.named_modules():
            for kind, pattern in (("heads", _HEAD_OUTPUT), ("ffn", _FFN_OUTPUT)):
                if pattern.search(name):
                    hooks.append(part.register_forward_pre_hook(entering((kind, index))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def most_important(importance: Importance, shape: Any, blocks: Sequence[int], vocab: Tensor) -> SelectedUnits:
    """The most important units, as many as `shape` has, for each of the teacher's `blocks`."""
    return SelectedUnits(
        hidden=_top(importance.hidden, shape.hidden_size),
        heads=[_top(importance.heads[block], key_heads(shape)) for block in blocks],
        ffn=[_top(importance.ffn[block], shape.intermediate_size) for block in blocks],
        vocab=vocab,
    )


def _top(scores: Tensor, count: int) -> Tensor:
    return scores.topk(min(count, len(scores))).indices.sort().values.cpu()


def weight_cutter(selected: SelectedUnits, groups: int) -> WeightCutter:
    """Makes a student's weight from its teacher's: the selected part along each axis.

    Args:
        groups: the teacher's key heads.
    """

    def cut(name: str, block: int | None, weight: Tensor) -> Tensor:
        axes = next(axes for pattern, axes in _AXES if re.search(pattern, name))
        for dim, axis in list(enumerate(axes))[: weight.ndim]:
            if axis is not None:
                units = _units(axis, selected, block, weight.shape[dim], groups)
                weight = weight.index_select(dim, units.to(weight.device))
        return weight

    return cut


def key_heads(config: Any) -> int:
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def _units(axis: str, selected: SelectedUnits, block: int | None, size: int, groups: int) -> Tensor:
    """Selected indices along an axis of `size` in the teacher."""
    if axis == "vocab":
        return selected.vocab
    if axis == "hidden" or block is None:
        return selected.hidden
    if axis == "ffn":
        return selected.ffn[block]
    if axis == "gated":
        return _repeated(selected.ffn[block], 2, size)
    parts = 3 if axis == "qkv" else 1
    width = size // parts // groups  # units of one key head, or of all queries that share it
    units = (selected.heads[block][:, None] * width + torch.arange(width)).flatten()
    return _repeated(units, parts, size)


def _repeated(units: Tensor, parts: int, size: int) -> Tensor:
    """The same units in each of several equal parts of an axis."""
    return torch.cat([units + part * (size // parts) for part in range(parts)])
