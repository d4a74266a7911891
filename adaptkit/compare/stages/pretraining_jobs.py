"""Pretraining in a study: from scratch, or a base that keeps training on domain or general text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from adaptkit import models
from adaptkit.architecture import architecture
from adaptkit.compare.stages.language_job import (
    JobOrder,
    LanguageJob,
    Subject,
    adapted_rate,
    files,
    part_of_text,
)
from adaptkit.compare.workspace import Workspace
from adaptkit.errors import DataError
from adaptkit.models.folder import saved_shape
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run, write_jsonl
from adaptkit.run_record import RecipeKind, RunRecord
from adaptkit.study.base_model import text_kind, with_vocabulary
from adaptkit.study.config import StudyConfig
from adaptkit.study.mixture import domain_share
from adaptkit.study.prepared_files import PreparedFiles
from adaptkit.study.spend import meta_model
from adaptkit.trainer.config import TrainerConfig

SCRATCH_RATE = 2.0
"""In five studies the highest of three rates around 1.0 was the best for models from scratch."""


class Scratch(LanguageJob):
    """Random weights and the domain tokenizer."""

    def rate_share(self, by_adapter: bool) -> float:
        return SCRATCH_RATE

    def subject(self, order: JobOrder) -> Subject:
        config, tokenizer = order.workspace.config, order.workspace.tokenizer
        kind = scratch_objective(config)
        shape = architecture(order.size, tokenizer.tokenizer.vocab_size, kind=kind, flops=order.flops)
        return Subject(meta_model(shape, kind), order.workspace.tokenizer_folder)

    def train(self, order: JobOrder) -> tuple[Run, float]:
        workspace = order.workspace
        vocabulary = str(workspace.tokenizer_folder)
        settings = from_scratch(
            workspace, order.origin.value, self.text, vocabulary, order.flops, order.trainer, order.text_share
        )
        return pretrained(workspace, settings.model_copy(update={"size": order.size}))


class Mixed(Scratch):
    """Random weights and the domain tokenizer, on general text with domain text mixed in from the start.

    The vocabulary is that of `scratch`, so that the two differ by the general text alone.
    """

    def train(self, order: JobOrder) -> tuple[Run, float]:
        workspace = order.workspace
        settings = from_scratch(
            workspace,
            order.origin.value,
            self.text,
            str(workspace.tokenizer_folder),
            order.flops,
            order.trainer,
            order.text_share,
        )
        general = files(workspace.files.train("general"))
        mixture = {"replay": general, "replay_share": 1 - self.domain_share(order), "size": order.size}
        return pretrained(workspace, settings.model_copy(update=mixture))

    def domain_share(self, order: JobOrder) -> float:
        """Of the rows; the same for trials as for the run whose rate they look for."""
        workspace = order.workspace
        flops = workspace.budget.run(workspace.budget.text)
        model = self.subject(replace(order, flops=flops)).model
        num_tokens = flops / models.flops_per_token(model, workspace.config.size.seq_len).train
        num_bytes = workspace.prepared.data.corpora["domain"].train.num_bytes
        domain = num_bytes / workspace.tokenizer.tokenizer.bytes_per_token
        return round(domain_share(workspace.config.mixed, num_tokens, domain), 4)


class KeepTraining(LanguageJob):
    """The base, fully or by adapters."""

    def rate_share(self, by_adapter: bool) -> float:
        return adapted_rate(by_adapter)

    def subject(self, order: JobOrder) -> Subject:
        base = order.workspace.base_folder
        return Subject(meta_model(saved_shape(base), text_kind(base)), base)

    def train(self, order: JobOrder) -> tuple[Run, float]:
        workspace, config = order.workspace, order.workspace.config
        base = workspace.base_folder
        settings = PretrainConfig(
            name=order.name,
            objective="masked" if text_kind(base) == "masked" else scratch_objective(config),
            base=str(base),
            data=files(self.train_file(order)),
            dev=files(self.dev_file(order)),
            flops=order.flops,
            size=config.size,
            tokenizer=config.tokenizer.model_copy(update={"path": "", "new_tokens": self.new_tokens(config)}),
            adapter=order.adapter,
            trainer=order.trainer,
            **self.replay(workspace),
        )
        return pretrained(workspace, settings)

    def new_tokens(self, config: StudyConfig) -> int:
        """Entries that are added to the base's vocabulary."""
        return 0

    def replay(self, workspace: Workspace) -> dict[str, Any]:
        """General text that is mixed in."""
        return {}


class Continued(KeepTraining):
    """The base on domain text, with general text mixed in against forgetting."""

    def replay(self, workspace: Workspace) -> dict[str, Any]:
        share = workspace.config.replay_share
        return {"replay": files(workspace.files.train("general")), "replay_share": share} if share else {}


class ContinuedVocabulary(Continued):
    """The same with entries of the domain added to the base's vocabulary."""

    def new_tokens(self, config: StudyConfig) -> int:
        return config.extend_vocabulary

    def subject(self, order: JobOrder) -> Subject:
        base, num_new = order.workspace.base_folder, self.new_tokens(order.workspace.config)
        return Subject(meta_model(with_vocabulary(saved_shape(base), num_new), text_kind(base)), base)


class OwnText(KeepTraining):
    """The base on the text of a task's own training rows, without their labels and answers."""

    text = "task"

    def train_file(self, order: JobOrder) -> Path:
        return own_text(order).train(self.text)

    def dev_file(self, order: JobOrder) -> Path:
        return own_text(order).dev(self.text)

    def passes(self, order: JobOrder) -> float:
        return order.workspace.config.tapt.repetitions


def own_text(order: JobOrder) -> PreparedFiles:
    """The text of a task's training and development rows, each once; nothing of its test.

    Raises: DataError for rows without text.
    """
    workspace = order.workspace
    assert order.task is not None
    task = workspace.config.task(order.task)
    run = workspace.open_fields("own-text", {"task": task.name, "kind": task.kind})
    prepared = PreparedFiles(run.path)
    if not run.finished:
        texts = task.task_kind.own_texts(workspace.files.task(task.name))
        for path, part in ((prepared.train("task"), "train"), (prepared.dev("task"), "dev")):
            rows = [{"text": text} for text in dict.fromkeys(texts[part]) if text.strip()]
            if not rows:
                what = f"the {part} rows of '{task.name}' hold no text to pretrain on"
                raise DataError(what, where=task.name, fix="leave the arms of tapt out")
            write_jsonl(path, rows)
        run.finish(record=RunRecord(recipe=RecipeKind.PREPARE).model_dump(mode="json"))
    return prepared


class Placebo(KeepTraining):
    """The base on as much more general text.

    It is tuned on the text it learns: it must be as good at general text as trials can make it.
    """

    text = "general"


def from_scratch(
    workspace: Workspace,
    name: str,
    text: str,
    tokenizer: str,
    flops: float,
    trainer: TrainerConfig,
    share: float = 1.0,
) -> PretrainConfig:
    """The pretraining of random weights on a corpus of the study."""
    config = workspace.config
    return PretrainConfig(
        name=name,
        objective=scratch_objective(config),
        data=files(part_of_text(workspace, share, text)),
        dev=files(workspace.files.dev(text)),
        flops=flops,
        size=config.size,
        tokenizer=config.tokenizer.model_copy(update={"path": tokenizer}),
        adapter=config.adapter.model_copy(update={"kind": "none"}),
        trainer=trainer,
    )


def pretrained(workspace: Workspace, settings: PretrainConfig) -> tuple[Run, float]:
    """The finished run of a pretraining and its score on development text."""
    run = workspace.open(settings.name, settings)
    return run, min(pretrain(settings, run).scores.values())


def scratch_objective(config: StudyConfig) -> Literal["causal", "masked"]:
    """Scratch models are of the base's kind, so that arms are compared like with like."""
    return "masked" if config.base and text_kind(config.base) == "masked" else "causal"
