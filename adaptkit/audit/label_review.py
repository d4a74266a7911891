"""Check the labels of a file: suspect rows go into a CSV for people, and their decisions back into the rows.

checked = check_labels_of(DataConfig(files=["tickets.csv"]))
write_review(checked, Path("review.csv"))           # people fill the column `decision`
apply_review(DataConfig(files=["tickets.csv"]), Path("review.csv"), Path("tickets.reviewed.jsonl"))
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adaptkit.audit.out_of_fold import NUM_FOLDS, OutOfFold, out_of_fold
from adaptkit.audit.suspect_labels import LabelNoise, find_suspects, noise_of_labels
from adaptkit.data.files import find_files, records
from adaptkit.data.readers import DataConfig, Dataset, Row, read
from adaptkit.data.records import Fault, Record
from adaptkit.errors import DataError, nearest
from adaptkit.run import write_text

KEEP, REMOVE = "keep", "remove"
COLUMNS = (
    *("id", "label", "decision", "words_says", "words_label", "words_suggested"),
    *("study_says", "study_label", "study_suggested", "where", "text"),
)
"""Of the review. What word counts say, how probable they take the given label, and what they say instead."""
MAX_TEXT = 2000
RISKY = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is a formula to a spreadsheet."""
UTF8_BOM = "\ufeff"


@dataclass(frozen=True)
class Opinion:
    """What one judge says of a row: its label, and the probabilities of the given and of that label."""

    says: str
    of_label: float
    of_suggested: float


@dataclass(frozen=True)
class SuspectRow:
    """A row whose label may be wrong, with the opinion of word counts and that of a study's arm."""

    row: Row
    words: Opinion
    study: Opinion | None


@dataclass(frozen=True)
class CheckedLabels:
    """What was found in a file's labels.

    Attributes:
        suspects: those that people should look at, the least probable labels first.
        noise: what is estimated of every label.
        accuracy: share of rows whose label word counts predict, having seen the other folds only.
        study_arm: the arm whose opinion stands beside; None without a study.
        num_seen_by_study: rows that it judged without having learnt from them.
    """

    dataset: Dataset
    suspects: tuple[SuspectRow, ...]
    noise: tuple[LabelNoise, ...]
    accuracy: float
    study_arm: str | None = None
    num_seen_by_study: int = 0


@dataclass(frozen=True)
class StudyOpinion:
    """Mean probabilities of a study's arm for texts that it did not learn from, by text."""

    arm: str
    chances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Applied:
    """What a review changed; `undecided` rows stay as they are."""

    relabelled: int
    removed: int
    kept: int
    undecided: int
    num_rows: int


def check_labels_of(
    config: DataConfig, *, study: StudyOpinion | None = None, num_folds: int = NUM_FOLDS
) -> CheckedLabels:
    """Find the rows of a labelled file that word counts, or a study's arm, take for mislabelled.

    Raises: DataError for rows that cannot be used, or too few of them.
    """
    dataset = read(config, "labelled")
    answered = out_of_fold(dataset.rows, num_folds)
    suspects = set(find_suspects(answered.probabilities_NC, answered.given_N))
    opinions = _opinions_of_study(dataset.rows, answered, study)
    suspects |= _suspects_of_study(answered, opinions)
    rows = [_suspect(dataset.rows[place], answered, place, opinions.get(place)) for place in suspects]
    return CheckedLabels(
        dataset=dataset,
        suspects=tuple(sorted(rows, key=_doubt)),
        noise=tuple(noise_of_labels(answered.names, answered.probabilities_NC, answered.given_N)),
        accuracy=answered.accuracy,
        study_arm=study.arm if study is not None else None,
        num_seen_by_study=len(opinions),
    )


def _opinions_of_study(
    rows: Sequence[Row], answered: OutOfFold, study: StudyOpinion | None
) -> dict[int, np.ndarray]:
    """Place of a row -> probabilities of the labels, for the rows that the study judged."""
    if study is None:
        return {}
    opinions = {}
    for place, row in enumerate(rows):
        chances = study.chances.get(row.text)
        if chances is not None:
            opinions[place] = np.array([chances.get(name, 0.0) for name in answered.names])
    return opinions


def _suspects_of_study(answered: OutOfFold, opinions: Mapping[int, np.ndarray]) -> set[int]:
    if not opinions:
        return set()
    places = list(opinions)
    found = find_suspects(np.array([opinions[place] for place in places]), answered.given_N[places])
    return {places[number] for number in found}


def _suspect(row: Row, answered: OutOfFold, place: int, chances: np.ndarray | None) -> SuspectRow:
    given = int(answered.given_N[place])
    words = _opinion(answered.names, answered.probabilities_NC[place], given)
    study = None if chances is None else _opinion(answered.names, chances, given)
    return SuspectRow(row, words, study)


def _opinion(names: Sequence[str], chances_C: np.ndarray, given: int) -> Opinion:
    best = int(chances_C.argmax())
    return Opinion(names[best], float(chances_C[given]), float(chances_C[best]))


def _doubt(suspect: SuspectRow) -> float:
    """Mean probability of the given label over the opinions: the least probable comes first."""
    opinions = [suspect.words, *([suspect.study] if suspect.study else [])]
    return float(np.mean([opinion.of_label for opinion in opinions]))


def write_review(checked: CheckedLabels, path: Path) -> None:
    """Write the suspect rows as a CSV for people, who fill the column `decision`.

    Raises: DataError where a label is called as a decision is.
    """
    if taken := {KEEP, REMOVE} & set(checked.dataset.labels):
        what = f"a label is called '{min(taken)}', which is a decision in a review"
        raise DataError(what, where=checked.dataset.rows[0].where, fix="call the label otherwise")
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    for suspect in checked.suspects:
        writer.writerow(_cells(suspect))
    write_text(path, UTF8_BOM + out.getvalue())


def _cells(suspect: SuspectRow) -> dict[str, str]:
    cells = {
        "id": suspect.row.id,
        "label": str(suspect.row.values["label"]),
        "where": suspect.row.where,
        "text": harmless(suspect.row.text[:MAX_TEXT]),
    }
    for judge, opinion in (("words", suspect.words), ("study", suspect.study)):
        if opinion is not None:
            cells[f"{judge}_says"] = opinion.says
            cells[f"{judge}_label"] = f"{opinion.of_label:.4f}"
            cells[f"{judge}_suggested"] = f"{opinion.of_suggested:.4f}"
    return cells


def harmless(text: str) -> str:
    return f"'{text}" if text.startswith(RISKY) else text


def apply_review(config: DataConfig, review: Path, out: Path) -> Applied:
    """Write the rows of a file anew, as JSON lines, with the labels that people decided on.

    Raises: DataError for a decision that is no label, or rows that are not (or no longer) in the file.
    """
    dataset = read(config, "labelled")
    decisions = _decisions(review, dataset)
    column = dataset.roles["label"]
    pairs = records_of(config, dataset)
    spelling = {str(row.values["label"]): record[column] for record, row in pairs}
    lines = []
    for record, row in pairs:
        decision = decisions.get(row.id, "")
        if decision in spelling:
            record = {**record, column: spelling[decision]}
        if decision != REMOVE:
            lines.append(json.dumps(record, ensure_ascii=False, default=str) + "\n")
    write_text(out, "".join(lines))
    made = Counter(decisions.values())
    removed, kept, undecided = made.pop(REMOVE, 0), made.pop(KEEP, 0), made.pop("", 0)
    return Applied(made.total(), removed, kept, undecided, len(lines))


def records_of(config: DataConfig, dataset: Dataset) -> list[tuple[Record, Row]]:
    """Every row with the record that it was read from, all columns included."""
    rows = {row.where: row for row in dataset.rows}
    pairs = []
    for file in find_files(config.files)[0]:
        for place, record in records(file):
            row = rows.get(f"{file}:{place}")
            if row is not None and isinstance(record, dict):
                pairs.append((record, row))
    return pairs


def _decisions(review: Path, dataset: Dataset) -> dict[str, str]:
    """Id of a row -> keep, remove, a label, or nothing."""
    known, labels = {row.id for row in dataset.rows}, dataset.labels
    decisions: dict[str, str] = {}
    for place, record in records(review):
        where = f"{review}:{place}"
        if isinstance(record, Fault) or not {"id", "decision"} <= record.keys():
            fix = "give the file that `adaptkit labels check` wrote, with its columns id and decision"
            raise DataError("no row of a review", where=where, fix=fix)
        row_id, decision = str(record["id"] or ""), str(record["decision"] or "").strip()
        if row_id not in known:
            what = f"id '{row_id[:40]}' is not in {', '.join(file['name'] for file in dataset.files)}"
            fix = "give the file that was checked, as it was then; or check it again"
            raise DataError(what, where=where, fix=fix)
        if decision.lower() in (KEEP, REMOVE):
            decision = decision.lower()
        elif decision and decision not in labels:
            what = f"decision '{decision[:40]}' is no label{nearest(decision, labels)}"
            raise DataError(what, where=where, fix=f"write {KEEP}, {REMOVE}, or a label that the file has")
        decisions[row_id] = decision
    return decisions
