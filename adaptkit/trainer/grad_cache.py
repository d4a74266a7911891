"""Gradient caching: the exact gradient of a loss over a whole batch, in the memory of one microbatch.

A loss that looks at all examples at once (in-batch negatives) is a function of their features. So the
features of every microbatch are computed first, without a graph; the loss gives its gradient for each of
them; then every microbatch runs again, with the same dropout, and passes that gradient on to the weights. Two
forward passes buy batches of any size (Gao et al. 2021, arXiv 2101.06983). Across ranks the features of all
are gathered, each rank's loss counts its own examples against everybody's, and the gradients are summed, so
the result is that of one rank with the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from adaptkit.trainer.objective import Batch, LossOutput
from adaptkit.trainer.parallel import Ranks

Features = tuple[Tensor, Tensor]
"""Features of some examples, float [B, ...], and what the loss must know about each, int64 [B, ...]."""


class Contrast(Protocol):
    """An objective whose loss is a function of features."""

    def features(self, model: nn.Module, batch: Batch) -> Features:
        """Pure function of model, batch and the torch RNG (dropout)."""

    def contrast(self, features: Tensor, about: Tensor, own: slice) -> LossOutput:
        """The summed loss of the examples `own` among all of them."""


def accumulate(
    module: Callable[..., Features], objective: Contrast, batches: list[Batch], scale: float, ranks: Ranks
) -> Tensor:
    """Gradients of `scale` times the loss over all microbatches and ranks, into the weights' `grad`.

    Args:
        module: called as `module(batch, features=True)`.
    Returns: this rank's share of the summed loss, detached.
    """
    alone = len(batches) == 1  # then the graph of the first pass is kept, and there is no second
    states, found = [], []
    for batch in batches:
        states.append(_random_state(batch))
        with torch.set_grad_enabled(alone):
            found.append(module(batch, features=True))
    mine = torch.cat([features.detach() for features, _ in found])
    total, cached = _loss_and_gradient(
        objective, mine, torch.cat([about for _, about in found]), scale, ranks
    )
    sizes = [len(features) for features, _ in found]
    for index, (batch, gradient) in enumerate(zip(batches, cached.split(sizes), strict=True)):
        with ranks.microbatch(module, last=index == len(batches) - 1):
            features = found[0][0] if alone else _again(module, batch, states[index])
            features.backward(gradient)
    return total


def _loss_and_gradient(
    objective: Contrast, mine: Tensor, about: Tensor, scale: float, ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """This rank's loss, and the gradient of everybody's loss for this rank's features."""
    own = slice(ranks.rank * len(mine), (ranks.rank + 1) * len(mine))
    features = _gathered(mine, ranks).requires_grad_()
    total = objective.contrast(features, _gathered(about, ranks), own).total
    (gradient,) = torch.autograd.grad(total * scale, features)
    return total.detach(), ranks.sum(gradient)[own]


def _gathered(part: Tensor, ranks: Ranks) -> Tensor:
    """The parts of all ranks, which are of one shape, one after another."""
    if ranks.world_size == 1:
        return part
    whole = part.new_zeros((ranks.world_size, *part.shape))
    whole[ranks.rank] = part
    return ranks.sum(whole).flatten(0, 1)


def _again(module: Callable[..., Features], batch: Batch, state: list[Tensor]) -> Tensor:
    """The features once more, with the dropout of the first time."""
    torch.set_rng_state(state[0])
    for cuda in state[1:]:
        torch.cuda.set_rng_state(cuda)
    return module(batch, features=True)[0]


def _random_state(batch: Batch) -> list[Tensor]:
    on_gpu = any(isinstance(value, Tensor) and value.is_cuda for value in batch.values())
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if on_gpu else [])
