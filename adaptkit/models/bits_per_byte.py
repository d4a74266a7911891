"""Bits per byte: how well a causal model predicts raw text, comparable across tokenizers.

What a tokenizer cannot give back of a text is charged as well (`models.round_trip`).

Shape suffixes: B = windows, T = tokens of a window, D = hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adaptkit import ops
from adaptkit.errors import DataError, ModelError
from adaptkit.models.batching import batches_by_length, pad_right
from adaptkit.models.control_tokens import encode
from adaptkit.models.head import split
from adaptkit.models.round_trip import lost_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Watch = Callable[[list[int], Tensor, list[int]], None]
"""Takes the document of each window of a batch, the hidden states [B, T, D], and each window's tokens."""


@dataclass(frozen=True)
class _Window:
    """Input tokens of one window and, aligned with them, the next token where it is charged here."""

    document: int
    inputs: list[int]
    targets: list[int]


@torch.no_grad()
def score_documents(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[tuple[str, str]],
    *,
    seq_len: int,
    batch_size: int = 8,
    watch: Watch | None = None,
) -> list[dict[str, Any]]:
    """Negative log-likelihood of each (id, text), in the order given.

    A document is BOS and its tokens. Long ones are read in windows of `seq_len` that overlap by half, so that
    every token after BOS is charged exactly once, seeing at least seq_len / 2 tokens before it where there
    are as many.

    Args:
        seq_len: tokens per window; what the model was trained on.
        batch_size: windows per forward pass.
        watch: is shown the last hidden states of every batch.
    Returns: rows {"id", "nats", "num_bytes" (UTF-8), "num_tokens" (without BOS), "lost_bytes"}: bytes that
        the tokens cannot give back, which the nats include at their own price.
    Raises: ModelError if the tokenizer has no token to begin a document with.
    """
    bos = first_token(tokenizer)
    texts = [text for _, text in documents]
    encoded = encode(tokenizer, texts, special=False)
    windows = [
        window for index, ids in enumerate(encoded) for window in _windows(index, [bos, *ids], seq_len)
    ]
    nats = torch.zeros(len(documents), dtype=torch.float64)
    was_training = model.training
    model.eval()
    lengths = [len(window.inputs) for window in windows]
    for items in batches_by_length(lengths, batch_size * seq_len, batch_size):
        batch = [windows[i] for i in items]
        documents_B = torch.tensor([window.document for window in batch])
        nats.index_add_(0, documents_B, _window_nats(model, batch, bos, watch))
    model.train(was_training)
    lost = [lost_text(tokenizer, text, ids) for text, ids in zip(texts, encoded, strict=True)]
    return [
        {
            "id": name,
            "nats": float(total) + left_out.nats,
            "num_bytes": len(text.encode()),
            "num_tokens": len(ids),
            "lost_bytes": left_out.num_bytes,
        }
        for (name, text), total, ids, left_out in zip(documents, nats, encoded, lost, strict=True)
    ]


def bits_per_byte(rows: Sequence[dict[str, Any]]) -> float:
    """Bits per UTF-8 byte over all rows of `score_documents`.

    Raises: DataError if the rows hold no text.
    """
    num_bytes = sum(row["num_bytes"] for row in rows)
    if not num_bytes:
        raise DataError("there is no text to score", fix="give held-out documents that are not empty")
    return sum(row["nats"] for row in rows) / num_bytes / math.log(2)


def _windows(document: int, ids: list[int], seq_len: int) -> list[_Window]:
    """Cut [BOS, tokens...]; the first window charges all of its targets, later ones those beyond the half
    that they share with the window before."""
    stride = max(1, seq_len // 2)
    windows: list[_Window] = []
    charged = 0
    while charged < len(ids) - 1:
        start = max(0, charged - (seq_len - stride))
        end = min(start + seq_len, len(ids) - 1)
        skipped = charged - start
        windows.append(
            _Window(document, ids[start:end], [ops.IGNORE_INDEX] * skipped + ids[charged + 1 : end + 1])
        )
        charged = end
    return windows


def _window_nats(model: nn.Module, windows: list[_Window], pad: int, watch: Watch | None) -> Tensor:
    """Nats charged to each window, float64 [B] on the CPU."""
    documents = [window.document for window in windows]
    watched = None if watch is None else (watch, documents)
    inputs, targets = ([getattr(each, name) for each in windows] for name in ("inputs", "targets"))
    return target_nats(model, inputs, targets, pad, watched).sum(1)


def target_nats(
    model: nn.Module,
    inputs: list[list[int]],
    targets: list[list[int]],
    pad: int,
    watched: tuple[Watch, list[int]] | None = None,
) -> Tensor:
    """Nats of each target, float64 [B, T] on the CPU, 0 for IGNORE_INDEX.

    A causal model never sees padding on the right.

    Args:
        watched: what is shown the hidden states, with the document of each row.
    """
    device = next(model.parameters()).device
    inputs_BT = pad_right(inputs, pad, device)["input_ids"]
    targets_BT = pad_right(targets, ops.IGNORE_INDEX, device)["input_ids"]
    backbone, weight_VD, bias_V = split(model)
    hidden_BTD = backbone(input_ids=inputs_BT)
    if watched is not None:
        watch, documents = watched
        watch(documents, hidden_BTD, [len(row) for row in inputs])
    nll = ops.token_nll(hidden_BTD.flatten(0, 1), weight_VD, targets_BT.flatten(), bias_V=bias_V)
    return nll.view_as(targets_BT).double().cpu()


def first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that every document begins with: BOS, else CLS, else EOS.

    Raises: ModelError for a tokenizer that has no such token.
    """
    for token in (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ModelError(
        "the tokenizer has no BOS, CLS or EOS token to begin a document with",
        fix="add a bos_token to the tokenizer",
    )
