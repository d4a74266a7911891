"""Choose when a classifier should not answer: a temperature, and the confidence below which people decide.

    judged = Judged.of(dev_rows)
    fit = fit_confidence(judged, accuracy=0.97)
    fit.confidence(judged) >= fit.wanted_threshold      # the items that it answers itself

Confidence is the probability of the predicted label after temperature scaling (arXiv 1706.04599); items below
a threshold on it are handed over (selective classification, arXiv 1705.08500).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptkit.study.calibration import MIN_ITEMS, fit_temperature, soften

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Of items, handed to people: the rows of the table."""


@dataclass(frozen=True)
class Judged:
    """Items with one right label each, and what a classifier said of them.

    Attributes:
        probabilities_NC: of each label.
        truth_N: place of the right label; -1 for one that the classifier does not know.
        hit_N: whether the predicted label is the right one.
    """

    probabilities_NC: np.ndarray
    truth_N: np.ndarray
    hit_N: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]]) -> Judged:
        """Of item rows with `label`, `prediction` and `probabilities`."""
        names = list(dict.fromkeys(name for row in rows for name in row["probabilities"]))
        place = {name: number for number, name in enumerate(names)}
        return cls(
            np.array([[row["probabilities"].get(name, 0.0) for name in names] for row in rows], float),
            np.array([place.get(row["label"], -1) for row in rows]),
            np.array([row["prediction"] == row["label"] for row in rows]),
        )

    def __len__(self) -> int:
        return len(self.hit_N)

    def only(self, chosen_N: np.ndarray) -> Judged:
        """The items that a mask chooses."""
        return Judged(self.probabilities_NC[chosen_N], self.truth_N[chosen_N], self.hit_N[chosen_N])


@dataclass(frozen=True)
class ConfidenceFit:
    """What was learnt from development items.

    Attributes:
        thresholds: confidence below which items are handed over, one for each of `SHARES`.
        wanted: the accuracy that is wanted of the items that are answered.
        wanted_threshold: from which that was reached; None where no threshold reaches it.
    """

    temperature: float
    thresholds: tuple[float, ...]
    wanted: float
    wanted_threshold: float | None

    def confidence(self, items: Judged) -> np.ndarray:
        """The probability of the predicted label of each item, after temperature scaling [N]."""
        return soften(items.probabilities_NC, self.temperature).max(axis=1)


def fit_confidence(dev: Judged, accuracy: float | None = None) -> ConfidenceFit:
    """Fit temperature and thresholds.

    Args:
        dev: items that the classifier did not learn from.
        accuracy: wanted of the items that are answered; None wants half as many errors as on all items.
    """
    known = dev.only(dev.truth_N >= 0)
    temperature = fit_temperature(known.probabilities_NC, known.truth_N) if len(known) else 1.0
    wanted = accuracy if accuracy is not None else 1 - (1 - float(dev.hit_N.mean())) / 2
    fit = ConfidenceFit(temperature, (), wanted, None)
    confidence_N = fit.confidence(dev)
    ascending = np.sort(confidence_N)
    thresholds = tuple(float(ascending[int(share * len(ascending))]) for share in SHARES)
    return ConfidenceFit(temperature, thresholds, wanted, threshold_for(confidence_N, dev.hit_N, wanted))


def threshold_for(confidence_N: np.ndarray, hit_N: np.ndarray, accuracy: float) -> float | None:
    """The lowest confidence from which so large a share of the answered items is right.

    Both the items that were right and the scaled confidences must reach it on average. Of all thresholds one
    is taken because it did well, and by counts alone that is luck in part: on 120 simulated items 97 % wanted
    gave 95.5 % on new ones, by both 96.7 % (on 1,000 items 96.6 and 96.9 %; a tenth fell below 95.4 and
    96.3 %). It lies half-way between the last item that is answered and the next.

    Returns: None where even the surest 20 items do not reach it.
    """
    order = np.argsort(-confidence_N, kind="stable")
    descending, right = confidence_N[order], np.cumsum(hit_N[order])
    answered = np.arange(1, len(order) + 1)
    following = np.append(descending[1:], 0.0)
    expected = np.minimum(right, np.cumsum(descending))
    reaches = (expected >= accuracy * answered - 1e-9) & (descending > following) & (answered >= MIN_ITEMS)
    if not reaches.any():
        return None
    last = int(np.flatnonzero(reaches)[-1])
    if last == len(order) - 1:
        return 0.0
    return float((descending[last] + following[last]) / 2)
