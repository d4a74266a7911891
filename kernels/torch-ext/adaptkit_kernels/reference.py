"""The definition of every operator, in plain torch: the oracle that the other implementations are tested
against.

Shape suffixes: T = tokens, R = chosen rows, D = hidden size, V = rows of the head's weight, K = kept teacher
    tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .teachers import MIN_TAIL, HiddenTeacher, Teacher, TopKTeacher

IGNORE_INDEX = -100

# Losses of a language model's head


def linear_cross_entropy(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    bias_V: Tensor | None = None,
    *,
    rows_R: Tensor | None = None,
    vocab_size: int | None = None,
) -> Tensor:
    """Summed cross-entropy of `hidden @ weight.T + bias` against labels, over `vocab_size` columns.

    Args:
        hidden_TD: last hidden states, float [num_tokens, hidden_size].
        weight_VD: output embedding, float [num_rows, hidden_size].
        labels_T: token ids, int64 [num_tokens]; IGNORE_INDEX entries count nothing.
        bias_V: output bias, float [num_rows], or None.
        rows_R: the only rows that count, distinct indices, int64; None: all rows.
        vocab_size: number of real tokens; the rows of `weight` after them are padding. None: all are real.
    Returns: loss in nats, float32 scalar (float64 for float64 input).
    """
    if rows_R is not None:
        hidden_TD, labels_T = hidden_TD[rows_R], labels_T[rows_R]
    log_p_TV = _log_probabilities(hidden_TD, weight_VD, bias_V, vocab_size)
    kept_T = labels_T != IGNORE_INDEX
    nll_T = -log_p_TV.gather(1, labels_T.where(kept_T, 0)[:, None])[:, 0]
    return nll_T.where(kept_T, 0).sum()


def token_nll(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    bias_V: Tensor | None = None,
    *,
    vocab_size: int | None = None,
) -> Tensor:
    """-log p of each label in nats, float32 [num_tokens]; zero where the label is IGNORE_INDEX."""
    log_p_TV = _log_probabilities(hidden_TD, weight_VD, bias_V, vocab_size)
    return F.nll_loss(log_p_TV, labels_T, ignore_index=IGNORE_INDEX, reduction="none")


def _log_probabilities(
    hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, vocab_size: int | None
) -> Tensor:
    logits_TV = _at_least_float32(F.linear(hidden_TD, weight_VD, bias_V))[:, :vocab_size]
    return logits_TV.log_softmax(1)


def linear_distillation(
    student_TD: Tensor,
    student_weight_VD: Tensor,
    teacher: Teacher,
    labels_T: Tensor,
    student_bias_V: Tensor | None = None,
    *,
    kind: str = "forward_kl",
    beta: float = 0.5,
    temperature: float = 1.0,
    ce_weight: float = 0.0,
    kd_weight: float = 1.0,
    rows_R: Tensor | None = None,
    vocab_size: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`ce_weight * CE + kd_weight * temperature**2 * KD`, summed over the labelled rows, with its two sums.

    With q = softmax(student logits / temperature), p = the teacher's distribution at the same temperature and
    m = beta * p + (1 - beta) * q, KD is
        "forward_kl"  KL(p || q)                                    (Hinton et al. 2015, arXiv 1503.02531)
        "reverse_kl"  KL(q || p)                                    (MiniLLM, arXiv 2306.08543)
        "jsd"         beta * KL(p || m) + (1 - beta) * KL(q || m)   (GKD, arXiv 2306.13649), 0 < beta < 1
    and CE the cross-entropy of the student's logits at temperature 1 against the labels. The factor
    temperature**2 keeps the gradient's size when the temperature changes; the sums returned are free of it
    and of the weights. A top-k teacher compares k + 1 events: its k tokens and "any other token", whose mass
    is what the k leave over.
    Logits are float32 for lower dtypes: p - q cancels, and bf16 logits cost 13 % of the gradient near the
        teacher.

    Args:
        student_TD, student_weight_VD, student_bias_V: the student's last hidden states and head.
        teacher: a HiddenTeacher, DenseTeacher or TopKTeacher; it gets no gradient.
        labels_T: token ids, int64 [num_tokens]; rows labelled IGNORE_INDEX count nothing.
        rows_R, vocab_size: as in linear_cross_entropy.
    Returns: (total, CE, KD) in nats, float32 scalars; only `total` carries a gradient.
    """
    rows_R = torch.arange(len(labels_T), device=labels_T.device) if rows_R is None else rows_R
    rows_R = rows_R[labels_T[rows_R] != IGNORE_INDEX]
    vocab_size = len(student_weight_VD) if vocab_size is None else vocab_size
    logits_RV = _wide_logits(student_TD[rows_R], student_weight_VD, student_bias_V)[:, :vocab_size]
    with torch.no_grad():
        log_p_RV, ids_RK = _teacher_log_probabilities(teacher, rows_R, temperature, vocab_size)
    log_q_RV = (logits_RV / temperature).log_softmax(1)
    if ids_RK is not None:
        log_q_RV = _with_tail(log_q_RV, ids_RK)
    kd = _divergence(log_p_RV, log_q_RV, kind, beta).sum()
    ce = F.cross_entropy(logits_RV, labels_T[rows_R], reduction="sum")
    return ce_weight * ce + kd_weight * temperature**2 * kd, ce.detach(), kd.detach()


def _teacher_log_probabilities(
    teacher: Teacher, rows_R: Tensor, temperature: float, vocab_size: int
) -> tuple[Tensor, Tensor | None]:
    """(log p, None) over the vocabulary, or (log p over k tokens and the rest, the k ids)."""
    if isinstance(teacher, TopKTeacher):
        log_p_RK = _at_least_float32(teacher.logprobs_TK[rows_R])
        rest_R1 = (1 - log_p_RK.exp().sum(1, keepdim=True)).clamp_min(MIN_TAIL)
        return torch.cat([log_p_RK, rest_R1.log()], 1), teacher.ids_TK[rows_R]
    if isinstance(teacher, HiddenTeacher):
        logits_RV = _wide_logits(teacher.hidden_TE[rows_R], teacher.weight_VE, teacher.bias_V)
    else:
        logits_RV = _at_least_float32(teacher.logprobs_TV[rows_R])
    return (logits_RV[:, :vocab_size] / temperature).log_softmax(1), None


def _with_tail(log_q_RV: Tensor, ids_RK: Tensor) -> Tensor:
    """Log-probabilities of the k tokens and of all others together."""
    others_RV = log_q_RV.scatter(1, ids_RK, -torch.inf)
    return torch.cat([log_q_RV.gather(1, ids_RK), others_RV.logsumexp(1, keepdim=True)], 1)


def _divergence(log_p_RV: Tensor, log_q_RV: Tensor, kind: str, beta: float) -> Tensor:
    """The divergence of each row; an event of probability zero in the first argument of a KL adds zero."""
    if kind == "forward_kl":
        return _kl(log_p_RV, log_q_RV)
    if kind == "reverse_kl":
        return _kl(log_q_RV, log_p_RV)
    log_m_RV = (beta * log_p_RV.exp() + (1 - beta) * log_q_RV.exp()).log()
    return beta * _kl(log_p_RV, log_m_RV) + (1 - beta) * _kl(log_q_RV, log_m_RV)


def _kl(log_a_RV: Tensor, log_b_RV: Tensor) -> Tensor:
    a_RV = log_a_RV.exp()
    return (a_RV * (log_a_RV - log_b_RV)).where(a_RV > 0, 0).sum(1)


def info_nce(
    queries_BD: Tensor,
    candidates_CD: Tensor,
    labels_B: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.05,
    symmetric: bool = False,
    groups_C: Tensor | None = None,
    margin: float = 0.0,
) -> Tensor:
    """Summed cross-entropy of `queries @ candidates.T / temperature` against each query's candidate (arXiv
    1807.03748).

    `symmetric` averages it with the loss of finding the query from its candidate among all queries (CLIP,
    arXiv 2103.00020), which asks for labels that differ.

    Args:
        queries_BD: embeddings, float [num_queries, size]; normalise them for cosine similarity.
        candidates_CD: embeddings, float [num_candidates, size].
        labels_B: each query's candidate, int64 [num_queries]; None: candidate i belongs to query i.
        temperature: a number, or a scalar tensor that may want a gradient (then without groups and margin).
        groups_C: int64 [num_candidates]; candidates of the same number as a query's own are right as well: no
            negatives.
        margin: if not 0, candidates that score higher than a query's own by more than this, before the
            temperature, are taken to be right as well.
    Returns: loss in nats, float32 scalar (float64 for float64 input).
    """
    labels_B = torch.arange(len(queries_BD), device=queries_BD.device) if labels_B is None else labels_B
    scores_BC = _wide_logits(queries_BD, candidates_CD, None)
    loss = F.cross_entropy(
        _negatives_kept(scores_BC, labels_B, groups_C, margin) / temperature, labels_B, reduction="sum"
    )
    if not symmetric:
        return loss
    every_B = torch.arange(len(labels_B), device=labels_B.device)
    back_BB = _negatives_kept(
        scores_BC[:, labels_B].T, every_B, None if groups_C is None else groups_C[labels_B], margin
    )
    return (loss + F.cross_entropy(back_BB / temperature, every_B, reduction="sum")) / 2


def _negatives_kept(scores_BC: Tensor, labels_B: Tensor, groups_C: Tensor | None, margin: float) -> Tensor:
    """Scores without the candidates that may be right as well."""
    left_out_BC = torch.zeros_like(scores_BC, dtype=torch.bool)
    if groups_C is not None:
        left_out_BC |= groups_C == groups_C[labels_B, None]
    if margin:
        left_out_BC |= scores_BC > scores_BC.gather(1, labels_B[:, None]) + margin
    return scores_BC.masked_fill(left_out_BC.scatter(1, labels_B[:, None], False), -torch.inf)


def _wide_logits(hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    bias_V = None if bias_V is None else _at_least_float32(bias_V)
    with torch.autocast(hidden_RD.device.type, enabled=False):
        return F.linear(_at_least_float32(hidden_RD), _at_least_float32(weight_VD), bias_V)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


# Layers


def add_rms_norm(
    x: Tensor, residual: Tensor | None, weight_D: Tensor, eps: float, *, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(RMSNorm of `x + residual` over the last dimension, `x + residual`); statistics in float32 (arXiv
    1910.07467)."""
    total = x if residual is None else x + residual
    wide = _at_least_float32(total)
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    dtype = torch.promote_types(total.dtype, weight_D.dtype)
    return (normed * (offset + _at_least_float32(weight_D))).to(dtype), total


def add_layer_norm(
    x: Tensor, residual: Tensor | None, weight_D: Tensor | None, bias_D: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """(LayerNorm of `x + residual` over the last dimension, `x + residual`); statistics in float32 (arXiv
    1607.06450)."""
    total = x if residual is None else x + residual
    weight_D, bias_D = (None if p is None else _at_least_float32(p) for p in (weight_D, bias_D))
    return F.layer_norm(_at_least_float32(total), x.shape[-1:], weight_D, bias_D, eps).to(total.dtype), total


def rope(
    q_BHTD: Tensor,
    k_BHTD: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    positions_BT: Tensor | None = None,
    q_weight_D: Tensor | None = None,
    k_weight_D: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Queries and keys, normalised per head if scales are given, then turned by each token's angles (arXiv
    2104.09864).

    Args:
        cos, sin: [B or 1, T, R] per token, or a table [S, R] of which `positions_BT` picks rows; R <= D.
    """
    if positions_BT is not None:
        cos, sin = cos[positions_BT], sin[positions_BT]
    cos_B1TR, sin_B1TR = cos.unsqueeze(1), sin.unsqueeze(1)

    def turned(x_BHTD: Tensor, weight_D: Tensor | None) -> Tensor:
        if weight_D is not None:
            x_BHTD = add_rms_norm(x_BHTD, None, weight_D, eps)[0]
        a, b, rest = x_BHTD.tensor_split((cos.shape[-1] // 2, cos.shape[-1]), dim=-1)
        turning, across = torch.cat((a, b), -1), torch.cat((-b, a), -1)
        return torch.cat((turning * cos_B1TR + across * sin_B1TR, rest), -1).to(x_BHTD.dtype)

    return turned(q_BHTD, q_weight_D), turned(k_BHTD, k_weight_D)


def gated(gate: Tensor, up: Tensor, kind: str) -> Tensor:
    """`act(gate) * up` with act one of "silu", "gelu" (exact) and "gelu_tanh" (arXiv 2002.05202)."""
    if kind == "silu":
        return F.silu(gate) * up
    return F.gelu(gate, approximate="tanh" if kind == "gelu_tanh" else "none") * up


def lora_linear(
    x: Tensor,
    weight_NK: Tensor,
    a_RK: Tensor,
    b_NR: Tensor,
    scale: float,
    bias_N: Tensor | None = None,
    *,
    dropped: Tensor | None = None,
) -> Tensor:
    """`x @ weight^T + bias + scale * x @ a^T @ b^T`; the update sees `dropped` instead of x if given (arXiv
    2106.09685)."""
    update = F.linear(F.linear(x if dropped is None else dropped, a_RK), b_NR)
    return F.linear(x, weight_NK, bias_N) + scale * update


def dequantize_4bit(
    packed: Tensor, scales: Tensor, code: Tensor, block_size: int, shape: tuple[int, ...]
) -> Tensor:
    """The values of a 4-bit weight, float32 [shape]: `code[nibble] * scale`, the high half of a byte first
    (arXiv 2305.14314).

    Args:
        packed: uint8, two elements per byte.
        scales: float32, one per `block_size` elements.
        code: float32 [16].
    """
    bytes_ = packed.flatten()
    values = code[torch.stack((bytes_ >> 4, bytes_ & 15), dim=1).int()].flatten()[: math.prod(shape)]
    return (values * scales.repeat_interleave(block_size)[: len(values)]).view(shape)
