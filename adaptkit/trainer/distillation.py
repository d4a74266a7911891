"""Distillation as an objective of the one trainer: a weighted sum of losses, most of them against a teacher.

    cross_entropy               the data's own labels
    forward_kl reverse_kl jsd   the teacher's distribution, per token or text (arXiv 1503.02531, 2306.08543)
    hidden attention            what the blocks give, layer against layer (TinyBERT, arXiv 1909.10351)
    replacing                   the student's blocks among the teacher's, more from step to step, judged by
                                labels; then the student alone (BERT-of-Theseus, arXiv 2002.02925);
                                replacing_constant: half of them
    on_policy                   reverse KL on what the student writes (GKD, arXiv 2306.13649); with reverse_kl
                                beside it, the two weights are GKD's shares of the student's text and the data
    cosine mse margin           the teacher's text embeddings, and the differences between its scores

Shape suffixes: B = rows, T = tokens, D = hidden size, E = the teacher's, V = vocabulary, C = classes,
H = heads, N = B * T.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit import models, ops
from adaptkit.models.head import unwrap
from adaptkit.trainer.blocks import Recorded, nothing, only_blocks, outside, recording, replaced
from adaptkit.trainer.objective import Batch, LossOutput, model_inputs, packed_inputs, with_bounds
from adaptkit.trainer.row_source import mix
from adaptkit.trainer.sampling import continued
from adaptkit.trainer.teacher_signal import Signal, Teacher

Kind = Literal["causal", "masked", "classifier", "encoder"]
DIVERGENCES = ("forward_kl", "reverse_kl", "jsd")
LAYERWISE = ("hidden", "attention")
REPLACING = ("replacing", "replacing_constant")
EMBEDDING = ("cosine", "mse", "margin")
STORED = ("teacher_ids", "teacher_logprobs")
"""Keys of a batch that a stored teacher reads: [B, T, K] token ids and log-probabilities."""
PROJECTIONS = "distillation_projections"
FIRST_RATE, CONSTANT_RATE = 0.3, 0.5
RISE = 0.5
"""Blocks are replaced for this share of the run, the curriculum rising from FIRST_RATE to 1; then the student
learns alone."""


@dataclass(frozen=True)
class Layout:
    """Which teacher blocks each student block stands for: student block i for the teacher's `groups[i]`, in
    order."""

    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def even(cls, num_student: int, num_teacher: int) -> Layout:
        """Neighbouring blocks in groups of sizes that differ by at most one."""
        ends = [round(i * num_teacher / num_student) for i in range(num_student + 1)]
        return cls(tuple(tuple(range(a, b)) for a, b in zip(ends, ends[1:], strict=False)))

    @property
    def last(self) -> list[int]:
        """The teacher block that each student block is compared with: the last of its group (TinyBERT's
        uniform map)."""
        return [group[-1] for group in self.groups]


@dataclass(frozen=True)
class Distillation:
    """The weighted sum of `losses`, for any kind of model.

    Attributes:
        layout: needed by `hidden`, `attention` and `replacing`.
        temperature, beta: of the divergences, as in `ops.linear_distillation`.
        vocab_size: real tokens, where the heads end with padding rows that may differ between teacher and
            student.
        progress: the share of the run that is done, set by the trainer through `at`.
        seed: of the blocks that are replaced, one draw a step for all microbatches and ranks.
    """

    teacher: Teacher
    losses: Mapping[str, float]
    kind: Kind
    layout: Layout = Layout(())
    temperature: float = 1.0
    beta: float = 0.5
    vocab_size: int | None = None
    progress: float = 0.0
    implementation: str = "auto"
    seed: int = 0

    @property
    def separable(self) -> bool:
        return "margin" not in self.losses

    def at(self, progress: float) -> Distillation:
        """The objective of a step, given the share of steps before it."""
        return dataclasses.replace(self, progress=progress)

    def prepare(self, batch: Batch) -> Batch:
        return with_bounds(batch)

    def items(self, batch: Batch) -> Tensor:
        if self.kind in ("classifier", "encoder"):
            return torch.tensor(len(batch["input_ids"]))
        return (targets(batch, self.kind) != ops.IGNORE_INDEX).sum()

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """Metrics are the unweighted sums of each loss, temperature**2 left out."""
        total, parts = self._matched(model, batch)
        for name in REPLACING:
            if name in self.losses:
                parts[name] = self._replacing(model, batch, name)
                total = total + self.losses[name] * parts[name]
        if "on_policy" in self.losses:
            scaled, parts["on_policy"] = self._on_policy(model, batch)
            total = total + scaled
        if self.kind == "encoder" or not self.losses.keys() - LAYERWISE:  # a head that no loss looks at
            total = total + nothing(outside(model))
        return LossOutput(total, {name: part.detach() for name, part in parts.items()})

    def extra_flops_per_token(self, model: nn.Module, seq_len: int) -> float:
        """What a step costs per token beside the student's own forward and backward pass; an upper bound for
        `replacing`."""
        own = models.flops_per_token(model, seq_len)
        return self.extra_flops(self.teacher.flops_per_token(seq_len), own.forward, own.train)

    def extra_flops(self, teacher: float, forward: float, train: float) -> float:
        """The same, where the teacher's pass costs `teacher` per token, and the student's `forward` or, with
        gradients, `train`."""
        extra = teacher * self._asks_teacher
        another_pass = train * self._looks_at_student
        for name in REPLACING:
            if name in self.losses:  # the teacher's blocks pass gradients on, and get none
                extra += 2 * teacher * (1 - CONSTANT_RATE) + another_pass
        if "on_policy" in self.losses:
            extra += forward + teacher + another_pass
        return extra

    @property
    def _asks_teacher(self) -> bool:
        return any(name in self.losses for name in (*DIVERGENCES, *LAYERWISE, *EMBEDDING))

    @property
    def _looks_at_student(self) -> bool:
        return self._asks_teacher or "cross_entropy" in self.losses

    def _matched(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """All losses that compare one plain pass of the student with one of the teacher."""
        if not self._looks_at_student:
            return torch.zeros((), device=batch["input_ids"].device), {}
        layers: list[int] = []
        if any(name in self.losses for name in LAYERWISE):
            layers = self.layout.last
        attention, signal = "attention" in self.losses, Signal()
        if self._asks_teacher:
            signal = self.teacher(batch, layers, attention)
        with recording(model, range(len(layers)), attention=attention) as seen:
            if self.kind == "encoder":
                total, parts = self._embedding_losses(embedding(model, batch), signal)
            else:
                total, parts = self._head_losses(*head_inputs(model, batch, self.kind), signal.head)
        if layers:
            weights_BT = self._token_weights(batch)
            for name, loss in self._layer_losses(model, seen, signal.blocks, weights_BT).items():
                parts[name], total = loss, total + self.losses[name] * loss
        return total, parts

    def _head_losses(
        self,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        labels_N: Tensor,
        teacher: ops.Teacher | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        share = self.losses.get("cross_entropy", 0.0)
        kinds = [name for name in DIVERGENCES if name in self.losses]
        if not kinds:
            if not share:
                return hidden_ND.new_zeros(()), {}
            ce = self._cross_entropy(hidden_ND, weight_VD, bias_V, labels_N)
            return share * ce, {"cross_entropy": ce}
        assert teacher is not None
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        parts: dict[str, Tensor] = {}
        for name in kinds:
            loss, ce, kd = ops.linear_distillation(
                hidden_ND,
                weight_VD,
                teacher,
                labels_N,
                kind=name,
                beta=self.beta,
                temperature=self.temperature,
                student_bias_V=bias_V,
                ce_weight=share,
                kd_weight=self.losses[name],
                vocab_size=self.vocab_size,
                implementation=self.implementation,
            )
            share = 0.0  # the labels count once, beside the first divergence
            total, parts = total + loss, {**parts, name: kd, "cross_entropy": ce}
        return total, parts

    def _cross_entropy(
        self, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_N: Tensor
    ) -> Tensor:
        return ops.linear_cross_entropy(
            hidden_ND,
            weight_VD,
            labels_N,
            bias_V=bias_V,
            vocab_size=self.vocab_size,
            implementation=self.implementation,
        )

    def _layer_losses(
        self, model: nn.Module, own: Recorded, theirs: Recorded, weights_BT: Tensor
    ) -> dict[str, Tensor]:
        """Means over layers. Hidden states: squared error as a share of the teacher's square, so that no
        scale is favoured."""
        losses: dict[str, Tensor] = {}
        pairs = list(enumerate(self.layout.last))
        if "hidden" in self.losses:
            projections = getattr(unwrap(model), PROJECTIONS, None)
            errors = []
            for index, layer in pairs:
                hidden_BTE, aim_BTE = own.hidden[index].float(), theirs.hidden[layer].float()
                if projections is not None:
                    hidden_BTE = projections[index](hidden_BTE)
                square_BT = aim_BTE.square().mean(-1).clamp_min(1e-6)
                error_BT = (hidden_BTE - aim_BTE).square().mean(-1) / square_BT
                errors.append((error_BT * weights_BT).sum())
            losses["hidden"] = torch.stack(errors).mean()
        if "attention" in self.losses:
            errors = []
            for index, layer in pairs:
                own_BHTT, aim_BHTT = own.attention[index].float(), theirs.attention[layer].float()
                if own_BHTT.shape[1] != aim_BHTT.shape[1]:
                    # narrower students have fewer heads: compare the means
                    own_BHTT, aim_BHTT = own_BHTT.mean(1, keepdim=True), aim_BHTT.mean(1, keepdim=True)
                error_BT = (own_BHTT - aim_BHTT).square().sum(-1).mean(1)
                errors.append((error_BT * weights_BT).sum())
            losses["attention"] = torch.stack(errors).mean()
        return losses

    def _token_weights(self, batch: Batch) -> Tensor:
        """How much each token counts in a layer's loss, so that the weights add up to the number of items."""
        if self.kind in ("causal", "masked"):
            return (targets(batch, self.kind) != ops.IGNORE_INDEX).float()
        mask_BT = batch["attention_mask"].float()
        return mask_BT / mask_BT.sum(1, keepdim=True)

    def _embedding_losses(self, own_BD: Tensor, signal: Signal) -> tuple[Tensor, dict[str, Tensor]]:
        """Sums over texts. `margin`: for each text the squared error of every difference between its scores
        with the others, as MarginMSE (arXiv 2010.02666) does with the negatives of a query."""
        aim_BE, parts = signal.embedding_BE, {}
        assert aim_BE is not None
        if "cosine" in self.losses:
            parts["cosine"] = (1 - F.cosine_similarity(own_BD, aim_BE, dim=-1)).sum()
        if "mse" in self.losses:
            parts["mse"] = (own_BD - aim_BE).square().sum(-1).sum()
        if "margin" in self.losses:
            own_BB, aim_BB = (F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).T for x in (own_BD, aim_BE))
            error_BB = own_BB - aim_BB
            # twice the variance is the mean over all pairs of differences
            parts["margin"] = 2 * error_BB.var(1, unbiased=False).sum()
        total = torch.zeros((), device=own_BD.device)
        for name, part in parts.items():
            total = total + self.losses[name] * part
        return total, parts

    def _replacing(self, model: nn.Module, batch: Batch, name: str) -> Tensor:
        """Cross-entropy of the student with some of its blocks swapped for the teacher's groups; evaluated
        without any.

        As long as blocks are swapped only blocks learn: embeddings and head stay what the teacher's blocks
            know.
        """
        rate = 1.0
        if model.training:
            rate = self._own_rate(name)
        generator = torch.Generator().manual_seed(mix(self.seed, round(self.progress * (1 << 40))))
        keep = torch.rand(len(self.layout.groups), generator=generator) < rate
        swapped = {
            i: [self.teacher.blocks[j] for j in self.layout.groups[i]]
            for i, stays in enumerate(keep.tolist())
            if not stays
        }
        with replaced(model, swapped), only_blocks(model, rate < 1) as idle:
            loss = self._cross_entropy(*head_inputs(model, batch, self.kind))
        return loss + nothing(idle)

    def _own_rate(self, name: str) -> float:
        """The chance of each block of the student to stand where it belongs."""
        done = self.progress / RISE
        if done >= 1:
            return 1.0
        if name == "replacing_constant":
            return CONSTANT_RATE
        return FIRST_RATE + (1 - FIRST_RATE) * done

    def _on_policy(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Reverse KL per token on the student's own text, times the items of the batch: (weighted loss,
        divergence)."""
        own = batch
        if model.training:
            own = continued(model, batch)
        objective = dataclasses.replace(self, losses={"reverse_kl": self.losses["on_policy"]})
        scale = self.items(batch) / objective.items(own)
        total, parts = objective._matched(model, own)
        return total * scale, parts["reverse_kl"] * scale


def head_inputs(model: nn.Module, batch: Batch, kind: Kind) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """(hidden [N, D], weight [V, D], bias, labels [N]) whose product with the head gives a model's logits.

    A classifier's few logits come as they are, with the identity as their head, so that one operator serves
    all.
    """
    batch = {name: value for name, value in batch.items() if name not in STORED}
    if kind == "classifier":
        logits_BC = model(**model_inputs(batch)).logits.float()
        return logits_BC, torch.eye(logits_BC.shape[1], device=logits_BC.device), None, batch["labels"]
    backbone, weight_VD, bias_V = models.split(model)
    hidden_BTD = backbone(**packed_inputs(model, batch, kind == "causal"))
    return hidden_BTD.flatten(0, 1), weight_VD, bias_V, targets(batch, kind).flatten()


def embedding(model: nn.Module, batch: Batch) -> Tensor:
    """Mean of a text's last hidden states, float32 [B, D]."""
    hidden_BTD = model(**model_inputs(batch)).last_hidden_state.float()
    mask_BT1 = batch["attention_mask"].unsqueeze(-1).float()
    return (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)


def targets(batch: Batch, kind: Kind) -> Tensor:
    """The label of each position [B, T]: what comes next for a causal model, what was masked for the
    other."""
    labels_BT = batch["labels"]
    if kind != "causal":
        return labels_BT
    return F.pad(labels_BT[:, 1:], (0, 1), value=ops.IGNORE_INDEX)
