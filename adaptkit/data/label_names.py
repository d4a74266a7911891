"""Labels before anything trains: those that one part of the data lacks, and those that only look
different."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from adaptkit.data.readers import Dataset
from adaptkit.errors import DataError

MOST_SHOWN = 8


def check_labels(dataset: Dataset, label_names: Sequence[str], part: str = "") -> None:
    """Refuse rows with labels that the training rows lack.

    Args:
        part: what the rows are, for the message: dev or test.
    Raises: DataError at the first row whose label is not one of `label_names`.
    """
    missing = missing_labels(dataset, label_names)
    if not missing:
        return
    where = next(row.where for row in dataset.rows if missing.keys() & set(row.labels))
    name = next(iter(missing))
    rows = "1 row" if missing[name] == 1 else f"{missing[name]:,} rows"
    place = f"{rows} of {part}" if part else rows
    what = f"label '{name}' stands in {place} and does not occur in the training split"
    if len(missing) > 1:
        what += f"; nor do {shown(list(missing)[1:])}"
    fix = f"use one of {shown(label_names)}, or add training rows with it"
    if alike := [other for other in label_names if bare(other) == bare(name)]:
        fix = f"write it as the training rows do: '{alike[0]}'"
    raise DataError(what, where=where, fix=fix)


def missing_labels(dataset: Dataset, label_names: Iterable[str]) -> Counter[str]:
    """Labels of a data set that are not among these, in the order in which they come, and their rows."""
    known = set(label_names)
    labels = (label for row in dataset.rows for label in row.labels)
    return Counter(label for label in labels if label not in known)


def alike_labels(labels: Iterable[str]) -> list[list[str]]:
    """Labels that differ only in blanks, in capitals or in how Unicode writes them, each group sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        groups[bare(label)].add(label)
    return [sorted(group) for _, group in sorted(groups.items()) if len(group) > 1]


def bare(label: str) -> str:
    """A label without what a reader does not see: blanks, capitals and forms of Unicode."""
    return "".join(unicodedata.normalize("NFKC", label).casefold().split())


def shown(labels: Sequence[str]) -> str:
    """A list of labels for a message."""
    more = ", ..." if len(labels) > MOST_SHOWN else ""
    return ", ".join(labels[:MOST_SHOWN]) + more
