"""Everything a distillation needs before its first step: data, tokenizer, student, teacher, objective, sources of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adaptkit import data, models
from adaptkit.data.readers import Dataset
from adaptkit.data.tokenizers import tokenizer_digest
from adaptkit.distill import student as students
from adaptkit.distill.config import FROM_TEACHER, DistillConfig
from adaptkit.distill.shape import student_shape
from adaptkit.distill.teacher import OnlineTeacher, check_same_tokens
from adaptkit.errors import ConfigError, ModelError
from adaptkit.models.separation import Separation, kept_apart
from adaptkit.run import Run, digest
from adaptkit.trainer.distillation import REPLACING, Distillation, Kind, Layout
from adaptkit.trainer.parallel import repeated_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adaptkit.trainer.objective import Objective
    from adaptkit.trainer.source import Source

DEV_SHARE = 0.1
PROBE_ROWS = 16
"""Rows that blocks are searched by."""


@dataclass(frozen=True)
class Start:
    """A student that requires the right gradients, what it is taught by, and rows to learn and to measure on."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    kind: Kind
    objective: Objective
    train: Source
    dev: Source
    facts: dict[str, Any]
    """For the manifest: how the student came about."""
    reference: nn.Module | None = None
    """The teacher, if its weights are here, to be scored on the same rows."""


def read_data(config: DistillConfig, kind: Kind) -> dict[str, Dataset]:
    """The splits train, dev and (labelled only) test.

    Raises: ConfigError where a test split is named that nothing is scored on.
    """
    want = "labelled" if kind == "classifier" else "text"
    if config.test is not None and kind != "classifier":
        raise ConfigError(f"test is only scored for classifiers, and this teacher is a {kind} model", where="test", fix="name it as dev")
    train = data.read(config.data, want)
    if config.dev is None:
        train, dev = data.split(train, DEV_SHARE, seed=0)
    else:
        dev = data.read(config.dev, want)
    return {"train": train, "dev": dev} | ({"test": data.read(config.test, want)} if config.test else {})


def teacher_kind(config: DistillConfig) -> Kind:
    """What the teacher's head gives; a served one is a causal language model."""
    return "causal" if config.served else models.model_kind(config.teacher)


def prepare(config: DistillConfig, run: Run, text: dict[str, Dataset], kind: Kind) -> Start:
    """Teacher, student and rows of an online distillation."""
    seed, labels = config.trainer.seed, None
    plain = models.load(config.teacher, kind)
    tokenizer = models.load_tokenizer(config.teacher)
    if kind == "classifier":
        labels = [plain.config.id2label[i] for i in range(plain.config.num_labels)]
    rows = Rows(config, run, kind, tokenizer, labels)
    objective_of = _objective_of(config, kind, tokenizer, plain)
    student, facts = make_student(config, plain, kind, lambda: rows.probe(text["train"], [plain]), objective_of)
    if config.student.start not in (*FROM_TEACHER, "fresh"):
        own = models.load_tokenizer(config.student.start)
        check_same_tokens(own, tokenizer, [row.text for row in text["train"].rows])
    students.check_served(student)
    if "attention" in config.losses:
        for model in (plain, student):
            model.set_attn_implementation("eager")  # the only one that gives its weights
    teacher = plain if config.signal == "online" else models.load(config.teacher, kind, quantization=config.signal)
    objective = objective_of(teacher, student)
    sources = rows.of({name: text[name] for name in ("train", "dev")}, [student, teacher])
    if "hidden" in config.losses:
        students.add_projections(student, plain.config.hidden_size, len(repeated_blocks(student)), seed)
    return Start(student, tokenizer, kind, objective, sources["train"], sources["dev"], facts, teacher)


def make_student(
    config: DistillConfig, teacher: nn.Module, kind: Kind, probe: Callable[[], Any], objective_of: Callable[..., Distillation]
) -> tuple[nn.Module, dict[str, Any]]:
    """The student before training, float32, and how it was made."""
    start, seed = config.student.start, config.trainer.seed
    if start == "fresh":
        shape = student_shape(config, teacher.config, kind)
        return models.build(shape, kind, seed), {"start": start}
    if start not in FROM_TEACHER:
        return models.load(start, kind), {"start": "folder"}
    shape = student_shape(config, teacher.config, kind)
    total, kept = teacher.config.num_hidden_layers, shape.num_hidden_layers
    if start == "search":
        batch = probe()
        judge = objective_of(teacher, teacher, losses={"cross_entropy": 1.0} if kind != "encoder" else None)
        picks = students.searched(kept, teacher.eval(), lambda model: float(judge.loss(model, batch).total))
    else:
        picks = (students.evenly if start == "every" else students.last)(kept, total)
    picks = students.like_the_pattern(teacher.config, picks)
    return students.with_blocks(teacher, kind, picks, seed), {"start": start, "blocks": picks}


def _objective_of(
    config: DistillConfig, kind: Kind, tokenizer: PreTrainedTokenizerFast, plain: nn.Module
) -> Callable[..., Distillation]:
    def make(teacher: nn.Module, student: nn.Module, losses: dict[str, float] | None = None) -> Distillation:
        losses = losses or dict(config.losses)
        layout = Layout.even(len(repeated_blocks(student)), len(repeated_blocks(teacher)))
        if any(name in losses for name in REPLACING):
            check_replaceable(student, plain)
        size = len(tokenizer) if kind in ("causal", "masked") else None
        return Distillation(
            OnlineTeacher(teacher, kind), losses, kind, layout, config.temperature, config.beta, size,
            implementation=config.trainer.implementation,
        )  # fmt: skip

    return make


def check_replaceable(student: nn.Module, teacher: nn.Module) -> None:
    """Raises: ModelError unless the teacher's blocks can stand in for the student's."""
    own, theirs = student.config, teacher.config
    if (own.model_type, own.hidden_size) != (theirs.model_type, theirs.hidden_size):
        what = f"blocks of a {theirs.model_type} of width {theirs.hidden_size} cannot stand among those of a {own.model_type}"
        raise ModelError(f"{what} of width {own.hidden_size}", where="losses.replacing", fix="leave student.width at 0")
    if len(set(getattr(theirs, "layer_types", None) or [""])) > 1:
        what = "the teacher's blocks differ in what they attend to, so they cannot take each other's place"
        raise ModelError(what, where="losses.replacing", fix="use hidden or forward_kl")


@dataclass(frozen=True)
class Rows:
    """Makes sources of rows out of data sets, as the kind of model takes them."""

    config: DistillConfig
    run: Run
    kind: Kind
    tokenizer: PreTrainedTokenizerFast
    labels: list[str] | None

    def of(self, text: dict[str, Dataset], read_by: list[nn.Module]) -> dict[str, Source]:
        """A source per data set, in rows that every model in `read_by` reads exactly."""
        seq_len = self.config.size.seq_len
        if self.kind == "classifier":
            return {name: data.LabelledRows(part, self.tokenizer, seq_len, self.labels) for name, part in text.items()}
        if self.kind == "encoder":
            return {name: data.TextRows(part, self.tokenizer, seq_len) for name, part in text.items()}
        separate = self._separation(read_by)
        return {name: data.packed_rows(self._shards(part), seq_len, self.kind, separate) for name, part in text.items()}

    def probe(self, dataset: Dataset, read_by: list[nn.Module]) -> dict[str, torch.Tensor]:
        """One batch of the first rows."""
        source = self.of({"probe": dataset}, read_by)["probe"]
        return source.collate(list(range(min(PROBE_ROWS, len(source)))), seed=0, epoch=0)

    def _separation(self, read_by: list[nn.Module]) -> Separation:
        """What keeps documents apart in all of these models."""
        strictness: tuple[Separation, ...] = ("positions", "mask", "rows")
        seq_len = self.config.size.seq_len
        for model in read_by:
            longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            if longest and seq_len > longest:
                what = f"rows of {seq_len} tokens, but a model reads at most {longest}"
                raise ConfigError(what, where="size.seq_len", fix=f"set size.seq_len={longest} or less")
        found = [kept_apart(model, self.kind, seq_len, self.config.model_name) for model in read_by]
        return max(found, key=strictness.index)

    def _shards(self, part: Dataset) -> Any:
        folder = self.run.shards(digest([part.digest, tokenizer_digest(self.tokenizer)]))
        return data.write_shards(part, self.tokenizer, folder)
