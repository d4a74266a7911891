"""Rules that label texts: a table of keywords and patterns, or the functions of a Python file.

    label,pattern,is_regex            def p_value(text):
    RESULTS,p <,                          return "RESULTS" if "p <" in text else None
    METHODS,"were? randomi[sz]ed",1   def last(row):            # all columns of the row
                                          return "CONCLUSIONS" if row["pos"] == row["n"] - 1 else None

A keyword is found as a whole word, in any letter case; a regular expression anywhere, in any letter case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptkit.data.files import records
from adaptkit.data.readers import Row
from adaptkit.data.records import Fault, Record
from adaptkit.errors import DataError
from adaptkit.labelling.label_model import NONE
from adaptkit.study.user_file import UserFile

PYTHON_SECONDS = 600.0
FIX_FILE = "the file defines functions of `text` or `row` that return a label or None"
FIX_TABLE = "write a table with the columns label, pattern and, for regular expressions, is_regex"
YES, NO = {"1", "true", "yes", "x"}, {"", "0", "false", "no"}


@dataclass(frozen=True)
class Votes:
    """What rules say of rows.

    Attributes:
        names: of the rules.
        labels: all labels that a rule gives, sorted.
        votes_NR: the place of the label that each rule gives each row, or NONE.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    votes_NR: np.ndarray


def vote(rules: Path, pairs: Sequence[tuple[Record, Row]], seconds: float = PYTHON_SECONDS) -> Votes:
    """Ask every rule of a file about every row.

    Args:
        rules: a table of keywords, or a Python file, which is run in a process of its own.
        pairs: each row with the record that it was read from.
        seconds: what a Python file may take.
    Raises: DataError at its line for a rule that cannot be used; ConfigError for a Python file that fails.
    """
    if rules.suffix == ".py":
        items = [{"text": row.text, "row": record} for record, row in pairs]
        file = UserFile(rules, "rules file", seconds, FIX_FILE, raise_limit="raise --seconds")
        given: dict[str, list[str | None]] = file.ask("rules", items)
    else:
        texts = [row.text for _, row in pairs]
        given = {
            name: [label if pattern.search(text) else None for text in texts]
            for name, label, pattern in read_keywords(rules)
        }
    labels = tuple(sorted({label for of_rule in given.values() for label in of_rule if label is not None}))
    place = {label: number for number, label in enumerate(labels)}
    votes_NR = np.full((len(pairs), len(given)), NONE)
    for number, of_rule in enumerate(given.values()):
        votes_NR[:, number] = [NONE if label is None else place[label] for label in of_rule]
    return Votes(tuple(given), labels, votes_NR)


def read_keywords(path: Path) -> list[tuple[str, str, re.Pattern[str]]]:
    """Name, label and pattern of every row of a table.

    Raises: DataError at `file:line` for a row that is no rule, or stands twice.
    """
    rules: list[tuple[str, str, re.Pattern[str]]] = []
    for place, record in records(path):
        where = f"{path}:{place}"
        if isinstance(record, Fault) or not {"label", "pattern"} <= record.keys():
            raise DataError("no rule", where=where, fix=FIX_TABLE)
        label, pattern = str(record["label"] or "").strip(), str(record["pattern"] or "").strip()
        if not label or not pattern:
            raise DataError("a rule without label or pattern", where=where, fix=FIX_TABLE)
        name = f"{label}: {pattern}"
        if name in {known for known, _, _ in rules}:
            raise DataError(f"the rule '{name}' stands twice", where=where, fix="leave one out")
        rules.append((name, label, _compiled(pattern, str(record.get("is_regex") or ""), where)))
    if not rules:
        raise DataError("holds no rule", where=str(path), fix=FIX_TABLE)
    return rules


def _compiled(pattern: str, is_regex: str, where: str) -> re.Pattern[str]:
    answer = is_regex.strip().lower()
    if answer not in YES | NO:
        raise DataError(f"is_regex is '{answer}'", where=where, fix="write 1, or leave it empty")
    if answer in NO:
        before = r"(?<!\w)" if _ends_words(pattern[0]) else ""
        after = r"(?!\w)" if _ends_words(pattern[-1]) else ""
        return re.compile(f"{before}{re.escape(pattern)}{after}", re.IGNORECASE)
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        what = f"'{pattern}' is no regular expression: {error}"
        raise DataError(what, where=where, fix="mend it, or leave is_regex empty") from None


def _ends_words(letter: str) -> bool:
    """Whether a word ends where such a letter stands beside no other: not so in scripts without blanks."""
    return letter.isdigit() or letter.lower() != letter.upper()
