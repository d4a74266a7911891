"""Answers to a task's test rows: of an arm without training, or without any language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Rows = list[dict[str, Any]]
"""Item rows, as eval/<suite>.jsonl holds them."""


@dataclass(frozen=True)
class Answers:
    """How an arm without training, or a baseline, answers.

    Attributes:
        rows: item rows of the test split.
        dev: scores on the dev split, by which arms are chosen; empty for baselines.
        cost: flops, seconds, tokens, peak_memory_bytes; empty for baselines.
        facts: settings that were chosen and tried.
        dev_rows: item rows of the dev split, of classifiers.
    """

    rows: Rows
    dev: dict[str, float] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    dev_rows: Rows = field(default_factory=list)


@dataclass(frozen=True)
class Baseline:
    """Answers to the test rows without a language model.

    Attributes:
        name: short, as verdicts call it.
        describe: what answers, in words.
        seconds: training and answering together.
        requests_per_s: while it answered.
        dev_rows: answers to the development rows, of classifiers.
    """

    name: str
    describe: str
    rows: Rows
    seconds: float
    requests_per_s: float
    dev_rows: Rows = field(default_factory=list)

    @property
    def cost(self) -> dict[str, float]:
        """For cost.json; no FLOPs are counted."""
        return {"flops": 0.0, "seconds": self.seconds, "requests_per_s": self.requests_per_s}
