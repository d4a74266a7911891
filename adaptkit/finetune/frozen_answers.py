"""What a model that is not trained gives on a task: answers, the scores to choose by, and the cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from adaptkit import models
from adaptkit.data.score_table import ItemRow
from adaptkit.trainer import device

LOWER_IS_BETTER = ("mae",)


def goodness(scores: dict[str, float], metric: str) -> float:
    """A score of which more is better."""
    return -scores[metric] if metric in LOWER_IS_BETTER else scores[metric]


@dataclass
class FrozenAnswers:
    """Answers to the test split under the setting that was best on the dev split.

    Attributes:
        rows: item rows of the test split, `{"id", "label", "prediction", "probabilities"}` or `{"id",
            "reference", "prediction"}`.
        dev: scores of the chosen setting on the dev split.
        chosen: the setting that won there.
        trials: every setting tried with its dev scores, in order.
        cost: flops, seconds, tokens; all trials and the answers to the test split included. Of a prompted
            model also `tokens_per_item`, what one item of the test takes: whole prompt and answer.
        dev_rows: item rows of the dev split under the chosen setting, of classifiers.
    """

    rows: list[ItemRow]
    dev: dict[str, float]
    chosen: dict[str, Any]
    trials: list[dict[str, Any]]
    cost: dict[str, Any]
    dev_rows: list[ItemRow] = field(default_factory=list)


@dataclass
class ForwardMeter:
    """Adds up the forward passes of a model that is not trained.

    Attributes:
        tokens_per_item: of the whole prompt and the answer of a mean item, the last that were answered; 0
            where a model reads items as they are.
    """

    flops: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_item: float = 0.0

    def forward(self, model: nn.Module, num_tokens: int, seq_len: float) -> None:
        """Count `num_tokens` read in sequences of about `seq_len`."""
        self.tokens += num_tokens
        self.flops += num_tokens * models.flops_per_token(model, max(1, round(seq_len))).forward

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the seconds of the block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begun

    def cost(self, model: nn.Module) -> dict[str, Any]:
        """All that was counted, for cost.json."""
        home = next(model.parameters()).device
        speed = 0.0
        if self.seconds:
            speed = round(self.tokens / self.seconds, 1)
        asked = {"tokens_per_item": round(self.tokens_per_item, 1)} if self.tokens_per_item else {}
        return {
            "flops": self.flops,
            "seconds": round(self.seconds, 3),
            "tokens": self.tokens,
            **asked,
            "tokens_per_s": speed,
            "peak_memory_bytes": device.peak_memory(home),
            "device": str(home),
            "threads": torch.get_num_threads(),
        }
