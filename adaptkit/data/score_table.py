"""Scores as tables: what each item adds, and a function of the total. Accuracy and macro-F1 are here.

A metric that is no mean of per-item scores (macro-F1, bits per byte) still is a function of sums over items:
`value = finish(sums.sum(axis=0))`. A bootstrap that weights the items therefore recomputes the metric itself,
`finish(weights @ sums)`, instead of averaging per-item values that do not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
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


def with_probabilities(rows: Sequence[ItemRow]) -> list[ItemRow]:
    """The rows, where each has one label and the probability of every label; none otherwise."""
    whole = all({"label", "prediction", "probabilities"} <= row.keys() for row in rows)
    return list(rows) if whole else []


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


def micro_f1_table(
    predicted: Sequence[Sequence[Hashable]], actual: Sequence[Sequence[Hashable]]
) -> ScoreTable:
    """F1 over everything that items hold (labels, spans): a hit is what stands on both sides.

    It is scikit-learn's `f1_score` with `average="micro"`; 0 where nothing stands on either side.
    """
    hits = [len(set(p) & set(a)) for p, a in zip(predicted, actual, strict=True)]
    held = [len(set(p)) + len(set(a)) for p, a in zip(predicted, actual, strict=True)]
    return ScoreTable(np.asarray([[2.0 * h, float(n)] for h, n in zip(hits, held, strict=True)]), _safe_ratio)


def macro_set_f1_table(
    predicted: Sequence[Sequence[Hashable]],
    actual: Sequence[Sequence[Hashable]],
    class_of: Callable[[Any], str] = str,
) -> ScoreTable:
    """Mean F1 of all classes that occur on either side, each counted alike, of items with several things."""
    names = sorted({class_of(thing) for part in (*predicted, *actual) for thing in part})
    if not names:
        return mean_table([0.0] * len(actual))
    place = {name: i for i, name in enumerate(names)}
    sums = np.zeros((len(actual), 2 * len(names)))
    for number, (p, a) in enumerate(zip(predicted, actual, strict=True)):
        for thing in set(p) & set(a):
            sums[number, place[class_of(thing)]] += 1
        for thing in (*set(p), *set(a)):
            sums[number, len(names) + place[class_of(thing)]] += 1
    return ScoreTable(sums, _finish_macro_f1)


def _safe_ratio(totals: np.ndarray) -> np.ndarray:
    """The first column over the second; 0 where that is 0."""
    return np.where(totals[..., 1] > 0, totals[..., 0] / np.where(totals[..., 1] > 0, totals[..., 1], 1), 0.0)


def mean_absolute_error_table(predicted: Sequence[float], actual: Sequence[float]) -> ScoreTable:
    """The table of the mean distance between predicted and true numbers."""
    return mean_table(np.abs(np.subtract(predicted, actual, dtype=np.float64)).tolist())


def spearman_table(predicted: Sequence[float], actual: Sequence[float]) -> ScoreTable:
    """Spearman's correlation of ranks, as what each item does to it.

    A correlation is no sum over items, so each adds its jackknife value: what the correlation loses when the
    item is left out. Their mean is the correlation itself, and a bootstrap of them varies as it does.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    ranks = _ranks(x), _ranks(y)
    whole = _rank_correlation(*ranks)
    if len(x) < 3:
        return mean_table([whole] * len(x))
    without = np.asarray(
        [_rank_correlation(_without(i, x, ranks[0]), _without(i, y, ranks[1])) for i in range(len(x))]
    )
    return mean_table((whole + (len(x) - 1) * (without.mean() - without)).tolist())


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value; equal ones share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _without(item: int, values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Ranks of all values but one, from the ranks of all: those above it sink by one."""
    sunk = ranks - (values > values[item]) - 0.5 * (values == values[item])
    return np.delete(sunk, item)


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation; 0 where one side says nothing."""
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size > 0 else 0.0


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
