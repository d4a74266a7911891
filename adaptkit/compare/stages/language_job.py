"""What a kind of training on text is: one class each, and what all of them are given."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit import models
from adaptkit.adapters import AdapterConfig
from adaptkit.architecture import SizeConfig
from adaptkit.compare.workspace import Workspace, documents, rows_of
from adaptkit.data.readers import DataConfig, Dataset
from adaptkit.run import Run, write_jsonl
from adaptkit.run_record import RecipeKind, RunRecord
from adaptkit.study.arms import Origin
from adaptkit.study.prepared_files import PreparedFiles
from adaptkit.study.spend import forward_flops, token_lengths
from adaptkit.trainer.config import TrainerConfig

FULL_RATE, ADAPTER_RATE = 0.5, 3.0
"""Centres of the learning rates tried, relative to training all weights from scratch."""


@dataclass(frozen=True)
class JobOrder:
    """One training on text that a stage asks for.

    Attributes:
        text_share: of the domain text.
        flops: what it may spend.
        learning_rate: 1 until it is chosen.
        task: whose rows' text is learnt; None for the study's texts.
        params: parameters of a model from scratch; 0 for the study's size.
    """

    workspace: Workspace
    origin: Origin
    text_share: float
    flops: float
    seed: int
    threads: int
    learning_rate: float = 1.0
    task: str | None = None
    params: int = 0

    @property
    def size(self) -> SizeConfig:
        """Of a model from scratch."""
        size = self.workspace.config.size
        return size.model_copy(update={"params": self.params}) if self.params else size

    @property
    def name(self) -> str:
        """Of its run, and in messages."""
        return self.origin.value if self.task is None else f"{self.origin}-{self.task}"

    @property
    def adapter(self) -> AdapterConfig:
        """Which weights it moves."""
        return self.workspace.config.adapter_on_text(self.origin)

    @property
    def trainer(self) -> TrainerConfig:
        """The study's trainer settings with what the plan decides."""
        settings = self.workspace.config.trainer.model_dump(exclude_unset=True)
        settings |= {"learning_rate": self.learning_rate, "seed": self.seed, "threads": self.threads}
        return TrainerConfig(**settings)


@dataclass(frozen=True)
class Subject:
    """What is trained: a model without weights, to count by, and the folder of its tokenizer."""

    model: Any
    tokenizer: Path

    @property
    def params(self) -> int:
        return models.param_count(self.model).total


class LanguageJob(ABC):
    """One kind of training on text."""

    text: str = "domain"
    """The corpus that is learnt, and on whose development part the training is judged."""

    def train_file(self, order: JobOrder) -> Path:
        """The text that is learnt."""
        return part_of_text(order.workspace, order.text_share, self.text)

    def dev_file(self, order: JobOrder) -> Path:
        """The text that candidates are judged on."""
        return order.workspace.files.dev(self.text)

    def passes(self, order: JobOrder) -> float:
        """How often the text may be read at most; 0 where the budget alone decides."""
        return 0.0

    def most_flops(self, order: JobOrder) -> float:
        """What those passes take."""
        passes = self.passes(order)
        if not passes:
            return math.inf
        subject, seq_len = self.subject(order), order.workspace.config.size.seq_len
        texts = [text for _, text in documents(self.train_file(order))]
        num_tokens = sum(token_lengths(models.load_tokenizer(subject.tokenizer), texts)) + len(texts)
        num_rows = math.ceil(num_tokens / seq_len)
        return passes * num_rows * seq_len * models.flops_per_token(subject.model, seq_len).train

    @abstractmethod
    def rate_share(self, by_adapter: bool) -> float:
        """Where the learning rates tried are centred, relative to training all weights from scratch."""

    @abstractmethod
    def subject(self, order: JobOrder) -> Subject:
        """The model that the order trains."""

    @abstractmethod
    def train(self, order: JobOrder) -> tuple[Run, float]:
        """The finished run, and its score on development text, lower is better.

        Raises: BudgetError where the FLOPs buy too few steps.
        """

    def scoring_flops(self, order: JobOrder) -> float:
        """What scoring the trained model on development passages takes: once by its loss on packed rows, once
        passage by passage, in windows that overlap by half."""
        subject, seq_len = self.subject(order), order.workspace.config.size.seq_len
        texts = [text for _, text in documents(self.dev_file(order))]
        lengths = token_lengths(models.load_tokenizer(subject.tokenizer), texts)
        windows = [2 * length if length > seq_len else length for length in lengths]
        return forward_flops(subject.model, [seq_len] * round(sum(lengths + windows) / seq_len))


def part_of_text(workspace: Workspace, share: float, corpus: str = "domain") -> Path:
    """The training text of a corpus, or a share of its bytes."""
    path = workspace.files.train(corpus)
    if share == 1:
        return path
    run = workspace.open_fields("part", {"corpus": corpus, "share": share})
    part = PreparedFiles(run.path).train(corpus)
    if not run.finished:
        write_jsonl(part, ({"text": text} for text in share_of_bytes(rows_of(path), share)))
        run.finish(record=RunRecord(recipe=RecipeKind.PREPARE).model_dump(mode="json"))
    return part


def share_of_bytes(dataset: Dataset, share: float) -> Iterator[str]:
    """Whole texts in the order of their content's hash, and the beginning of the one that is too much.

    A smaller share lies inside a larger one.
    """
    left = round(share * sum(len(row.text.encode()) for row in dataset.rows))
    for row in sorted(dataset.rows, key=lambda row: row.id):
        whole = row.text.encode()
        text = whole[:left].decode(errors="ignore")  # no half of a character
        if text:
            yield text
        left -= len(whole)
        if left <= 0:
            return


def adapted_rate(by_adapter: bool) -> float:
    return ADAPTER_RATE if by_adapter else FULL_RATE


def files(path: Path) -> DataConfig:
    return DataConfig(files=[str(path)])
