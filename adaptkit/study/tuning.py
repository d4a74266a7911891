"""Learning rates that are tried: a grid around what size and kind suggest, one more where the grid points,
and the best of them corrected to the length of the run that counts. The same for text and labelled tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.errors import NonFiniteError
from adaptkit.study.arms import Adaptation

GRID_STEP = 3.0
"""Ratio of neighbouring rates of the grid."""
HORIZON = 0.32
"""A run takes the best rate of trials that are a share s of its length, times s ** HORIZON: what learns
fastest in a short trial is too fast for a long run (Bjorck et al. 2024, arXiv 2409.19913)."""
WIDTH_EXPONENT = 1.0
"""Of 1 / width, by which a learning rate is carried to models of another width. Measured in
benchmarks/rate_by_width.py: the best rate fell with the width to the power of 0.86 and 1.11, and this lost
.012 nats per byte at most; the same rate lost .12."""

DIVERGED = 1e9
"""What a trial counts as whose loss was no number: worse than any other, and not the end of a study."""


@dataclass(frozen=True)
class LearningRates:
    """Where the learning rates tried are centred, relative to training all weights from scratch."""

    full: float
    adapters: float

    def centre(self, adaptation: Adaptation) -> float:
        return self.full if adaptation in (Adaptation.FULL, Adaptation.RERANK) else self.adapters


def grid(centre: float, num_rates: int) -> list[float]:
    """Rates in geometric steps around `centre`."""
    middle = (num_rates - 1) / 2
    return [_rounded(centre * GRID_STEP ** (i - middle)) for i in range(num_rates)]


def one_more(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate to try after a grid: beyond its edge where the best one lies there, else between the best and
    the better one of its neighbours.

    Args:
        losses: what each rate reached on development data, lower is better.
    """
    tried = sorted(zip(rates, losses, strict=True))
    best = min(range(len(tried)), key=lambda i: tried[i][1])
    if best == len(tried) - 1:
        return _rounded(tried[best][0] * GRID_STEP)
    if best == 0:
        return _rounded(tried[best][0] / GRID_STEP)
    neighbour = min(tried[best - 1], tried[best + 1], key=lambda rate_and_loss: rate_and_loss[1])
    return _rounded(math.sqrt(tried[best][0] * neighbour[0]))


def check_any_ended(rates: Sequence[float], losses: Sequence[float], what: str) -> None:
    """Raises: NonFiniteError where every rate that was tried diverged."""
    if losses and min(losses) >= DIVERGED:
        tried = ", ".join(f"{rate:g}" for rate in sorted(rates))
        fix = "look at its data, set trainer.precision=fp32 or a longer warmup_fraction, or leave it out"
        raise NonFiniteError(f"{what} diverged at every learning rate that was tried: {tried}", fix=fix)


def for_length(rate: float, tried: float, run: float) -> float:
    """A rate that was best in a trial of length `tried`, for a run of length `run`: both in FLOPs or in
    steps."""
    return _rounded(rate * (tried / run) ** HORIZON)


def for_size(rate: float, *, widths: tuple[int, int], per_token: tuple[float, float]) -> float:
    """A rate that was best at one size, for a run of another size with the same FLOPs.

    Wider matrices take smaller steps, in proportion to 1 / width, as in muP (arXiv 2203.03466); and a model
    that costs more for each token takes fewer steps (`for_length`).

    Args:
        widths: of the size that was tuned, and of the other.
        per_token: training FLOPs of both.
    """
    carried = rate * (widths[0] / widths[1]) ** WIDTH_EXPONENT
    return for_length(carried, per_token[1], per_token[0])


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
