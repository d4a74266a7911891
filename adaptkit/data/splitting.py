"""Divide rows into a part to learn from and a part held out: by hash or by time, whole groups.

    train, dev = split(dataset, 0.1)            # a share of everything
    train, dev = hold_out(train, 300, most=0.2) # so many rows to tune on
    train, test = newest(dataset, 0.1)          # by time

Each label keeps its share in both parts by hash, and those with few rows stay in training: a model cannot
answer with a label that it has never seen. Rows that a generator wrote (`source: synthetic`) are never held
out, and change nothing about which rows are; those whose group is held out are in neither part.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from adaptkit.data.drawing import draw, draw_hash, draw_order
from adaptkit.data.guesses import NONE, SYNTHETIC, some_of
from adaptkit.data.readers import Dataset, Row, content_id, distinct_ids
from adaptkit.errors import DataError

PASSAGES, FEWEST_PASSAGES = 100, 4
"""Into how many passages a text that stands alone is divided; one of fewer lines stays whole."""
FEW_ROWS = 5
"""Labels with fewer rows stay in training whole."""
NO_LABEL = ""
"""Stands for the label of a row that has none."""
LARGEST = 2.0
"""A group of more than so many times the share is never held out: it would be most of the held-out part."""


def split(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split off about `fraction` of the rows, by hash of each row's group or text; returns (rest, held out).

    The order of rows does not matter; equal texts, and rows of one group, stay on one side. Labels keep their
    shares, and none is missing in the rest. A set of one text is divided into its passages first.
    Raises: DataError when a side would be empty.
    """
    dataset, written = _real_and_written(in_passages(dataset))
    units: dict[str, list[Row]] = defaultdict(list)
    for row in dataset.rows:
        units[str(row.values.get("group") or row.text)].append(row)
    place = {key: _unit_hash(f"{seed}:{key}") for key in units}
    largest = max(1.0, LARGEST * fraction * len(dataset.rows))
    able = [key for key in _able_to_leave(units) if len(units[key]) <= largest]
    able.sort(key=place.__getitem__)
    if any(row.labels for row in dataset.rows):
        chosen = _of_each_label(units, able, fraction)
    else:
        chosen = {key for key in able if place[key] < fraction}
        if not chosen and 0 < fraction < 1:
            chosen = set(able[:1])
    chosen = _labels_left_in_training(units, chosen)
    if not chosen or len(chosen) == len(units):
        raise _cannot_split(dataset, units, fraction)
    held = {id(row) for key in chosen for row in units[key]}
    rest = [row for row in dataset.rows if id(row) not in held]
    return _rest_and_held(dataset, rest, [row for row in dataset.rows if id(row) in held], written)


def hold_out(dataset: Dataset, size: int, most: float) -> tuple[Dataset, Dataset]:
    """(the rest, about `size` rows to tune on, at most the share `most`): whole groups, drawn by hash.

    Labels and sources keep their shares, and no label is missing in the rest. Rows of a drawn group beyond
    `size` are in neither part; size 0 takes the whole share. A set of one text is divided into its passages
    first.
    Raises: DataError where a side would be empty.
    """
    dataset, written = _real_and_written(in_passages(dataset))
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in dataset.rows:
        groups[row.cluster].append(row)
    if len(groups) < 2:
        what = f"{len(dataset.rows)} rows in {len(groups)} groups leave none to tune on"
        where = dataset.rows[0].where if dataset.rows else None
        raise DataError(what, where=where, fix=f"give more rows, or more than one group{_give_up(dataset)}")
    limit = max(1, math.floor(most * len(dataset.rows)))
    wanted = min(size, limit) if size else limit
    able = _able_to_leave(groups)
    num_groups = min(len(groups) - 1, len(able), math.ceil(wanted * len(groups) / len(dataset.rows)))
    # one row stands for its group
    firsts = [min(groups[name], key=draw_order) for name in able]
    chosen = _labels_left_in_training(groups, {row.cluster for row in draw(firsts, num_groups)})
    if not chosen:
        raise _cannot_split(dataset, groups, wanted / len(dataset.rows))
    rest = [row for row in dataset.rows if row.cluster not in chosen]
    held = [row for row in dataset.rows if row.cluster in chosen]
    left, _ = _rest_and_held(dataset, rest, held, written)
    return left, dataset.with_rows(draw(held, wanted))


def _real_and_written(dataset: Dataset) -> tuple[Dataset, list[Row]]:
    """The rows that may be held out, and those that a generator wrote.

    Raises: DataError where there are no others.
    """
    written = [row for row in dataset.rows if row.values.get("source") == SYNTHETIC]
    if written and len(written) == len(dataset.rows):
        what = f"all {len(written):,} rows are synthetic, and nothing is judged on these"
        raise DataError(what, where=written[0].where, fix="name real rows for the held-out part")
    return dataset.with_rows(row for row in dataset.rows if row.values.get("source") != SYNTHETIC), written


def _rest_and_held(
    dataset: Dataset, rest: Sequence[Row], held: Sequence[Row], written: Sequence[Row]
) -> tuple[Dataset, Dataset]:
    """(rest with what a generator wrote, held out); what it wrote of a held-out group is in neither."""
    groups = {row.cluster for row in held}
    beside = [row for row in written if row.cluster not in groups]
    return dataset.with_rows([*rest, *beside]), dataset.with_rows(held)


def in_passages(dataset: Dataset) -> Dataset:
    """A set that is one long text, as a book in one file is, as its passages; any other set as it is.

    A passage is some paragraphs, or some lines where no blank line parts any, so that there are PASSAGES of
    about equal length; nothing of the text is lost but the breaks between them.
    """
    if dataset.kind != "text" or len(dataset.rows) != 1:
        return dataset
    [row] = dataset.rows
    breaks = [match.end() for match in re.finditer(r"\n[ \t]*\n\s*", row.text)]
    if len(breaks) < PASSAGES:
        breaks = [match.end() for match in re.finditer(r"\n", row.text)]
    enough = len(row.text) / PASSAGES
    rows: list[Row] = []
    start = 0
    for end in [*breaks, len(row.text)]:
        text = row.text[start:end].rstrip()
        if len(text) >= enough or (text and end == len(row.text)):
            values = {**row.values, "text": text}
            rows.append(Row(values, _line_of(row, start), content_id(values)))
            start = end
    return dataset.with_rows(distinct_ids(rows)) if len(rows) >= FEWEST_PASSAGES else dataset


def _line_of(row: Row, start: int) -> str:
    """`file:line` of a character of a file's text."""
    file, _, line = row.where.rpartition(":")
    return f"{file}:{int(line) + row.text.count(chr(10), 0, start)}" if line.isdecimal() else row.where


def newest(dataset: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """(older rows, the newest share of them): whole groups, each as new as its newest row.

    Raises: DataError for a row without a time, and where a side would be empty.
    """
    dataset, written = _real_and_written(dataset)
    for row in dataset.rows:
        if "time" not in row.values:
            fix = "set columns: {time: <column>} to a column of ISO dates or numbers, or split: hash"
            raise DataError("split: time needs a time in every row", where=row.where, fix=fix)
    age: dict[str, tuple[str | float, str]] = {}
    for row in dataset.rows:
        moment = (row.values["time"], draw_hash(row.cluster))
        age[row.cluster] = max(age.get(row.cluster, moment), moment)
    sizes = Counter(row.cluster for row in dataset.rows)
    chosen: set[str] = set()
    num_rows = 0
    for name in sorted(age, key=age.__getitem__, reverse=True):
        if num_rows >= round(share * len(dataset.rows)) and chosen:
            break
        chosen.add(name)
        num_rows += sizes[name]
    if len(chosen) == len(age):
        fix = "give more rows, or rows of more groups"
        raise DataError("nothing older than the test is left", where=dataset.rows[0].where, fix=fix)
    older = [row for row in dataset.rows if row.cluster not in chosen]
    return _rest_and_held(dataset, older, [row for row in dataset.rows if row.cluster in chosen], written)


def _of_each_label(units: Mapping[str, Sequence[Row]], able: Sequence[str], fraction: float) -> set[str]:
    """The share of each label's units, in the order of `able`: rounded up or down so that the shares add up.

    A unit of several labels counts for the rarest of them.
    """
    counts = _label_counts(units)
    by_label: dict[str, list[str]] = defaultdict(list)
    for key in able:
        by_label[min(_labels(units[key]), key=lambda label: (counts[label], label))].append(key)
    chosen: set[str] = set()
    owed = 0.0
    for label in sorted(by_label, key=draw_hash):
        owed += fraction * sum(len(units[key]) for key in by_label[label])
        for key in by_label[label]:
            if len(units[key]) <= 2 * owed:
                chosen.add(key)
                owed -= len(units[key])
    return chosen


def _able_to_leave(units: Mapping[str, Sequence[Row]]) -> list[str]:
    """The units that hold no row of a label with few rows; all of them where that leaves none."""
    counts = _label_counts(units)
    able = [key for key, rows in units.items() if all(counts[label] >= FEW_ROWS for label in _labels(rows))]
    return able or list(units)


def _labels_left_in_training(units: Mapping[str, Sequence[Row]], chosen: set[str]) -> set[str]:
    """`chosen` without units that would take the last rows of a label out of training."""
    left = Counter[str]()
    for key, rows in units.items():
        if key not in chosen:
            left.update(_labels(rows))
    staying = set(chosen)
    for key in sorted(chosen, key=draw_hash):
        labels = _labels(units[key])
        if any(label and not left[label] for label in labels):
            staying.remove(key)
            left.update(labels)
    return staying


def _label_counts(units: Mapping[str, Sequence[Row]]) -> Counter[str]:
    """Rows of each label; rows without one count as very many."""
    counts = Counter(label for rows in units.values() for row in rows for label in row.labels or (NO_LABEL,))
    counts[NO_LABEL] = sum(counts.values()) + FEW_ROWS
    return counts


def _labels(rows: Sequence[Row]) -> set[str]:
    return {label for row in rows for label in row.labels or (NO_LABEL,)}


def _cannot_split(dataset: Dataset, units: Mapping[str, Sequence[Row]], fraction: float) -> DataError:
    where = dataset.rows[0].where if dataset.rows else None
    what = f"{len(dataset.rows)} rows cannot be split with {fraction:g} held out"
    if grouped := {key: len(rows) for key, rows in units.items() if "group" in rows[0].values}:
        column = dataset.roles.get("group", "group")
        what = (
            f"{len(dataset.rows)} rows in {len(grouped)} groups of column '{column}' ({some_of(grouped)}) "
            f"cannot be split with {fraction:.2g} held out"
        )
    fix = f"give more rows, or name a separate file for the held-out part{_give_up(dataset)}"
    return DataError(what, where=where, fix=fix)


def _give_up(dataset: Dataset) -> str:
    if not any("group" in row.values for row in dataset.rows):
        return ""
    column = dataset.roles.get("group", "group")
    return f"; if rows of one '{column}' need not stay together, set columns: {{group: {NONE}}}"


def _unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
