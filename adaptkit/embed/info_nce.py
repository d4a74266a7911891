"""InfoNCE in memory that grows with the batch, not with its square.

A chunk of queries at a time is scored against all candidates; its gradient is formed right after its loss, in the memory
of its own scores, as for the losses on a model's head.

Shape suffixes: B = queries, C = candidates, D = size of a vector, S = queries of one chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_SCORES = 1 << 20
"""Scores held at once: 4 MB."""


def info_nce(
    queries_BD: Tensor, candidates_CD: Tensor, labels_B: Tensor, groups_C: Tensor, *, temperature: float, margin: float = 0.0
) -> Tensor:
    """Summed cross-entropy of `queries @ candidates.T / temperature` against each query's candidate (arXiv 1807.03748).

    Left out as negatives: candidates of the same group as the query's own, which are known to be right as well, and,
    where `margin` is not 0, candidates that score higher than the query's own by more than it (before the temperature).

    Args:
        queries_BD, candidates_CD: unit vectors, float32.
        labels_B: each query's candidate, int64.
        groups_C: int64; equal numbers mean interchangeable answers.
    Returns: loss in nats, scalar.
    """
    return _InfoNCE.apply(queries_BD, candidates_CD, labels_B, groups_C, temperature, margin)


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries_BD: Tensor, candidates_CD: Tensor, labels_B: Tensor, groups_C: Tensor, temperature: float, margin: float
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        total = queries_BD.new_zeros(())
        d_queries_BD, d_candidates_CD = torch.empty_like(queries_BD), torch.zeros_like(candidates_CD)
        size = max(1, CHUNK_SCORES // len(candidates_CD))
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
                d_scores_SC.scatter_add_(1, labels_S1, d_scores_SC.new_full(labels_S1.shape, -1.0)).div_(temperature)
                torch.mm(d_scores_SC, candidates_CD, out=d_queries_BD[rows])
                d_candidates_CD.addmm_(d_scores_SC.T, queries_BD[rows])
        if wanted:
            ctx.save_for_backward(d_queries_BD, d_candidates_CD)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_queries_BD, d_candidates_CD = ctx.saved_tensors
        return grad * d_queries_BD, grad * d_candidates_CD, None, None, None, None
