"""What a teacher gives for a batch, and what any teacher must be able to do.

Shape suffixes: B = rows, E = width of the teacher's embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from adaptkit import ops
from adaptkit.trainer.blocks import Recorded
from adaptkit.trainer.objective import Batch


@dataclass(frozen=True)
class Signal:
    """What a teacher says about a batch."""

    head: ops.Teacher | None = None
    """For a language model its next-token distribution, for a classifier its logits."""
    embedding_BE: Tensor | None = None
    blocks: Recorded = field(default_factory=Recorded)


class Teacher(Protocol):
    """Anything that says what a better model would answer. It is frozen and no part of the model that
    trains."""

    blocks: Sequence[nn.Module]
    """Its blocks, for losses that run or look at them; empty where only its answers are known."""

    def __call__(self, batch: Batch, layers: Sequence[int], attention: bool) -> Signal:
        """The signal of a batch, without gradient, with what `layers` gave."""

    def flops_per_token(self, seq_len: int) -> float:
        """What asking it costs here, per token."""
