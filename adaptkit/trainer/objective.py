"""What is trained: an Objective turns a model and a batch into a summed loss.

The trainer counts items over all microbatches and ranks and divides once per step, so gradient accumulation is exact
for every separable objective. The model comes in and is never stored: wrappers stay the trainer's business.

Shape suffixes: B = examples, T = tokens of a row, D = hidden size, N = B * T.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit import models, ops
from adaptkit.models import packed

Batch = Mapping[str, Tensor]
BOUNDS = "document_bounds"
"""Where a packed batch's documents begin: `models.packed.document_bounds`."""


@dataclass
class LossOutput:
    """One batch's loss: `total` is the SUM over its items in nats; `metrics` are sums over the same items."""

    total: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """What the trainer asks of a task.

    `separable` says that the loss of a batch equals the sum over its microbatches. An objective for which it does not
    (in-batch negatives) is trained with one microbatch, or brings its own
    `accumulate(model, microbatches, scale) -> LossOutput`, which calls backward on `total * scale` in its own way.
    """

    separable: bool

    def prepare(self, batch: Batch) -> Batch:
        """What is best known on the host, added before the batch goes to a device: nothing on the device then waits for it."""

    def items(self, batch: Batch) -> Tensor:
        """Number of things averaged over: labels kept, examples, anchors; int64 scalar."""

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """Pure function of model, batch and the torch RNG (dropout)."""


@dataclass(frozen=True)
class CausalLM:
    """Next-token prediction; pretraining, SFT and LoRA differ only in the labels and in what requires a gradient.

    `labels` are aligned with `input_ids`; the shift happens here. Packed rows carry restarting `position_ids` and no
    attention mask.
    """

    implementation: str = "auto"
    separable = True

    def prepare(self, batch: Batch) -> Batch:
        return _with_bounds(batch)

    def items(self, batch: Batch) -> Tensor:
        return (batch["labels"][:, 1:] != ops.IGNORE_INDEX).sum()

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        labels_BT = batch["labels"]
        targets_BT = torch.full_like(labels_BT, ops.IGNORE_INDEX)
        targets_BT[:, :-1] = labels_BT[:, 1:]
        return LossOutput(_head_loss(model, batch, targets_BT, self.implementation, causal=True))


@dataclass(frozen=True)
class MaskedLM:
    """Prediction of masked tokens; `labels` hold ids where a token was masked and IGNORE_INDEX elsewhere."""

    implementation: str = "auto"
    separable = True

    def prepare(self, batch: Batch) -> Batch:
        return _with_bounds(batch)

    def items(self, batch: Batch) -> Tensor:
        return (batch["labels"] != ops.IGNORE_INDEX).sum()

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        return LossOutput(_head_loss(model, batch, batch["labels"], self.implementation, causal=False))


@dataclass(frozen=True)
class Classification:
    """One label per row, through the model's own classification head."""

    separable = True

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def items(self, batch: Batch) -> Tensor:
        return torch.tensor(len(batch["labels"]))

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        logits_BC = model(**_inputs(batch)).logits.float()
        labels_B = batch["labels"]
        correct = (logits_BC.argmax(-1) == labels_B).sum()
        return LossOutput(F.cross_entropy(logits_BC, labels_B, reduction="sum"), {"accuracy": correct})


def _head_loss(model: nn.Module, batch: Batch, targets_BT: Tensor, implementation: str, *, causal: bool) -> Tensor:
    backbone, weight_VD, bias_V = models.split(model)
    hidden_BTD = backbone(**_packed_inputs(model, batch, causal))
    return ops.linear_cross_entropy(
        hidden_BTD.flatten(0, 1), weight_VD, targets_BT.flatten(), bias_V=bias_V, implementation=implementation
    )


def _with_bounds(batch: Batch) -> Batch:
    if "position_ids" not in batch:
        return batch
    return {**batch, BOUNDS: packed.document_bounds(batch["position_ids"])}


def _packed_inputs(model: nn.Module, batch: Batch, causal: bool) -> dict[str, Tensor]:
    """Bounds go to models whose attention reads them; the others find documents by position ids or a block mask."""
    if "position_ids" in batch and packed.in_use(model):
        batch = batch if BOUNDS in batch else _with_bounds(batch)
        return packed.inputs(model, _inputs(batch), batch[BOUNDS], causal=causal)
    return _inputs(batch)


def _inputs(batch: Batch) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name not in ("labels", BOUNDS)}
