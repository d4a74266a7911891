"""The losses of a head in plain torch, a chunk of rows at a time: the memory of the fused kernels on any device.

Shape suffixes: C = rows of one chunk, V = rows of the head's weight, K = kept teacher tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import cross_entropy
from .cross_entropy import RowLoss
from .head import loss_dtype


def cross_entropy_rows(
    logits_CV: Tensor, labels_C: Tensor, factors_C: Tensor | None, loss: RowLoss, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor | None]:
    """The losses of a chunk and the gradient of its logits, formed in their memory where dtypes allow."""
    logits_CV, labels_C1 = logits_CV.to(loss_dtype(logits_CV.dtype)), labels_C.unsqueeze(1)
    slope_CV, real = None, slice(loss.vocab_size)
    if loss.softcap:
        share_CV = logits_CV.div_(loss.softcap).tanh_()
        slope_CV, logits_CV = 1 - share_CV.square(), share_CV.mul(loss.softcap)
    logits_CV[:, loss.vocab_size :] = -torch.inf
    lse_C = logits_CV.logsumexp(1) if loss.z_loss else None
    log_p_CV = torch.log_softmax(logits_CV, dim=1, out=logits_CV)
    losses_C = -log_p_CV.gather(1, labels_C1).squeeze(1)
    if loss.label_smoothing:
        losses_C = (1 - loss.label_smoothing) * losses_C - loss.label_smoothing * log_p_CV[:, real].mean(1)
    if lse_C is not None:
        losses_C = losses_C + loss.z_loss * lse_C.square()
    if dtype is None:
        return losses_C, None
    d_logits_CV = log_p_CV.exp_()
    if lse_C is not None:
        d_logits_CV *= 1 + 2 * loss.z_loss * lse_C.unsqueeze(1)
    d_logits_CV.scatter_add_(1, labels_C1, torch.full_like(labels_C1, loss.label_smoothing - 1, dtype=d_logits_CV.dtype))
    if loss.label_smoothing:
        d_logits_CV[:, real] -= loss.label_smoothing / loss.vocab_size
    for factor in (slope_CV, None if factors_C is None else factors_C.unsqueeze(1)):
        if factor is not None:
            d_logits_CV *= factor
    return losses_C, d_logits_CV.to(dtype)


linear_cross_entropy, token_nll = cross_entropy.operators("chunked", cross_entropy_rows, reads_ignored=False)
