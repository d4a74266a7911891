"""Score a student, by one suite for each kind of model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from adaptkit import models
from adaptkit.data.labels import classify_rows, label_scores
from adaptkit.data.readers import Dataset
from adaptkit.distill.start import Start
from adaptkit.distill.student import label_names
from adaptkit.models.bits_per_byte import bits_per_byte, score_documents
from adaptkit.trainer.device import send
from adaptkit.trainer.distillation import Distillation, Kind

ItemRow = dict[str, Any]
ScoreRows = Callable[[nn.Module, Start, Dataset, int], list[ItemRow]]
"""(a model, how its training began, documents, tokens of a row) -> item rows."""


@dataclass(frozen=True)
class Suite:
    """A name, item rows of a model on a data set, and the metrics of such rows."""

    name: str
    rows: ScoreRows
    score: Callable[[Sequence[ItemRow]], dict[str, float]]


def suite_of(start: Start, width: int) -> Suite:
    """How a student with hidden states of `width` numbers is judged.

    Vectors of another size than the teacher's have no distance to them; their scores of one text with another
    do.
    """
    if start.kind == "encoder" and width != start.teacher_width:
        return _SHORTER_VECTORS
    return _SUITES[start.kind]


def tokenizer_of(model: nn.Module, start: Start) -> Any:
    """The teacher reads its own tokens: the student may know fewer."""
    if start.reference is not None and model is start.reference.model:
        return start.reference.tokenizer
    return start.tokenizer


def _language_rows(model: nn.Module, start: Start, dataset: Dataset, seq_len: int) -> list[ItemRow]:
    documents = [(row.id, row.text) for row in dataset.rows]
    return score_documents(model, tokenizer_of(model, start), documents, seq_len=seq_len)


def _label_rows(model: nn.Module, start: Start, dataset: Dataset, seq_len: int) -> list[ItemRow]:
    names = label_names(models.unwrap(start.model))
    return classify_rows(models.unwrap(model), tokenizer_of(model, start), dataset, names, seq_len)


def _loss_rows(name: str, at_once: int = 1) -> ScoreRows:
    """One of the objective's losses on each dev row, or group of rows: what masked models and encoders can be
    compared by."""

    def rows(model: nn.Module, start: Start, dataset: Dataset, seq_len: int) -> list[ItemRow]:
        objective = dataclasses.replace(cast(Distillation, start.lesson.objective), losses={name: 1.0})
        device, source = next(model.parameters()).device, start.lesson.dev
        items = []
        for index in range(0, len(source), at_once):
            group = list(range(index, min(index + at_once, len(source))))
            batch = send(objective.prepare(source.collate(group, seed=0, epoch=0)), device)
            with torch.no_grad():
                loss = float(objective.loss(model.eval(), batch).total)
            items.append({"id": f"row-{index}", "loss": loss, "num_items": int(objective.items(batch))})
        return items

    return rows


def _mean(name: str) -> Callable[[Sequence[ItemRow]], dict[str, float]]:
    return lambda rows: {name: sum(row["loss"] for row in rows) / sum(row["num_items"] for row in rows)}


_SHORTER_VECTORS = Suite("embedding", _loss_rows("margin", at_once=16), _mean("score_error"))
_SUITES: dict[Kind, Suite] = {
    "causal": Suite("language", _language_rows, lambda rows: {"bits_per_byte": bits_per_byte(rows)}),
    "masked": Suite("language", _loss_rows("cross_entropy"), _mean("nats_per_masked_token")),
    "encoder": Suite("embedding", _loss_rows("cosine"), _mean("distance_to_teacher")),
    "classifier": Suite("labels", _label_rows, label_scores),
}
