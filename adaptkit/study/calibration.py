"""Calibrate a classifier by temperature scaling, so that its probabilities mean what they say.

Guo et al. 2017, arXiv 1706.04599.
Probabilities become p^(1/T), normalised; T is fitted on development items by likelihood and judged on test
items. The order of the classes stays, so accuracy does too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from adaptkit.study.scores import ece

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
MIN_ITEMS = 20
_TINY = 1e-12

Judged = Sequence[tuple[Sequence[float], int]]
"""(probability of each class, index of the true one) per item."""


@dataclass(frozen=True)
class Calibration:
    """A temperature and what it does.

    Attributes:
        before, after: expected calibration error on the test items.
        num_dev, num_test: items fitted on, items judged on.
    """

    temperature: float
    before: float
    after: float
    num_dev: int
    num_test: int

    def apply(self, probabilities: Sequence[float]) -> list[float]:
        return soften(np.asarray([probabilities]), self.temperature)[0].tolist()


def calibrate(dev: Judged, test: Judged) -> Calibration | None:
    """Fit on `dev`, judge on `test`; None for fewer than 20 items of either."""
    if min(len(dev), len(test)) < MIN_ITEMS:
        return None
    temperature = fit_temperature(*_arrays(dev))
    probabilities, truth = _arrays(test)
    before = _calibration_error(probabilities, truth)
    after = _calibration_error(soften(probabilities, temperature), truth)
    return Calibration(temperature, before, after, len(dev), len(test))


def fit_temperature(probabilities_NC: np.ndarray, truth_N: np.ndarray) -> float:
    """The T in 0.05..20 under which the true classes are likeliest."""
    rows = np.arange(len(truth_N))

    def nats(log_temperature: float) -> float:
        softened = soften(probabilities_NC, math.exp(log_temperature))
        return float(-np.log(np.maximum(softened[rows, truth_N], _TINY)).mean())

    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    return math.exp(minimize_scalar(nats, bounds=bounds, method="bounded").x)


def soften(probabilities_NC: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log p / T), row by row."""
    logits = np.log(np.maximum(probabilities_NC, _TINY)) / temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _arrays(items: Judged) -> tuple[np.ndarray, np.ndarray]:
    probabilities_NC = np.array([probabilities for probabilities, _ in items], float)
    truth_N = np.array([truth for _, truth in items])
    return probabilities_NC, truth_N


def _calibration_error(probabilities_NC: np.ndarray, truth_N: np.ndarray) -> float:
    correct = probabilities_NC.argmax(axis=1) == truth_N
    return ece(probabilities_NC.max(axis=1).tolist(), correct.tolist())
