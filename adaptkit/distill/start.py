"""Everything a distillation needs before its first step: data, tokenizer, student, teacher, objective,
sources of rows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adaptkit import data, models
from adaptkit.distill import depth, http_teacher
from adaptkit.distill.answer_store import TOP_K
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.http_teacher import ServedTeacher
from adaptkit.distill.pooling_files import check_pooling
from adaptkit.distill.rows import Rows
from adaptkit.distill.sequence_level import Writer, local_writer, served_writer, teacher_texts
from adaptkit.distill.shape import check_pair
from adaptkit.distill.student import Made, ground, make_student, trainable
from adaptkit.distill.teacher import OnlineTeacher, StoredTeacher, local_scorer
from adaptkit.errors import ConfigError
from adaptkit.run import Run, digest, file_digest
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

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adaptkit.data.readers import Dataset
    from adaptkit.trainer.objective import Objective
    from adaptkit.trainer.source import Source

DEV_SHARE = 0.1


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
    """The teacher, where it can be scored on the same rows."""
    reference_tokenizer: PreTrainedTokenizerFast | None = None
    spent_flops: float = 0.0
    """What the teacher's answers cost that were written before the training."""
    base: str = ""
    """The folder that the student's adapter stands on, if it has one."""


def read_data(config: DistillConfig, kind: Kind) -> dict[str, Dataset]:
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
    return {"train": train, "dev": dev} | ({"test": data.read(config.test, want)} if config.test else {})


def teacher_kind(config: DistillConfig) -> Kind:
    """What the teacher's head gives; a served one is a causal language model."""
    return "causal" if config.served else models.model_kind(config.teacher)


def prepare(config: DistillConfig, run: Run, text: dict[str, Dataset], kind: Kind, ranks: Ranks) -> Start:
    """Teacher, student and rows of a distillation, and what the teacher has to say before it begins."""
    check_losses(config, kind)
    if config.served:
        return _served(config, run, text, ranks)
    if kind == "encoder":
        check_pooling(models.find(config.teacher))
    plain, tokenizer = models.load(config.teacher, kind), models.load_tokenizer(config.teacher)
    rows = Rows(config, run, kind, tokenizer, labels_of(plain) if kind == "classifier" else None, ranks)
    made = make_student(config, plain, rows, text["train"])
    student, base = ground(config, run, made, kind, ranks)
    teacher = (
        models.load(config.teacher, kind, quantization=config.quantization) if config.quantization else plain
    )
    check_pair(config, kind, student.config, teacher.config)
    if "attention" in config.losses:
        for model in (teacher, student):
            model.set_attn_implementation("eager")  # the only one that gives its weights
    rows, spent = dataclasses.replace(rows, tokenizer=made.tokenizer), 0.0
    objective: Objective = objective_of(config, kind, teacher, student, made.tokenizer, made.ids)
    home, row_flops = (
        torch.device("cpu"),
        models.flops_per_token(plain, config.size.seq_len).forward * config.size.seq_len,
    )
    if config.signal == "text":
        write = local_writer(plain.to(default_device()), tokenizer, config.size.seq_len)
        text, spent = _written(config, run, text, write, ranks), row_flops * len(text["train"].rows)
        objective = CausalLM(config.trainer.implementation)
    sources = rows.of({name: text[name] for name in ("train", "dev")}, [student, teacher])
    if config.signal == "offline":
        score = local_scorer(objective.teacher, len(made.tokenizer), config.temperature, TOP_K)
        sources = rows.stored(sources, text, score, models_digest(config.teacher), TOP_K)
        objective, spent = (
            dataclasses.replace(objective, teacher=StoredTeacher()),
            row_flops * sum(map(len, sources.values())),
        )
    if config.signal in ("offline", "text"):
        plain.to(home)  # it has said all that it has to say
    student = trainable(config, student)
    if "hidden" in config.losses:
        depth.add_projections(
            models.unwrap(student), plain.config.hidden_size, len(repeated_blocks(student)), made.channels
        )
    judged = kind in (
        "causal",
        "classifier",
    )  # the others are scored by losses against this very teacher, or on its tokens
    return Start(
        student,
        made.tokenizer,
        kind,
        objective,
        sources["train"],
        sources["dev"],
        made.facts,
        plain if judged else None,
        tokenizer,
        spent,
        base,
    )


def _served(config: DistillConfig, run: Run, text: dict[str, Dataset], ranks: Ranks) -> Start:
    """A student that starts from a folder, and a teacher behind an address."""
    with ServedTeacher(config.teacher) as teacher:
        return _taught_by_server(config, run, text, ranks, teacher)


def _taught_by_server(
    config: DistillConfig, run: Run, text: dict[str, Dataset], ranks: Ranks, server: ServedTeacher
) -> Start:
    start = config.student.start
    made = Made(
        models.load(start, "causal"),
        models.load_tokenizer(start),
        {"start": "folder", "teacher": server.name},
    )
    depth.check_shape(made.model.config.model_type)
    student, base = ground(config, run, made, "causal", ranks)
    rows, objective = (
        Rows(config, run, "causal", made.tokenizer, None, ranks),
        CausalLM(config.trainer.implementation),
    )
    if config.signal == "text":
        text = _written(config, run, text, served_writer(server, config.size.seq_len), ranks)
    sources = rows.of({name: text[name] for name in ("train", "dev")}, [student])
    if config.signal == "offline":
        server.check_window(config.size.seq_len)
        server.check_tokens(made.tokenizer, [row.text for row in text["train"].rows])
        sources = rows.stored(
            sources, text, server.score, f"{config.teacher} {server.name}", http_teacher.TOP_K
        )
        objective = Distillation(
            StoredTeacher(),
            dict(config.losses),
            "causal",
            temperature=config.temperature,
            beta=config.beta,
            vocab_size=len(made.tokenizer),
            implementation=config.trainer.implementation,
        )
    student = trainable(config, student)
    return Start(
        student, made.tokenizer, "causal", objective, sources["train"], sources["dev"], made.facts, base=base
    )


def _written(
    config: DistillConfig, run: Run, text: dict[str, Dataset], write: Writer, ranks: Ranks
) -> dict[str, Dataset]:
    """The training text as the teacher writes it; what is measured on stays as it is."""
    return {
        **text,
        "train": teacher_texts(text["train"], write, run.path / "teacher.jsonl", first=ranks.rank == 0),
    }


def models_digest(name: str) -> str:
    """sha256 over a model folder's weights."""
    return digest([file_digest(path) for path in sorted(models.find(name).glob("*.safetensors"))])


def labels_of(model: nn.Module) -> list[str]:
    return [model.config.id2label[i] for i in range(model.config.num_labels)]


def check_losses(config: DistillConfig, kind: Kind) -> None:
    """Raises: ConfigError for losses that this kind of model has no use for."""
    head = ("cross_entropy", *DIVERGENCES, *REPLACING, *(("on_policy",) if kind == "causal" else ()))
    known = (*LAYERWISE, *(EMBEDDING if kind == "encoder" else head))
    if unfit := [name for name in config.losses if name not in known]:
        what = f"{unfit[0]} means nothing to {'an encoder' if kind == 'encoder' else f'a {kind} model'}"
        raise ConfigError(what, where=f"losses.{unfit[0]}", fix=f"choose from {', '.join(known)}")
    if config.signal in ("offline", "text") and kind != "causal":
        what = f"{config.signal} speaks for causal teachers, and this one is a {kind} model"
        raise ConfigError(what, where="signal", fix="set signal=online")


def objective_of(
    config: DistillConfig,
    kind: Kind,
    teacher: nn.Module,
    student: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    ids: list[int] | None,
) -> Distillation:
    """The objective of `config`."""
    return Distillation(
        OnlineTeacher(teacher, kind, None if ids is None else torch.tensor(ids)),
        dict(config.losses),
        kind,
        Layout.even(len(repeated_blocks(student)), len(repeated_blocks(teacher))),
        config.temperature,
        config.beta,
        len(tokenizer) if kind in ("causal", "masked") else None,
        implementation=config.trainer.implementation,
        seed=config.trainer.seed,
    )
