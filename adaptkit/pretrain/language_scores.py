"""Score a pretrained model on dev text: bits per byte, or nats per masked token of a masked model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import models
from adaptkit.data.packing import Source
from adaptkit.data.readers import Dataset
from adaptkit.data.score_table import ItemRow
from adaptkit.models.bits_per_byte import bits_per_byte, score_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH_ROWS = 8


def language_rows(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    dev: Dataset,
    source: Source,
    objective: str,
    seq_len: int,
) -> list[ItemRow]:
    """One row per dev document (causal: id, nats, num_bytes, num_tokens) or per packed row (masked: id, nats,
    num_tokens)."""
    if objective == "causal":
        documents = [(row.id, row.text) for row in dev.rows]
        return score_documents(model, tokenizer, documents, seq_len=seq_len)
    return _masked_rows(model, source)


def language_scores(rows: list[ItemRow], objective: str) -> dict[str, float]:
    """`bits_per_byte` of causal models; `nats_per_masked_token` of masked ones.

    The latter is comparable within one tokenizer only.
    """
    if objective == "causal":
        return {"bits_per_byte": bits_per_byte(rows)}
    nats, num_tokens = (sum(row[name] for row in rows) for name in ("nats", "num_tokens"))
    return {"nats_per_masked_token": nats / num_tokens}


@torch.no_grad()
def _masked_rows(model: nn.Module, source: Source) -> list[ItemRow]:
    """Loss on the source's own noise at epoch 0, seed 0: every call masks the same tokens."""
    device = next(model.parameters()).device
    backbone, weight_VD, bias_V = models.split(model.eval())
    rows: list[ItemRow] = []
    for first in range(0, len(source), BATCH_ROWS):
        indices = list(range(first, min(first + BATCH_ROWS, len(source))))
        batch = {name: value.to(device) for name, value in source.collate(indices, seed=0, epoch=0).items()}
        labels_BT = batch.pop("labels")
        hidden_BTD = backbone(**batch)
        for index, labels_T, hidden_TD in zip(indices, labels_BT, hidden_BTD, strict=True):
            masked_T = labels_T >= 0
            logits_NV = F.linear(hidden_TD[masked_T], weight_VD, bias_V).float()
            nats = F.cross_entropy(logits_NV, labels_T[masked_T], reduction="sum").item()
            rows.append({"id": f"row-{index}", "nats": nats, "num_tokens": int(masked_T.sum())})
    return rows
