"""Hold the steps whose loss the host has not seen yet.

Asking a GPU for a loss makes the host wait until the step is done, and a small model's step is over before
the host has prepared the next one. So on a GPU the numbers of several steps are fetched at once, when a row
is logged, an evaluation or a checkpoint is due. Until then the device itself refuses updates: from the first
loss or gradient norm that is not finite on, the optimizer leaves the weights as they are.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


@dataclass
class Taken:
    """One step: which examples, what came out, what it cost.

    Attributes:
        groups: example indices of each microbatch.
        totals: summed loss of each microbatch, on the device.
        outcome: float64 [2] on the device: the summed loss over all ranks, and the gradient norm.
    """

    step: int
    groups: list[list[int]]
    totals: Tensor
    outcome: Tensor
    items: int
    tokens: int
    flops: float
    learning_rate: float
    started: float
    seconds: float = 0.0
    loss: float = math.nan
    grad_norm: float = math.nan

    @property
    def finite(self) -> bool:
        """Whether the update may be made; known once fetched."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    def suspects(self) -> list[int]:
        """Examples of the microbatches whose loss is not finite."""
        parts = zip(self.groups, self.totals.tolist(), strict=False)
        return [index for group, total in parts if not math.isfinite(total) for index in group]

    def crash(self, places: list[str]) -> dict[str, Any]:
        """crash.json of a step that is not finite."""
        values = {"loss": repr(self.loss), "grad_norm": repr(self.grad_norm)}
        return {"step": self.step + 1, **values, "samples": places}

    def failure(self, places: list[str]) -> str:
        """What went wrong, for people."""
        kind, value = "loss", self.loss
        if math.isfinite(self.loss):
            kind, value = "gradient norm", self.grad_norm
        listed = ", ".join(places[:8])
        if len(places) > 8:
            listed += f" and {len(places) - 8} more"
        return f"the {kind} is {value} at step {self.step + 1}; the update was not made. Samples: {listed}"


class Pending:
    """The steps since the host last looked.

    Args:
        optimizer: where `deferred`, one that skips its update while its `found_inf` is not zero (torch's
            fused AdamW).
        deferred: False fetches each step's numbers before its update.
    """

    def __init__(self, optimizer: Optimizer, deferred: bool):
        self.optimizer, self.deferred = optimizer, deferred
        self.steps: list[Taken] = []
        self._fetched = 0

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, taken: Taken) -> None:
        """Enter a step before its update is made, and see to it that a bad one is not made."""
        self.steps.append(taken)
        if self.deferred:
            spoiled = (~taken.outcome.isfinite().all()).float()
            before = getattr(self.optimizer, "found_inf", None)
            if before is not None:
                spoiled = torch.maximum(before, spoiled)
            self.optimizer.found_inf = spoiled  # type: ignore[attr-defined]
        else:
            self.fetch()

    def updated(self) -> None:
        """The last step's update was made, or is under way on the device."""
        self.steps[-1].seconds = time.perf_counter() - self.steps[-1].started

    def fetch(self) -> None:
        """Wait for the numbers of all steps entered; the wait belongs to the last one's time."""
        new, started = self.steps[self._fetched :], time.perf_counter()
        if not new:
            return
        outcomes = torch.stack([taken.outcome for taken in new]).tolist()
        for taken, (loss, grad_norm) in zip(new, outcomes, strict=True):
            taken.loss, taken.grad_norm = loss, grad_norm
        self._fetched = len(self.steps)
        new[-1].seconds += time.perf_counter() - started

    def take(self) -> list[Taken]:
        """All steps entered, fetched; the list starts anew."""
        self.fetch()
        steps, self.steps, self._fetched = self.steps, [], 0
        return steps
