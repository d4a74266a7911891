"""Bound what structured output makes the engine compile: choices, JSON schemas, regexes and grammars.

vLLM compiles a constraint before the first token, in a few threads that all callers share: 40,000 choices
took 144 s, and everybody waited. So what is too large, too deep or leads back to itself is refused before
vLLM sees it, in each of the places where vLLM 0.32 reads a constraint: `response_format`,
`structured_outputs` and the parameters of `tools`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import unquote

from adaptkit.serve.gateway.refused import Refused
from adaptkit.serve.limits import Limits

MOST_NODES = 20_000
"""Parts of a schema, with `$ref` followed, that are looked at; it holds where the limits are lifted, too."""
NAMED_SCHEMAS = ("properties", "patternProperties", "dependentSchemas")
"""Keywords under which names lead to schemas."""
DEFINITIONS = ("$defs", "definitions")
"""Looked at where a `$ref` leads to them."""
DATA = ("default", "examples", "example", "required", "type", "title", "description", "dependentRequired")
"""Keywords that hold no schema."""
COUNTED = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minContains",
    "maxContains",
    "minProperties",
    "maxProperties",
)
OTHER_REFERENCES = ("$dynamicRef", "$recursiveRef")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_LITERAL = re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL)
_COUNT = re.compile(r"\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}", re.ASCII)


def has_constraint(body: dict[str, Any]) -> bool:
    """Say whether a request asks for structured output."""
    return any(body.get(field) for field in ("structured_outputs", "response_format", "tools"))


def check_constraints(body: dict[str, Any], limits: Limits) -> None:
    """Refuse a request whose constraint is over a limit.

    Raises: Refused (400).
    """
    for field, check in (
        ("structured_outputs", _check_structured_outputs),
        ("response_format", _check_response_format),
        ("tools", _check_tools),
        ("functions", _check_tools),
    ):
        value = body.get(field)
        if not value:
            continue
        try:
            check(_Constraint(field, limits), value)
        except RecursionError:
            raise Refused(400, f"`{field}` is nested too deeply", param=field) from None


def _check_structured_outputs(constraint: _Constraint, value: Any) -> None:
    if not isinstance(value, dict):
        return
    choices = value.get("choice")
    if isinstance(choices, list):
        constraint.add_choices(choices)
    for name in ("regex", "whitespace_pattern"):
        constraint.add_regex(value.get(name))
    constraint.add_grammar(value.get("grammar"))
    constraint.add_schema(value.get("json"))
    constraint.add_tag(value.get("structural_tag"))


def _check_response_format(constraint: _Constraint, value: Any) -> None:
    if not isinstance(value, dict):
        return
    wrapper = value.get("json_schema")
    if isinstance(wrapper, dict):
        constraint.add_schema(wrapper.get("schema"))
    constraint.add_tag({name: inner for name, inner in value.items() if name != "json_schema"})


def _check_tools(constraint: _Constraint, value: Any) -> None:
    if not isinstance(value, list):
        return
    for tool in value:
        if not isinstance(tool, dict):
            continue
        function = tool.get("function", tool)
        if isinstance(function, dict):
            constraint.add_schema(function.get("parameters"))


class _Constraint:
    """Counts what one field of a request asks to be compiled, and refuses it once it is too much."""

    def __init__(self, field: str, limits: Limits):
        self.field, self.limits = field, limits
        self.choices = self.properties = self.chars = self.nodes = 0

    def add_choices(self, values: list[Any]) -> None:
        """Count choices, or the values of an enum."""
        self._count_choices(len(values))
        for value in values:
            text = value if isinstance(value, str) else json.dumps(value)
            self._count_chars(len(text))

    def add_regex(self, pattern: Any) -> None:
        if not isinstance(pattern, str):
            return
        self._within(len(pattern), self.limits.regex_chars, "a regex of {} characters")
        self._count_chars(len(pattern))
        self._check_repeats(pattern)

    def add_grammar(self, grammar: Any) -> None:
        if not isinstance(grammar, str):
            return
        self._count_chars(len(grammar))
        without_literals = _LITERAL.sub('""', grammar)
        self._count_choices(without_literals.count("|"))
        self._check_repeats(without_literals)

    def add_schema(self, schema: Any) -> None:
        """Count a whole JSON schema, or the text of one."""
        if isinstance(schema, str):
            schema = self._parse(schema)
        self._add_part(schema, schema, depth=1, followed=())

    def add_tag(self, tag: Any, depth: int = 1) -> None:
        """Count a structural tag: schemas, regexes and grammars stand anywhere in it."""
        if isinstance(tag, str) and depth == 1:
            tag = self._parse(tag)
        self._check_node(depth)
        if isinstance(tag, list):
            self._count_choices(len(tag))
            for part in tag:
                self.add_tag(part, depth + 1)
        if not isinstance(tag, dict):
            return
        for name, value in tag.items():
            if name in ("json_schema", "schema"):
                self.add_schema(value)
            elif name in ("pattern", "regex"):
                self.add_regex(value)
            elif name == "grammar":
                self.add_grammar(value)
            elif isinstance(value, dict | list):
                self.add_tag(value, depth + 1)
            elif isinstance(value, str):
                self._count_chars(len(value))

    def _add_part(self, root: Any, part: Any, depth: int, followed: tuple[str, ...]) -> None:
        """Count one part of a schema, with what its `$ref` leads to.

        Args:
            followed: the references that have led here; none may come again.
        """
        self._check_node(depth)
        if isinstance(part, list):
            self._count_choices(len(part))
            for inner in part:
                self._add_part(root, inner, depth + 1, followed)
        if not isinstance(part, dict):
            return
        for keyword, value in part.items():
            if keyword == "$ref" and isinstance(value, str):
                if value in followed:
                    self._refuse(f"`$ref` {value[:60]!r} leads back to itself: a schema must be finite")
                self._add_part(root, self._resolve(root, value), depth + 1, (*followed, value))
            elif keyword in NAMED_SCHEMAS and isinstance(value, dict):
                self._add_named(root, keyword, value, depth, followed)
            else:
                self._add_keyword(keyword, value)
                if isinstance(value, dict | list) and keyword not in (*DATA, *DEFINITIONS, "enum", "const"):
                    self._add_part(root, value, depth + 1, followed)

    def _add_named(
        self, root: Any, keyword: str, schemas: dict[str, Any], depth: int, followed: tuple[str, ...]
    ) -> None:
        for name, schema in schemas.items():
            self.properties += 1
            self._within(self.properties, self.limits.properties, "{} properties")
            if keyword == "patternProperties":
                self.add_regex(name)
            else:
                self._count_chars(len(name))
            self._add_part(root, schema, depth + 2, followed)

    def _add_keyword(self, keyword: str, value: Any) -> None:
        """Count what a keyword itself asks for."""
        if keyword == "enum" and isinstance(value, list):
            self.add_choices(value)
        elif keyword == "const":
            self.add_choices([value])
        elif keyword == "pattern":
            self.add_regex(value)
        elif keyword in COUNTED and isinstance(value, int | float):
            self._within(value, self.limits.repeats, f"`{keyword}` of {{}}")
        elif keyword in OTHER_REFERENCES:
            self._refuse(f"`{keyword}` is not served: use `$ref`")

    def _resolve(self, root: Any, reference: str) -> Any:
        """Find what a reference within the schema leads to."""
        if reference != "#" and not reference.startswith("#/"):
            self._refuse(f"`$ref` {reference[:60]!r} leads out of the schema: only `#/...` is served")
        place = root
        for word in reference.split("/")[1:]:
            name = unquote(word).replace("~1", "/").replace("~0", "~")
            if isinstance(place, dict) and name in place:
                place = place[name]
            elif isinstance(place, list) and name.isdecimal() and int(name[:9]) < len(place):
                place = place[int(name[:9])]
            else:
                self._refuse(f"`$ref` {reference[:60]!r} leads nowhere")
        return place

    def _parse(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            self._refuse("the schema is not valid JSON")

    def _check_node(self, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            self._refuse(f"more than {MOST_NODES} parts")
        self._within(depth, self.limits.schema_depth, "{} levels")

    def _check_repeats(self, pattern: str) -> None:
        """Check the counts of a regex or grammar, those within each other multiplied, and its brackets."""
        for depth, repeats in _depths_and_repeats(pattern):
            self._within(depth, self.limits.schema_depth, "{} levels of brackets")
            self._within(repeats, self.limits.repeats, "a regex or grammar that counts to {}")

    def _count_choices(self, number: int) -> None:
        self.choices += number
        self._within(self.choices, self.limits.choices, "{} choices")

    def _count_chars(self, number: int) -> None:
        self.chars += number
        self._within(self.chars, self.limits.constraint_chars, "a constraint of {} characters")

    def _within(self, value: float, limit: int, what: str) -> None:
        if limit and value > limit:
            self._refuse(f"{what.format(value)}: at most {limit} are allowed")

    def _refuse(self, why: str) -> NoReturn:
        raise Refused(400, f"`{self.field}`: {why}", param=self.field)


def _depths_and_repeats(pattern: str) -> Iterator[tuple[int, int]]:
    """Walk a regex or grammar: depth of brackets and repeats so far, those of nested groups multiplied."""
    inner = [1]  # of each open group: the most repeats within it
    last = 1  # repeats of what the next count would multiply
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        count = _COUNT.match(pattern, place)
        if letter == "\\":
            place, last = place + 2, 1
            continue
        if letter == "[" and (inside := _CLASS.match(pattern, place)):
            place, last = inside.end(), 1
            continue
        if letter == "(":
            inner.append(1)
            last = 1
        elif letter == ")" and len(inner) > 1:
            last = inner.pop()
            inner[-1] = max(inner[-1], last)
        elif count:
            last *= max(1, *(int(digits[:12]) for digits in count.groups() if digits))
            inner[-1] = max(inner[-1], last)
            place = count.end()
            yield len(inner), last
            continue
        elif letter not in "?+*":
            last = 1
        yield len(inner), last
        place += 1
