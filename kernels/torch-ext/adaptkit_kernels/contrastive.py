"""InfoNCE in memory that grows with the batch, O(B D), and never holds all scores [B, C].

Without anything to leave out, candidates are a vocabulary and the head's cross-entropy is the loss. Which
negatives to
leave out differs from query to query, which a vocabulary does not know: then a chunk of queries at a time is
    scored here,
and its gradient formed in the memory of its own scores.

Shape suffixes: B = queries, C = candidates, D = size of a vector, S = queries of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .head import chunk_size, loss_dtype


def operator(linear_cross_entropy: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """info_nce made of an implementation's `linear_cross_entropy`."""

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
        """Equals `reference.info_nce`, in float32: at temperature 0.01 a bf16 score of 100 is off by up to
        0.25."""
        labels_B = torch.arange(len(queries_BD), device=queries_BD.device) if labels_B is None else labels_B
        with torch.autocast(queries_BD.device.type, enabled=False):
            queries_BD, candidates_CD = (x.to(loss_dtype(x.dtype)) for x in (queries_BD, candidates_CD))
            every_B = torch.arange(len(queries_BD), device=queries_BD.device)
            if groups_C is not None or margin:
                groups_C = (
                    torch.arange(len(candidates_CD), device=labels_B.device) if groups_C is None else groups_C
                )
                loss = _LeavingOut.apply(queries_BD, candidates_CD, labels_B, groups_C, temperature, margin)
                if not symmetric:
                    return loss
                own_BD, own_B = candidates_CD[labels_B], groups_C[labels_B]
                return (loss + _LeavingOut.apply(own_BD, queries_BD, every_B, own_B, temperature, margin)) / 2
            loss = linear_cross_entropy(queries_BD / temperature, candidates_CD, labels_B, rows_R=every_B)
            if not symmetric:
                return loss
            back = linear_cross_entropy(
                candidates_CD[labels_B] / temperature, queries_BD, every_B, rows_R=every_B
            )
            return (loss + back) / 2

    return info_nce


class _LeavingOut(torch.autograd.Function):
    """The loss of one direction without the candidates that may be right as well."""

    @staticmethod
    def forward(
        ctx: Any,
        queries_BD: Tensor,
        candidates_CD: Tensor,
        labels_B: Tensor,
        groups_C: Tensor,
        temperature: float,
        margin: float,
    ) -> Tensor:
        wanted, columns = any(ctx.needs_input_grad), len(candidates_CD)
        total = queries_BD.new_zeros(())
        d_queries_BD, d_candidates_CD = torch.empty_like(queries_BD), torch.zeros_like(candidates_CD)
        size = chunk_size(len(queries_BD), columns * queries_BD.element_size(), columns, queries_BD.device)
        for start in range(0, len(queries_BD), size):
            rows, labels_S1 = slice(start, start + size), labels_B[start : start + size, None]
            scores_SC = queries_BD[rows] @ candidates_CD.T
            left_out_SC = groups_C == groups_C[labels_S1]
            if margin:
                left_out_SC |= scores_SC > scores_SC.gather(1, labels_S1) + margin
            left_out_SC.scatter_(1, labels_S1, False)
            scores_SC = scores_SC.div_(temperature).masked_fill_(left_out_SC, -torch.inf)
            log_p_SC = torch.log_softmax(scores_SC, 1, out=scores_SC)
            total -= log_p_SC.gather(1, labels_S1).sum()
            if wanted:
                d_scores_SC = log_p_SC.exp_()
                d_scores_SC.scatter_add_(1, labels_S1, d_scores_SC.new_full(labels_S1.shape, -1.0)).div_(
                    temperature
                )
                torch.mm(d_scores_SC, candidates_CD, out=d_queries_BD[rows])
                d_candidates_CD.addmm_(d_scores_SC.T, queries_BD[rows])
        if wanted:
            ctx.save_for_backward(d_queries_BD, d_candidates_CD)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_queries_BD, d_candidates_CD = ctx.saved_tensors
        return grad * d_queries_BD, grad * d_candidates_CD, None, None, None, None
