"""Prepare a distillation: read its data, load teacher and tokenizer, make the student, objective and
rows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adaptkit import data, models
from adaptkit.adapters import attach
from adaptkit.data.readers import Dataset
from adaptkit.distill import http_teacher
from adaptkit.distill.answer_store import TOP_K
from adaptkit.distill.config import FROM_TEACHER, DistillConfig
from adaptkit.distill.http_teacher import ServedTeacher
from adaptkit.distill.rows import Rows
from adaptkit.distill.sequence_level import Writer, local_writer, served_writer, teacher_texts
from adaptkit.distill.shape import check_pair, check_shape
from adaptkit.distill.student import (
    NewStudent,
    add_projections,
    label_names,
    make_student,
    save_adapter_base,
    stop_as_teacher,
)
from adaptkit.distill.teacher import OnlineTeacher, StoredTeacher, check_answers, local_scorer
from adaptkit.errors import ConfigError, ModelError
from adaptkit.model_uses import Use
from adaptkit.models.capabilities import capabilities
from adaptkit.models.sentence.pooling_files import check_mean_pooling
from adaptkit.run import Run, model_digest
from adaptkit.trainer.device import default_device
from adaptkit.trainer.distillation import (
    DIVERGENCES,
    EMBEDDING,
    LAYERWISE,
    REPLACING,
    Distillation,
    Kind,
    Layout,
)
from adaptkit.trainer.objective import CausalLM
from adaptkit.trainer.parallel import Ranks, repeated_blocks
from adaptkit.trainer.row_source import Source

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

DEV_SHARE = 0.1
Splits = dict[str, Dataset]


@dataclass(frozen=True)
class Lesson:
    """What a student is taught by: the objective, the rows to learn and to measure on, and what the teacher's
    answers cost that were written before the training."""

    objective: Distillation | CausalLM
    train: Source
    dev: Source
    spent_flops: float = 0.0


@dataclass(frozen=True)
class Reference:
    """The teacher, where it can be scored on the same rows as its student."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


@dataclass(frozen=True)
class Start:
    """A student that requires the right gradients, and what it is taught by.

    Attributes:
        facts: for the record: how the student came about.
        teacher_width: numbers of the teacher's hidden states; 0 for a served one.
        adapter_base: the folder that the student's adapter stands on, if it has one.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerFast
    kind: Kind
    lesson: Lesson
    facts: dict[str, Any]
    teacher_width: int = 0
    reference: Reference | None = None
    adapter_base: str = ""


def teacher_kind(config: DistillConfig) -> Kind:
    """What the teacher's head gives; a served one is a causal language model."""
    if config.served:
        return "causal"
    kind = models.model_kind(config.teacher)
    if kind == "tagger":
        what = "tags words, and no student learns that from it"
        raise ModelError(what, where=config.teacher, fix="fine-tune a small base on the labelled rows")
    return kind


def check_models(config: DistillConfig) -> None:
    """Refuse a teacher or a student's start that cannot be used so, before anything is read.

    Raises: ModelError; ConfigError for rows of more tokens than one of them has positions for.
    """
    own_blocks = config.student.start in FROM_TEACHER
    for key, folder in config.folders().items():
        model = capabilities(folder)
        learns = own_blocks or key != "teacher"
        use = Use.DISTILL if own_blocks else Use.TEACH
        model.check(use, config.adapter if learns else None)
        if learns:
            check_shape(model.config.model_type)
        model.fitting(config.size.seq_len, "size.seq_len", chosen=True)


def read_data(config: DistillConfig, kind: Kind) -> Splits:
    """The splits train, dev and (labelled only) test.

    Raises: ConfigError where a test split is named that nothing is scored on.
    """
    want = "labelled" if kind == "classifier" else "text"
    if config.test is not None and kind != "classifier":
        what = f"test is only scored for classifiers, and this teacher is a {kind} model"
        raise ConfigError(what, where="test", fix="name it as dev")
    train = data.read(config.data, want)
    if config.dev is None:
        train, dev = data.split(train, DEV_SHARE, seed=0)
    else:
        dev = data.read(config.dev, want)
    splits = {"train": train, "dev": dev}
    if config.test is not None:
        splits["test"] = data.read(config.test, want)
    return splits


def check_losses(config: DistillConfig, kind: Kind) -> None:
    """Raises: ConfigError for losses or a signal that this kind of model has no use for."""
    possible, model = [*LAYERWISE, "cross_entropy", *DIVERGENCES, *REPLACING], f"a {kind} model"
    if kind == "causal":
        possible.append("on_policy")
    if kind == "encoder":
        possible, model = [*LAYERWISE, *EMBEDDING], "an encoder"
    for name in config.losses:
        if name not in possible:
            fix = f"choose from {', '.join(possible)}"
            raise ConfigError(f"{name} means nothing to {model}", where=f"losses.{name}", fix=fix)
    if config.signal in ("offline", "text") and kind != "causal":
        what = f"{config.signal} speaks for causal teachers, and this one is {model}"
        raise ConfigError(what, where="signal", fix="set signal=online")


def prepare(config: DistillConfig, run: Run, text: Splits, kind: Kind, ranks: Ranks) -> Start:
    """Load or ask the teacher, make the student and the rows.

    Raises: ConfigError, ModelError, ServerError for teachers and students that do not go together.
    """
    check_losses(config, kind)
    if config.served:
        with ServedTeacher(config.teacher) as server:
            return _taught_by_server(config, run, text, ranks, server)
    return _taught_here(config, run, text, kind, ranks)


def _taught_here(config: DistillConfig, run: Run, text: Splits, kind: Kind, ranks: Ranks) -> Start:
    """A student beside a teacher that is loaded into this process."""
    if kind == "encoder":
        check_mean_pooling(models.find(config.teacher))
    reference = Reference(models.load(config.teacher, kind), models.load_tokenizer(config.teacher))
    labels = None
    if kind == "classifier":
        labels = label_names(reference.model)
    rows = Rows(config, run, kind, reference.tokenizer, labels, ranks)
    student = make_student(config, reference.model, rows, text["train"])
    if kind == "causal" and student.facts["start"] != "folder":
        stop_as_teacher(student, reference.model)
    model, adapter_base = save_adapter_base(config, run, student, kind, ranks)
    teacher = reference.model
    if config.quantization:
        teacher = models.load(config.teacher, kind, quantization=config.quantization)
    check_pair(config, kind, model.config, teacher.config)
    if "attention" in config.losses:
        for each in (teacher, model):
            each.set_attn_implementation("eager")  # the only one that gives its weights
    rows = dataclasses.replace(rows, tokenizer=student.tokenizer)
    objective = objective_of(config, kind, teacher, model, student)
    if isinstance(objective.teacher, OnlineTeacher):
        check_answers(objective.teacher, config.signal, config.losses, objective.layout.last)
    lesson = _lesson(config, rows, text, reference, objective, [model, teacher])
    if config.signal in ("offline", "text"):
        reference.model.cpu()  # it has said all that it has to say
    trained = attach(model, config.adapter, config.trainer.seed)
    width = reference.model.config.hidden_size
    if "hidden" in config.losses:
        add_projections(models.unwrap(trained), width, len(repeated_blocks(trained)), student.channels)
    # Students of the other kinds are scored by losses against this very teacher, or on its tokens.
    judged = reference if kind in ("causal", "classifier") else None
    return Start(trained, student.tokenizer, kind, lesson, student.facts, width, judged, adapter_base)


def _lesson(
    config: DistillConfig,
    rows: Rows,
    text: Splits,
    reference: Reference,
    objective: Distillation,
    read_by: list[nn.Module],
) -> Lesson:
    """The objective and its rows; a teacher that speaks by its text or from disk is asked here."""
    seq_len = config.size.seq_len
    row_flops = models.flops_per_token(reference.model, seq_len).forward * seq_len
    if config.signal == "text":
        teacher: nn.Module = reference.model
        write = local_writer(teacher.to(default_device()), reference.tokenizer, seq_len)
        written = _written(rows, text, write)
        sources = rows.of(written, read_by)
        spent = row_flops * len(text["train"].rows)
        return Lesson(CausalLM(config.trainer.implementation), sources["train"], sources["dev"], spent)
    sources = rows.of({name: text[name] for name in ("train", "dev")}, read_by)
    if config.signal != "offline":
        return Lesson(objective, sources["train"], sources["dev"])
    score = local_scorer(objective.teacher, len(rows.tokenizer), config.temperature, TOP_K)
    sources = rows.stored(sources, text, score, model_digest(models.find(config.teacher)), TOP_K)
    spent = row_flops * sum(map(len, sources.values()))
    stored = dataclasses.replace(objective, teacher=StoredTeacher())
    return Lesson(stored, sources["train"], sources["dev"], spent)


def _taught_by_server(
    config: DistillConfig, run: Run, text: Splits, ranks: Ranks, server: ServedTeacher
) -> Start:
    """A student that starts from a folder, and a teacher behind an address."""
    start, tokenizer = config.student.start, models.load_tokenizer(config.student.start)
    student = NewStudent(models.load(start, "causal"), tokenizer, {"start": "folder", "teacher": server.name})
    check_shape(student.model.config.model_type)
    model, adapter_base = save_adapter_base(config, run, student, "causal", ranks)
    rows = Rows(config, run, "causal", tokenizer, None, ranks)
    lesson = _served_lesson(config, rows, text, server, model)
    trained = attach(model, config.adapter, config.trainer.seed)
    return Start(trained, tokenizer, "causal", lesson, student.facts, adapter_base=adapter_base)


def _served_lesson(
    config: DistillConfig, rows: Rows, text: Splits, server: ServedTeacher, student: nn.Module
) -> Lesson:
    """What a server teaches: the text that it writes, or its log-probabilities of the given text."""
    seq_len, implementation = config.size.seq_len, config.trainer.implementation
    if config.signal == "text":
        sources = rows.of(_written(rows, text, served_writer(server, seq_len)), [student])
        return Lesson(CausalLM(implementation), sources["train"], sources["dev"])
    sources = rows.of({name: text[name] for name in ("train", "dev")}, [student])
    server.check_window(seq_len)
    server.check_tokens(rows.tokenizer, [row.text for row in text["train"].rows])
    identity = f"{config.teacher} {server.name}"
    sources = rows.stored(sources, text, server.score, identity, http_teacher.TOP_K)
    objective = Distillation(
        StoredTeacher(),
        loss_weights(config),
        "causal",
        temperature=config.temperature,
        beta=config.beta,
        vocab_size=len(rows.tokenizer),
        implementation=implementation,
    )
    return Lesson(objective, sources["train"], sources["dev"])


def _written(rows: Rows, text: Splits, write: Writer) -> Splits:
    """The training text as the teacher writes it; what is measured on stays as it is."""
    path, first = rows.run.teacher_texts, rows.ranks.rank == 0
    return {"train": teacher_texts(text["train"], write, path, first=first), "dev": text["dev"]}


def objective_of(
    config: DistillConfig, kind: Kind, teacher: nn.Module, student: nn.Module, start: NewStudent
) -> Distillation:
    """The objective of `config` against a teacher that is here."""
    ids_V, vocab_size = None, None
    if start.ids is not None:
        ids_V = torch.tensor(start.ids)
    if kind in ("causal", "masked"):
        # transformers gives the tokenizers of some architectures a token that the model has no row for.
        vocab_size = min(len(start.tokenizer), len(models.split(student)[1]))
        if ids_V is None:
            vocab_size = min(vocab_size, len(models.split(teacher)[1]))
    return Distillation(
        OnlineTeacher(teacher, kind, ids_V),
        loss_weights(config),
        kind,
        Layout.even(len(repeated_blocks(student)), len(repeated_blocks(teacher))),
        config.temperature,
        config.beta,
        vocab_size,
        implementation=config.trainer.implementation,
        seed=config.trainer.seed,
    )


def loss_weights(config: DistillConfig) -> dict[str, float]:
    """The losses by name, of any name."""
    return {str(name): weight for name, weight in config.losses.items()}
