"""What reading texts with a model has cost so far: for encoders and rerankers alike."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor

from adaptkit import models


class ReadingCost:
    """Counts the tokens that a model has read, padding left out, and the FLOPs, padding included."""

    model: Any
    num_tokens: int = 0
    flops: float = 0.0

    @cached_property
    def _flops_at(self) -> dict[int, float]:
        """Length of a row -> FLOPs of one of its tokens."""
        return {}

    def count_reading(self, mask_BT: Tensor) -> None:
        """Add a batch, by its attention mask."""
        length = mask_BT.shape[1]
        if length not in self._flops_at:
            self._flops_at[length] = models.flops_per_token(self.model, length).forward
        self.num_tokens += int(mask_BT.sum())
        self.flops += mask_BT.numel() * self._flops_at[length]
