"""The teacher beside the student: frozen, in evaluation mode, and no part of the model that trains.

Shape suffixes: B = rows, T = tokens, K = kept tokens, V = the student's vocabulary, N = B * T.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit import models, ops
from adaptkit.data.drawing import draw_hash
from adaptkit.distill.answer_store import Scorer
from adaptkit.errors import ModelError, first_line
from adaptkit.trainer.blocks import recording
from adaptkit.trainer.device import default_device, send
from adaptkit.trainer.distillation import STORED, Kind, embedding, head_inputs
from adaptkit.trainer.objective import Batch
from adaptkit.trainer.parallel import repeated_blocks
from adaptkit.trainer.teacher_signal import Signal, Teacher

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENS_AT_ONCE = 512
FEW_TOKENS = 8
PADDING_TOLERANCE = 0.02
"""How far states may move, as a share of the largest: rounding to 8 bits moves them by less, padding that
counts by about all of it."""
PROBES = 64
"""Texts that two tokenizers must split alike to be taken for one."""


class OnlineTeacher:
    """A frozen model that reads each batch.

    Args:
        kind: what its head gives; the student's is of the same kind.
        ids_V: the teacher's id of each of the student's tokens, if the student's vocabulary is a part of the
            teacher's.
    """

    def __init__(self, model: nn.Module, kind: Kind, ids_V: Tensor | None = None):
        self.model, self.kind, self.ids_V = model.eval().requires_grad_(False), kind, ids_V
        self.blocks: Sequence[nn.Module] = repeated_blocks(model)
        self._flops: dict[int, float] = {}

    @torch.no_grad()
    def __call__(self, batch: Batch, layers: Sequence[int], attention: bool) -> Signal:
        self._follow(batch["input_ids"].device)
        if self.ids_V is not None:
            batch = {**batch, "input_ids": self.ids_V[batch["input_ids"]]}
        with recording(self.model, layers, attention=attention) as seen:
            if self.kind == "encoder":
                return Signal(embedding_BE=embedding(self.model, batch), blocks=seen)
            hidden_NE, weight_VE, bias_V, _ = head_inputs(self.model, batch, self.kind)
        if self.kind == "classifier":
            return Signal(ops.DenseTeacher(hidden_NE), blocks=seen)
        if self.ids_V is not None:
            weight_VE = weight_VE[self.ids_V]
            if bias_V is not None:
                bias_V = bias_V[self.ids_V]
        return Signal(ops.HiddenTeacher(hidden_NE, weight_VE, bias_V), blocks=seen)

    def flops_per_token(self, seq_len: int) -> float:
        if seq_len not in self._flops:
            self._flops[seq_len] = models.flops_per_token(self.model, seq_len).forward
        return self._flops[seq_len]

    def _follow(self, device: torch.device) -> None:
        """Be where the student is: it is moved by the trainer, which does not know of its teacher."""
        if next(self.model.parameters()).device != device:
            self.model.to(device)
        if self.ids_V is not None and self.ids_V.device != device:
            self.ids_V = self.ids_V.to(device)


def check_answers(
    teacher: OnlineTeacher, signal: str, losses: Collection[str], layers: Sequence[int] = ()
) -> None:
    """Ask the teacher about a few tokens as the training will ask it.

    Raises: ModelError for one that cannot be read so, whose blocks give no attention where it is to be
        copied, or that reads what a student writes otherwise beside a longer text.
    """
    device = next(teacher.model.parameters()).device
    ids = torch.arange(FEW_TOKENS, device=device)[None]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    attention = "attention" in losses
    try:
        seen = teacher(batch, layers, attention)
        padding_matters = "on_policy" in losses and not _same_behind_padding(teacher, batch, seen)
    except Exception as error:  # what a library raises inside an architecture is of any type
        what = f"cannot be a teacher by signal={signal}: {type(error).__name__}: {first_line(error)}"
        raise ModelError(what, where="teacher", fix="set signal=online, or choose another teacher") from error
    silent = [layer for layer in layers if attention and layer not in seen.blocks.attention]
    if silent:
        what = f"no attention to copy in {len(silent)} of the teacher's {len(teacher.blocks)} blocks"
        raise ModelError(what, where="losses.attention", fix="use another loss: hidden or forward_kl")
    if padding_matters:
        what = "padding before a text changes what this teacher makes of it, so it cannot judge the student's"
        raise ModelError(what, where="losses.on_policy", fix="use another loss: reverse_kl")


def _same_behind_padding(teacher: OnlineTeacher, batch: Batch, alone: Signal) -> bool:
    """Whether a text with padding before it, as `sampling.continued` makes it, is read as it is alone."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    padding = torch.zeros_like(ids)
    masks = torch.cat([padding, mask], 1)
    padded = {"input_ids": torch.cat([padding, ids], 1), "attention_mask": masks}
    positions = (masks.cumsum(1) - 1).clamp_min(0)
    behind = teacher({**padded, "position_ids": positions, "labels": padded["input_ids"]}, (), False)
    assert isinstance(alone.head, ops.HiddenTeacher) and isinstance(behind.head, ops.HiddenTeacher)
    own_NE, other_NE = alone.head.hidden_TE.float(), behind.head.hidden_TE.float()[ids.shape[1] :]
    return bool((own_NE - other_NE).abs().max() <= PADDING_TOLERANCE * own_NE.abs().max())


class StoredTeacher:
    """Reads the k largest log-probabilities that a batch carries (`answer_store.WithTeacher`); nothing is
    computed here."""

    blocks: Sequence[nn.Module] = ()

    def __call__(self, batch: Batch, layers: Sequence[int], attention: bool) -> Signal:
        ids_BTK, logprobs_BTK = (batch[name] for name in STORED)
        return Signal(ops.TopKTeacher(ids_BTK.flatten(0, 1), logprobs_BTK.flatten(0, 1)))

    def flops_per_token(self, seq_len: int) -> float:
        return 0.0


def local_scorer(teacher: Teacher, vocab_size: int, temperature: float, top_k: int) -> Scorer:
    """Asks a causal model in this process; its logits exist for a few tokens at a time."""

    @torch.no_grad()
    def score(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        batch = send(batch, default_device())
        head, shape = teacher(batch, (), False).head, batch["input_ids"].shape
        assert isinstance(head, ops.HiddenTeacher)
        best = []
        for hidden_CE in head.hidden_TE.float().split(TOKENS_AT_ONCE):
            logits_CV = F.linear(hidden_CE, head.weight_VE.float(), head.bias_V)[:, :vocab_size]
            best.append((logits_CV / temperature).log_softmax(-1).topk(min(top_k, vocab_size - 1)))
        ids_NK = torch.cat([part.indices for part in best])
        logprobs_NK = torch.cat([part.values for part in best])
        return ids_NK.unflatten(0, shape), logprobs_NK.unflatten(0, shape)

    return score


def check_same_tokens(
    student: PreTrainedTokenizerFast, teacher: PreTrainedTokenizerFast, texts: Sequence[str]
) -> None:
    """Raises: ModelError if the two vocabularies differ, or split one of a few texts, drawn by hash, into
    other tokens."""
    fix = "start the student from the teacher (student.start=every), or set signal=text"
    own, theirs = student.get_vocab(), teacher.get_vocab()
    if own != theirs:
        sizes = f"the student's tokenizer has {len(own):,} tokens, the teacher's {len(theirs):,}"
        what = f"{sizes}, and {len(own.items() ^ theirs.items()):,} entries differ"
        raise ModelError(f"{what}: their distributions cannot be compared", where="teacher", fix=fix)
    for text in heapq.nsmallest(PROBES, texts, key=draw_hash):
        if student.encode(text) != teacher.encode(text):
            what = "the student's tokenizer and the teacher's have one vocabulary but split text differently"
            raise ModelError(what, where="teacher", fix=fix)
