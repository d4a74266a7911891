"""Find labels that are probably wrong, by confident learning (Northcutt et al. 2021, arXiv 1911.00068).

    suspects = find_suspects(probabilities_NC, given_N)    # from models that never saw the rows

A row counts for a class when its probability reaches the mean that rows of that label have. A row that counts
for another class than its label, and is predicted to be no longer of its label, is suspect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelNoise:
    """What is estimated of one label.

    Attributes:
        num_rows, num_suspects: rows that carry it, and those of them that are suspect.
        wrong: estimated share of its rows that belong to another label; None where none could be counted.
    """

    label: str
    num_rows: int
    num_suspects: int
    wrong: float | None


def class_thresholds(probabilities_NC: np.ndarray, given_N: np.ndarray) -> np.ndarray:
    """For each class the mean probability of it among the rows that carry it [C]; infinite without rows."""
    num_classes = probabilities_NC.shape[1]
    means = np.full(num_classes, np.inf)
    for number in range(num_classes):
        carry = given_N == number
        if carry.any():
            means[number] = probabilities_NC[carry, number].mean()
    return means


def confident_classes(probabilities_NC: np.ndarray, given_N: np.ndarray) -> np.ndarray:
    """The class that each row counts for: the likeliest that reaches its threshold; -1 for none [N]."""
    reached_NC = probabilities_NC >= class_thresholds(probabilities_NC, given_N)
    likeliest_N = np.where(reached_NC, probabilities_NC, -1.0).argmax(axis=1)
    return np.where(reached_NC.any(axis=1), likeliest_N, -1)


def confident_joint(probabilities_NC: np.ndarray, given_N: np.ndarray) -> np.ndarray:
    """How many rows of each given label (rows) count for each class (columns) [C, C]."""
    num_classes = probabilities_NC.shape[1]
    counted_N = confident_classes(probabilities_NC, given_N)
    joint = np.zeros((num_classes, num_classes), dtype=int)
    np.add.at(joint, (given_N[counted_N >= 0], counted_N[counted_N >= 0]), 1)
    return joint


def find_suspects(probabilities_NC: np.ndarray, given_N: np.ndarray) -> list[int]:
    """Places of suspect rows, those whose own label is least probable first."""
    counted_N = confident_classes(probabilities_NC, given_N)
    suspect_N = (counted_N >= 0) & (counted_N != given_N) & (probabilities_NC.argmax(axis=1) != given_N)
    own_N = probabilities_NC[np.arange(len(given_N)), given_N]
    places = np.flatnonzero(suspect_N)
    return [int(place) for place in places[np.argsort(own_N[places], kind="stable")]]


def noise_of_labels(
    names: Sequence[str], probabilities_NC: np.ndarray, given_N: np.ndarray
) -> list[LabelNoise]:
    """What is estimated of every label, the most rows first."""
    joint = confident_joint(probabilities_NC, given_N)
    suspects = given_N[find_suspects(probabilities_NC, given_N)]
    rows = []
    for number, name in enumerate(names):
        counted = joint[number].sum()
        wrong = float(1 - joint[number, number] / counted) if counted else None
        rows.append(LabelNoise(name, int((given_N == number).sum()), int((suspects == number).sum()), wrong))
    return sorted(rows, key=lambda row: -row.num_rows)
