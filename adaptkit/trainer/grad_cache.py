"""Gradient caching: the exact gradient of a loss over a whole batch, in the memory of one microbatch.

A loss that looks at all examples at once (in-batch negatives) is a function of their features. So the
features of every microbatch are computed first, without a graph; the loss gives its gradient for each of
them; then every microbatch runs again, with the same dropout, and passes that gradient on to the weights. Two
forward passes buy batches of any size (Gao et al. 2021, arXiv 2101.06983). Across ranks the features of all
are gathered, each rank's loss counts its own examples against everybody's, and the gradients are summed, so
the result is that of one rank with the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adaptkit.trainer.objective import Batch, Contrast
from adaptkit.trainer.parallel import Ranks


def accumulate(
    module: nn.Module, objective: Contrast, batches: list[Batch], scale: float, ranks: Ranks
) -> Tensor:
    """Gradients of `scale` times the loss over all microbatches and ranks, into the weights' `grad`.

    Args:
        module: called as `module(batch, features=True)`, gives the `Features` of a batch.
    Returns: this rank's share of the summed loss, detached.
    """
    alone = len(batches) == 1  # then the graph of the first pass stays, and there is no second
    states, features, facts = [], [], []
    for batch in batches:
        states.append(_random_state(batch))
        with torch.set_grad_enabled(alone):
            of_batch, about_batch = module(batch, features=True)
        features.append(of_batch)
        facts.append(about_batch)
    mine = torch.cat([part.detach() for part in features])
    total, gradient = _loss_and_gradient(objective, mine, torch.cat(facts), scale, ranks)
    gradients = gradient.split([len(part) for part in features])
    for index, batch in enumerate(batches):
        with ranks.microbatch(module, last=index == len(batches) - 1):
            if alone:
                features[0].backward(gradients[0])
            else:
                _again(module, batch, states[index]).backward(gradients[index])
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


def _again(module: nn.Module, batch: Batch, state: list[Tensor]) -> Tensor:
    """The features once more, with the dropout of the first time."""
    torch.set_rng_state(state[0])
    for cuda in state[1:]:
        torch.cuda.set_rng_state(cuda)
    return module(batch, features=True)[0]


def _random_state(batch: Batch) -> list[Tensor]:
    on_gpu = any(isinstance(value, Tensor) and value.is_cuda for value in batch.values())
    states = [torch.get_rng_state()]
    if on_gpu:
        states.append(torch.cuda.get_rng_state())
    return states
