"""Fields as rows hold them: an object or its JSON text, and the schema of rows for which none is stated."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adaptkit.data.json_fields import (
    DEEPEST,
    LIST_OF,
    OBJECT,
    TYPES,
    Field,
    Placed,
    Schema,
    listed,
    named,
    refuse_constant,
    type_of,
    without_nulls,
)
from adaptkit.data.records import Fault
from adaptkit.errors import DataError


def schema_of_rows(rows: Iterable[Placed], within: str = "") -> Schema:
    """The fields that rows have, in the order of their first mention, with the one type that each has.

    Raises: DataError at `file:line` of the first row in which a field has another type than in most; and
        where no row has a field.
    """
    seen: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))  # field -> type -> places
    objects: dict[str, list[Placed]] = defaultdict(list)
    for where, values in rows:
        for name, value in values.items():
            objects[name] += [(where, one) for one in listed(value) if isinstance(one, dict)]
            for kind in _kinds(value):
                seen[name][kind].append(where)
    if not seen:
        of = f" of '{within[:-1]}'" if within else ""
        raise DataError(f"no row has a field{of}", where="fields", fix="give rows with {name: value}")
    fields = []
    for name, kinds in seen.items():
        kind = _one_type(f"{within}{name}", kinds)
        if kind.removeprefix(LIST_OF) == OBJECT:
            inner = schema_of_rows(objects[name], f"{within}{name}.").fields
            fields.append(Field(name, OBJECT, many=kind != OBJECT, fields=inner))
        else:
            fields.append(Field.of(name, kind))
    return Schema(tuple(fields))


def object_of(value: Any, column: str) -> dict[str, Any] | Fault:
    """A row's fields, from an object or its JSON text, without those that are null.

    Returns: a Fault for anything else, and for values that are neither plain, nor
        objects of plain values, nor lists of one of these.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            return Fault(f"'{column}' is no JSON: {error}", 'write an object such as {"total": 12.5}')
    if not isinstance(value, dict):
        return Fault(f"'{column}' is {named(type_of(value))}, not an object of fields", "write {} for none")
    values = without_nulls(value)
    return _fault_within(values, column, ()) or values


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
        what = f"field '{name}' is {named(rare)} here and {named(common)} in {count:,} of {total:,} rows"
        raise DataError(
            what, where=first[rare], fix="write it in one type, or set `fields` and mend these rows"
        )
    return common


def _fault_within(values: Mapping[str, Any], column: str, within: tuple[str, ...]) -> Fault | None:
    """The first value that is neither plain, nor an object of such, nor a list of one of these."""
    for name, value in values.items():
        path = (*within, name)
        for part in listed(value):
            if isinstance(part, dict) and len(path) < DEEPEST:
                if fault := _fault_within(part, column, path):
                    return fault
            elif type_of(part) not in TYPES:
                what = f"field '{'.'.join(path)}' of '{column}' holds {named(type_of(part))}"
                deep = (
                    f"; objects lie within each other {DEEPEST} deep at most"
                    if isinstance(part, dict)
                    else ""
                )
                fix = "give each field a text, a number, true or false, an object, or a list of one of these"
                return Fault(what, fix + deep)
    return None
