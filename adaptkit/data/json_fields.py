"""Fields to be found in a text, as one flat JSON object: what a schema allows, and what answers hold.

    schema = Schema.of({"vendor": "string", "total": "number", "status": ["open", "paid"]})
    schema.fault({"total": "12"})             # "'total' is a string, and the schema wants a number"
    schema.canonical({"total": 12.0})         # '{"total": 12}': one spelling of each answer
    facts({"vendor": "Ames", "lines": [1, 2]})  # [["vendor", '"Ames"'], ["lines", "1"], ["lines", "2"]]

A field that a text does not give is left out of its object; null says the same.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptkit.data.records import Fault
from adaptkit.errors import DataError, nearest

Described = Mapping[str, str | Sequence[str]]
"""Field -> its type (`string`, `number`, `integer`, `boolean`, `list of` one of these), or the texts it may
be."""
Placed = tuple[str, Mapping[str, Any]]
"""`file:line` of a row, and its fields."""
TYPES = ("string", "number", "integer", "boolean")
LIST_OF = "list of "


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        type: one of TYPES.
        many: whether it holds a list of such values.
        choices: the only texts that it may hold; empty for any.
    """

    name: str
    type: str
    many: bool = False
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, described: str | Sequence[str]) -> Field:
        """Raises: ValueError for a type that is none."""
        if not isinstance(described, str):
            if not described or not all(isinstance(choice, str) for choice in described):
                raise ValueError(f"field '{name}': the values that it may have are a list of texts")
            return cls(name, "string", choices=tuple(described))
        kind = described.removeprefix(LIST_OF)
        if kind not in TYPES:
            known = ", ".join(TYPES)
            what = f"field '{name}': '{described}' is no type{nearest(kind, TYPES)}"
            raise ValueError(f"{what}; one of {known}, `list of` one of them, or a list of allowed texts")
        return cls(name, kind, many=described != kind)

    @property
    def described(self) -> str | list[str]:
        """As a config writes it."""
        if self.choices:
            return list(self.choices)
        return f"{LIST_OF}{self.type}" if self.many else self.type

    @property
    def json_schema(self) -> dict[str, Any]:
        one: dict[str, Any] = {"type": self.type}
        if self.choices:
            one["enum"] = list(self.choices)
        return {"type": "array", "items": one} if self.many else one

    def fault(self, value: Any) -> str:
        """What is wrong with a value; empty where nothing is."""
        if self.many:
            if not isinstance(value, list):
                return f"'{self.name}' is {_named(type_of(value))}, and the schema wants a list"
            return next((fault for fault in map(self._fault_of_one, value) if fault), "")
        return self._fault_of_one(value)

    def _fault_of_one(self, value: Any) -> str:
        kind = type_of(value)
        if kind != self.type and not (kind == "integer" and self.type == "number"):
            return f"'{self.name}' is {_named(kind)}, and the schema wants {_named(self.type)}"
        if self.choices and value not in self.choices:
            return (
                f"'{self.name}' is '{str(value)[:40]}', and the schema allows {', '.join(self.choices[:8])}"
            )
        return ""


@dataclass(frozen=True)
class Schema:
    """The fields of an object; any of them may be missing."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, described: Described) -> Schema:
        """Raises: ValueError for a type that is none."""
        return cls(tuple(Field.of(name, kind) for name, kind in described.items()))

    @property
    def described(self) -> dict[str, str | list[str]]:
        """As a config writes it."""
        return {field.name: field.described for field in self.fields}

    @property
    def json_schema(self) -> dict[str, Any]:
        """For a server that holds answers to it."""
        properties = {field.name: field.json_schema for field in self.fields}
        return {"type": "object", "properties": properties, "additionalProperties": False}

    @property
    def sentence(self) -> str:
        """The fields with their types, for prompts and messages."""
        return ", ".join(f"{field.name} ({_in_words(field)})" for field in self.fields)

    def fault(self, values: Mapping[str, Any]) -> str:
        """What is wrong with an object; empty where it fits."""
        by_name = {field.name: field for field in self.fields}
        for name, value in values.items():
            if name not in by_name:
                return f"field '{name}' is not in the schema{nearest(name, tuple(by_name))}"
            if fault := by_name[name].fault(value):
                return fault
        return ""

    def canonical(self, values: Mapping[str, Any]) -> str:
        """One spelling of an object that fits: fields in the schema's order, numbers without idle zeros."""
        ordered = {field.name: _plain(values[field.name]) for field in self.fields if field.name in values}
        return json.dumps(ordered, ensure_ascii=False)

    def parsed(self, answer: str) -> dict[str, Any] | None:
        """The object that a whole answer is, bare or in a code fence; None where it is none, or does not
        fit."""
        text = answer.strip()
        if text.startswith("```") and text.endswith("```"):
            text = text.removeprefix("```").removesuffix("```").removeprefix("json").strip()
        try:
            values = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None
        if not isinstance(values, dict):
            return None
        values = {name: value for name, value in values.items() if value is not None}
        return None if self.fault(values) else values

    def check(self, rows: Iterable[Placed]) -> None:
        """Raises: DataError at `file:line` for the first row that does not fit."""
        for where, values in rows:
            if fault := self.fault(values):
                raise DataError(fault, where=where, fix="mend the row, or change the field in `fields`")


def facts(values: Mapping[str, Any]) -> list[list[str]]:
    """Field and value as JSON, a pair for each value of a list: what answers are compared by."""
    pairs: list[list[str]] = []
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            pairs.append([name, json.dumps(_plain(one), ensure_ascii=False)])
    return pairs


def schema_of_rows(rows: Iterable[Placed]) -> Schema:
    """The fields that rows have, in the order of their first mention, with the one type that each has.

    Raises: DataError at `file:line` of the first row in which a field has another type than in most; and
        where no row has a field.
    """
    seen: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))  # field -> type -> places
    for where, values in rows:
        for name, value in values.items():
            for kind in _kinds(value):
                seen[name][kind].append(where)
    if not seen:
        raise DataError("no row has a field", where="fields", fix="give rows with {name: value} as `fields`")
    return Schema(tuple(Field.of(name, _one_type(name, kinds)) for name, kinds in seen.items()))


def object_of(value: Any, column: str) -> dict[str, Any] | Fault:
    """A row's fields, from an object or its JSON text, without those that are null.

    Returns: a Fault for anything else, and for values that are neither plain nor lists of plain values.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return Fault(f"'{column}' is no JSON: {error}", 'write an object such as {"total": 12.5}')
    if not isinstance(value, dict):
        return Fault(f"'{column}' is {_named(type_of(value))}, not an object of fields", "write {} for none")
    values = {str(name): one for name, one in value.items() if one is not None}
    for name, one in values.items():
        for part in one if isinstance(one, list) else [one]:
            if type_of(part) not in TYPES:
                what = f"field '{name}' of '{column}' holds {_named(type_of(part))}"
                return Fault(what, "give each field a text, a number, true or false, or a list of these")
    return values


def type_of(value: Any) -> str:
    """The JSON type of a value; a whole number is an integer however it is written."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        if not math.isfinite(value):
            return "number that is not finite"
        return "integer" if float(value).is_integer() else "number"
    if isinstance(value, str):
        return "string"
    if value is None:
        return "null"
    return "list" if isinstance(value, list) else "object"


def _kinds(value: Any) -> Sequence[str]:
    """The types of a field's value; an empty list says nothing."""
    if isinstance(value, list):
        return [LIST_OF + kind for kind in dict.fromkeys(map(type_of, value))]
    return [type_of(value)]


def _one_type(name: str, kinds: Mapping[str, list[str]]) -> str:
    """The type of a field; numbers take whole numbers in."""
    merged: Counter[str] = Counter()
    first: dict[str, str] = {}
    for kind, places in kinds.items():
        number = kind.replace("integer", "number")
        target = number if number in kinds else kind
        merged[target] += len(places)
        first.setdefault(target, places[0])
    (common, count), *others = merged.most_common()
    if others:
        total, rare = sum(merged.values()), others[-1][0]
        what = f"field '{name}' is {_named(rare)} here and {_named(common)} in {count:,} of {total:,} rows"
        raise DataError(
            what, where=first[rare], fix="write it in one type, or set `fields` and mend these rows"
        )
    return common


def _plain(value: Any) -> Any:
    """A value in one spelling: whole numbers without a point, texts without blanks at their ends."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip() if isinstance(value, str) else value


def _in_words(field: Field) -> str:
    return f"one of {', '.join(field.choices)}" if field.choices else str(field.described)


def _named(kind: str) -> str:
    if kind == "null":
        return kind
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
