"""What a student is judged by, one suite for each kind of model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from adaptkit.data.labels import classify_rows, label_scores
from adaptkit.models.bits_per_byte import bits_per_byte, score_documents
from adaptkit.trainer.device import send
from adaptkit.trainer.distillation import Kind

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.data.readers import Dataset
    from adaptkit.distill.start import Start

ItemRow = dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """A name, item rows of a model on a data set, and the metrics of such rows."""

    name: str
    rows: Callable[[nn.Module, Start, Dataset, int], list[ItemRow]]
    score: Callable[[Sequence[ItemRow]], dict[str, float]]


def suite_of(start: Start, student: nn.Module) -> Suite:
    """Vectors of another size than the teacher's have no distance to them; their scores of one text with
    another do."""
    if (
        start.kind == "encoder"
        and student.config.hidden_size != start.objective.teacher.model.config.hidden_size
    ):
        return _SHORTER_VECTORS
    return _SUITES[start.kind]


def tokenizer_of(model: nn.Module, start: Start) -> Any:
    """The teacher reads its own tokens: the student may know fewer."""
    return start.reference_tokenizer if model is start.reference else start.tokenizer


def _language_rows(model: nn.Module, start: Start, dataset: Dataset, seq_len: int) -> list[ItemRow]:
    return score_documents(
        model, tokenizer_of(model, start), [(row.id, row.text) for row in dataset.rows], seq_len=seq_len
    )


def _label_rows(model: nn.Module, start: Start, dataset: Dataset, seq_len: int) -> list[ItemRow]:
    names = [start.model.config.id2label[i] for i in range(start.model.config.num_labels)]
    return classify_rows(model, tokenizer_of(model, start), dataset, names, seq_len)


def _loss_rows(name: str, at_once: int = 1) -> Callable[[nn.Module, Start, Dataset, int], list[ItemRow]]:
    """One of the objective's losses on each dev row, or group of rows: what masked models and encoders can be
    compared by."""

    def rows(model: nn.Module, start: Start, dataset: Dataset, seq_len: int) -> list[ItemRow]:
        objective = dataclasses.replace(start.objective, losses={name: 1.0})
        device, found = next(model.parameters()).device, []
        for index in range(0, len(start.dev), at_once):
            group = list(range(index, min(index + at_once, len(start.dev))))
            batch = send(objective.prepare(start.dev.collate(group, seed=0, epoch=0)), device)
            with torch.no_grad():
                loss = objective.loss(model.eval(), batch).total
            found.append(
                {"id": f"row-{index}", "loss": float(loss), "num_items": int(objective.items(batch))}
            )
        return found

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
