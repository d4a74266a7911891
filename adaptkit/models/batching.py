"""Batches of texts of like lengths, with next to no padding.

Shape letters: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = 8192
CPU_TOKENS, GPU_TOKENS = 512, 32768
"""Tokens of a batch that encoders read fastest: per CPU thread, what a core's cache holds; or what fills a
GPU."""


def fast_batch_tokens(device_type: str) -> int:
    """Tokens of a batch, padding included, that an encoder reads fastest on this machine."""
    return CPU_TOKENS * torch.get_num_threads() if device_type == "cpu" else GPU_TOKENS


def class_probabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> np.ndarray:
    """float64 [num_texts, num_labels]."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    num_labels: int = model.config.num_labels or 0
    probabilities = np.empty((len(encoded), num_labels))
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for items in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
            batch = pad_right([encoded[i] for i in items], tokenizer.pad_token_id, model.device)
            probabilities[items] = model(**batch).logits.double().softmax(-1).cpu().numpy()
    model.train(was_training)
    return probabilities


def pad_right(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device | None = None
) -> dict[str, Tensor]:
    """input_ids and attention_mask, int64 [B, T], of rows of token ids; on the CPU unless told otherwise."""
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), pad, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return {name: value.to(device or "cpu") for name, value in batch.items()}


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of items of similar length, at most `batch_tokens` padded tokens a batch, at least one item.

    The longest come first: what does not fit into memory fails at once.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
