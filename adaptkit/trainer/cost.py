"""What training steps cost in FLOPs: counted while they are taken, and beforehand, to say how many a budget
pays for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

from adaptkit import models
from adaptkit.trainer import parallel
from adaptkit.trainer.objective import Batch, Objective
from adaptkit.trainer.row_source import Order, Source, microbatches
from adaptkit.trainer.steps import steps_of_epochs, steps_within

if TYPE_CHECKING:
    from adaptkit.trainer.config import TrainerConfig

COUNTED_STEPS = 1000
"""Steps that are counted one by one before their mean stands for the rest."""


class Meter:
    """Tokens and FLOPs of batches, for one model and objective: padding costs as much as text, but is no
    token."""

    def __init__(self, model: nn.Module, objective: Objective):
        self.model, self.objective = model, objective
        self._flops: dict[int, float] = {}

    def count(self, batch: Batch) -> tuple[float, float]:
        """(tokens, FLOPs) of a training step on the batch, whose rows may come in several tensors."""
        tokens = flops = 0.0
        for name in (name for name in batch if name.endswith("input_ids")):
            positions, mask = batch[name].numel(), batch.get(name.replace("input_ids", "attention_mask"))
            if mask is not None and mask.ndim == 2:
                tokens += float(mask.sum())
            else:
                tokens += positions
            flops += positions * self._per_position(batch[name].shape[1])
        return tokens, flops

    def _per_position(self, length: int) -> float:
        if length not in self._flops:
            self._flops[length] = models.flops_per_token(self.model, length).train
            if extra := getattr(self.objective, "extra_flops_per_token", None):
                self._flops[length] += extra(self.model, length)
        return self._flops[length]


def affordable_steps(
    model: nn.Module,
    objective: Objective,
    source: Source,
    config: TrainerConfig,
    flops: float,
    *,
    epochs: float = 0,
) -> int:
    """Steps that a budget pays for, at most so many passes over the source (0: no matter how many).

    Raises: BudgetError if it does not pay for one.
    """
    most = math.inf
    if epochs:
        most = steps_of_epochs(epochs, len(source), config.global_batch_size)
    meter, order = Meter(model, objective), Order(len(source), config.global_batch_size, config.seed)
    spent, step = 0.0, 0
    while step < min(most, COUNTED_STEPS):
        cost = step_cost(meter, source, order, step, config)
        if spent + cost > flops:
            break
        spent, step = spent + cost, step + 1
    if step in (0, COUNTED_STEPS):
        mean = cost
        if step:
            mean = spent / step
        step = steps_within(flops, mean, fix="raise flops, or lower max_length or trainer.global_batch_size")
    return int(min(step, most))


def step_cost(meter: Meter, source: Source, order: Order, step: int, config: TrainerConfig) -> float:
    """FLOPs of a step on all ranks, counted on the batches that it will have."""
    world_size, cost = parallel.join(config.parallel).world_size, 0.0
    for rank in range(world_size):
        groups, epoch = microbatches(source, order, step, config.microbatch_size, rank, world_size)
        cost += sum(meter.count(source.collate(group, seed=config.seed, epoch=epoch))[1] for group in groups)
    return cost
