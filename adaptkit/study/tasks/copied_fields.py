"""Extract fields without a language model: values of training rows, or texts of their shape, copied.

For each field the best of three ways on development rows: the value that training rows have most often, the
longest of their values that stands in the text, or the first text that is written as their values are (three
digits, a dot and two digits; a word with a capital), behind the word that stood before them if it occurs.
Lists of objects are left out: what belongs together in a text is not seen by looking for values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from adaptkit.data.json_fields import Field, Schema, facts
from adaptkit.data.readers import Dataset, Row

MOST_SHAPES = 8
"""Shapes of a field's values that are looked for, the commonest first."""
_PARTS = re.compile(r"\d+|[^\W\d_]+|\s+|.", re.DOTALL)
Way = Callable[[str], Any]
"""Text -> a field's value, or None."""
Path = tuple[str, ...]
"""The names that lead to a field: of objects around it, and its own."""


class CopiedFields:
    """What each field is taken to be; learnt from training rows, chosen on development rows."""

    def __init__(self, schema: Schema, train: Dataset, dev: Dataset):
        self._ways: dict[Path, Way] = {}
        for path, field in schema.leaves():
            ways = _ways(field, path, train)
            if ways:
                scores = [_f1(way, path, dev.rows) for way in ways]
                self._ways[path] = ways[scores.index(max(scores))]

    def values(self, text: str) -> dict[str, Any]:
        """The fields of a text."""
        found: dict[str, Any] = {}
        for (*around, name), way in self._ways.items():
            value = way(text)
            if value is not None:
                inner = found
                for outer in around:
                    inner = inner.setdefault(outer, {})
                inner[name] = value
        return found


def _at(values: Any, path: Path) -> Any:
    """The value that the names of a path lead to; None where there is none."""
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _f1(way: Way, path: Path, rows: list[Row]) -> float:
    """F1 of one field by one way; ties go to the way that is tried first."""
    hits = held = 0
    for row in rows:
        value, truth = way(row.values["text"]), _at(row.values["fields"], path)
        predicted = {pair[1] for pair in facts({} if value is None else {path[-1]: value})}
        actual = {pair[1] for pair in facts({} if truth is None else {path[-1]: truth})}
        hits += len(predicted & actual)
        held += len(predicted) + len(actual)
    return 2 * hits / held if held else 0.0


def _ways(field: Field, path: Path, train: Dataset) -> list[Way]:
    """The ways to fill a field, the simplest first; none where no training row has it."""
    pairs = [(row.values["text"], _at(row.values["fields"], path)) for row in train.rows]
    pairs = [(text, value) for text, value in pairs if value is not None]
    values = [value for _, value in pairs]
    if not values:
        return []
    if field.many:
        seen = list(dict.fromkeys(one for value in values for one in value))
        common = Counter(map(str, values)).most_common(1)[0][0]
        usual = next(value for value in values if str(value) == common)
        return [lambda text: usual, lambda text: [one for one in seen if _stands(one, text)] or None]
    usual = Counter(values).most_common(1)[0][0]
    ordered = sorted(dict.fromkeys(values), key=lambda value: -len(str(value)))

    def known(text: str) -> Any:
        return next((value for value in ordered if _stands(value, text)), None)

    ways: list[Way] = [lambda text: usual, known, lambda text: usual if known(text) is None else known(text)]
    shaped = _shaped(field, pairs)
    return [*ways, shaped] if shaped is not None else ways


def _stands(value: Any, text: str) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", text) for form in _forms(value))


def _forms(value: Any) -> list[str]:
    """How a value may be written in a text."""
    if isinstance(value, bool):
        return []
    if isinstance(value, str):
        return [value] if value.strip() else []
    forms = [f"{value:g}" if abs(value) < 1e6 else str(value), f"{value:.2f}", f"{value:,.2f}"]
    if float(value).is_integer():
        forms += [str(int(value)), f"{int(value):,}"]
    return list(dict.fromkeys(forms))


def _shaped(field: Field, pairs: list[tuple[str, Any]]) -> Way | None:
    """Looks for texts that are written as values of training rows are; None where texts hold no value."""
    patterns: Counter[str] = Counter()
    for text, value in pairs:
        for form in _forms(value):
            match = re.search(rf"(\w+\W{{1,3}})?(?<!\w)({re.escape(form)})(?!\w)", text)
            if match is not None:
                shape = "".join(map(_shape, _PARTS.findall(match[2])))
                patterns[f"(?<!\\w)({shape})(?!\\w)"] += 1
                if match[1]:
                    patterns[f"{re.escape(match[1])}({shape})(?!\\w)"] += 1
                break
    if not patterns:
        return None
    common = [pattern for pattern, _ in patterns.most_common(2 * MOST_SHAPES)]
    # one that begins with the word before is surer than the shape alone
    ordered = [re.compile(pattern) for pattern in sorted(common, key=lambda pattern: pattern[:5] == "(?<!\\")]

    def find(text: str) -> Any:
        for pattern in ordered:
            match = pattern.search(text)
            if match is not None:
                return _read(field, match[1])
        return None

    return find


def _shape(part: str) -> str:
    """One part of a value as a pattern: digits for digits, a word for a word."""
    if part.isdigit():
        return r"\d+"
    if part.isalpha():
        return r"[^\W\d_]+"
    return r"\s+" if part.isspace() else re.escape(part)


def _read(field: Field, text: str) -> Any:
    """A copied text as a value of the field's type; None where it is none."""
    if field.type == "string":
        return text if not field.choices or text in field.choices else None
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        return None
    return int(number) if number.is_integer() else number
