"""Measure the training loss, under no_grad, over every example of a source."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adaptkit.errors import DataError
from adaptkit.trainer import device
from adaptkit.trainer.objective import Objective
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.row_source import Source, cut


@torch.no_grad()
def evaluate(
    module: nn.Module, objective: Objective, source: Source, ranks: Ranks, batch_size: int
) -> dict[str, float]:
    """Means over all items of `source`: "loss" in nats and the objective's metrics. Leaves `module` in
    training mode.

    Noise is that of seed 0 and epoch 0, so that runs of different seeds are measured on the same examples.

    Args:
        module: called with a batch on the ranks' device, gives (summed loss, summed metrics).
    """
    groups = cut(list(range(len(source))), batch_size)
    # every rank makes as many forward passes: FSDP communicates in them
    rounds = math.ceil(len(groups) / ranks.world_size)
    sums: dict[str, Tensor] = {}
    items = 0.0
    module.eval()
    for index in range(ranks.rank, rounds * ranks.world_size, ranks.world_size):
        weight = float(index < len(groups))
        batch = objective.prepare(source.collate(groups[index % len(groups)], seed=0, epoch=0))
        items += weight * float(objective.items(batch))
        total, metrics = module(device.send(batch, ranks.device))
        for name, value in {"loss": total, **metrics}.items():
            sums[name] = sums.get(name, 0) + weight * value.double()
    module.train()
    names = sorted(sums)
    counted = torch.tensor(items, dtype=torch.float64, device=ranks.device)
    *values, items = ranks.sum(torch.stack([*(sums[name] for name in names), counted])).tolist()
    if not items:
        raise DataError(
            "the evaluation data has no label to measure", where=source.where(0), fix="check its label masks"
        )
    return {name: value / items for name, value in zip(names, values, strict=True)}
