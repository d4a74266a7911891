"""What every way of learning a task returns: item rows, dev scores to choose by, and its cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from adaptkit import models


@dataclass
class Outcome:
    """The result of one arm on one task.

    Attributes:
        rows: item rows of the test split, `{"id", "label", "prediction", "probabilities"}` or `{"id",
            "reference", "prediction"}`.
        dev: scores on the dev split of what was chosen.
        chosen: the setting that won on dev.
        trials: every setting tried with its dev score, in order.
        cost: flops, seconds, tokens; all trials and the scoring of the test split included.
    """

    rows: list[dict[str, Any]]
    dev: dict[str, float]
    chosen: dict[str, Any]
    trials: list[dict[str, Any]]
    cost: dict[str, Any]


@dataclass
class Meter:
    """Adds up the forward passes of an arm that trains no network."""

    flops: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    _begun: float = field(default=0.0, repr=False)

    def forward(self, model: Any, num_tokens: int, seq_len: float) -> None:
        """Count `num_tokens` read in sequences of about `seq_len`."""
        self.tokens += num_tokens
        self.flops += num_tokens * models.flops_per_token(model, max(1, round(seq_len))).forward

    @contextmanager
    def running(self) -> Iterator[Meter]:
        begun = time.perf_counter()
        try:
            yield self
        finally:
            self.seconds += time.perf_counter() - begun

    def cost(self, model: Any) -> dict[str, Any]:
        import torch

        from adaptkit.trainer import device

        return {
            "flops": self.flops,
            "seconds": round(self.seconds, 3),
            "tokens": self.tokens,
            "tokens_per_s": round(self.tokens / self.seconds, 1) if self.seconds else 0.0,
            "peak_memory_bytes": device.peak_memory(model.device),
            "device": str(model.device),
            "threads": torch.get_num_threads(),
        }
