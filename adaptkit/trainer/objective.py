"""What is trained: an Objective turns a model and a batch into a summed loss.

The trainer counts items over all microbatches and ranks and divides once per step, so gradient accumulation
is exact for every separable objective. The model comes in and is never stored: wrappers stay the trainer's
business.

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
"""Tensors by name; LONGEST is a plain number, which must stay on the host."""
BOUNDS = "document_bounds"
"""Where a packed batch's documents begin: `models.packed.document_bounds`."""
LONGEST = "longest_document"
"""How long the longest of them is: `models.packed.longest_document`."""
ROWS = "label_rows"
"""Which positions have a label: `label_rows`."""


@dataclass
class LossOutput:
    """One batch's loss: `total` is the SUM over its items in nats; `metrics` are sums over the same items."""

    total: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """What the trainer asks of a task.

    `separable` says that the loss of a batch equals the sum over its microbatches. An objective for which it
    does not (in-batch negatives) is trained with one microbatch on one rank; or, where its loss is a function
    of features, it is a `trainer.cached.Contrast` too, and then trains exactly with any microbatches and
    ranks.

    A batch holds one `input_ids`, or several names that end so, each with its `attention_mask` where rows are
    padded.

    One whose loss does the same on every batch of the same shapes says `repeatable = True`: it may be
    compiled, and recorded once and replayed.

    An objective that changes over a run brings `at(progress) -> Objective`, the one of a step, given the
    share of steps before it. One that computes more than the model's own step brings
    `extra_flops_per_token(model, seq_len) -> float`.
    """

    @property
    def separable(self) -> bool: ...

    def prepare(self, batch: Batch) -> Batch:
        """What is best known on the host, added before the batch goes to a device: nothing on the device then
        waits for it."""

    def items(self, batch: Batch) -> Tensor:
        """Number of things averaged over: labels kept, examples, anchors; int64 scalar."""

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """Pure function of model, batch and the torch RNG (dropout)."""


@dataclass(frozen=True)
class CausalLM:
    """Next-token prediction; pretraining, SFT and LoRA differ only in the labels and in what requires a
    gradient.

    `labels` are aligned with `input_ids`; the shift happens here. Packed rows carry restarting `position_ids`
    and no attention mask.
    """

    implementation: str = "auto"
    separable = True
    repeatable = True

    def prepare(self, batch: Batch) -> Batch:
        return {**with_bounds(batch), ROWS: label_rows(shifted(batch["labels"]))}

    def items(self, batch: Batch) -> Tensor:
        return (batch["labels"][:, 1:] != ops.IGNORE_INDEX).sum()

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        return LossOutput(
            _head_loss(model, batch, shifted(batch["labels"]), self.implementation, causal=True)
        )


@dataclass(frozen=True)
class MaskedLM:
    """Prediction of masked tokens; `labels` hold ids where a token was masked and IGNORE_INDEX elsewhere."""

    implementation: str = "auto"
    separable = True
    repeatable = True

    def prepare(self, batch: Batch) -> Batch:
        return {**with_bounds(batch), ROWS: label_rows(batch["labels"])}

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
        logits_BC = model(**model_inputs(batch)).logits.float()
        labels_B = batch["labels"]
        correct = (logits_BC.argmax(-1) == labels_B).sum()
        return LossOutput(F.cross_entropy(logits_BC, labels_B, reduction="sum"), {"accuracy": correct})


def _head_loss(
    model: nn.Module, batch: Batch, targets_BT: Tensor, implementation: str, *, causal: bool
) -> Tensor:
    backbone, weight_VD, bias_V = models.split(model)
    hidden_BTD = backbone(**packed_inputs(model, batch, causal))
    return ops.linear_cross_entropy(
        hidden_BTD.flatten(0, 1),
        weight_VD,
        targets_BT.flatten(),
        bias_V=bias_V,
        rows_R=batch.get(ROWS),
        implementation=implementation,
    )


def shifted(labels_BT: Tensor) -> Tensor:
    """The label of the next token at each position; the last position has none."""
    return F.pad(labels_BT[:, 1:], (0, 1), value=ops.IGNORE_INDEX)


def label_rows(targets_BT: Tensor) -> Tensor:
    """Which of the flattened rows have a label, int64: only these reach the head."""
    return (targets_BT.flatten() != ops.IGNORE_INDEX).nonzero().flatten()


def with_bounds(batch: Batch) -> Batch:
    if "position_ids" not in batch:
        return batch
    bounds = packed.document_bounds(batch["position_ids"])
    return {**batch, BOUNDS: bounds, LONGEST: packed.longest_document(bounds, batch["position_ids"].shape[1])}


def packed_inputs(model: nn.Module, batch: Batch, causal: bool) -> dict[str, Tensor]:
    """Bounds go to models whose attention reads them; the others find documents by position ids or a block
    mask."""
    if "position_ids" in batch and packed.in_use(model):
        batch = batch if BOUNDS in batch else with_bounds(batch)
        return packed.inputs(model, model_inputs(batch), batch[BOUNDS], causal=causal, longest=batch[LONGEST])
    return model_inputs(batch)


def model_inputs(batch: Batch) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name not in ("labels", BOUNDS, LONGEST, ROWS)}
