"""Record what a model's blocks give while it runs, or run other blocks in their place.

Shape letters: B rows, T tokens, D hidden size, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.trainer.parallel import repeated_blocks


@dataclass
class Recorded:
    """What the blocks gave in one forward pass, by block: hidden states [B, T, D] and attention [B, H, T,
    T]."""

    hidden: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def recording(model: nn.Module, blocks: Sequence[int], *, attention: bool = False) -> Iterator[Recorded]:
    """Keep what these blocks of `model` give inside the context. Attention is only there under the eager
    implementation."""
    seen, hooks, stack = Recorded(), [], repeated_blocks(model)

    def keep_hidden(index: int) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            seen.hidden[index] = hidden_of(output)

        return keep

    def keep_attention(index: int) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if (
                isinstance(output, tuple)
                and len(output) > 1
                and isinstance(output[1], Tensor)
                and output[1].ndim == 4
            ):
                seen.attention[index] = output[1]

        return keep

    try:
        for index in blocks:
            hooks.append(stack[index].register_forward_hook(keep_hidden(index)))
            if attention:
                hooks += [
                    part.register_forward_hook(keep_attention(index)) for part in stack[index].modules()
                ]
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def replaced(model: nn.Module, substitutes: Mapping[int, Sequence[nn.Module]]) -> Iterator[None]:
    """Inside, these blocks of `model` are passed over and others run in their place, one after another; none
    skips the block.

    A block that is passed over gets a gradient of zero, for ranks wait for the gradient of every weight.
    """
    stack = repeated_blocks(model)

    def chain(block: nn.Module, parts: Sequence[nn.Module]) -> Callable[..., Tensor]:
        def run(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            for part in parts:
                hidden_states = hidden_of(part(hidden_states, *args, **kwargs))
            if torch.is_grad_enabled():
                hidden_states = hidden_states + nothing(block.parameters())
            return hidden_states

        return run

    try:
        for index, parts in substitutes.items():
            stack[index].forward = chain(stack[index], parts)
        yield
    finally:
        for index in substitutes:
            stack[index].__dict__.pop("forward", None)


@contextmanager
def only_blocks(model: nn.Module, wanted: bool) -> Iterator[list[nn.Parameter]]:
    """Inside, if `wanted`, a forward pass leads gradients to the model's blocks only; gives the weights that
    get none."""
    idle = []
    if wanted:
        idle = outside(model)
    try:
        for weight in idle:
            weight.requires_grad_(False)
        yield idle
    finally:
        for weight in idle:
            weight.requires_grad_(True)


def hidden_of(output: Any) -> Any:
    """The hidden states among what a block gives; some give a tuple that begins with them."""
    if isinstance(output, tuple):
        return output[0]
    return output


def outside(model: nn.Module) -> list[nn.Parameter]:
    """The trained weights that are in no block: embeddings, heads, the last norm."""
    inside = {id(weight) for block in repeated_blocks(model) for weight in block.parameters()}
    return [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in inside]


def nothing(weights: Iterable[nn.Parameter]) -> Tensor | float:
    """Zero, with a gradient of zero for these weights."""
    return 0.0 * sum(weight.sum() for weight in weights if weight.requires_grad)
