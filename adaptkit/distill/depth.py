"""A student made from its teacher's weights: some of its blocks, narrower ones, fewer tokens.

Which blocks: evenly spaced with the first and the last (DistilBERT, arXiv 1910.01108, takes every other one),
    the last
ones, or a search that takes out one block after another, each time the one whose absence costs least (as in
ShortGPT, arXiv 2403.03853, with the loss itself in place of its estimate). Only shapes that vLLM serves are
made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit import models
from adaptkit.errors import ConfigError, ModelError
from adaptkit.trainer.blocks import replaced
from adaptkit.trainer.distillation import PROJECTIONS, Kind
from adaptkit.trainer.parallel import repeated_blocks

Cut = Callable[[str, int | None, Tensor], Tensor]
SERVED = ("bert", "modernbert", "llama", "qwen3")


def evenly(num_kept: int, num_blocks: int) -> list[int]:
    """Blocks at even distances, the first and the last among them."""
    if num_kept == 1:
        return [num_blocks - 1]
    return [round(i * (num_blocks - 1) / (num_kept - 1)) for i in range(num_kept)]


def last(num_kept: int, num_blocks: int) -> list[int]:
    return list(range(num_blocks - num_kept, num_blocks))


@torch.no_grad()
def searched(num_kept: int, teacher: nn.Module, loss: Callable[[nn.Module], float]) -> list[int]:
    """Blocks that are left when those whose absence raises the loss least are taken out one by one.

    Args:
        loss: of the teacher on a few rows, called about blocks * (blocks - num_kept) times.
    """
    kept = list(range(len(repeated_blocks(teacher))))
    out: dict[int, Sequence[nn.Module]] = {}

    def without(block: int) -> float:
        with replaced(teacher, {**out, block: []}):
            return loss(teacher)

    while len(kept) > num_kept:
        # The first block of a ModernBERT has no norm of its own, so it stays where it is.
        least = min(kept[1:], key=without)
        out[least] = []
        kept.remove(least)
    return kept


def like_the_pattern(config: Any, picks: Sequence[int]) -> list[int]:
    """`picks` moved to the nearest blocks whose attention is what the same place has in the teacher's
    pattern.

    A ModernBERT's blocks see everything or a window, in turns that a server works out from the block's
    number; and its first block alone has no norm before attention.
    """
    if config.model_type != "modernbert":
        return list(picks)
    types, free, moved = config.layer_types, set(range(1, config.num_hidden_layers)), [0]
    for place, pick in list(enumerate(picks))[1:]:
        fitting = [block for block in free if block > moved[-1] and types[block] == types[place]]
        if not fitting:
            what = f"no {len(picks)} of the teacher's blocks follow its pattern of global and local attention"
            raise ModelError(what, where="student.layers", fix="keep more blocks, or use student.start=fresh")
        moved.append(min(fitting, key=lambda block: abs(block - pick)))
    return moved


def with_blocks(
    teacher: nn.Module, kind: Kind, picks: Sequence[int], seed: int, shape: Any = None, cut: Cut | None = None
) -> nn.Module:
    """A new model with copies of these blocks of `teacher` and of all around them.

    Args:
        shape: the student's config; the teacher's with fewer blocks if not given.
        cut: makes the student's weight from (its name, the number of its block, the teacher's weight); else a
            copy.
    """
    stack = block_prefix(teacher)
    config = copied(shape or teacher.config)
    config.num_hidden_layers = len(picks)
    if getattr(config, "layer_types", None):
        config.layer_types = [teacher.config.layer_types[pick] for pick in picks]
    student = models.build(config, kind, seed)
    # Blocks of the two may stand in one stack, so they must understand the same masks.
    student.set_attn_implementation(teacher.config._attn_implementation)
    source, state = teacher.state_dict(), {}
    for name in student.state_dict():
        block, origin = None, name
        if name.startswith(stack):
            number, inside = name.removeprefix(stack).split(".", 1)
            block, origin = int(number), f"{stack}{picks[int(number)]}.{inside}"
        weight = source[origin].float()
        state[name] = weight if cut is None else cut(name, block, weight)
    student.load_state_dict(state)
    return student


def block_prefix(model: nn.Module) -> str:
    """`model.layers.` or the like: what the names of the blocks' weights begin with."""
    blocks = repeated_blocks(model)
    return next(name for name, part in model.named_modules() if part is blocks[0]).removesuffix("0")


def copied(config: Any) -> Any:
    return type(config).from_dict(config.to_dict())


def check_shape(shape: str) -> None:
    """Raises: ModelError for a transformers `model_type` that no vLLM server runs."""
    if shape not in SERVED:
        fix = "use student.start=fresh, which makes a Llama or a ModernBERT"
        raise ModelError(
            f"a student of the shape '{shape}' is not served: only {', '.join(SERVED)} are",
            where="student",
            fix=fix,
        )


def check_width(width: int) -> None:
    """Raises: ConfigError unless the width suits tensor cores and groups of int4 weights."""
    step = 32 if width < 256 else 128
    if width % step:
        fix = f"choose {max(step, round(width / step) * step)}"
        raise ConfigError(f"a width of {width} is no multiple of {step}", where="student.width", fix=fix)


def add_projections(
    student: nn.Module, teacher_width: int, count: int, channels: Tensor | None = None
) -> None:
    """One linear map per block from the student's width to the teacher's, trained with it and thrown away at
    the end.

    None where the widths are equal. They start by putting each hidden unit where the teacher has it
    (`channels`), or where that means nothing, at its own number.
    """
    width = student.config.hidden_size
    if width == teacher_width:
        return
    common = min(width, teacher_width)
    start_ED = torch.zeros(teacher_width, width)
    start_ED[torch.arange(common) if channels is None else channels, torch.arange(common)] = 1.0
    maps = nn.ModuleList([nn.Linear(width, teacher_width, bias=False) for _ in range(count)])
    for each in maps:
        each.weight = nn.Parameter(start_ED.clone())
    setattr(student, PROJECTIONS, maps)


def without_projections(student: nn.Module) -> nn.Module:
    if hasattr(student, PROJECTIONS):
        delattr(student, PROJECTIONS)
    return student
