"""The definition of every operator, in plain torch: the oracle that the other implementations are tested against.

Shape suffixes: T = tokens, D = hidden size, V = vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100


def linear_cross_entropy(hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """Summed cross-entropy of `hidden @ weight.T + bias` against labels.

    Args:
        hidden_TD: last hidden states, float [num_tokens, hidden_size].
        weight_VD: output embedding, float [vocab_size, hidden_size].
        labels_T: token ids, int64 [num_tokens]; IGNORE_INDEX entries count nothing.
        bias_V: output bias, float [vocab_size], or None.
    Returns: loss in nats, float32 scalar (float64 for float64 input).
    """
    logits_TV = F.linear(hidden_TD, weight_VD, bias_V)
    return F.cross_entropy(_at_least_float32(logits_TV), labels_T, ignore_index=IGNORE_INDEX, reduction="sum")


def token_nll(hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """Cross-entropy of each token in nats, float [num_tokens]; zero where the label is IGNORE_INDEX."""
    logits_TV = F.linear(hidden_TD, weight_VD, bias_V)
    return F.cross_entropy(_at_least_float32(logits_TV), labels_T, ignore_index=IGNORE_INDEX, reduction="none")


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
