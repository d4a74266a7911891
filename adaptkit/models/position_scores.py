"""Bits per byte by the position in a document: whether a model uses what it read long before.

Shape letters: T = tokens of a document, D = hidden size, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from adaptkit import ops
from adaptkit.models.bits_per_byte import first_token
from adaptkit.models.control_tokens import encode
from adaptkit.models.head import split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NUM_BANDS = 4


def bands(seq_len: int) -> list[tuple[int, int]]:
    """Ranges of positions, each twice as long as the one before and the last up to `seq_len`; the first two
    are alike."""
    ends = [max(1, seq_len >> halvings) for halvings in range(NUM_BANDS - 1, -1, -1)]
    return [(first, end) for first, end in pairwise([0, *ends]) if end > first]


@torch.no_grad()
def position_scores(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, seq_len: int
) -> dict[str, float]:
    """Bits per byte of the tokens in each band, named `0-1024`; bands that no document reaches are left out.

    Each document is read once from its start, up to `seq_len` tokens. The bytes of a token are counted as
    what the tokens of its document have on average.
    """
    bos = first_token(tokenizer)
    backbone, weight_VD, bias_V = split(model)
    nats, num_bytes = dict.fromkeys(bands(seq_len), 0.0), dict.fromkeys(bands(seq_len), 0.0)
    was_training = model.training
    model.eval()
    for text, ids in zip(texts, encode(tokenizer, list(texts), special=False), strict=True):
        tokens_T = torch.tensor([bos, *ids][: seq_len + 1], device=weight_VD.device)
        if len(tokens_T) < 2:
            continue
        hidden_TD = backbone(input_ids=tokens_T[None, :-1])[0]
        nll_T = ops.token_nll(hidden_TD, weight_VD, tokens_T[1:], bias_V=bias_V).double().cpu()
        for first, end in nats:
            in_band = nll_T[first:end]
            nats[first, end] += float(in_band.sum())
            num_bytes[first, end] += len(in_band) * len(text.encode()) / len(ids)
    model.train(was_training)
    return {
        f"{first}-{end}": nats[first, end] / num_bytes[first, end] / math.log(2)
        for first, end in nats
        if num_bytes[first, end]
    }
