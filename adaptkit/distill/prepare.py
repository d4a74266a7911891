"""Everything a distillation needs before its first step: data, tokenizer, student, teacher, objective, sources of rows."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adaptkit import data, models
from adaptkit.data.readers import Dataset
from adaptkit.data.tokenizers import tokenizer_digest
from adaptkit.distill import prune, served
from adaptkit.distill import student as students
from adaptkit.distill.config import FROM_TEACHER, DistillConfig
from adaptkit.distill.served import ServedTeacher
from adaptkit.distill.shape import student_shape
from adaptkit.distill.store import TOP_K, Scorer, StoreLayout, WithTeacher, write_store
from adaptkit.distill.teacher import OnlineTeacher, StoredTeacher, check_same_tokens, local_scorer
from adaptkit.distill.vectors import check_pooling
from adaptkit.distill.vocabulary import prune_tokenizer
from adaptkit.distill.written import Writer, local_writer, served_writer, teacher_texts
from adaptkit.errors import ConfigError, ModelError
from adaptkit.models.separation import Separation, kept_apart
from adaptkit.run import Run, digest, file_digest
from adaptkit.trainer.distillation import DIVERGENCES, EMBEDDING, LAYERWISE, REPLACING, Distillation, Kind, Layout
from adaptkit.trainer.objective import CausalLM
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
    """The teacher, where it can be scored on the same rows."""
    reference_tokenizer: PreTrainedTokenizerFast | None = None
    spent_flops: float = 0.0
    """What the teacher's answers cost that were written before the training."""


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


def prepare(config: DistillConfig, run: Run, text: dict[str, Dataset], kind: Kind) -> Start:
    """Teacher, student and rows of a distillation, and what the teacher has to say before it begins."""
    check_losses(config, kind)
    if config.served:
        return _served(config, run, text)
    if kind == "encoder":
        check_pooling(models.find(config.teacher))
    plain, tokenizer = models.load(config.teacher, kind), models.load_tokenizer(config.teacher)
    rows = Rows(config, run, kind, tokenizer, labels_of(plain) if kind == "classifier" else None)
    made = make_student(config, plain, rows, text["train"])
    student = made.model
    students.check_shape(student.config.model_type)
    if "attention" in config.losses:
        for model in (plain, student):
            model.set_attn_implementation("eager")  # the only one that gives its weights
    if any(name in config.losses for name in REPLACING):
        check_replaceable(student, plain)
    quantization = config.signal if config.signal in ("int8", "nf4") else None
    teacher = models.load(config.teacher, kind, quantization=quantization) if quantization else plain
    objective: Objective = objective_of(config, kind, teacher, student, made.tokenizer, made.ids)
    rows, spent = dataclasses.replace(rows, tokenizer=made.tokenizer), 0.0
    if config.signal == "text":
        write = local_writer(plain, tokenizer, config.size.seq_len)
        text, spent = _written(config, run, text, write), models.flops_per_token(plain, config.size.seq_len).forward
        spent, objective = spent * config.size.seq_len * len(text["train"].rows), CausalLM(config.trainer.implementation)
    sources = rows.of({name: text[name] for name in ("train", "dev")}, [student, teacher])
    if config.signal == "offline":
        score = local_scorer(objective.teacher, len(made.tokenizer), config.temperature)
        stores = rows.stored(sources, text, score, models_digest(config.teacher), TOP_K)
        sources, objective = stores, dataclasses.replace(objective, teacher=StoredTeacher())
        spent = models.flops_per_token(plain, config.size.seq_len).forward * config.size.seq_len * sum(map(len, stores.values()))
    if "hidden" in config.losses:
        students.add_projections(student, plain.config.hidden_size, len(repeated_blocks(student)), config.trainer.seed)
    judged = kind in ("causal", "classifier")  # the others are scored by losses against this very teacher, or on its tokens
    return Start(
        student, made.tokenizer, kind, objective, sources["train"], sources["dev"], made.facts,
        plain if judged else None, tokenizer, spent,
    )  # fmt: skip


def _served(config: DistillConfig, run: Run, text: dict[str, Dataset]) -> Start:
    """A student that starts from a folder, and a teacher behind an address."""
    server, start = ServedTeacher(config.teacher), config.student.start
    student, tokenizer = models.load(start, "causal"), models.load_tokenizer(start)
    students.check_shape(student.config.model_type)
    rows, objective = Rows(config, run, "causal", tokenizer, None), CausalLM(config.trainer.implementation)
    if config.signal == "text":
        text = _written(config, run, text, served_writer(server, config.size.seq_len))
    sources = rows.of({name: text[name] for name in ("train", "dev")}, [student])
    if config.signal == "offline":
        server.check_tokens(tokenizer, [row.text for row in text["train"].rows])
        sources = rows.stored(sources, text, server.score, f"{config.teacher} {server.name}", served.TOP_K)
        objective = Distillation(
            StoredTeacher(), dict(config.losses), "causal", temperature=config.temperature, beta=config.beta,
            vocab_size=len(tokenizer), implementation=config.trainer.implementation,
        )  # fmt: skip
    facts = {"start": "folder", "teacher": server.name}
    return Start(student, tokenizer, "causal", objective, sources["train"], sources["dev"], facts)


def _written(config: DistillConfig, run: Run, text: dict[str, Dataset], write: Writer) -> dict[str, Dataset]:
    """The training text as the teacher writes it; what is measured on stays as it is."""
    return {**text, "train": teacher_texts(text["train"], write, run.path / "teacher.jsonl")}


def models_digest(name: str) -> str:
    """sha256 over a model folder's weights."""
    return digest([file_digest(path) for path in sorted(models.find(name).glob("*.safetensors"))])


def labels_of(model: nn.Module) -> list[str]:
    return [model.config.id2label[i] for i in range(model.config.num_labels)]


@dataclass(frozen=True)
class Made:
    """A student before training, float32, its tokenizer, and how it came about.

    `ids`: the teacher's id of each of its tokens, where its vocabulary was pruned.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    facts: dict[str, Any]
    ids: list[int] | None = None


def make_student(config: DistillConfig, teacher: nn.Module, rows: Rows, train: Dataset) -> Made:
    """The student as `config.student` asks for it.

    Raises: ModelError if it starts from a folder whose tokenizer is another than the teacher's.
    """
    start, seed, kind, tokenizer = config.student.start, config.trainer.seed, rows.kind, rows.tokenizer
    if start == "fresh":
        return Made(models.build(student_shape(config, teacher.config, kind), kind, seed), tokenizer, {"start": start})
    if start not in FROM_TEACHER:
        own = models.load_tokenizer(start)
        if config.signal != "text":
            check_same_tokens(own, tokenizer, [row.text for row in train.rows])
        return Made(models.load(start, kind), own, {"start": "folder"})
    shape = student_shape(config, teacher.config, kind)
    probe = functools.cache(lambda: rows.probe(train, [teacher]))
    judge = objective_of(config, kind, teacher, teacher, tokenizer, None, {"cosine" if kind == "encoder" else "cross_entropy": 1.0})
    if start == "search":
        picks = students.searched(
            shape.num_hidden_layers, teacher.eval(), lambda model: float(judge.loss(model, probe()).total)
        )
    else:
        choose = students.evenly if start == "every" else students.last
        picks = choose(shape.num_hidden_layers, teacher.config.num_hidden_layers)
    picks = students.like_the_pattern(teacher.config, picks)
    facts: dict[str, Any] = {"start": start, "blocks": picks}
    if not config.student.width and not config.student.vocab_size:
        return Made(students.with_blocks(teacher, kind, picks, seed), tokenizer, facts)
    smaller, ids = tokenizer, None
    if config.student.vocab_size:
        smaller, ids = prune_tokenizer(tokenizer, [row.text for row in train.rows], config.student.vocab_size)
        renumber(shape, ids)
    found = prune.importance(teacher, [probe()], judge.loss)
    kept = prune.choose(found, shape, picks, torch.tensor(ids if ids is not None else range(teacher.config.vocab_size)))
    model = students.with_blocks(teacher, kind, picks, seed, shape, prune.cut(kept, prune.key_heads(teacher.config)))
    return Made(model, smaller, {**facts, "width": shape.hidden_size, "vocab_size": shape.vocab_size}, ids)


def renumber(shape: Any, ids: list[int]) -> None:
    """Tell a config the size of its pruned vocabulary, and the new ids of its special tokens."""
    shape.vocab_size = len(ids)
    for name, old in shape.to_dict().items():
        if name.endswith("_token_id") and isinstance(old, int):
            setattr(shape, name, ids.index(old) if old in ids else None)


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
    config: DistillConfig, kind: Kind, teacher: nn.Module, student: nn.Module, tokenizer: PreTrainedTokenizerFast,
    ids: list[int] | None, losses: dict[str, float] | None = None,
) -> Distillation:  # fmt: skip
    """The objective of `config`, or one with other losses."""
    return Distillation(
        OnlineTeacher(teacher, kind, None if ids is None else torch.tensor(ids)),
        losses or dict(config.losses),
        kind,
        Layout.even(len(repeated_blocks(student)), len(repeated_blocks(teacher))),
        config.temperature,
        config.beta,
        len(tokenizer) if kind in ("causal", "masked") else None,
        implementation=config.trainer.implementation,
    )


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

    def stored(
        self, sources: dict[str, Source], text: dict[str, Dataset], score: Scorer, teacher: str, top_k: int
    ) -> dict[str, Source]:
        """The same rows with the teacher's answers, which are asked for once."""
        found: dict[str, Source] = {}
        for name, source in sources.items():
            layout = StoreLayout(len(source), self.config.size.seq_len, min(top_k, len(self.tokenizer) - 1), len(self.tokenizer))
            made_from = {
                "teacher": teacher, "text": text[name].digest, "tokenizer": tokenizer_digest(self.tokenizer),
                "temperature": self.config.temperature, **vars(layout),
            }  # fmt: skip
            found[name] = WithTeacher(source, write_store(source, score, self.run.shards(digest(made_from)), layout, made_from))
        return found

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
