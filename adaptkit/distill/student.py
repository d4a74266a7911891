"""Make the student before it learns: of the teacher's blocks, fresh, or from a folder; whole or under an
adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit import models
from adaptkit.data.readers import Dataset
from adaptkit.distill import depth, width
from adaptkit.distill.config import FROM_TEACHER, DistillConfig
from adaptkit.distill.rows import Rows
from adaptkit.distill.shape import student_shape
from adaptkit.distill.teacher import StoredTeacher, check_same_tokens
from adaptkit.distill.vocabulary import prune_tokenizer
from adaptkit.errors import ModelError
from adaptkit.models.generation_settings import end_ids, stop_at
from adaptkit.run import Run
from adaptkit.trainer.device import default_device, send
from adaptkit.trainer.distillation import PROJECTIONS, Distillation, Kind, embedding
from adaptkit.trainer.parallel import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch], float]
"""How badly a model does on a batch."""


@dataclass(frozen=True)
class NewStudent:
    """A student before training, float32, its tokenizer, and how it came about.

    Attributes:
        ids: the teacher's id of each of its tokens, where its vocabulary was pruned.
        channels: the teacher's place of each of its hidden units, where it was pruned.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    facts: dict[str, Any]
    ids: list[int] | None = None
    channels: Tensor | None = None


def make_student(config: DistillConfig, teacher: PreTrainedModel, rows: Rows, train: Dataset) -> NewStudent:
    """The student as `config.student` asks for it.

    Raises: ModelError if it starts from a folder whose tokenizer is another than the teacher's.
    """
    start, kind = config.student.start, rows.kind
    if start == "fresh":
        shape = student_shape(config, teacher.config, kind)
        return NewStudent(models.build(shape, kind, config.trainer.seed), rows.tokenizer, {"start": start})
    if start in FROM_TEACHER:
        return _of_teacher(config, teacher, rows, train)
    tokenizer = models.load_tokenizer(start)
    if config.signal != "text":
        check_same_tokens(tokenizer, rows.tokenizer, [row.text for row in train.rows])
    return NewStudent(_of_folder(start, kind, rows.labels), tokenizer, {"start": "folder"})


def stop_as_teacher(student: NewStudent, teacher: PreTrainedModel) -> None:
    """Let a student with the teacher's tokens stop where the teacher's folder says, at all of its ends."""
    ends = end_ids(teacher)
    if student.ids is not None:
        ends = [student.ids.index(token) for token in ends if token in student.ids]
    stop_at(student.model, ends)


def label_names(model: PreTrainedModel) -> list[str]:
    """A classifier's labels, in the order of its outputs."""
    id2label: Any = model.config.id2label
    return [id2label[i] for i in range(len(id2label))]


def _of_folder(folder: str, kind: Kind, labels: list[str] | None) -> PreTrainedModel:
    """A model as it is; one without a classifier's head gets a new one for the teacher's labels.

    Raises: ModelError if it has a head for other labels, or for these in another order.
    """
    if labels is None or models.model_kind(folder) != kind:
        return models.load(folder, kind, label_names=labels)
    model = models.load(folder, kind)
    own = label_names(model)
    if own != labels:
        what = f"the student's labels are {', '.join(own[:8])}, the teacher's {', '.join(labels[:8])}"
        fix = "start from a model without a head, or from the teacher's blocks"
        raise ModelError(what, where="student.start", fix=fix)
    return model


def _of_teacher(config: DistillConfig, teacher: PreTrainedModel, rows: Rows, train: Dataset) -> NewStudent:
    """Some of the teacher's blocks, narrower or with fewer tokens where `config.student` asks for it."""
    settings, kind, seed = config.student, rows.kind, config.trainer.seed
    shape = student_shape(config, teacher.config, kind)
    pruned = bool(settings.width or settings.vocab_size)
    home = teacher.device
    probe: Batch = {}
    if pruned or settings.start == "search":
        teacher.eval()
        _move(teacher, default_device())
        probe = send(rows.probe(train, [teacher]), default_device())
    blocks = _chosen_blocks(config, teacher, rows, probe, shape.num_hidden_layers)
    facts: dict[str, Any] = {"start": settings.start, "blocks": blocks}
    if not pruned:
        _move(teacher, home)
        return NewStudent(depth.copy_blocks(teacher, kind, blocks, seed), rows.tokenizer, facts)
    tokenizer, ids = rows.tokenizer, None
    if settings.vocab_size:
        texts = [row.text for row in train.rows]
        tokenizer, ids = prune_tokenizer(tokenizer, texts, settings.vocab_size)
        renumber(shape, ids)
    importance = width.importance(teacher, [probe], ablation_loss(teacher, kind, len(rows.tokenizer), probe))
    vocab = torch.arange(teacher.config.vocab_size)
    if ids is not None:
        vocab = torch.tensor(ids)
    units = width.most_important(importance, shape, blocks, vocab)
    narrow = width.weight_cutter(units, width.key_heads(teacher.config))
    _move(teacher, home)
    model = depth.copy_blocks(teacher, kind, blocks, seed, shape, narrow)
    facts |= {"width": shape.hidden_size, "vocab_size": shape.vocab_size}
    return NewStudent(model, tokenizer, facts, ids, units.hidden)


def _move(model: nn.Module, device: torch.device) -> None:
    model.to(device)


def _chosen_blocks(
    config: DistillConfig, teacher: PreTrainedModel, rows: Rows, probe: Batch, num_blocks: int
) -> list[int]:
    """Numbers of the teacher's blocks that the student is made of."""
    start, num_of_teacher = config.student.start, teacher.config.num_hidden_layers
    if start == "search":
        loss = ablation_loss(teacher, rows.kind, len(rows.tokenizer), probe)
        blocks = depth.search_blocks(num_blocks, teacher, lambda model: loss(model, probe))
    elif start == "every":
        blocks = depth.evenly_spaced(num_blocks, num_of_teacher)
    else:
        blocks = depth.last_blocks(num_blocks, num_of_teacher)
    return depth.follow_pattern(teacher.config, blocks)


@torch.no_grad()
def ablation_loss(teacher: nn.Module, kind: Kind, vocab_size: int, probe: Batch) -> Loss:
    """What a model is judged by when blocks are taken out of it: the loss on the labels, or for an encoder
    how far its vectors turn from the whole teacher's."""
    if kind == "encoder":
        whole_BE = embedding(teacher, probe)

        def turned(model: nn.Module, batch: Batch) -> float:
            cosines_B = F.cosine_similarity(embedding(model, batch), whole_BE, dim=-1)
            return float((1 - cosines_B).sum().detach())

        return turned
    size = vocab_size if kind in ("causal", "masked") else None
    judge = Distillation(StoredTeacher(), {"cross_entropy": 1.0}, kind, vocab_size=size)
    return lambda model, batch: float(judge.loss(model, batch).total.detach())


def renumber(shape: Any, ids: list[int]) -> None:
    """Tell a config the size of its pruned vocabulary, and the new ids of its special tokens."""
    shape.vocab_size = len(ids)
    for name, old in shape.to_dict().items():
        if name.endswith("_token_id") and isinstance(old, int):
            new = ids.index(old) if old in ids else None
            setattr(shape, name, new)


def save_adapter_base(
    config: DistillConfig, run: Run, student: NewStudent, kind: Kind, ranks: Ranks
) -> tuple[PreTrainedModel, str]:
    """What an adapter will stand on, and its folder: the one that the student starts from, or a new one.

    A student of the teacher's blocks is written to the run's `base/` before it learns, or its adapter would
    fit nothing. Without an adapter: the student and no folder.
    """
    if config.adapter.kind == "none":
        return student.model, ""
    folder = config.student.start
    if folder in FROM_TEACHER:
        folder = str(run.base)
        if ranks.rank == 0:
            models.save(student.model, student.tokenizer, folder)
        ranks.share(None)
    if config.adapter.quantization is None:
        return student.model, folder
    return models.load(folder, kind, quantization=config.adapter.quantization), folder


def add_projections(
    student: PreTrainedModel, teacher_width: int, count: int, channels: Tensor | None = None
) -> None:
    """Add one linear map per block from the student's width to the teacher's, trained with it and thrown away
    at the end.

    None where the widths are equal. They start by putting each hidden unit where the teacher has it
    (`channels`), or where that means nothing, at its own number.
    """
    own_width: int = student.config.hidden_size
    if own_width == teacher_width:
        return
    common = min(own_width, teacher_width)
    if channels is None:
        channels = torch.arange(common)
    start_ED = torch.zeros(teacher_width, own_width)
    start_ED[channels, torch.arange(common)] = 1.0
    maps = nn.ModuleList([nn.Linear(own_width, teacher_width, bias=False) for _ in range(count)])
    for each in maps:
        each.weight = nn.Parameter(start_ED.clone())
    setattr(student, PROJECTIONS, maps)


def remove_projections(student: nn.Module) -> None:
    """Take off what `add_projections` added."""
    if hasattr(student, PROJECTIONS):
        delattr(student, PROJECTIONS)
