"""Every key that a user can set: described, with unit and default in `adaptkit schema`, and read by code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest
from source_tree import TREES

from adaptkit.cli.arguments import CONFIGS

Schema = dict[str, Any]


def keys(kind: str) -> dict[str, tuple[Schema, bool]]:
    """Dotted key -> its schema and whether it must be given, for each key of a command's config."""
    whole = CONFIGS[kind].model_json_schema()

    def walk(schema: Schema, prefix: str) -> Iterator[tuple[str, tuple[Schema, bool]]]:
        for name, field in schema.get("properties", {}).items():
            inner = [whole["$defs"][reference] for reference in references(field)]
            if not inner:
                yield f"{prefix}{name}", (field, name in schema.get("required", ()))
            for part in inner:
                yield from walk(part, f"{prefix}{name}.")

    return dict(walk(whole, ""))


def references(schema: Schema) -> list[str]:
    """Names of the configs that a field holds."""
    if "$ref" in schema:
        return [schema["$ref"].rpartition("/")[2]]
    parts = [*schema.get("anyOf", ()), *schema.get("allOf", ()), schema.get("items")]
    return [name for part in parts if part for name in references(part)]


def numbers(schema: Schema) -> Iterator[Schema]:
    """The parts of a field's schema that take a number."""
    if schema.get("type") in ("integer", "number"):
        yield schema
    for part in [*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")]:
        if isinstance(part, dict):
            yield from numbers(part)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_key_says_what_it_means_and_its_default(kind: str) -> None:
    found = keys(kind)
    assert len(found) > 30, "the search for keys is broken"
    assert not [key for key, (schema, _) in found.items() if not schema.get("description")]
    assert not [key for key, (schema, required) in found.items() if not required and "default" not in schema]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_number_has_a_unit(kind: str) -> None:
    without = [
        key
        for key, (schema, _) in keys(kind).items()
        if "unit" not in schema and any("unit" not in number for number in numbers(schema))
    ]
    assert not without


def read_names() -> set[str]:
    """Attributes and string keys that some code reads, validators left out: they only check."""
    found: set[str] = set()

    class Reads(ast.NodeVisitor):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            if not any("_validator" in ast.unparse(decorator) for decorator in node.decorator_list):
                self.generic_visit(node)

        def visit_Attribute(self, node: ast.Attribute) -> None:
            if isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            self.generic_visit(node)

        def visit_Subscript(self, node: ast.Subscript) -> None:  # a part that is dumped whole
            if isinstance(node.slice, ast.Constant):
                found.add(str(node.slice.value))
            self.generic_visit(node)

    for tree in TREES.values():
        Reads().visit(tree)
    return found


def test_every_key_is_read() -> None:
    names = {key.rpartition(".")[2] for kind in CONFIGS for key in keys(kind)}
    assert not sorted(names - read_names())
