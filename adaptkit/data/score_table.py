"""Scores as tables: what each item adds, and a function of the total. Accuracy and macro-F1 are here.

A metric that is no mean of per-item scores (macro-F1, bits per byte) still is a function of sums over items:
`value = finish(sums.sum(axis=0))`. A bootstrap that weights the items therefore recomputes the metric itself,
`finish(weights @ sums)`, instead of averaging per-item values that do not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ItemRow = dict[str, Any]
"""One item: its id, what was expected and what was answered; a line of eval/<suite>.jsonl."""
Score = Callable[[Sequence[ItemRow]], dict[str, float]]
"""Item rows -> metrics by name."""


@dataclass(frozen=True)
class ScoreTable:
    """Per-item sums of one metric.

    Attributes:
        sums: float64 [num_items, num_columns]; what each item adds.
        finish: totals [..., num_columns] -> metric value [...].
    """

    sums: np.ndarray
    finish: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.sums)

    @property
    def value(self) -> float:
        """The metric over all items; nan when there are none."""
        return float(self.finish(self.sums.sum(axis=0))) if len(self.sums) else math.nan


def ratio(totals: np.ndarray) -> np.ndarray:
    """The first column of totals over the second."""
    return totals[..., 0] / totals[..., 1]


def mean_table(values: Sequence[float]) -> ScoreTable:
    """The table of a plain mean."""
    column = np.asarray(values, dtype=np.float64)
    return ScoreTable(np.stack([column, np.ones_like(column)], axis=1), ratio)


def accuracy(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Share of items whose prediction equals the label."""
    return accuracy_table(predictions, references).value


def accuracy_table(predictions: Sequence[str], references: Sequence[str]) -> ScoreTable:
    """The table of `accuracy`."""
    return mean_table([float(p == r) for p, r in zip(predictions, references, strict=True)])


def macro_f1(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Mean F1 of all labels that occur as label or prediction, each counted alike.

    It is scikit-learn's `f1_score` with `average="macro"`.
    """
    return macro_f1_table(predictions, references).value


def macro_f1_table(predictions: Sequence[str], references: Sequence[str]) -> ScoreTable:
    """The table of `macro_f1`."""
    names = class_names(predictions, references)
    predicted, actual = _one_hot(predictions, names), _one_hot(references, names)
    return ScoreTable(np.concatenate([predicted * actual, predicted + actual], axis=1), _finish_macro_f1)


def class_names(predictions: Sequence[str], references: Sequence[str]) -> list[str]:
    """Labels that occur on either side, sorted."""
    return sorted({*predictions, *references})


def per_class_f1(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """F1 of each label that occurs."""
    scores = _class_f1(macro_f1_table(predictions, references).sums.sum(axis=0)).tolist()
    return dict(zip(class_names(predictions, references), scores, strict=True))


def _one_hot(values: Sequence[str], names: Sequence[str]) -> np.ndarray:
    place = {name: i for i, name in enumerate(names)}
    hot = np.zeros((len(values), len(names)))
    hot[np.arange(len(values)), [place[value] for value in values]] = 1.0
    return hot


def _class_f1(totals: np.ndarray) -> np.ndarray:
    """Totals [..., 2 * num_classes] (true positives, predicted + actual) -> F1 [..., num_classes].

    A class that was not seen has nan.
    """
    hits, seen = np.split(totals, 2, axis=-1)
    return np.where(seen > 0, 2 * hits / np.where(seen > 0, seen, 1.0), np.nan)


def _finish_macro_f1(totals: np.ndarray) -> np.ndarray:
    """The mean over the classes seen, as scikit-learn has it: a resample can lose a rare class."""
    return np.nanmean(_class_f1(totals), axis=-1)
