"""The student before its first step: of the teacher's blocks, fresh, or from a folder; whole or under an
adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit import models
from adaptkit.adapters import attach
from adaptkit.distill import depth, width
from adaptkit.distill.config import FROM_TEACHER, DistillConfig
from adaptkit.distill.shape import student_shape
from adaptkit.distill.teacher import StoredTeacher, check_same_tokens
from adaptkit.distill.vocabulary import prune_tokenizer
from adaptkit.errors import ModelError
from adaptkit.run import Run
from adaptkit.trainer.device import default_device, send
from adaptkit.trainer.distillation import Distillation, Kind, embedding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adaptkit.data.readers import Dataset
    from adaptkit.distill.rows import Rows
    from adaptkit.trainer.objective import Batch
    from adaptkit.trainer.parallel import Ranks

Reading = Callable[[nn.Module, "Batch"], float]
"""How badly a model does on a batch."""


@dataclass(frozen=True)
class Made:
    """A student before training, float32, its tokenizer, and how it came about.

    `ids`: the teacher's id of each of its tokens, and `channels` the teacher's place of each of its hidden
    units, where it was pruned to fewer.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    facts: dict[str, Any]
    ids: list[int] | None = None
    channels: Tensor | None = None


def make_student(config: DistillConfig, teacher: nn.Module, rows: Rows, train: Dataset) -> Made:
    """The student as `config.student` asks for it.

    Raises: ModelError if it starts from a folder whose tokenizer is another than the teacher's.
    """
    start, kind, tokenizer = config.student.start, rows.kind, rows.tokenizer
    if start == "fresh":
        shape = student_shape(config, teacher.config, kind)
        return Made(models.build(shape, kind, config.trainer.seed), tokenizer, {"start": start})
    if start not in FROM_TEACHER:
        own = models.load_tokenizer(start)
        if config.signal != "text":
            check_same_tokens(own, tokenizer, [row.text for row in train.rows])
        return Made(_of_folder(start, kind, rows.labels), own, {"start": "folder"})
    return _of_teacher(config, teacher, rows, train)


def _of_folder(folder: str, kind: Kind, labels: list[str] | None) -> nn.Module:
    """A model as it is; one without a classifier's head gets a new one for the teacher's labels.

    Raises: ModelError if it has a head for other labels, or for these in another order.
    """
    if labels is None or models.model_kind(folder) != kind:
        return models.load(folder, kind, label_names=labels)
    model = models.load(folder, kind)
    if (own := [model.config.id2label[i] for i in range(model.config.num_labels)]) != labels:
        what = f"the student's labels are {', '.join(own[:8])}, the teacher's {', '.join(labels[:8])}"
        raise ModelError(
            what, where="student.start", fix="start from a model without a head, or from the teacher's blocks"
        )
    return model


def _of_teacher(config: DistillConfig, teacher: nn.Module, rows: Rows, train: Dataset) -> Made:
    """Some of the teacher's blocks, narrower or with fewer tokens where `config.student` asks for it."""
    asked, kind, seed, smaller, ids = config.student, rows.kind, config.trainer.seed, rows.tokenizer, None
    shape = student_shape(config, teacher.config, kind)
    narrower, home = bool(asked.width or asked.vocab_size), next(teacher.parameters()).device
    probe: Batch = {}
    if narrower or asked.start == "search":
        teacher.eval().to(default_device())
        probe = send(rows.probe(train, [teacher]), default_device())
    if asked.start == "search":
        reading = absence(teacher, kind, len(smaller), probe)
        picks = depth.searched(shape.num_hidden_layers, teacher, lambda model: reading(model, probe))
    else:
        choose = depth.evenly if asked.start == "every" else depth.last
        picks = choose(shape.num_hidden_layers, teacher.config.num_hidden_layers)
    picks = depth.like_the_pattern(teacher.config, picks)
    facts: dict[str, Any] = {"start": asked.start, "blocks": picks}
    if not narrower:
        return Made(depth.with_blocks(teacher.to(home), kind, picks, seed), smaller, facts)
    if asked.vocab_size:
        smaller, ids = prune_tokenizer(smaller, [row.text for row in train.rows], asked.vocab_size)
        renumber(shape, ids)
    found = width.importance(teacher, [probe], absence(teacher, kind, len(rows.tokenizer), probe))
    kept = width.choose(
        found, shape, picks, torch.tensor(ids if ids is not None else range(teacher.config.vocab_size))
    )
    model = depth.with_blocks(
        teacher.to(home), kind, picks, seed, shape, width.cut(kept, width.key_heads(teacher.config))
    )
    sizes = {"width": shape.hidden_size, "vocab_size": shape.vocab_size}
    return Made(model, smaller, {**facts, **sizes}, ids, kept.hidden)


@torch.no_grad()
def absence(teacher: nn.Module, kind: Kind, vocab_size: int, probe: Batch) -> Reading:
    """What blocks are missed by: the loss on the labels, or for an encoder how far its vectors turn from the
    whole teacher's."""
    if kind == "encoder":
        whole_BE = embedding(teacher, probe)
        return lambda model, batch: float(
            (1 - F.cosine_similarity(embedding(model, batch), whole_BE, dim=-1)).sum().detach()
        )
    size = vocab_size if kind in ("causal", "masked") else None
    judge = Distillation(StoredTeacher(), {"cross_entropy": 1.0}, kind, vocab_size=size)
    return lambda model, batch: float(judge.loss(model, batch).total.detach())


def renumber(shape: Any, ids: list[int]) -> None:
    """Tell a config the size of its pruned vocabulary, and the new ids of its special tokens."""
    shape.vocab_size = len(ids)
    for name, old in shape.to_dict().items():
        if name.endswith("_token_id") and isinstance(old, int):
            setattr(shape, name, ids.index(old) if old in ids else None)


def ground(config: DistillConfig, run: Run, made: Made, kind: Kind, ranks: Ranks) -> tuple[nn.Module, str]:
    """What an adapter will stand on, and the folder it lies in: the one that the student starts from, or a
    new one.

    A student of the teacher's blocks is written to the run's `base/` before it learns, or its adapter would
    fit nothing.
    """
    if config.adapter.kind == "none":
        return made.model, ""
    folder = config.student.start
    if folder in FROM_TEACHER:
        folder = str(run.base)
        if ranks.rank == 0:
            models.save(made.model, made.tokenizer, folder)
        ranks.share(None)
    if config.adapter.quantization is None:
        return made.model, folder
    return models.load(folder, kind, quantization=config.adapter.quantization), folder


def trainable(config: DistillConfig, model: nn.Module) -> nn.Module:
    """The student as it will learn: all of its weights, or an adapter on frozen ones."""
    return attach(model, config.adapter, config.trainer.seed)
