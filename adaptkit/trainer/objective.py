"""Turn a model and a batch into a summed loss: the objectives that a model is trained for.

The trainer counts items over all microbatches and ranks and divides once per step, so gradient accumulation
is exact for every separable objective. The model comes in and is never stored: wrappers stay the trainer's
business.

Shape suffixes: B = examples, T = tokens of a row, D = hidden size, N = B * T.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit import models, ops
from adaptkit.models import packed

Batch = Mapping[str, Tensor]
"""Tensors by name; LONGEST and WHOLE are plain numbers, which must stay on the host."""
BOUNDS = "document_bounds"
"""Where a packed batch's documents begin: `models.packed.document_bounds`."""
LONGEST = "longest_document"
"""How long the longest of them is: `models.packed.longest_document`."""
WHOLE = "whole_rows"
"""How many rows at the front are one document each: `models.packed.whole_rows`."""
ROWS = "label_rows"
"""Which positions have a label: `label_rows`."""
OURS = frozenset({"labels", BOUNDS, LONGEST, WHOLE, ROWS})
"""What a batch holds that no model takes."""
ROWS_ONLY = frozenset({"input_ids", "labels", "position_ids"})
"""What a batch of packed text holds whose rows may be put in another order."""


@dataclass
class LossOutput:
    """One batch's loss: `total` is the SUM over its items in nats; `metrics` are sums over the same items."""

    total: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """What the trainer needs from a task: the loss of a batch, and how many items it is summed over.

    `separable` says that the loss of a batch equals the sum over its microbatches. An objective for which it
    does not (in-batch negatives) is trained with one microbatch on one rank; or, where its loss is a function
    of features, it is a `Contrast` too, and then trains exactly with any microbatches and ranks.

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


Features = tuple[Tensor, Tensor]
"""Features of some examples, float [B, ...], and what the loss must know about each, int64 [B, ...]."""


class Contrast(Protocol):
    """An objective whose loss is a function of features, which `grad_cache` can train in parts."""

    def features(self, model: nn.Module, batch: Batch) -> Features:
        """Pure function of model, batch and the torch RNG (dropout)."""

    def contrast(self, features: Tensor, about: Tensor, own: slice) -> LossOutput:
        """The summed loss of the examples `own` among all of them."""


class LossModule(nn.Module):
    """Model and objective as one module, so that DDP and FSDP see a forward that returns the loss.

    The model runs in the precision of the run. `objective` may be exchanged between steps.
    """

    def __init__(self, model: nn.Module, objective: Objective, dtype: torch.dtype):
        super().__init__()
        self.model, self.objective, self.dtype = model, objective, dtype

    def forward(self, batch: Batch, *, features: bool = False) -> tuple[Tensor, Any]:
        """The loss and its metrics; or the features of an objective that is a `Contrast`."""
        device = next(iter(batch.values())).device
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            if features:
                return cast(Contrast, self.objective).features(self.model, batch)
            out = self.objective.loss(self.model, batch)
        return out.total, out.metrics


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
        batch = with_bounds(batch)  # which may put rows in another order
        return {**batch, ROWS: label_rows(shifted(batch["labels"]))}

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
        batch = with_bounds(batch)
        return {**batch, ROWS: label_rows(batch["labels"])}

    def items(self, batch: Batch) -> Tensor:
        return (batch["labels"] != ops.IGNORE_INDEX).sum()

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        return LossOutput(_head_loss(model, batch, batch["labels"], self.implementation, causal=False))


@dataclass(frozen=True)
class OnePerRow:
    """Items are rows, and the batch goes to the model as it is.

    Attributes:
        by_bounds: the padding behind a text is a document of its own to the model's attention, so no mask is
            needed, and nothing depends on the batch but its shape (see `takes_padding_as_documents`).
    """

    by_bounds: bool = False
    separable = True

    @property
    def repeatable(self) -> bool:
        return self.by_bounds

    def prepare(self, batch: Batch) -> Batch:
        bounds = packed.padding_bounds(batch["attention_mask"]) if self.by_bounds else None
        if bounds is None:
            return batch
        longest = packed.longest_document(bounds, batch["input_ids"].shape[1])
        return {**batch, BOUNDS: bounds, LONGEST: longest}  # type: ignore[dict-item]

    def items(self, batch: Batch) -> Tensor:
        return torch.tensor(len(batch["labels"]))

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the model's head gives each row, float32."""
        inputs: Mapping[str, Tensor | int] = model_inputs(batch)
        if BOUNDS in batch:
            inputs = packed.padded_inputs(model_inputs(batch), batch[BOUNDS], int(batch[LONGEST]))
        return cast(Tensor, model(**inputs).logits.float())


@dataclass(frozen=True)
class Classification(OnePerRow):
    """One label per row, through the model's own classification head.

    `labels` is int64 [B], or float [B, C] where rows say how likely each label is: a row then counts as right
    where the likeliest is predicted.
    """

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        logits_BC = self.outputs(model, batch)
        labels = batch["labels"]
        labels_B = labels.argmax(-1) if labels.dim() == 2 else labels
        correct = (logits_BC.argmax(-1) == labels_B).sum()
        return LossOutput(F.cross_entropy(logits_BC, labels, reduction="sum"), {"accuracy": correct})


@dataclass(frozen=True)
class LabelSets(OnePerRow):
    """Any number of labels per row, each a yes or no of its own; `labels` is 0 or 1, float [B, L]."""

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        logits_BL = self.outputs(model, batch)
        return LossOutput(F.binary_cross_entropy_with_logits(logits_BL, batch["labels"], reduction="sum"))


@dataclass(frozen=True)
class Regression(OnePerRow):
    """One number per row, by squared error; `labels` is float [B]."""

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        outputs_B = self.outputs(model, batch)[:, 0]
        return LossOutput(F.mse_loss(outputs_B, batch["labels"], reduction="sum"))


@dataclass(frozen=True)
class TokenLabels:
    """One label per word, at its first token; `labels` holds IGNORE_INDEX at all others, int64 [B, T]."""

    separable = True

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def items(self, batch: Batch) -> Tensor:
        return (batch["labels"] != ops.IGNORE_INDEX).sum()

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        logits_NC = model(**model_inputs(batch)).logits.float().flatten(0, 1)
        labels_N = batch["labels"].flatten()
        correct = (logits_NC.argmax(-1) == labels_N).sum()
        loss = F.cross_entropy(logits_NC, labels_N, ignore_index=ops.IGNORE_INDEX, reduction="sum")
        return LossOutput(loss, {"accuracy": correct})


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
    """The batch with what is known of its documents. Where that is faster, rows that are one document come
    first: the loss is a sum over rows, so their order is free."""
    if "position_ids" not in batch:
        return batch
    dense = packed.cudnn_is_faster() and not set(batch) - ROWS_ONLY
    if dense:
        order = packed.whole_rows_first(batch["position_ids"])
        batch = {name: value[order] for name, value in batch.items()}
    bounds, (rows, length) = packed.document_bounds(batch["position_ids"]), batch["position_ids"].shape
    whole = packed.whole_rows(bounds, rows, length) if dense else 0
    about = {BOUNDS: bounds, LONGEST: packed.longest_document(bounds, length), WHOLE: whole}
    return {**batch, **about}  # type: ignore[dict-item]


def packed_inputs(model: nn.Module, batch: Batch, causal: bool) -> Mapping[str, Tensor | int]:
    """Bounds go to models whose attention reads them; the others find documents by position ids or a block
    mask."""
    if "position_ids" not in batch or not packed.in_use(model):
        return model_inputs(batch)
    if BOUNDS not in batch:
        batch = with_bounds(batch)
    longest, whole = int(batch[LONGEST]), int(batch[WHOLE])
    return packed.inputs(
        model, model_inputs(batch), batch[BOUNDS], causal=causal, longest=longest, whole=whole
    )


def model_inputs(batch: Batch) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name not in OURS}
