"""Looking into a model's stack of blocks while it runs, and running other blocks in their place.

Shape letters: B rows, T tokens, D hidden size, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from adaptkit.trainer.parallel import repeated_blocks


@dataclass
class Recorded:
    """What the blocks gave in one forward pass, by block: hidden states [B, T, D] and attention [B, H, T, T]."""

    hidden: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def recording(model: nn.Module, blocks: Sequence[int], *, attention: bool = False) -> Iterator[Recorded]:
    """Keep what these blocks of `model` give inside the context. Attention is only there under the eager implementation."""
    seen, hooks, stack = Recorded(), [], repeated_blocks(model)

    def keep_hidden(index: int) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            seen.hidden[index] = output[0] if isinstance(output, tuple) else output

        return keep

    def keep_attention(index: int) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, tuple) and len(output) > 1 and isinstance(output[1], Tensor) and output[1].ndim == 4:
                seen.attention[index] = output[1]

        return keep

    try:
        for index in blocks:
            hooks.append(stack[index].register_forward_hook(keep_hidden(index)))
            if attention:
                hooks += [part.register_forward_hook(keep_attention(index)) for part in stack[index].modules()]
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def replaced(model: nn.Module, substitutes: dict[int, Sequence[nn.Module]]) -> Iterator[None]:
    """Inside, these blocks of `model` are passed over and others run in their place, one after another; none skips the block."""
    stack = repeated_blocks(model)

    def chain(parts: Sequence[nn.Module]) -> Callable[..., Tensor]:
        def run(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            for part in parts:
                output = part(hidden_states, *args, **kwargs)
                hidden_states = output[0] if isinstance(output, tuple) else output
            return hidden_states

        return run

    try:
        for index, parts in substitutes.items():
            stack[index].forward = chain(parts)
        yield
    finally:
        for index in substitutes:
            stack[index].__dict__.pop("forward", None)
