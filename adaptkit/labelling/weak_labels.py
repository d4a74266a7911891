"""Label rows by rules: how far they reach and contradict each other, and a task file of what they say.

weak = weak_labels(unlabelled, Path("rules.csv"), labelled)
write_task(weak, Path("weak.jsonl"))
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptkit.audit.label_review import records_of
from adaptkit.data.column_roles import SOFT
from adaptkit.data.readers import DataConfig, Row, read
from adaptkit.data.records import Record
from adaptkit.errors import DataError, nearest
from adaptkit.labelling.label_model import NONE, LabelModel, agreement_model, majority, measured_model
from adaptkit.labelling.label_rules import PYTHON_SECONDS, Votes, vote
from adaptkit.labelling.next_rows import read_texts
from adaptkit.run import write_text
from adaptkit.study.statistics import Interval

Z = 1.959964
"""Standard errors on each side of a 95 % interval."""
SAME = 1e-9
"""Two probabilities no farther apart are a tie."""


@dataclass(frozen=True)
class RuleReport:
    """How one rule does.

    Attributes:
        labels: those that it gives.
        covers: share of the rows that it speaks of.
        overlaps, conflicts: share of the rows of which another rule speaks too, or says something else.
        weight: how often the label model takes it to be right when it speaks.
        measured: how often it was on labelled rows; None where it speaks of none of them.
        num_measured: those rows.
    """

    name: str
    labels: tuple[str, ...]
    covers: float
    overlaps: float
    conflicts: float
    weight: float
    measured: Interval | None
    num_measured: int


@dataclass(frozen=True)
class WeakRow:
    """A row with what rules say of it: all of its columns, the likeliest label, and all probabilities."""

    record: Record
    label: object
    chances: dict[str, float]


@dataclass(frozen=True)
class WeakLabels:
    """What rules say of the rows of a file.

    Attributes:
        rows: those with a label.
        label_column: where the label is written.
        num_silent: rows of which no rule speaks.
        num_tied: rows whose two likeliest labels are equally likely.
        num_known: rows left out because their text is labelled already.
        rules: in the order of their file.
        settled: whether the label model had come to rest.
        accuracy, majority: share of right labels of the covered labelled rows, by the label model, weighed
            each time without the rows of the same group, and by a majority of votes; None without such rows.
        num_measured, num_labelled: covered labelled rows, and all.
        missing: labels of labelled rows that no rule gives.
    """

    rows: tuple[WeakRow, ...]
    label_column: str
    num_silent: int
    num_tied: int
    num_known: int
    rules: tuple[RuleReport, ...]
    settled: bool
    accuracy: Interval | None
    majority: Interval | None
    num_measured: int
    num_labelled: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _Known:
    """Labelled rows, which rules are weighed and measured on."""

    pairs: list[tuple[Record, Row]]
    column: str | None

    @classmethod
    def of(cls, config: DataConfig | None) -> _Known:
        if config is None:
            return cls([], None)
        dataset = read(config, "labelled")
        return cls(records_of(config, dataset), dataset.roles["label"])

    @property
    def labels(self) -> list[str]:
        return [str(row.values["label"]) for _, row in self.pairs]


def weak_labels(
    config: DataConfig, rules: Path, labelled: DataConfig | None = None, seconds: float = PYTHON_SECONDS
) -> WeakLabels:
    """Label the rows of a file by rules, weighed by how often they are right, or by how well they agree.

    Args:
        config: rows with a text; a column of labels is not looked at.
        rules: a table of keywords, or a Python file.
        labelled: rows with true labels, to weigh the rules by.
        seconds: what a Python file may take.
    Raises: DataError for rows or rules that cannot be used; ConfigError for a Python file that fails.
    """
    known = _Known.of(labelled)
    texts = {row.text for _, row in known.pairs}
    every = records_of(config, read_texts(config))
    pairs = [pair for pair in every if pair[1].text not in texts]
    if not pairs:
        what = f"all {len(every):,} rows are labelled already"
        raise DataError(what, where=every[0][1].where, fix="give rows whose texts are not in --labelled")
    votes = vote(rules, [*pairs, *known.pairs], seconds)
    _check_labels(votes, known.labels, rules)
    own_NR, known_NR = votes.votes_NR[: len(pairs)], votes.votes_NR[len(pairs) :]
    truth_N = _truth(votes, known)
    if known.pairs:
        model = measured_model(known_NR, truth_N, len(votes.labels))
    else:
        model = agreement_model(own_NR, len(votes.labels))
    column = known.column or config.columns.get("label", "label")
    spelling = {str(row.values["label"]): record[column] for record, row in known.pairs}
    chances_NC = model.probabilities(own_NR)
    spoken_N, tied_N = (own_NR != NONE).any(axis=1), _ties(chances_NC)
    rows = [
        _weak_row(pairs[place][0], chances_NC[place], votes.labels, spelling)
        for place in np.flatnonzero(spoken_N & ~tied_N)
    ]
    if not rows:
        what = f"no rule decides the label of any of {len(pairs):,} rows"
        raise DataError(what, where=str(rules), fix="try the rules on texts of the file: none may match")
    accuracy, by_majority = _measured(votes, known_NR, known)
    return WeakLabels(
        rows=tuple(rows),
        label_column=column,
        num_silent=int((~spoken_N).sum()),
        num_tied=int((spoken_N & tied_N).sum()),
        num_known=len(every) - len(pairs),
        rules=tuple(_reports(votes, own_NR, known_NR, known, model)),
        settled=model.settled,
        accuracy=accuracy,
        majority=by_majority,
        num_measured=int((known_NR != NONE).any(axis=1).sum()),
        num_labelled=len(known.pairs),
        missing=tuple(sorted({*known.labels} - {*votes.labels})),
    )


def write_task(weak: WeakLabels, path: Path) -> None:
    """Write the labelled rows as JSON lines that any task reads: all columns, label and probabilities."""
    lines = [{**row.record, weak.label_column: row.label, SOFT: row.chances} for row in weak.rows]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines))


def _weak_row(
    record: Record, chances_C: np.ndarray, labels: Sequence[str], spelling: dict[str, object]
) -> WeakRow:
    label = labels[int(chances_C.argmax())]
    chances = {name: round(float(p), 6) for name, p in zip(labels, chances_C, strict=True)}
    return WeakRow(record, spelling.get(label, label), chances)


def _check_labels(votes: Votes, known: Sequence[str], rules: Path) -> None:
    """Raises: DataError for rules that give one label only, or one that no labelled row has."""
    if len(votes.labels) < 2:
        what = f"the rules give {f'one label, {votes.labels[0]!r}' if votes.labels else 'no row a label'}"
        raise DataError(what, where=str(rules), fix="write rules for two labels or more")
    for label in votes.labels:
        if known and label not in known:
            what = f"no row of --labelled has the label '{label}'{nearest(label, set(known))}"
            raise DataError(what, where=str(rules), fix="write one that is there, or label a row with it")


def _ties(chances_NC: np.ndarray) -> np.ndarray:
    ordered_NC = np.sort(chances_NC, axis=1)
    tied_N: np.ndarray = ordered_NC[:, -1] - ordered_NC[:, -2] < SAME
    return tied_N


def _reports(
    votes: Votes, own_NR: np.ndarray, known_NR: np.ndarray, known: _Known, model: LabelModel
) -> list[RuleReport]:
    spoken_NR = own_NR != NONE
    truth_N = _truth(votes, known)
    reports = []
    for number, name in enumerate(votes.names):
        own_N, others_NR = own_NR[:, number], np.delete(own_NR, number, axis=1)
        spoken_N, with_N = spoken_NR[:, number], (others_NR != NONE).any(axis=1)
        against_N = ((others_NR != NONE) & (others_NR != own_N[:, None])).any(axis=1)
        asked_N = known_NR[:, number] != NONE
        reports.append(
            RuleReport(
                name=name,
                labels=tuple(votes.labels[label] for label in np.unique(own_N[spoken_N])),
                covers=float(spoken_N.mean()),
                overlaps=float((spoken_N & with_N).mean()),
                conflicts=float((spoken_N & against_N).mean()),
                weight=float(model.accuracies_R[number]),
                measured=_share_right(known_NR[asked_N, number] == truth_N[asked_N], known, asked_N),
                num_measured=int(asked_N.sum()),
            )
        )
    return reports


def _truth(votes: Votes, known: _Known) -> np.ndarray:
    """The place of each labelled row's label among those of the rules; -2 for one that no rule gives."""
    place = {label: number for number, label in enumerate(votes.labels)}
    return np.array([place.get(label, -2) for label in known.labels], dtype=int)


def _measured(votes: Votes, known_NR: np.ndarray, known: _Known) -> tuple[Interval | None, Interval | None]:
    """Shares of covered labelled rows that the label model, and the majority, label rightly."""
    num_labels, truth_N = len(votes.labels), _truth(votes, known)
    clusters = np.array([row.cluster for _, row in known.pairs])
    weighed_NC = np.zeros((len(clusters), num_labels))
    for cluster in np.unique(clusters):
        own_N = clusters == cluster
        model = measured_model(known_NR[~own_N], truth_N[~own_N], num_labels)
        weighed_NC[own_N] = model.probabilities(known_NR[own_N])
    asked_N, shares = (known_NR != NONE).any(axis=1), []
    for chances_NC in (weighed_NC, majority(known_NR, num_labels)):
        likeliest_NC = chances_NC > chances_NC.max(axis=1, keepdims=True) - SAME
        drawn_NC = likeliest_NC / likeliest_NC.sum(axis=1, keepdims=True)  # ties are broken at random
        right_NC = drawn_NC * (truth_N[:, None] == np.arange(num_labels))
        shares.append(_share_right(right_NC.sum(axis=1)[asked_N], known, asked_N))
    return shares[0], shares[1]


def _share_right(right_N: np.ndarray, known: _Known, asked_N: np.ndarray) -> Interval | None:
    """The share with Wilson's 95 % interval (1927, JASA 22), which few rows that are all right do not
    shrink to a point; rows of one group count as one. None without rows."""
    num = len({known.pairs[place][1].cluster for place in np.flatnonzero(asked_N)})
    if not num:
        return None
    share = float(right_N.mean())
    middle = (share + Z**2 / (2 * num)) / (1 + Z**2 / num)
    half = Z / (1 + Z**2 / num) * math.sqrt(share * (1 - share) / num + Z**2 / (4 * num**2))
    return Interval(share, middle - half, middle + half)
