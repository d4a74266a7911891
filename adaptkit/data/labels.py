"""Item rows and scores of classification tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptkit.data.readers import Dataset
from adaptkit.data.score_table import accuracy, macro_f1, macro_set_f1_table, micro_f1_table
from adaptkit.models.batching import class_probabilities

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def classify_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    label_names: Sequence[str],
    max_length: int,
) -> list[dict[str, Any]]:
    """Item rows with the head's softmax probabilities.

    Args:
        model: sequence classifier whose outputs are in the order of `label_names`.
        max_length: tokens after which a text is cut, special tokens included.
    """
    texts = [row.text for row in dataset.rows]
    return label_rows(dataset, label_names, class_probabilities(model, tokenizer, texts, max_length))


def label_rows(
    dataset: Dataset, label_names: Sequence[str], probabilities: np.ndarray
) -> list[dict[str, Any]]:
    """Item rows of a classification task from probabilities [num_rows, num_labels]."""
    return [
        {
            "id": row.id,
            "label": row.values["label"],
            "prediction": label_names[int(chances.argmax())],
            "probabilities": {name: round(float(p), 6) for name, p in zip(label_names, chances, strict=True)},
        }
        for row, chances in zip(dataset.rows, probabilities, strict=True)
    ]


def label_scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Accuracy and macro-F1 of classification rows."""
    labels, predictions = [row["label"] for row in rows], [row["prediction"] for row in rows]
    return {"accuracy": accuracy(predictions, labels), "macro_f1": macro_f1(predictions, labels)}


def label_set_rows(
    dataset: Dataset, label_names: Sequence[str], probabilities: np.ndarray, threshold: float
) -> list[dict[str, Any]]:
    """Item rows where any number of labels apply: those whose probability reaches the threshold."""
    return [
        {
            "id": row.id,
            "labels": list(row.labels),
            "predicted_labels": [
                name for name, p in zip(label_names, chances, strict=True) if p >= threshold
            ],
            "probabilities": {name: round(float(p), 6) for name, p in zip(label_names, chances, strict=True)},
        }
        for row, chances in zip(dataset.rows, probabilities, strict=True)
    ]


def label_set_scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Micro-F1, and macro-F1 over labels, of rows with any number of labels."""
    predicted, actual = [row["predicted_labels"] for row in rows], [row["labels"] for row in rows]
    return {
        "micro_f1": micro_f1_table(predicted, actual).value,
        "macro_label_f1": macro_set_f1_table(predicted, actual).value,
    }


def truth_of(dataset: Dataset, label_names: Sequence[str]) -> np.ndarray:
    """Which labels apply to each row, 0 or 1, float32 [num_rows, num_labels]."""
    place = {name: i for i, name in enumerate(label_names)}
    truth = np.zeros((len(dataset.rows), len(label_names)), np.float32)
    for number, row in enumerate(dataset.rows):
        truth[number, [place[label] for label in row.labels]] = 1.0
    return truth


def best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The probability from which a label is taken to apply, by micro-F1: half-way between two that occur.

    0.5 where no label applies to any row.
    """
    if not truth.any():
        return 0.5
    order = np.argsort(-probabilities, axis=None, kind="stable")
    sorted_p, hits = probabilities.ravel()[order], np.cumsum(truth.ravel()[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + truth.sum())
    following = np.append(sorted_p[1:], 0.0)
    f1[sorted_p == following] = -1.0  # no threshold lies between equal ones
    best = int(f1.argmax())
    return float((sorted_p[best] + following[best]) / 2)
