"""Fills the pages that are generated from the code: records and commands.

A page holds `{{ records }}` or `{{ commands }}` on a line of its own; the build replaces it, so that no table
can differ from the code.
"""

from __future__ import annotations

import inspect
import types
import typing
from enum import Enum

import typer.main

from adaptkit.cli.app import app
from adaptkit.run_record import Record, RunRecord
from adaptkit.study.record import StudyRecord


def on_page_markdown(markdown: str, **kwargs: object) -> str:
    """Called by the build for each page."""
    for name, generate in {"records": records, "commands": commands}.items():
        marker = "{{ " + name + " }}"
        if marker in markdown:
            markdown = markdown.replace(marker, generate())
    return markdown


def records() -> str:
    """Every record that a manifest.json or a study.json holds, the outer one first."""
    order: list[type[Record]] = []

    def visit(kind: type[Record]) -> None:
        if kind in order:
            return
        order.append(kind)
        for field in kind.model_fields.values():
            for inner in _record_types(field.annotation):
                visit(inner)

    visit(RunRecord)
    visit(StudyRecord)
    return "\n\n".join(
        f"## {kind.__name__}\n\n{inspect.getdoc(kind)}\n\n{fields_table(kind)}" for kind in order
    )


def fields_table(kind: type[Record]) -> str:
    """One row per field: name, type, default, meaning."""
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in kind.model_fields.items():
        default = "required" if field.is_required() else f"`{_shown(field.default)}`"
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {_type(field.annotation)} | {default} | {meaning} |")
    return "\n".join(rows)


def _shown(value: object) -> str:
    return str(value.value) if isinstance(value, Enum) else repr(value)


def _type(annotation: object) -> str:
    """A type in words that fit into a table."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(part) for part in inner)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (list, tuple):
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"{_type(inner[0])} -> {_type(inner[1])}"
    if annotation is type(None):
        return "null"
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    return getattr(annotation, "__name__", str(annotation))


def _record_types(annotation: object) -> list[type[Record]]:
    if inspect.isclass(annotation) and issubclass(annotation, Record):
        return [annotation]
    return [kind for part in typing.get_args(annotation) for kind in _record_types(part)]


def commands() -> str:
    """Every command: what it does, its examples, its options."""
    return "\n\n".join(
        _command(path, command) for path, command in _all_commands(typer.main.get_command(app))
    )


def _all_commands(group: object, path: str = "adaptkit") -> list[tuple[str, object]]:
    found = []
    for name, command in group.commands.items():
        here = f"{path} {name}"
        found += _all_commands(command, here) if hasattr(command, "commands") else [(here, command)]
    return found


def _command(path: str, command: object) -> str:
    text = " ".join(inspect.cleandoc(command.help or "").split())
    examples = [line.strip() for line in command.epilog.splitlines() if line.startswith("  ")]
    examples = [line for line in examples if line.startswith(("adaptkit", "torchrun"))]
    rows = ["| option | meaning |", "|---|---|"]
    for parameter in command.params:
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
        if parameter.param_type_name == "argument":
            names = f"`{parameter.metavar or parameter.name.upper()}`"
        meaning = (getattr(parameter, "help", None) or "").replace("|", "\\|")
        rows.append(f"| {names} | {meaning} |")
    shown = "\n".join(["```bash", *examples, "```"])
    return f"## {path}\n\n{text}\n\n{shown}\n\n" + "\n".join(rows)
