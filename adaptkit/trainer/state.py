"""Hold everything that a run changes; save it to a checkpoint and load it from one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.run import digest
from adaptkit.trainer import optim
from adaptkit.trainer.checkpoint import Checkpoint, raw_bytes
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.result import Progress


class State:
    """Trained weights, buffers, optimizer, averages and counters of one run.

    Frozen weights are no part of it: a checkpoint names them by digest (`trained_and_frozen`).
    """

    def __init__(self, model: nn.Module, config: TrainerConfig, ranks: Ranks):
        self.ranks, self.progress = ranks, Progress()
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        saved_names = model.state_dict().keys()
        self.buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved_names}
        self.optimizer = optim.build_optimizer(self.weights, config)
        self.average: optim.WeightAverage | None = None
        if config.ema_decay:
            self.average = optim.WeightAverage(self.weights, config.ema_decay)
        self.best: dict[str, Tensor] = {}

    def remember_best(self) -> None:
        self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights, if an average is kept."""
        if self.average is None:
            yield
            return
        self.average.swap(self.weights)
        try:
            yield
        finally:
            self.average.swap(self.weights)

    @torch.no_grad()
    def select(self) -> None:
        """Leave the weights in the model that the run was asked for: best, averaged, or last."""
        chosen = self.best or self._average_values()
        for name, value in chosen.items():
            self.weights[name].copy_(value)

    def _average_values(self) -> dict[str, Tensor]:
        if self.average is None:
            return {}
        return self.average.values

    def dump(self) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
        """JSON part and whole tensors by group; a collective when weights are sharded."""
        tensors, numbers = optim.optimizer_state(self.optimizer, self.weights)
        groups = {
            "model": {**self.weights, **self.buffers},
            "optimizer": tensors,
            "average": self._average_values(),
            "best": self.best,
        }
        whole = {
            group: {name: self.ranks.whole(tensor.detach()) for name, tensor in members.items()}
            for group, members in groups.items()
            if members
        }
        return {"progress": asdict(self.progress), "optimizer": numbers}, whole

    @torch.no_grad()
    def load(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint; rank 0 reads it, the others are sent their part."""
        self.progress = Progress(**checkpoint.state["progress"])
        targets = {**self.weights, **self.buffers}
        for name, value in self._group(checkpoint, "model").items():
            targets[name].copy_(value)
        tensors, numbers = self._group(checkpoint, "optimizer"), checkpoint.state["optimizer"]
        optim.load_optimizer_state(self.optimizer, self.weights, tensors, numbers)
        if self.average:
            self.average.values.update(self._group(checkpoint, "average"))
        self.best = self._group(checkpoint, "best")

    def _group(self, checkpoint: Checkpoint, group: str) -> dict[str, Tensor]:
        whole: dict[str, Tensor] = {}
        if self.ranks.rank == 0:
            whole = checkpoint.tensors(group)
        shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in whole.items()}
        return {
            name: self.ranks.part(whole.get(name), self._like(name, *shape))
            for name, shape in self.ranks.share(shapes).items()
        }

    def _like(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The weight that a saved tensor lies beside, if it has the same shape (and so the same shards)."""
        owner = self.weights.get(name, self.weights.get(name.rpartition("|")[0]))
        if owner is not None and tuple(owner.shape) == shape and owner.dtype == dtype:
            return owner.detach()
        return torch.empty(shape, dtype=dtype, device=self.ranks.device)


def trained_and_frozen(model: nn.Module) -> dict[str, str]:
    """Digests that identify a model to its checkpoints: names and shapes of what is trained, bytes of what is
    not."""
    shapes, frozen = {}, hashlib.sha256()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            shapes[name] = [list(weight.shape), str(weight.dtype)]
        else:
            frozen.update(name.encode())
            frozen.update(raw_bytes(weight))
    return {"trained weights": digest(shapes), "frozen weights": frozen.hexdigest()}
