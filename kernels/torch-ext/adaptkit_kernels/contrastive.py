"""InfoNCE through the head's cross-entropy: candidates are a vocabulary, so memory is O(B D), never [B, C]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .head import loss_dtype


def operator(linear_cross_entropy: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """info_nce made of an implementation's `linear_cross_entropy`."""

    def info_nce(
        queries_BD: Tensor,
        candidates_CD: Tensor,
        labels_B: Tensor | None = None,
        *,
        temperature: float | Tensor = 0.05,
        symmetric: bool = False,
    ) -> Tensor:
        """Equals `reference.info_nce`, in float32: at temperature 0.01 a bf16 score of 100 is off by up to 0.25."""
        labels_B = torch.arange(len(queries_BD), device=queries_BD.device) if labels_B is None else labels_B
        with torch.autocast(queries_BD.device.type, enabled=False):
            queries_BD, candidates_CD = (x.to(loss_dtype(x.dtype)) for x in (queries_BD, candidates_CD))
            every_B = torch.arange(len(queries_BD), device=queries_BD.device)
            loss = linear_cross_entropy(queries_BD / temperature, candidates_CD, labels_B, rows_R=every_B)
            if not symmetric:
                return loss
            back = linear_cross_entropy(candidates_CD[labels_B] / temperature, queries_BD, every_B, rows_R=every_B)
            return (loss + back) / 2

    return info_nce
