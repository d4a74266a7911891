"""Choose and copy blocks of a teacher: the student's depth.

Which blocks: evenly spaced with the first and the last (DistilBERT, arXiv 1910.01108, takes every other one),
the last ones, or a search that takes out one block after another, each time the one whose loss costs least
(as in ShortGPT, arXiv 2403.03853, with the training loss itself in place of its estimate).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adaptkit import models
from adaptkit.errors import ModelError
from adaptkit.trainer.blocks import replaced
from adaptkit.trainer.distillation import Kind
from adaptkit.trainer.parallel import repeated_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WeightCutter = Callable[[str, int | None, Tensor], Tensor]
"""(name of a weight, number of its block, the teacher's weight) -> the student's weight."""


def evenly_spaced(num_kept: int, num_blocks: int) -> list[int]:
    """Blocks at even distances, the first and the last among them."""
    if num_kept == 1:
        return [num_blocks - 1]
    return [round(i * (num_blocks - 1) / (num_kept - 1)) for i in range(num_kept)]


def last_blocks(num_kept: int, num_blocks: int) -> list[int]:
    """The last blocks."""
    return list(range(num_blocks - num_kept, num_blocks))


@torch.no_grad()
def search_blocks(num_kept: int, teacher: nn.Module, loss: Callable[[nn.Module], float]) -> list[int]:
    """Blocks that are left when those that the loss misses least are taken out one by one.

    Args:
        loss: of the teacher on a few rows, called about blocks * (blocks - num_kept) times.
    """
    left = list(range(len(repeated_blocks(teacher))))
    taken_out: dict[int, Sequence[nn.Module]] = {}

    def loss_without(block: int) -> float:
        with replaced(teacher, {**taken_out, block: []}):
            return loss(teacher)

    while len(left) > num_kept:
        # The first block of a ModernBERT has no norm of its own, so it stays where it is.
        least = min(left[1:], key=loss_without)
        taken_out[least] = []
        left.remove(least)
    return left


def follow_pattern(config: Any, blocks: Sequence[int]) -> list[int]:
    """`blocks` moved to the nearest ones whose attention is what the same place has in the teacher's pattern.

    A ModernBERT's blocks see everything or a window, in turns that a server works out from the block's
    number; and its first block alone has no norm before attention.
    """
    if config.model_type != "modernbert":
        return list(blocks)
    types, free, moved = config.layer_types, set(range(1, config.num_hidden_layers)), [0]
    for place, wanted in list(enumerate(blocks))[1:]:
        fitting = [block for block in free if block > moved[-1] and types[block] == types[place]]
        if not fitting:
            what = (
                f"no {len(blocks)} of the teacher's blocks follow its pattern of global and local attention"
            )
            raise ModelError(what, where="student.layers", fix="keep more blocks, or use student.start=fresh")
        moved.append(min(fitting, key=lambda block: abs(block - wanted)))
    return moved


def copy_blocks(
    teacher: PreTrainedModel,
    kind: Kind,
    blocks: Sequence[int],
    seed: int,
    shape: Any = None,
    cut: WeightCutter | None = None,
) -> PreTrainedModel:
    """A new model with copies of these blocks of `teacher` and of all around them.

    Args:
        shape: the student's config; the teacher's with fewer blocks if not given.
        cut: makes the student's weights; copies if not given.
    """
    stack = block_prefix(teacher)
    config = copy_config(shape or teacher.config)
    config.num_hidden_layers = len(blocks)
    if getattr(config, "layer_types", None):
        config.layer_types = [teacher.config.layer_types[block] for block in blocks]
    student = models.build(config, kind, seed)
    # Blocks of the two may stand in one stack, so they must understand the same masks.
    student.set_attn_implementation(teacher.config._attn_implementation)
    weights, state = teacher.state_dict(), {}
    for name in student.state_dict():
        block, origin = None, name
        if name.startswith(stack):
            number, inside = name.removeprefix(stack).split(".", 1)
            block, origin = int(number), f"{stack}{blocks[int(number)]}.{inside}"
        state[name] = weights[origin].float()
        if cut is not None:
            state[name] = cut(name, block, state[name])
    student.load_state_dict(state)
    return student


def block_prefix(model: nn.Module) -> str:
    """`model.layers.` or the like: what the names of the blocks' weights begin with."""
    first = repeated_blocks(model)[0]
    return next(name for name, part in model.named_modules() if part is first).removesuffix("0")


def copy_config(config: Any) -> Any:
    """A transformers config of its own."""
    return type(config).from_dict(config.to_dict())
