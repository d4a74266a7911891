"""Find the best model for its money: the cheapest as good as a goal, and the best within a budget.

    cheapest: least  train(N) * D + serve(N)  over N, where D tokens bring N parameters to the loss
    best:     least  loss(N, D)               over N, where D is what the budget leaves for training

With train(N) = 6 N and serve(N) = 2 N times the tokens served this is Sardana et al. 2024 (arXiv 2401.00448),
equation 2; with nothing served it is Hoffmann et al. 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from adaptkit.planning.published_law import Law

SMALLEST, LARGEST = 1e5, 1e13
"""Parameters among which is searched."""
_POINTS, _ROUNDS = 400, 5


@dataclass(frozen=True)
class Costs:
    """What models cost in one unit, FLOPs or GPU hours.

    Attributes:
        train: parameters -> cost of one token of training.
        serve: parameters -> cost of all that is served.
    """

    train: Callable[[float], float]
    serve: Callable[[float], float]

    def whole(self, params: float, tokens: float) -> float:
        """Training and serving together."""
        return self.train(params) * tokens + self.serve(params)


@dataclass(frozen=True)
class Choice:
    """A size and how long it is trained."""

    params: float
    tokens: float


def cheapest(law: Law, loss: float, costs: Costs, text_tokens: float = math.inf) -> Choice | None:
    """The model that reaches `loss` for the least; None where no model does on this text."""

    def cost(params: float) -> float:
        return costs.whole(params, law.tokens_for(loss, params, text_tokens))

    params = _lowest(cost)
    tokens = law.tokens_for(loss, params, text_tokens)
    return Choice(params, tokens) if math.isfinite(tokens) else None


def best_within(law: Law, budget: float, costs: Costs, text_tokens: float = math.inf) -> Choice | None:
    """The model of the lowest loss whose training and serving cost `budget`; None where none is so cheap."""

    def tokens_of(params: float) -> float:
        return (budget - costs.serve(params)) / costs.train(params)

    def loss(params: float) -> float:
        tokens = tokens_of(params)
        return law.loss(params, tokens, text_tokens) if tokens >= 1 else math.inf

    params = _lowest(loss)
    return Choice(params, tokens_of(params)) if math.isfinite(loss(params)) else None


def compute_optimal_within(
    law: Law, budget: float, costs: Costs, text_tokens: float = math.inf
) -> Choice | None:
    """The largest compute-optimal model that costs `budget` at most; None where none is so cheap."""

    def cost(params: float) -> float:
        return costs.whole(params, law.best_tokens(params, text_tokens))

    if cost(SMALLEST) > budget:
        return None
    low, high = math.log(SMALLEST), math.log(LARGEST)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(math.exp(middle)) <= budget else (low, middle)
    params = math.exp(low)
    return Choice(params, law.best_tokens(params, text_tokens))


def _lowest(value: Callable[[float], float]) -> float:
    """Where a function with one valley is lowest, on grids that narrow around the lowest point."""
    low, high = math.log(SMALLEST), math.log(LARGEST)
    best = low
    for _ in range(_ROUNDS):
        step = (high - low) / _POINTS
        points = [low + step * i for i in range(_POINTS + 1)]
        best = min(points, key=lambda point: value(math.exp(point)))
        low, high = best - step, best + step
    return math.exp(best)
