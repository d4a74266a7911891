"""Decide what the columns of a record mean (their roles), by name or as the user says, and check each row.

text                               running text
text + label                       classification
prompt + completion                question and answer (instruction, input, output are read as these)
messages (+ tools, documents)      conversations
prompt                             prompts to be answered
anchor + positive (+ negative...)  pairs, triplets
text1 + text2 + score or label     scored pairs

Beside these a row may say what it belongs to (`group`), where it comes from (`source`) and of when it is
(`time`): facts about a row, not part of its content. A role is given up by naming `none` as its column.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from adaptkit.data.conversations import conversation, in_two_lists
from adaptkit.data.guesses import FACTS, NONE
from adaptkit.data.message_fields import TEMPLATE_INPUTS, read_messages, template_input, unread_column
from adaptkit.data.records import Fault, Record
from adaptkit.errors import nearest

NEGATIVE = re.compile(r"negative(_\d+)?")


@dataclass(frozen=True)
class Shape:
    """A kind of data: the required roles with the column names they go by, and optional roles."""

    kind: str
    required: dict[str, tuple[str, ...]]
    optional: tuple[str, ...] = ()

    def match(self, names: Iterable[str], chosen: dict[str, str]) -> dict[str, str] | None:
        """role -> column for these column names, or None; `chosen` columns win over names, and roles that are
        given up have none."""
        names = set(names)
        given_up = {role for role, column in chosen.items() if column == NONE}
        chosen = {role: column for role, column in chosen.items() if role not in given_up}
        if given_up & set(self.required) or not all(self._takes(role) for role in chosen):
            return None
        roles: dict[str, str] = {}
        for role, aliases in self.required.items():
            column = chosen.get(role) or next((alias for alias in aliases if alias in names), None)
            if column is None:
                return None
            roles[role] = column
        by_name = [role for role in (*self.optional, *FACTS) if role in names and role not in roles]
        if "anchor" in self.required:
            by_name += [name for name in sorted(names) if NEGATIVE.fullmatch(name)]
        roles |= {role: role for role in by_name if role not in given_up}
        roles |= chosen
        return roles if all(_columns(column, names) for column in roles.values()) else None

    def _takes(self, role: str) -> bool:
        if "anchor" in self.required and NEGATIVE.fullmatch(role):
            return True
        return role in (*self.required, *self.optional, *FACTS)


SHAPES = (
    Shape("messages", {"messages": ("messages", "conversations", "conversation")}, TEMPLATE_INPUTS),
    Shape(
        "sft",
        {"prompt": ("prompt", "instruction"), "completion": ("completion", "output", "response")},
        ("input",),
    ),
    Shape("pairs", {"anchor": ("anchor",), "positive": ("positive",)}),
    Shape("pairs", {"text1": ("text1", "sentence1"), "text2": ("text2", "sentence2")}, ("score", "label")),
    Shape("labelled", {"text": ("text",), "label": ("label",)}),
    Shape("text", {"text": ("text",)}),
    Shape("prompts", {"prompt": ("prompt",)}),
)
KINDS_FOR = {
    "text": ("text",),
    "labelled": ("labelled",),
    "sft": ("messages", "sft", "text"),
    "pairs": ("pairs",),
    None: None,
}
ROLES = sorted(
    {role for shape in SHAPES for role in (*shape.required, *shape.optional)} | {"negative", *FACTS}
)

COLUMN_NAMES = {
    *(alias for shape in SHAPES for aliases in shape.required.values() for alias in aliases),
    *ROLES,
}
"""Names of columns that mean something by themselves."""


def detect(
    samples: list[Record], chosen: dict[str, str], want: str | None
) -> tuple[str, dict[str, str]] | None:
    """(kind, role -> column) that fits most of the first records, or None. Earlier shapes win.

    A vote, not the first record: a first row that lacks its label must not turn a labelled file into plain
    text.
    """
    kinds = KINDS_FOR[want]
    for shape in SHAPES:
        if kinds is not None and shape.kind not in kinds:
            continue
        fits = [roles for sample in samples if (roles := shape.match(sample, chosen)) is not None]
        if len(fits) * 2 > len(samples) or (fits and len(fits) * 2 == len(samples) and shape.kind != "text"):
            roles = max(fits, key=lambda roles: sum(roles == other for other in fits))
            return _as_messages(shape.kind, roles, samples)
    return None


def _as_messages(kind: str, roles: dict[str, str], samples: list[Record]) -> tuple[str, dict[str, str]]:
    """Prompts and completions that are lists of messages make one conversation; anything else stays."""
    if kind != "sft" or not in_two_lists(samples[0], (roles["prompt"], roles["completion"])):
        return kind, roles
    facts = {role: column for role, column in roles.items() if role in FACTS}
    return "messages", {"messages": f"{roles['prompt']}+{roles['completion']}", **facts}


def describe_columns(samples: list[Record]) -> str:
    """The first column names of some records, for an error message."""
    names = list(dict.fromkeys(str(name) for sample in samples for name in sample))[:12]
    return ", ".join(name if len(name) <= 60 else f"{name[:60]}..." for name in names) or "none"


def unknown_role(chosen: dict[str, str]) -> str | None:
    """The complaint about a role that does not exist, if there is one."""
    for role in chosen:
        if role not in ROLES and not NEGATIVE.fullmatch(role):
            return f"'{role}' is not a role{nearest(role, ROLES)}"
    return None


def _columns(column: str, names: Iterable[str]) -> list[str]:
    """The columns behind `column`: itself, or the parts of `a+b+c`; empty if one is missing."""
    names = set(names)
    if column in names:
        return [column]
    parts = [part.strip() for part in column.split("+")]
    return parts if all(part in names for part in parts) else []


class RowReader:
    """Turns records into checked values by role; remembers the type of the first label.

    Args:
        roles: role -> column, as `detect` found them.
        chosen: the roles set by the user; these may join several columns (`a+b`) or hold lists of texts.
    """

    def __init__(self, roles: dict[str, str], chosen: dict[str, str]):
        self.roles, self.chosen = roles, chosen
        self._types: dict[str, type] = {}  # role -> type of its first value

    def values(self, record: Record, typed: bool) -> dict[str, Any] | Fault:
        """Values by role. `typed` is false for csv, where every cell is text."""
        by_role: dict[str, Any] = {}
        roles = self.roles
        if "messages" in roles:  # the first rows of a file may call no tool
            roles = {role: role for role in TEMPLATE_INPUTS if role in record} | roles
        if ("messages" in roles or "completion" in roles) and (fault := unread_column(record, roles)):
            return fault
        for role, column in roles.items():
            value = self._value(role, column, record, typed)
            if isinstance(value, Fault):
                return value
            if value is not None:
                by_role[role] = value
        if extra := by_role.pop("input", ""):
            by_role["prompt"] = f"{by_role['prompt']}\n\n{extra}"
        return by_role

    def _value(self, role: str, column: str, record: Record, typed: bool) -> Any:
        if role == "input":
            return _optional_text(record.get(column), column)
        if role in TEMPLATE_INPUTS:
            value = record.get(column)
            return template_input(value, column) if value else None
        columns = _columns(column, record)
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
            return Fault(what, f"give every row a '{column}'")
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
