"""The losses of an encoder: find each text's partner among all texts of the batch, or agree with given
scores.

Shape suffixes: B = examples, K = texts of an example (anchor, positive, negatives), N = B * K, T = tokens, D
= vector size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit import models, ops
from adaptkit.models.sentence.pooling import Pooling, cut, pool
from adaptkit.trainer.objective import Batch, LossOutput

MARGIN = 0.3
"""Distance that `margin` and `triplet` ask for between texts that do not belong together, by default."""
PairKind = Literal["cosine", "margin", "triplet"]


class PooledModel(nn.Module):
    """A transformer and what its pooled vectors go through: Dense modules, which stay, or a decoder, which is
    thrown away.

    Called as the transformer is; `after_pooling` is for the objective to call.
    """

    def __init__(self, transformer: nn.Module, after_pooling: nn.Module):
        super().__init__()
        self.transformer, self.after_pooling = transformer, after_pooling

    @property
    def config(self) -> Any:
        """The transformer's."""
        return models.unwrap(self.transformer).config

    def forward(self, **batch: Any) -> Any:
        return self.transformer(**batch)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Of the transformer; what stands behind it is small, or shares its weights."""
        models.unwrap(self.transformer).gradient_checkpointing_enable(**options)


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE with in-batch and hard negatives over cosine similarity, at one or several sizes of the
    vectors.

    Every other example's texts are negatives, hard ones included, unless they are known to answer the anchor
    as well. Its loss is a function of the vectors, so batches of any size train exactly through
    `trainer.grad_cache`.

    Attributes:
        temperature: divides the cosines.
        symmetric: also find the anchor from its positive, among all anchors.
        dimensions: sizes that the vectors will be cut to (Matryoshka, arXiv 2205.13147); empty: the whole one
            alone.
        weights: what the loss at each size counts; empty: all the same. Only their proportions matter.
        margin: in-batch negatives closer to the anchor than its positive by more than this are taken for
            unknown positives and left out; 0 leaves none out.
    """

    pooling: Pooling = "mean"
    temperature: float = 0.05
    symmetric: bool = False
    dimensions: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    margin: float = 0.0
    implementation: str = "auto"
    separable = False

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def items(self, batch: Batch) -> Tensor:
        return torch.tensor(len(batch["order"]))

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        return self.contrast(*self.features(model, batch), slice(None))

    def features(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pooled vectors [B, K, D] and the groups of their texts [B, K]."""
        return vectors(model, batch, self.pooling), batch["groups"]

    def contrast(self, features: Tensor, about: Tensor, own: slice) -> LossOutput:
        """The loss of the anchors `own` against the texts of all examples."""
        with torch.autocast(features.device.type, enabled=False):
            sizes = self.dimensions or (features.shape[-1],)
            totals = [self._at_size(cut(features, size), about, own) for size in sizes]
        return LossOutput(weighted(totals, self.weights))

    def _at_size(self, vectors_BKD: Tensor, groups_BK: Tensor, own: slice) -> Tensor:
        anchors_BD, others = vectors_BKD[:, 0], vectors_BKD[:, 1:]
        at_B = torch.arange(len(anchors_BD), device=anchors_BD.device)[own]
        to_others = self._info_nce(
            anchors_BD[own], others.flatten(0, 1), at_B * others.shape[1], groups_BK[:, 1:].flatten()
        )
        if not self.symmetric:
            return to_others
        # the op's own symmetric form would look for the anchor among this rank's alone
        to_anchors = self._info_nce(vectors_BKD[own, 1], anchors_BD, at_B, groups_BK[:, 0])
        return (to_others + to_anchors) / 2

    def _info_nce(self, queries: Tensor, candidates: Tensor, labels: Tensor, groups_C: Tensor) -> Tensor:
        return ops.info_nce(
            queries,
            candidates,
            labels,
            groups_C=groups_C,
            temperature=self.temperature,
            margin=self.margin,
            implementation=self.implementation,
        )


@dataclass(frozen=True)
class Scored:
    """Losses of an example on its own, over the cosine distance `1 - cos`.

    cosine: squared error of the cosine against the score, scaled to 0..1.
    margin: pairs labelled 1 come together, others are pushed `margin` apart (Hadsell et al. 2006).
    triplet: the positive is nearer than each negative by `margin` (arXiv 1503.03832).
    """

    kind: PairKind
    pooling: Pooling = "mean"
    dimensions: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    margin: float = MARGIN
    separable = True

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def items(self, batch: Batch) -> Tensor:
        return torch.tensor(len(batch["order"]))

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        vectors_BKD = vectors(model, batch, self.pooling)
        sizes = self.dimensions or (vectors_BKD.shape[-1],)
        with torch.autocast(vectors_BKD.device.type, enabled=False):
            totals = [self._at_size(cut(vectors_BKD, size), batch["targets"]) for size in sizes]
        return LossOutput(weighted(totals, self.weights))

    def _at_size(self, vectors_BKD: Tensor, targets_B: Tensor) -> Tensor:
        cosines = torch.einsum("bd,bkd->bk", vectors_BKD[:, 0], vectors_BKD[:, 1:])
        if self.kind == "triplet":
            return F.relu(self.margin + cosines[:, 1:] - cosines[:, :1]).mean(1).sum()
        cosines_B = cosines[:, 0]
        if self.kind == "cosine":
            return (cosines_B - targets_B).square().sum()
        apart_B = 1 - cosines_B
        return torch.where(targets_B > 0.5, apart_B.square(), F.relu(self.margin - apart_B).square()).sum()


def weighted(totals: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """The mean of the losses at several sizes, each counting its weight; without weights, the same."""
    stacked = torch.stack(totals)
    if not weights:
        return stacked.mean()
    shares = torch.tensor(weights, dtype=stacked.dtype, device=stacked.device)
    return (stacked * shares).sum() / shares.sum()


def vectors(model: nn.Module, batch: Batch, pooling: Pooling) -> Tensor:
    """Vectors of a batch of texts in several tensors of like lengths, [B, K, D] in the order of the examples;
    not normalised."""
    pooled = []
    for name in (name for name in batch if name.endswith("input_ids")):
        mask_NT = batch[name.replace("input_ids", "attention_mask")]
        states_NTD = model(input_ids=batch[name], attention_mask=mask_NT).last_hidden_state
        pooled.append(pool(states_NTD, mask_NT, pooling))
    vectors_ND = torch.cat(pooled)
    if isinstance(model, PooledModel):
        vectors_ND = model.after_pooling(vectors_ND)
    return vectors_ND[batch["order"]]


@dataclass(frozen=True)
class LocalisedContrast:
    """Tell the document that answers a question from those that the first stage takes for it: cross-entropy
    of the right one among the scores of all that are shown (localised contrastive estimation, arXiv
    2101.08751).

    A question's documents come in one microbatch, so nothing depends on how a batch is cut.
    """

    separable = True

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def items(self, batch: Batch) -> Tensor:
        return torch.tensor(len(batch["order"]))

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        scores_BK = pair_scores(model, batch)
        first_B = torch.zeros(len(scores_BK), dtype=torch.int64, device=scores_BK.device)
        correct = (scores_BK.argmax(1) == first_B).sum()
        return LossOutput(F.cross_entropy(scores_BK, first_B, reduction="sum"), {"accuracy": correct})


def pair_scores(model: nn.Module, batch: Batch) -> Tensor:
    """A reranker's scores of a batch of rows in several tensors of like lengths, float32 [B, K]."""
    parts = []
    for part in (name.removesuffix("input_ids") for name in batch if name.endswith("input_ids")):
        inputs = {name.removeprefix(part): batch[name] for name in batch if name.startswith(part)}
        parts.append(model(**inputs).logits[:, 0].float())
    return torch.cat(parts)[batch["order"]]
