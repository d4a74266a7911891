"""The losses of a head in plain torch, a chunk of rows at a time: the memory of the fused kernels on any
device.

Shape suffixes: C = rows of one chunk, V = rows of the head's weight, K = kept teacher tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import contrastive, cross_entropy, distillation
from .distillation import Divergence, TopKRows
from .head import loss_dtype
from .teachers import MIN_TAIL


def cross_entropy_rows(
    logits_CV: Tensor, labels_C: Tensor, vocab_size: int, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor | None]:
    """The losses of a chunk and the gradient of its logits, formed in their memory where dtypes allow."""
    logits_CV, labels_C1 = logits_CV.to(loss_dtype(logits_CV.dtype)), labels_C.unsqueeze(1)
    logits_CV[:, vocab_size:] = -torch.inf
    log_p_CV = torch.log_softmax(logits_CV, dim=1, out=logits_CV)
    losses_C = -log_p_CV.gather(1, labels_C1).squeeze(1)
    if dtype is None:
        return losses_C, None
    d_logits_CV = log_p_CV.exp_()
    d_logits_CV.scatter_add_(1, labels_C1, torch.full_like(labels_C1, -1, dtype=d_logits_CV.dtype))
    return losses_C, d_logits_CV.to(dtype)


def distillation_rows(
    logits_CV: Tensor,
    teacher: Tensor | TopKRows,
    labels_C: Tensor,
    loss: Divergence,
    dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The cross-entropies and divergences of a chunk, and the gradient of its logits."""
    columns, labels_C1 = logits_CV.shape[1], labels_C.unsqueeze(1)
    logits_CV = logits_CV[:, : loss.vocab_size]
    log_s_CV = logits_CV.log_softmax(1)
    ce_C = -log_s_CV.gather(1, labels_C1).squeeze(1)
    log_q_CV = log_s_CV if loss.temperature == 1 else (logits_CV / loss.temperature).log_softmax(1)
    if isinstance(teacher, TopKRows):
        kd_C, d_CV = _against_top_k(log_q_CV, teacher, loss)
    else:
        log_p_CV = (teacher[:, : loss.vocab_size] / loss.temperature).log_softmax(1)
        kd_C, d_CV = _against_all(log_p_CV, log_q_CV, loss)
    if dtype is None:
        return ce_C, kd_C, None
    d_CV *= loss.slope
    if loss.ce_weight:
        d_CV.add_(log_s_CV.exp(), alpha=loss.ce_weight)
        d_CV.scatter_add_(1, labels_C1, torch.full_like(labels_C1, -loss.ce_weight, dtype=d_CV.dtype))
    return ce_C, kd_C, torch.nn.functional.pad(d_CV, (0, columns - loss.vocab_size)).to(dtype)


def _against_all(log_p_CV: Tensor, log_q_CV: Tensor, loss: Divergence) -> tuple[Tensor, Tensor]:
    """(divergence [C], its derivative by the student's logits / temperature): dD/dz_v = q_v (dD/dq_v - sum_u
    q_u dD/dq_u)."""
    q_CV, p_CV = log_q_CV.exp(), log_p_CV.exp()
    if loss.kind == "forward_kl":
        return _kl(p_CV, log_p_CV - log_q_CV), q_CV - p_CV
    kd_C, gain_CV, mean_C = _gain(p_CV, q_CV, log_p_CV - log_q_CV, loss)
    return kd_C, (q_CV * (gain_CV - mean_C.unsqueeze(1))).where(q_CV > 0, 0)


def _against_top_k(log_q_CV: Tensor, teacher: TopKRows, loss: Divergence) -> tuple[Tensor, Tensor]:
    """As `_against_all` over k + 1 events; a token outside the k moves its event by its share of it."""
    others_CV = log_q_CV.scatter(1, teacher.ids_CK, -torch.inf)
    log_rest_C1 = others_CV.logsumexp(1, keepdim=True)
    log_q_CE = torch.cat([log_q_CV.gather(1, teacher.ids_CK), log_rest_C1], 1)
    p_CK = teacher.logprobs_CK.exp()
    p_CE = torch.cat([p_CK, (1 - p_CK.sum(1, keepdim=True)).clamp_min(MIN_TAIL)], 1)
    log_p_CE, q_CE = torch.cat([teacher.logprobs_CK, p_CE[:, -1:].log()], 1), log_q_CE.exp()
    if loss.kind == "forward_kl":
        kd_C, d_CE = _kl(p_CE, log_p_CE - log_q_CE), q_CE * p_CE.sum(1, keepdim=True) - p_CE
    else:
        kd_C, gain_CE, mean_C = _gain(p_CE, q_CE, log_p_CE - log_q_CE, loss)
        d_CE = (q_CE * (gain_CE - mean_C.unsqueeze(1))).where(q_CE > 0, 0)
    d_CV = (others_CV - log_rest_C1).exp() * d_CE[:, -1:]
    return kd_C, d_CV.scatter(1, teacher.ids_CK, d_CE[:, :-1])


def _gain(p: Tensor, q: Tensor, log_p_over_q: Tensor, loss: Divergence) -> tuple[Tensor, Tensor, Tensor]:
    """(divergence [C], dD/dq up to a constant of the row, its mean under q [C]) for reverse KL and JSD."""
    if loss.kind == "reverse_kl":
        kd_C = _kl(q, -log_p_over_q)
        return kd_C, -log_p_over_q, kd_C
    beta, rest = loss.beta, 1 - loss.beta
    log_p_over_q = log_p_over_q.clamp(
        -80, 80
    )  # where one of the two is zero beside the other; exp stays finite
    log_q_over_m, log_p_over_m = (
        -(rest + beta * log_p_over_q.exp()).log(),
        -(beta + rest * (-log_p_over_q).exp()).log(),
    )
    mean_C = _kl(q, log_q_over_m)
    return beta * _kl(p, log_p_over_m) + rest * mean_C, rest * log_q_over_m, rest * mean_C


def _kl(a: Tensor, log_a_over_b: Tensor) -> Tensor:
    return (a * log_a_over_b).where(a > 0, 0).sum(1)


linear_cross_entropy, token_nll = cross_entropy.operators("chunked", cross_entropy_rows, reads_ignored=False)
linear_distillation = distillation.operator("chunked", distillation_rows, reads_ignored=False)
info_nce = contrastive.operator(linear_cross_entropy)
