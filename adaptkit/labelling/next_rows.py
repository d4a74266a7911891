"""Which rows people should label next, as a table that they fill, and their labels put behind their texts.

chosen = choose_next(unlabelled, labelled, strategy="uncertainty", count=50)
write_sheet(chosen, Path("to_label.csv"))           # people fill the column `label`
add_labels(unlabelled, Path("to_label.csv"), labelled, Path("labelled.jsonl"))
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptkit.audit.label_review import UTF8_BOM, harmless, records_of
from adaptkit.data.files import records
from adaptkit.data.readers import DataConfig, Dataset, Row, read
from adaptkit.data.records import Fault, Record
from adaptkit.errors import ConfigError, DataError, nearest
from adaptkit.labelling.selection import Pool, Strategy, margins, select
from adaptkit.run import write_text
from adaptkit.study.tasks.classify import WordCountClassifier
from adaptkit.study.tasks.word_counts import word_counts

COLUMNS = ("id", "label", "margin", "where", "text")
"""Of the table. `margin` is the probability of the likeliest label minus that of the next; which label that
is stands nowhere, since people would follow it."""
MAX_CELL_CHARS = 30_000
"""Of a text in the table: spreadsheets hold 32,767."""
NEEDS_LABELS = ("both", "uncertainty")
FIX_SHEET = "give the file that `adaptkit labels next` wrote, with its columns id and label"

Judge = Callable[[Sequence[str]], np.ndarray]
"""Texts -> probabilities of the labels [N, C]."""


@dataclass(frozen=True)
class NextRows:
    """Rows to label.

    Attributes:
        rows: the first to be labelled first.
        margins: of each row, how far the two likeliest labels lie apart; None where nothing has been learnt.
        median_margin: over all rows that could be chosen; None where nothing has been learnt.
        num_unlabelled: rows that could be chosen, each text once.
        num_repeated, num_known: rows left out because their text stands before, or is labelled already.
        num_labelled: rows that the judge or the strategy was given as labelled.
    """

    rows: tuple[Row, ...]
    margins: tuple[float, ...] | None
    median_margin: float | None
    num_unlabelled: int
    num_repeated: int
    num_known: int
    num_labelled: int


@dataclass(frozen=True)
class Added:
    """What a filled table added; `empty` rows have no label yet."""

    added: int
    empty: int
    num_rows: int


def choose_next(
    unlabelled: DataConfig,
    labelled: DataConfig | None,
    *,
    strategy: Strategy,
    count: int,
    seed: int = 0,
    judge: Judge | None = None,
) -> NextRows:
    """Choose the rows that people should label next.

    Args:
        unlabelled: rows with a text; a column of labels is not looked at.
        labelled: what is labelled already; None at the very beginning.
        judge: gives probabilities in place of word counts trained on the labelled rows.
    Raises: DataError for rows that cannot be used; ConfigError for a strategy that needs labelled rows.
    """
    if labelled is None and judge is None and strategy in NEEDS_LABELS:
        fix = "give --labelled FILE, or choose the first rows --by random or --by diversity"
        raise ConfigError(f"'{strategy}' asks a model, and no row is labelled", where="--by", fix=fix)
    dataset, known = read_texts(unlabelled), read(labelled, "labelled").rows if labelled else []
    rows, num_repeated, num_known = _candidates(dataset.rows, known)
    if not rows:
        what = f"all {len(dataset.rows):,} rows are labelled already"
        raise DataError(what, where=dataset.rows[0].where, fix="give rows whose texts are not in --labelled")
    texts = [row.text for row in rows]
    chances_NC = None
    if known or judge is not None:
        chances_NC = (judge or _words_judge(known))(texts)
    vectors = word_counts().fit_transform([*texts, *(row.text for row in known)])
    pool = Pool(vectors[: len(rows)], vectors[len(rows) :], chances_NC)
    places = select(strategy, pool, count, seed)
    margins_N = None if chances_NC is None else margins(chances_NC)
    return NextRows(
        rows=tuple(rows[place] for place in places),
        margins=None if margins_N is None else tuple(float(margins_N[place]) for place in places),
        median_margin=None if margins_N is None else float(np.median(margins_N)),
        num_unlabelled=len(rows),
        num_repeated=num_repeated,
        num_known=num_known,
        num_labelled=len(known),
    )


def read_texts(config: DataConfig) -> Dataset:
    """The rows of a file as texts alone; what is said of a column of labels does not count."""
    columns = {role: column for role, column in config.columns.items() if role != "label"}
    return read(config.model_copy(update={"columns": columns}), "text")


def _candidates(rows: Sequence[Row], known: Sequence[Row]) -> tuple[list[Row], int, int]:
    """Each text once, by id, so that the order of the file does not matter; how many repeat, or are known."""
    known_texts = {row.text for row in known}
    unknown = [row for row in rows if row.text not in known_texts]
    first: dict[str, Row] = {}
    for row in unknown:
        first.setdefault(row.text, row)
    candidates = sorted(first.values(), key=lambda row: row.id)
    return candidates, len(unknown) - len(candidates), len(rows) - len(unknown)


def _words_judge(known: Sequence[Row]) -> Judge:
    """Word counts that have learnt the labelled rows.

    Raises: DataError for a single label.
    """
    pairs = [(row.text, str(row.values["label"])) for row in known]
    if len({label for _, label in pairs}) < 2:
        what = f"all {len(pairs):,} labelled rows have the label '{pairs[0][1]}'"
        raise DataError(what, where=known[0].where, fix="label a row of another kind first")
    return WordCountClassifier(pairs).probabilities


def write_sheet(chosen: NextRows, path: Path) -> None:
    """Write the rows as a CSV for people, who fill the column `label`."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    for number, row in enumerate(chosen.rows):
        margin = "" if chosen.margins is None else f"{chosen.margins[number]:.4f}"
        cells = {"id": row.id, "label": "", "margin": margin, "where": row.where}
        writer.writerow({**cells, "text": harmless(row.text[:MAX_CELL_CHARS])})
    write_text(path, UTF8_BOM + out.getvalue())


def add_labels(unlabelled: DataConfig, sheet: Path, labelled: DataConfig | None, out: Path) -> Added:
    """Write the labelled rows and, behind them, those that people labelled, as JSON lines with all columns.

    Raises: DataError for a row that is not (or no longer) in the file, a label that no labelled row has, or
        files whose text stands in columns of different names.
    """
    dataset = read_texts(unlabelled)
    column, before = "label", list[Record]()
    spelling: dict[str, object] = {}
    if labelled is not None:
        known = read(labelled, "labelled")
        _check_one_column(dataset, known)
        column = known.roles["label"]
        pairs = records_of(labelled, known)
        before = [record for record, _ in pairs]
        spelling = {str(row.values["label"]): record[column] for record, row in pairs}
    given = _labels_of(sheet, dataset, spelling)
    new = [
        {**record, column: spelling.get(given[row.id], given[row.id])}
        for record, row in records_of(unlabelled, dataset)
        if given.get(row.id)
    ]
    if not new:
        raise DataError("no row has a label", where=str(sheet), fix="fill the column `label` first")
    lines = [json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in [*before, *new]]
    write_text(out, "".join(lines))
    return Added(added=len(new), empty=len(given) - len(new), num_rows=len(lines))


def _check_one_column(unlabelled: Dataset, labelled: Dataset) -> None:
    """Raises: DataError where texts stand in columns of different names: one file cannot hold both."""
    new, old = unlabelled.roles["text"], labelled.roles["text"]
    if new != old:
        what = f"the text stands in '{new}', and in '{old}' of --labelled"
        fix = "give the column the same name in both files"
        raise DataError(what, where=unlabelled.rows[0].where, fix=fix)


def _labels_of(sheet: Path, dataset: Dataset, known: Mapping[str, object]) -> dict[str, str]:
    """Id of a row -> the label that people gave it, or nothing."""
    ids = {row.id for row in dataset.rows}
    given: dict[str, str] = {}
    for place, record in records(sheet):
        where = f"{sheet}:{place}"
        if isinstance(record, Fault) or not {"id", "label"} <= record.keys():
            raise DataError("no row of a table to label", where=where, fix=FIX_SHEET)
        row_id, label = str(record["id"] or ""), str(record["label"] or "").strip()
        if row_id not in ids:
            what = f"id '{row_id[:40]}' is not in {', '.join(file['name'] for file in dataset.files)}"
            fix = "give the file that the rows were chosen from, as it was then; or choose again"
            raise DataError(what, where=where, fix=fix)
        if label and known and label not in known:
            what = f"no row of --labelled has the label '{label[:40]}'{nearest(label, known)}"
            fix = "write one that is there; a new label needs a first row in that file"
            raise DataError(what, where=where, fix=fix)
        given[row_id] = label
    return given
