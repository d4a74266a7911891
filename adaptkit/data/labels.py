"""Item rows and scores of classification tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptkit.data.readers import Dataset
from adaptkit.data.score_table import accuracy, macro_f1
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
    texts = [row.values["text"] for row in dataset.rows]
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
