"""Fields to be found in a text, as one JSON object: what a schema allows, and what answers hold.

    schema = Schema.of({"vendor": "string", "total": "number", "status": ["open", "paid"]})
    schema.fault({"total": "12"})             # "'total' is a string, and the schema wants a number"
    schema.canonical({"total": 12.0})         # '{"total": 12}': one spelling of each answer
    facts({"vendor": "Ames", "lines": [1, 2]})  # [["vendor", '"Ames"'], ["lines", "1"], ["lines", "2"]]
    Schema.of({"vendor": {"name": "string"}, "items": [{"price": "number"}]})   # objects within

A field that a text does not give is left out of its object; null says the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adaptkit.errors import DataError, nearest

Described = Mapping[str, Any]
"""Field -> its type (`string`, `number`, `integer`, `boolean`, `list of` one of these); the texts it may be;
the fields of an object; or a list of one such object, for a list of them."""
Placed = tuple[str, Mapping[str, Any]]
"""`file:line` of a row, and its fields."""
TYPES = ("string", "number", "integer", "boolean")
LIST_OF = "list of "
OBJECT = "object"
DEEPEST = 8
"""Levels of objects within objects."""


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        type: one of TYPES, or OBJECT.
        many: whether it holds a list of such values.
        choices: the only texts that it may hold; empty for any.
        fields: those of an object.
    """

    name: str
    type: str
    many: bool = False
    choices: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()

    @classmethod
    def of(cls, name: str, described: Any, depth: int = 1) -> Field:
        """Raises: ValueError for a type that is none, or objects too deep within objects."""
        many = isinstance(described, list | tuple) and [isinstance(one, Mapping) for one in described] == [
            True
        ]
        if many or isinstance(described, Mapping):
            inner = described[0] if many else described
            if not inner or depth == DEEPEST:
                what = (
                    "an object has fields"
                    if not inner
                    else f"objects lie within each other {DEEPEST} deep at most"
                )
                raise ValueError(f"field '{name}': {what}")
            fields = tuple(cls.of(f"{part}", kind, depth + 1) for part, kind in inner.items())
            return cls(name, OBJECT, many=many, fields=fields)
        if isinstance(described, list | tuple):
            if not described or not all(isinstance(choice, str) for choice in described):
                raise ValueError(f"field '{name}': the values that it may have are a list of texts")
            return cls(name, "string", choices=tuple(described))
        if not isinstance(described, str):
            raise ValueError(f"field '{name}': {described!r} is no type; one of {', '.join(TYPES)}")
        kind = described.removeprefix(LIST_OF)
        if kind not in TYPES:
            known = ", ".join(TYPES)
            what = f"field '{name}': '{described}' is no type{nearest(kind, TYPES)}"
            raise ValueError(f"{what}; one of {known}, `list of` one of them, or a list of allowed texts")
        return cls(name, kind, many=described != kind)

    @property
    def described(self) -> Any:
        """As a config writes it."""
        if self.fields:
            inner = {field.name: field.described for field in self.fields}
            return [inner] if self.many else inner
        if self.choices:
            return list(self.choices)
        return f"{LIST_OF}{self.type}" if self.many else self.type

    @property
    def json_schema(self) -> dict[str, Any]:
        one: dict[str, Any] = {"type": self.type}
        if self.fields:
            one = Schema(self.fields).json_schema
        if self.choices:
            one["enum"] = list(self.choices)
        return {"type": "array", "items": one} if self.many else one

    def fault(self, value: Any, within: str = "") -> str:
        """What is wrong with a value; empty where nothing is.

        Args:
            within: names of the objects around it, each with a dot.
        """
        name = f"{within}{self.name}"
        if not self.many:
            return self._fault_of_one(value, name)
        if not isinstance(value, list):
            return f"'{name}' is {named(type_of(value))}, and the schema wants a list"
        return next((fault for one in value if (fault := self._fault_of_one(one, name))), "")

    def _fault_of_one(self, value: Any, name: str) -> str:
        kind = type_of(value)
        if kind != self.type and not (kind == "integer" and self.type == "number"):
            return f"'{name}' is {named(kind)}, and the schema wants {named(self.type)}"
        if self.fields:
            return Schema(self.fields).fault(value, f"{name}.")
        if self.choices and value not in self.choices:
            return f"'{name}' is '{str(value)[:40]}', and the schema allows {', '.join(self.choices[:8])}"
        return ""

    def ordered(self, value: Any) -> Any:
        """A value that fits, in one spelling."""
        if not self.fields:
            return _plain(value)
        inner = Schema(self.fields)
        return [inner.ordered(one) for one in value] if self.many else inner.ordered(value)


@dataclass(frozen=True)
class Schema:
    """The fields of an object; any of them may be missing."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, described: Described) -> Schema:
        """Raises: ValueError for a type that is none."""
        return cls(tuple(Field.of(name, kind) for name, kind in described.items()))

    @property
    def described(self) -> dict[str, Any]:
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

    def leaves(self, within: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Field]]:
        """The fields that hold values, each with the names that lead to it; none of a list of objects."""
        for field in self.fields:
            path = (*within, field.name)
            if not field.fields:
                yield path, field
            elif not field.many:
                yield from Schema(field.fields).leaves(path)

    def fault(self, values: Mapping[str, Any], within: str = "") -> str:
        """What is wrong with an object; empty where it fits."""
        by_name = {field.name: field for field in self.fields}
        for name, value in values.items():
            if name not in by_name:
                return f"field '{within}{name}' is not in the schema{nearest(name, tuple(by_name))}"
            if fault := by_name[name].fault(value, within):
                return fault
        return ""

    def ordered(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """An object that fits, with its fields in the schema's order and each value in one spelling."""
        return {
            field.name: field.ordered(values[field.name]) for field in self.fields if field.name in values
        }

    def canonical(self, values: Mapping[str, Any]) -> str:
        """One spelling of an object that fits: fields in the schema's order, numbers without idle zeros."""
        return json.dumps(self.ordered(values), ensure_ascii=False)

    def parsed(self, answer: str) -> dict[str, Any] | None:
        """The object that a whole answer is, bare or in a code fence; None where it is none, or does not
        fit."""
        text = answer.strip()
        if text.startswith("```") and text.endswith("```"):
            text = text.removeprefix("```").removesuffix("```").removeprefix("json").strip()
        try:
            values = json.loads(text, parse_constant=refuse_constant)
        except (ValueError, RecursionError):
            return None
        if not isinstance(values, dict):
            return None
        values = without_nulls(values)
        return None if self.fault(values) else values

    def check(self, rows: Iterable[Placed]) -> None:
        """Raises: DataError at `file:line` for the first row that does not fit."""
        for where, values in rows:
            if fault := self.fault(values):
                raise DataError(fault, where=where, fix="mend the row, or change the field in `fields`")


def facts(values: Mapping[str, Any]) -> list[list[str]]:
    """Field and value as JSON, a pair for each value of a list: what answers are compared by.

    Each value of an object is one by itself, under `object.field`. An object of a list is one as a whole: its
    values belong together.
    """
    pairs: list[list[str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += [[f"{name}.{inner}", one] for inner, one in facts(value)]
            continue
        for one in value if isinstance(value, list) else [value]:
            pairs.append([name, json.dumps(_plain(one), ensure_ascii=False, sort_keys=True)])
    return pairs


def listed(value: Any) -> list[Any]:
    """The values of a list, or the one that there is."""
    return value if isinstance(value, list) else [value]


def without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """An object without fields that are null, also in objects within it."""

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(part) for part in value]
        return without_nulls(value) if isinstance(value, dict) else value

    return {str(name): one(value) for name, value in values.items() if value is not None}


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


def _plain(value: Any) -> Any:
    """A value in one spelling: whole numbers without a point, texts without blanks at their ends."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip() if isinstance(value, str) else value


def _in_words(field: Field) -> str:
    if field.fields:
        return f"{'list of objects' if field.many else OBJECT} with {Schema(field.fields).sentence}"
    return f"one of {', '.join(field.choices)}" if field.choices else str(field.described)


def named(kind: str) -> str:
    if kind == "null":
        return kind
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
