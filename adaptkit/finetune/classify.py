"""Labels from a classification head: probabilities per item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adaptkit.finetune.likelihood import batches_by_length, pad_right
from adaptkit.finetune.outcome import label_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from adaptkit.data import Dataset

BATCH_TOKENS = 8192


def classify_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: Dataset, label_names: Sequence[str], max_length: int
) -> list[dict[str, Any]]:
    """Item rows with the head's softmax probabilities.

    Args:
        model: sequence classifier whose outputs are in the order of `label_names`.
        max_length: tokens after which a text is cut, special tokens included.
    """
    texts = [row.values["text"] for row in dataset.rows]
    return label_rows(dataset, label_names, class_probabilities(model, tokenizer, texts, max_length))


def class_probabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> np.ndarray:
    """float64 [num_texts, num_labels]."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    found = np.empty((len(encoded), model.config.num_labels))
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for items in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
            batch = pad_right([encoded[i] for i in items], tokenizer.pad_token_id, model.device)
            found[items] = model(**batch).logits.double().softmax(-1).cpu().numpy()
    model.train(was_training)
    return found
