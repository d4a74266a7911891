"""Suggest what the columns of an unknown table are for: which hold the text, which a label worth learning.

Roles that columns have by their names (`column_roles.detect`) come first. What is suggested here is a guess
that a user confirms: it is written into a config with the other candidates beside it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import mean

from adaptkit.data.files import records
from adaptkit.data.guesses import FACTS
from adaptkit.data.records import Fault, Record
from adaptkit.data.shapes import describe_columns, detect
from adaptkit.errors import DataError

SAMPLE_RECORDS = 2000
PROMPTS = ("prompt", "question", "query", "instruction")
ANSWERS = ("completion", "answer", "response", "reply", "output")
TEXTS = (
    *("text", "body", "content", "description", "message", "abstract", "document", "review", "comment"),
    *("sentence", "note", "report", "details"),
)
TITLES = ("title", "subject", "headline", "summary")
LABELS = (
    *("label", "class", "category", "topic", "intent", "queue", "sentiment", "department", "team"),
    *("section", "type", "product", "priority", "status"),
)
"""Names in order of how likely it is that they are what a user wants to predict."""
NOT_LABELS = {
    *("id", "year", "date", "month", "created", "updated", "split", "url", "file", "author", "user"),
    *("language", "lang", "locale", "licence", "license", "version"),
}
"""Names of facts about a row that nobody reads a text to learn."""
MOST_LABELS = 100
ROWS_PER_LABEL = 5
LONGEST_LABEL = 60
"""Characters."""
WORDS_OF_TEXT, WORDS_OF_TITLE = 3, 1.5
"""From this many words on average a column is running text, or what stands over it."""
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")


@dataclass(frozen=True)
class Suggestion:
    """What the columns of a table are most likely for.

    Attributes:
        kind: labelled, multi_label, spans, scored, extract, sft, messages, pairs or text.
        columns: role -> column, for `columns` of a config; empty where names say it already.
        label: the column whose value would be predicted; empty where there is none.
        others: further columns that could be.
    """

    kind: str
    columns: dict[str, str] = field(default_factory=dict)
    label: str = ""
    others: tuple[str, ...] = ()


def suggest(file: Path) -> Suggestion:
    """Look at the first records of a file.

    Raises: DataError where no column holds text.
    """
    samples = [
        record
        for _, record in islice(records(file, lambda sentence: None), SAMPLE_RECORDS)
        if not isinstance(record, Fault)
    ]
    if not samples:
        raise DataError("holds no record", where=str(file), fix="give a file with rows")
    suggested = suggest_columns(samples)
    if suggested is None:
        what = f"no column holds text; it has {describe_columns(samples)}"
        raise DataError(what, where=str(file), fix="give a table with a column of sentences")
    return suggested


def suggest_columns(samples: list[Record]) -> Suggestion | None:
    """Suggest by some records what their columns are for; None where no column holds text."""
    by_name = detect(samples, {}, None)
    if by_name is not None and by_name[0] not in ("text", "scored"):
        label = next(
            (by_name[1][role] for role in ("label", "labels", "spans", "fields") if role in by_name[1]), ""
        )
        return Suggestion(by_name[0], label=label)
    if pair := _question_and_answer(samples):
        return pair
    text = by_name[1]["text"] if by_name is not None else _text_columns(samples)
    if not text:
        return None
    labels = _label_columns(samples, set(text.split("+")), named_only=by_name is not None)
    columns = {} if by_name is not None else {"text": text}
    if not labels and by_name is not None and by_name[0] == "scored":
        return Suggestion("scored", label=by_name[1]["score"])
    if not labels:
        return Suggestion("text", columns)
    columns = {"text": text, "label": labels[0]}
    return Suggestion("labelled", columns, labels[0], tuple(labels[1:]))


def guess_in_words(samples: list[Record]) -> str:
    """Say which columns these records suggest, as a config's `columns` and as options; empty for none."""
    suggested = suggest_columns(samples)
    if suggested is None or not suggested.columns:
        return ""
    guess = suggested.columns
    pairs = ", ".join(f"{role}: {column}" for role, column in guess.items())
    options = " ".join(f"--column {role}={shlex.quote(column)}" for role, column in guess.items())
    return f"set columns; a guess by what they hold: {{{pairs}}} (for `adaptkit data check`: {options})"


def _question_and_answer(samples: Sequence[Record]) -> Suggestion | None:
    """Columns that are a question and its answer by their names, and hold words."""
    names = _names(samples)
    prompt = next((names[name] for name in PROMPTS if name in names), None)
    answer = next((names[name] for name in ANSWERS if name in names), None)
    if prompt is None or answer is None or min(_words(samples, prompt), _words(samples, answer)) < 2:
        return None
    return Suggestion("sft", {"prompt": prompt, "completion": answer})


def _text_columns(samples: Sequence[Record]) -> str:
    """The columns of the running text, joined by `+`: a title goes before the body it stands over."""
    names = _names(samples)
    running = [column for column in names.values() if _words(samples, column) >= WORDS_OF_TEXT]
    if not running:
        return ""
    named = [names[name] for name in TEXTS if names.get(name) in running]
    body = named[0] if named else max(running, key=lambda column: _characters(samples, column))
    titles = [
        names[name]
        for name in TITLES
        if name in names and names[name] != body and _words(samples, names[name]) >= WORDS_OF_TITLE
    ]
    return "+".join([*titles[:1], body])


def _label_columns(samples: Sequence[Record], texts: set[str], *, named_only: bool) -> list[str]:
    """Columns of a few values that come again and again, the likeliest first.

    Args:
        named_only: take none whose name does not say that it is a label.
    """
    names = {name: column for name, column in _names(samples).items() if column not in texts}
    fitting = {name: column for name, column in names.items() if _is_label(samples, column)}
    named = [fitting[name] for name in LABELS if name in fitting]
    if named_only:
        return named
    unnamed = [
        column
        for name, column in fitting.items()
        if column not in named
        and not {name, *re.split(r"[\W_]+", name)} & {*FACTS, *NOT_LABELS}
        and _words(samples, column) < WORDS_OF_TEXT
    ]
    return [*named, *sorted(unnamed, key=lambda column: -len(set(_values(samples, column))))]


def _is_label(samples: Sequence[Record], column: str) -> bool:
    values = _values(samples, column)
    different = set(values)
    return (
        len(values) == len(samples)
        and 2 <= len(different) <= min(MOST_LABELS, len(values) / ROWS_PER_LABEL)
        and max(map(len, different)) <= LONGEST_LABEL
        and not any(_DATE.match(value) for value in different)
    )


def _names(samples: Sequence[Record]) -> dict[str, str]:
    """Lower-case name -> column, of columns that the first record has."""
    return {str(column).strip().lower(): str(column) for column in samples[0]}


def _values(samples: Sequence[Record], column: str) -> list[str]:
    """The column's values that are text, a whole number or a truth value, as text; empty ones left out."""
    values = (record.get(column) for record in samples)
    return [str(value).strip() for value in values if isinstance(value, str | int) and str(value).strip()]


def _words(samples: Sequence[Record], column: str) -> float:
    """Words of a value on average; of scripts without blanks, a word for every two letters."""
    values = [value for value in _values(samples, column) if not _DATE.match(value)]
    return mean(max(len(v.split()), _wide_letters(v) / 2) for v in values) if values else 0.0


def _characters(samples: Sequence[Record], column: str) -> float:
    values = _values(samples, column)
    return mean(map(len, values)) if values else 0.0


def _wide_letters(value: str) -> int:
    """Letters of scripts that put no blanks between words."""
    return sum(letter > "\u2e80" or "\u0e00" <= letter < "\u1100" for letter in value)
