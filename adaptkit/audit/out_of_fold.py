"""Probabilities for every row from a model that never saw it: word counts, cross-validated."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.data.readers import Row
from adaptkit.errors import DataError
from adaptkit.study.tasks.classify import WordCountClassifier

NUM_FOLDS = 5


@dataclass(frozen=True)
class OutOfFold:
    """What word counts say of rows that they did not learn from.

    Attributes:
        names: of the labels, in the order of the columns.
        probabilities_NC: of each label.
        given_N: place of each row's own label.
    """

    names: tuple[str, ...]
    probabilities_NC: np.ndarray
    given_N: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of rows whose label is the likeliest."""
        return float((self.probabilities_NC.argmax(axis=1) == self.given_N).mean())


def out_of_fold(rows: Sequence[Row], num_folds: int = NUM_FOLDS) -> OutOfFold:
    """Train word counts on all folds but one, and ask them about that one; each fold in turn.

    Rows of a group, and equal texts, are in one fold; labels have about their share in each.
    Raises: DataError for a single label, or fewer groups than folds.
    """
    names = sorted({str(row.values["label"]) for row in rows})
    folds_N = _folds(rows, num_folds)
    if len(names) < 2 or len(set(folds_N)) < num_folds:
        what = f"{len(rows)} rows of {len(names)} label(s) in too few groups for {num_folds} folds"
        where = rows[0].where if rows else None
        raise DataError(what, where=where, fix="give more labelled rows, or more than one group and label")
    place = {name: number for number, name in enumerate(names)}
    probabilities_NC = np.zeros((len(rows), len(names)))
    for fold in range(num_folds):
        learnt = [row for row, own in zip(rows, folds_N, strict=True) if own != fold]
        asked = np.flatnonzero(folds_N == fold)
        model = WordCountClassifier([(row.text, str(row.values["label"])) for row in learnt])
        columns = np.array([place[name] for name in model.labels])
        chances = model.probabilities(
            [row.text for row, own in zip(rows, folds_N, strict=True) if own == fold]
        )
        probabilities_NC[np.ix_(asked, columns)] = chances
    given_N = np.array([place[str(row.values["label"])] for row in rows])
    return OutOfFold(tuple(names), probabilities_NC, given_N)


def _folds(rows: Sequence[Row], num_folds: int) -> np.ndarray:
    """The fold of each row: its group's or, without one, its text's; labels in turn, each by hash."""
    units: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        units[str(row.values.get("group") or row.text)].append(number)
    hashed = {unit: hashlib.sha256(unit.encode("utf-8", "backslashreplace")).hexdigest() for unit in units}
    ordered = sorted(units, key=lambda unit: (str(rows[units[unit][0]].values["label"]), hashed[unit]))
    folds_N = np.zeros(len(rows), dtype=int)
    for turn, unit in enumerate(ordered):
        folds_N[units[unit]] = turn % num_folds
    return folds_N
