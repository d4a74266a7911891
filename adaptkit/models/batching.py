"""Cut many texts into batches of similar length, and pad each batch.

    for items in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
        batch = pad_right([encoded[i] for i in items], pad_id, model.device)

Shape letters: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from adaptkit.models.control_tokens import encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = 8192
CPU_TOKENS, GPU_TOKENS = 512, 32768
"""Tokens of a batch that encoders read fastest: per CPU thread, what a core's cache holds; or what fills a
GPU."""


def fast_batch_tokens(device_type: str) -> int:
    """Tokens of a batch, padding included, that an encoder reads fastest on this machine."""
    return CPU_TOKENS * torch.get_num_threads() if device_type == "cpu" else GPU_TOKENS


def batches_by_length(
    lengths: Sequence[int], batch_tokens: int, batch_rows: int | None = None
) -> list[list[int]]:
    """Indices of items of similar length, the longest first: what does not fit into memory fails at once.

    Args:
        batch_tokens: most tokens of a batch, padding included; a longer item has a batch of its own.
        batch_rows: most items of a batch; None sets no limit.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        full = not batches or len(batches[-1]) == batch_rows
        if full or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


def batches_of_one_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of items that need no padding, the shortest first: for models that padding or longer neighbours
    would change."""
    batches: list[list[int]] = []
    for length in sorted(set(lengths)):
        same = [i for i, other in enumerate(lengths) if other == length]
        size = max(1, batch_tokens // max(1, length))
        batches += [same[start : start + size] for start in range(0, len(same), size)]
    return batches


def pad_right(
    rows: Sequence[Sequence[int]], padding: int, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, int64 [B, T], of rows of token ids, padded to the longest."""
    longest = max(map(len, rows))
    ids, mask = np.full((len(rows), longest), padding, np.int64), np.zeros((len(rows), longest), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return {
        "input_ids": torch.from_numpy(ids).to(device),
        "attention_mask": torch.from_numpy(mask).to(device),
    }


def class_probabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> np.ndarray:
    """A classifier's softmax probabilities of each text, float64 [num_texts, num_labels]."""
    return torch.from_numpy(head_outputs(model, tokenizer, texts, max_length)).softmax(-1).numpy()


def head_outputs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> np.ndarray:
    """What a classifier's head gives each text, before any activation, float64 [num_texts, num_outputs]."""
    encoded = encode(tokenizer, texts, max_length=max_length)
    outputs = np.empty((len(encoded), int(model.config.num_labels or 0)))
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for items in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
            batch = pad_right([encoded[i] for i in items], tokenizer.pad_token_id or 0, model.device)
            outputs[items] = model(**batch).logits.double().cpu().numpy()
    model.train(was_training)
    return outputs
