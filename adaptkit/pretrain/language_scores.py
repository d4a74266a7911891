"""Dev scores of a pretrained model: bits per byte of raw text for causal models, nats per masked token for
encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import models

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adaptkit.data.packing import Source
    from adaptkit.data.readers import Dataset

ROWS_AT_ONCE = 8


def language_rows(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    dev: Dataset,
    source: Source,
    objective: str,
    seq_len: int,
) -> list[dict[str, Any]]:
    """One row per dev document (causal: id, nats, num_bytes, num_tokens) or per packed row (masked: id, nats,
    num_tokens)."""
    if objective == "causal":
        from adaptkit.trainer.metrics import score_documents

        return score_documents(model, tokenizer, [(row.id, row.text) for row in dev.rows], seq_len=seq_len)
    return _masked_rows(model, source)


def language_scores(rows: list[dict[str, Any]], objective: str) -> dict[str, float]:
    """`bits_per_byte` of causal models; `nats_per_masked_token` of encoders, comparable within one tokenizer
    only."""
    if objective == "causal":
        from adaptkit.trainer.metrics import bits_per_byte

        return {"bits_per_byte": bits_per_byte(rows)}
    return {
        "nats_per_masked_token": sum(row["nats"] for row in rows) / sum(row["num_tokens"] for row in rows)
    }


@torch.no_grad()
def _masked_rows(model: nn.Module, source: Source) -> list[dict[str, Any]]:
    """Loss on the source's own noise at epoch 0, seed 0: every call masks the same tokens."""
    device = next(model.parameters()).device
    backbone, weight_VD, bias_V = models.split(model.eval())
    scored = []
    for first in range(0, len(source), ROWS_AT_ONCE):
        indices = list(range(first, min(first + ROWS_AT_ONCE, len(source))))
        batch = {name: value.to(device) for name, value in source.collate(indices, seed=0, epoch=0).items()}
        labels_BT = batch.pop("labels")
        hidden_BTD = backbone(**batch)
        for index, labels_T, hidden_TD in zip(indices, labels_BT, hidden_BTD, strict=True):
            kept = labels_T >= 0
            logits_NV = F.linear(hidden_TD[kept], weight_VD, bias_V).float()
            nats = F.cross_entropy(logits_NV, labels_T[kept], reduction="sum").item()
            scored.append({"id": f"row-{index}", "nats": nats, "num_tokens": int(kept.sum())})
    return scored
