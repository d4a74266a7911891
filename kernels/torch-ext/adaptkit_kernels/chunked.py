"""linear_cross_entropy without the [T, V] logits: labelled rows only, a chunk of rows at a time.

The gradient of cross-entropy needs nothing that the forward pass does not have, so each chunk's gradients are formed
right after its loss, in the chunk's own logits, and added up. Peak memory is one chunk of logits plus the gradients
themselves. The idea is old; see Wijmans et al. 2024 (arXiv 2411.09009) and Hsu et al. 2024 (arXiv 2410.10989).

Shape suffixes: T = tokens, R = labelled rows, C = rows of one chunk, D = hidden size, V = vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .reference import IGNORE_INDEX

CPU_ROWS, CPU_LOGITS = 256, 2 << 20
"""A chunk on a CPU has this many rows or logits, whichever is more rows: within 3 % of the fastest size at every
vocabulary from 4k to 32k (fewer rows starve the matrix products, more only cost memory)."""
GPU_ROWS, GPU_LOGITS = 4096, 128 << 20
"""A chunk on a GPU has at most this many rows and this many logits (512 MiB in float32): few, large launches."""


def linear_cross_entropy(hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """Equals `reference.linear_cross_entropy`, with gradients for hidden, weight and bias; no second derivative."""
    return _LinearCrossEntropy.apply(hidden_TD, weight_VD, labels_T, bias_V)


@torch.no_grad()
def token_nll(hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """Equals `reference.token_nll`; carries no gradient."""
    dtype = _compute_dtype(hidden_TD)
    with torch.autocast(hidden_TD.device.type, enabled=False):
        weight_VD, bias_V = weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype)
        nll_T = torch.zeros(len(labels_T), dtype=_loss_dtype(dtype), device=hidden_TD.device)
        for rows_C in _labelled_chunks(labels_T, len(weight_VD)):
            log_p_CV = _log_softmax(hidden_TD[rows_C].to(dtype), weight_VD, bias_V)
            nll_T[rows_C] = -log_p_CV.gather(1, labels_T[rows_C].unsqueeze(1)).squeeze(1)
    return nll_T


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, bias_V: Tensor | None) -> Tensor:
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[3])
        with torch.autocast(hidden_TD.device.type, enabled=False):
            loss, *gradients = _loss_and_gradients(hidden_TD, weight_VD, labels_T, bias_V, wanted, _compute_dtype(hidden_TD))
        ctx.gradients, ctx.dtypes = gradients, [None if x is None else x.dtype for x in (hidden_TD, weight_VD, bias_V)]
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy scales its gradients in place: backward runs once per forward")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [None if g is None else g.mul_(grad.to(g.dtype)).to(dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True)]
        d_hidden_TD, d_weight_VD, d_bias_V = scaled
        return d_hidden_TD, d_weight_VD, None, d_bias_V


def _loss_and_gradients(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    bias_V: Tensor | None,
    wanted: tuple[bool, bool, bool],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    weight, bias = weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype)
    d_hidden = torch.zeros_like(hidden_TD) if wanted[0] else None
    total_dtype = _loss_dtype(weight_VD.dtype)  # chunks add up in float32 also for bf16 weights
    d_weight = torch.zeros_like(weight_VD, dtype=total_dtype) if wanted[1] else None
    d_bias = torch.zeros_like(bias_V, dtype=total_dtype) if wanted[2] else None
    loss = torch.zeros((), dtype=_loss_dtype(dtype), device=hidden_TD.device)
    for rows_C in _labelled_chunks(labels_T, len(weight_VD)):
        hidden_CD, labels_C1 = hidden_TD[rows_C].to(dtype), labels_T[rows_C].unsqueeze(1)
        log_p_CV = _log_softmax(hidden_CD, weight, bias)
        loss -= log_p_CV.gather(1, labels_C1).sum()
        d_logits_CV = log_p_CV.exp_().scatter_add_(1, labels_C1, torch.full_like(labels_C1, -1, dtype=log_p_CV.dtype)).to(dtype)
        if d_hidden is not None:
            d_hidden[rows_C] = (d_logits_CV @ weight).to(d_hidden.dtype)
        if d_weight is not None:
            _add_matmul(d_weight, d_logits_CV.t(), hidden_CD)
        if d_bias is not None:
            d_bias += d_logits_CV.sum(0)
    return loss, d_hidden, d_weight, d_bias


def _log_softmax(hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    logits_CV = torch.nn.functional.linear(hidden_CD, weight_VD, bias_V).to(_loss_dtype(hidden_CD.dtype))
    return torch.log_softmax(logits_CV, dim=1, out=logits_CV)


def _add_matmul(total: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _labelled_chunks(labels_T: Tensor, vocab_size: int) -> list[Tensor | slice]:
    """Row selectors of equal chunks; slices (views, no copies) when every row is labelled."""
    on_cpu = labels_T.device.type == "cpu"
    size = max(CPU_ROWS, CPU_LOGITS // vocab_size) if on_cpu else max(1, min(GPU_ROWS, GPU_LOGITS // vocab_size))
    rows_R = (labels_T != IGNORE_INDEX).nonzero().squeeze(1)
    starts = range(0, len(rows_R), size)
    if len(rows_R) == len(labels_T):
        return [slice(start, start + size) for start in starts]
    return [rows_R[start : start + size] for start in starts]


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _loss_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
