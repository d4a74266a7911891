"""Check each row by the roles of its columns (`shapes`), and bring its values into one form."""

from __future__ import annotations

import contextlib
import datetime
import math
import re
from collections.abc import Sequence
from typing import Any

from adaptkit.data.annotations import (
    check_spans,
    label_probabilities,
    label_set,
    ordered_pair,
    separator_of,
    spans_of_tags,
    word_list,
)
from adaptkit.data.conversations import conversation
from adaptkit.data.guesses import FACTS, SYNTHETIC
from adaptkit.data.message_fields import TEMPLATE_INPUTS, read_messages, template_input, unread_column
from adaptkit.data.records import Fault, Record
from adaptkit.data.row_fields import object_of
from adaptkit.data.shapes import columns_of, describe_columns
from adaptkit.errors import nearest

SOFT = "label_probabilities"
"""Role of what says how likely each label of a row is."""


class RowReader:
    """Turns records into checked values by role; remembers the type of the first label.

    Args:
        roles: role -> column, as `detect` found them.
        chosen: the roles set by the user; these may join several columns (`a+b`) or hold lists of texts.
        samples: the first records, which show how labels in one cell are separated.
        soft: whether later rows may say how likely each label is where the first do not.
    """

    def __init__(
        self,
        roles: dict[str, str],
        chosen: dict[str, str],
        samples: Sequence[Record] = (),
        *,
        soft: bool = False,
    ):
        self.roles, self.chosen, self._soft = roles, chosen, soft
        self._separator = separator_of(samples, roles.get("labels", ""))
        self._types: dict[str, type] = {}  # role -> type of its first value

    def values(self, record: Record, typed: bool) -> dict[str, Any] | Fault:
        """Values by role. `typed` is false for csv, where every cell is text."""
        by_role: dict[str, Any] = {}
        roles = self.roles
        if "messages" in roles:  # the first rows of a file may call no tool
            roles = {role: role for role in TEMPLATE_INPUTS if role in record} | roles
        if self._soft and SOFT in record:
            roles = {SOFT: SOFT} | roles
        if record.get("source") == SYNTHETIC:  # the real rows before it may name no source
            roles = {role: role for role in ("source", "group") if role in record} | roles
        if ("messages" in roles or "completion" in roles) and (fault := unread_column(record, roles)):
            return fault
        for role, column in roles.items():
            value = self._value(role, column, record, typed)
            if isinstance(value, Fault):
                return value
            if value is not None:
                by_role[role] = value
        if SOFT in by_role:
            by_role[SOFT] = label_probabilities(by_role[SOFT], by_role["label"], roles[SOFT])
            if isinstance(by_role[SOFT], Fault):
                return by_role[SOFT]
        if extra := by_role.pop("input", ""):
            by_role["prompt"] = f"{by_role['prompt']}\n\n{extra}"
        if "chosen" in by_role:
            by_role |= ordered_pair(by_role["prompt"], by_role.pop("chosen"), by_role.pop("rejected"))
        return self._with_spans(by_role)

    def _with_spans(self, by_role: dict[str, Any]) -> dict[str, Any] | Fault:
        """Words and tags as a text with spans, and spans held against their text; other rows as they are."""
        if "tags" in by_role:
            tagged = spans_of_tags(by_role["tokens"], by_role.pop("tags"))
            if isinstance(tagged, Fault):
                return tagged
            return {"text": tagged[0], "spans": tagged[1], **by_role}
        if "spans" in by_role:
            spans = check_spans(by_role["text"], by_role["spans"], self.roles["spans"])
            return spans if isinstance(spans, Fault) else {**by_role, "spans": spans}
        return by_role

    def _value(self, role: str, column: str, record: Record, typed: bool) -> Any:
        if role == "input":
            return _optional_text(record.get(column), column)
        if role == SOFT:
            return record.get(column) or None
        if role in TEMPLATE_INPUTS:
            value = record.get(column)
            return template_input(value, column) if value else None
        columns = columns_of(column, record)
        if role in FACTS and role not in self.chosen:
            fact = self._fact(role, record.get(column), column)
            return None if isinstance(fact, Fault) else fact  # found by its name only: not every row must fit
        if not columns:
            has = f"{nearest(column, map(str, record))}; it has {describe_columns([record])}"
            return Fault(f"no column '{column}'{has}", f"give every row a '{column}'")
        if role == "messages":
            return read_messages(conversation(record, columns), _text)
        if role == "label":
            return self._label(record[columns[0]], column)
        if role == "score":
            return _score(record[columns[0]], column, typed)
        if role == "fields":
            return object_of(record[columns[0]], column)
        if role == "labels":
            return label_set(record[columns[0]], column, self._separator)
        if role in ("tokens", "tags"):
            return word_list(record[columns[0]], column)
        if role == "spans":
            value = record[columns[0]]
            fix = f"write '{column}' as an empty list where there is none"
            return Fault(f"'{column}' is null", fix) if value is None else value or []
        if role in FACTS:
            return self._fact(role, record[columns[0]], column)
        texts: list[str] = []
        for name in columns:
            text = _text(record[name], name, lists=role in self.chosen)
            if isinstance(text, Fault):
                return text
            texts.append(text)
        return "\n".join(texts)

    def _fact(self, role: str, value: Any, column: str) -> Any:
        if role == "group":
            return _group(value, column)
        return _source(value, column) if role == "source" else self._time(value, column)

    def _label(self, value: Any, column: str) -> str | Fault:
        kind = type(value)
        if kind not in (str, int, bool) or value == "":
            what = f"'{column}' is {_name(value)}, a label is text or a whole number"
            fix = f"give every row a '{column}'"
            if kind is list:
                fix = f"for rows with several labels set kind: multi_label, columns: {{labels: {column}}}"
            return Fault(what, fix)
        first = self._types.setdefault("label", kind)
        if kind is not first:
            what = f"'{column}' is {_name(value)} here and {first.__name__} above"
            return Fault(what, "write all labels in one type")
        return _text(value, column) if kind is str else str(value).lower()

    def _time(self, value: Any, column: str) -> str | float | Fault:
        """A moment that sorts as text, or a number; one of both throughout."""
        moment = moment_of(value)
        if moment is None:
            fix = "write ISO dates (2024-05-31, 2024-05-31T12:00:00Z) or numbers"
            return Fault(f"'{column}' is no ISO date and no number", fix)
        first = self._types.setdefault("time", type(moment))
        if type(moment) is not first:
            return Fault(f"'{column}' is a date in some rows and a number in others", "write one of both")
        return moment


def moment_of(value: Any) -> str | float | None:
    """A date as ISO text in UTC, or a number (a year, seconds); None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"-?\d+(\.\d+)?", text):
            return float(text)
        if re.fullmatch(r"\d{4}-\d{2}", text):
            text += "-01"
        with contextlib.suppress(ValueError):
            value = datetime.datetime.fromisoformat(text)
    if isinstance(value, datetime.datetime):
        utc = value.astimezone(datetime.UTC).replace(tzinfo=None) if value.tzinfo else value
        return utc.isoformat(timespec="seconds")
    if isinstance(value, datetime.date):
        return f"{value.isoformat()}T00:00:00"
    return None


def _group(value: Any, column: str) -> str | Fault | None:
    """What a row belongs to; null, an empty cell and NaN are no group."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str | int | float):
        return str(value)
    return Fault(f"'{column}' is {_name(value)}, not a name", "write each row's group as text or a number")


def _source(value: Any, column: str) -> str | Fault:
    if isinstance(value, str) and value.strip():
        return value
    return Fault(
        f"'{column}' is {_name(value)}, not a name", f"write where each row comes from as '{column}'"
    )


def _text(value: Any, column: str, lists: bool = False) -> str | Fault:
    if lists and isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        return Fault(f"'{column}' is {_name(value)}, not text", f"write '{column}' as a string")
    if not value.strip():
        return Fault(f"'{column}' is empty", "fill it or remove the row")
    if "\0" in value:
        return Fault(f"'{column}' holds a NUL character", "remove it; the row may be damaged")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        fix = "save the file as UTF-8 without lone surrogates"
        return Fault(f"'{column}' is not valid Unicode (UTF-8)", fix)
    return value


def _optional_text(value: Any, column: str) -> str | Fault:
    empty = value is None or (isinstance(value, str) and not value.strip())
    return "" if empty else _text(value, column)


def _score(value: Any, column: str, typed: bool) -> float | Fault:
    if isinstance(value, str) and not typed:
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return Fault(f"'{column}' is {_name(value)}, not a finite number", f"write '{column}' as a number")
    return float(value)


def _name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return "empty" if value in ("", [], {}) else type(value).__name__
