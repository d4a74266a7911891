"""Class probabilities of many texts, in batches of like lengths.

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


def pad_right(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> dict[str, Tensor]:
    """input_ids and attention_mask [B, T] of rows of token ids."""
    longest = max(map(len, rows))
    ids = torch.tensor(
        [[*row, *[pad] * (longest - len(row))] for row in rows], dtype=torch.long, device=device
    )
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(longest, device=device)[None] < lengths[:, None]).long(),
    }


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of items of similar length, at most `batch_tokens` padded tokens a batch, longest first."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
