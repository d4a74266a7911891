"""Structured output: what would keep the engine compiling is refused in words, honest constraints pass."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adaptkit.serve.gateway.constraints import check_constraints
from adaptkit.serve.gateway.refused import Refused
from adaptkit.serve.limits import UNLIMITED, Limits

DEFAULT = Limits()
STRING = {"type": "string"}


def as_response_format(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


def as_tag(format: Any) -> dict[str, Any]:
    return {"response_format": {"type": "structural_tag", "format": format}}


SPELLINGS = {
    "response_format": as_response_format,
    "structured_outputs.json": lambda schema: {"structured_outputs": {"json": schema}},
    "structured_outputs.json as text": lambda schema: {"structured_outputs": {"json": json.dumps(schema)}},
    "tool": lambda schema: {"tools": [{"type": "function", "function": {"name": "a", "parameters": schema}}]},
    "old tag": lambda schema: {
        "response_format": {
            "type": "structural_tag",
            "structures": [{"begin": "<a>", "schema": schema, "end": "</a>"}],
            "triggers": ["<a"],
        }
    },
    "tag": lambda schema: as_tag({"type": "tag", "content": {"type": "json_schema", "json_schema": schema}}),
    "tag as text": lambda schema: {
        "structured_outputs": {
            "structural_tag": json.dumps({"format": {"type": "json_schema", "json_schema": schema}})
        }
    },
}


def chain(links: int) -> dict[str, Any]:
    """A schema in which each definition holds the next one twice: 2 ** links when followed."""
    inner = {f"d{i}": {"properties": {n: {"$ref": f"#/$defs/d{i + 1}"} for n in "ab"}} for i in range(links)}
    return {"$defs": {**inner, f"d{links}": STRING}, "$ref": "#/$defs/d0"}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = STRING
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


BOMBS = {
    "itself": ({"$ref": "#"}, "leads back to itself"),
    "a node in a node": (
        {
            "$defs": {"n": {"properties": {"c": {"type": "array", "items": {"$ref": "#/$defs/n"}}}}},
            "$ref": "#/$defs/n",
        },
        "leads back to itself",
    ),
    "two of each other": (
        {"definitions": {"a": {"$ref": "#/definitions/b"}, "b": {"anyOf": [{"$ref": "#/definitions/a"}]}}}
        | {"items": {"$ref": "#/definitions/a"}},
        "leads back to itself",
    ),
    "doubling": (chain(9), "properties: at most 512"),
    "properties": ({"properties": {f"p{i}": STRING for i in range(513)}}, "513 properties: at most 512"),
    "deep": (nested(40), "levels"),
    "deep lists": (
        {"items": {"items": {"items": {"items": nested(13)}}}, "type": "array"} | {"not": nested(31)},
        "levels",
    ),
    "enum": ({"enum": [f"{i}" for i in range(1001)]}, "choices: at most 1000"),
    "anyOf": ({"anyOf": [{"const": i} for i in range(1001)]}, "choices"),
    "long names": ({"properties": {"a" * 17_000: STRING}}, "characters"),
    "pattern": ({"type": "string", "pattern": "(a|b)*" * 100}, "a regex of 600 characters: at most 512"),
    "names by pattern": ({"patternProperties": {"a" * 513: STRING}}, "a regex of 513"),
    "length": ({"type": "string", "maxLength": 100_000}, "`maxLength` of 100000: at most 1000"),
    "items": ({"type": "array", "items": STRING, "minItems": 1001}, "`minItems`"),
    "elsewhere": ({"$ref": "http://10.0.0.1/schema.json"}, "leads out of the schema"),
    "nowhere": ({"$ref": "#/$defs/missing"}, "leads nowhere"),
    "dynamic": ({"$dynamicRef": "#node"}, "not served"),
}


def refusal(body: dict[str, Any], limits: Limits = DEFAULT) -> str:
    """What a refused body is answered; empty if it passes."""
    try:
        check_constraints(body, limits)
    except Refused as refused:
        assert refused.status == 400 and refused.param in body
        return refused.message
    return ""


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_schema_that_is_too_much_is_refused_in_every_spelling(spelling: str, bomb: str) -> None:
    schema, said = BOMBS[bomb]
    assert said in refusal(SPELLINGS[spelling](schema))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_honest_schemas_pass_in_every_spelling(spelling: str) -> None:
    address = {"type": "object", "properties": {"street": STRING, "$ref": STRING, "enum": STRING}}
    honest = [
        {
            "$defs": {"a/b": address},
            "properties": {"from": {"$ref": "#/$defs/a~1b"}, "to": {"$ref": "#/$defs/a~1b"}},
            "required": ["from"],
        },
        nested(10),
        chain(7),
        {"properties": {f"p{i}": {"type": "integer", "minimum": -(10**9)} for i in range(200)}},
        {"enum": [f"city {i}" for i in range(900)], "default": {"$ref": "#"}, "description": "a" * 50_000},
        {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
        {"type": "array", "items": STRING, "maxItems": 1000},
        True,
        {},
    ]
    for schema in honest:
        assert not refusal(SPELLINGS[spelling](schema)), schema


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ({"choice": ["a"] * 1001}, "1001 choices"),
        ({"choice": ["a" * 1000] * 17}, "a constraint of 17000 characters"),
        ({"regex": "a" * 513}, "a regex of 513"),
        ({"regex": "[a-z]{1,1001}"}, "counts to 1001"),
        ({"regex": "[a-z]{1001,}"}, "counts to 1001"),
        ({"regex": "((a{11}b){10}|c){10}"}, "counts to 1100"),
        ({"regex": "(" * 33 + ")" * 33}, "levels of brackets"),
        ({"whitespace_pattern": " {5000}"}, "counts to 5000"),
        ({"grammar": 'root ::= "' + "a" * 17_000 + '"'}, "characters"),
        ({"grammar": "root ::= " + " | ".join(["a"] * 1100)}, "choices"),
        ({"grammar": 'root ::= "a"{2000}'}, "counts to 2000"),
        ({"grammar": "root ::= " + "(" * 50 + '"a"' + ")" * 50}, "levels of brackets"),
        ({"structural_tag": json.dumps({"format": {"type": "regex", "pattern": "a" * 600}})}, "a regex"),
        ({"structural_tag": json.dumps({"format": {"type": "grammar", "grammar": "a" * 17_000}})}, "charac"),
        ({"structural_tag": json.dumps({"format": {"type": "or", "elements": [{}] * 1001}})}, "choices"),
        ({"structural_tag": "{"}, "not valid JSON"),
        ({"json": "{"}, "not valid JSON"),
        ({"json": '{"a":' * 5000 + "1" + "}" * 5000}, "too deeply"),
    ],
)
def test_choices_regexes_grammars_and_tags_have_limits(constraint: dict[str, Any], said: str) -> None:
    assert said in refusal({"structured_outputs": constraint})


@pytest.mark.parametrize(
    "constraint",
    [
        {"choice": [f"label {i}" for i in range(1000)]},
        {"regex": r"[\w.]{1,64}@(?:[a-z]{1,20}\.){1,3}[a-z]{2,6}"},
        {"regex": r"[(\[]" * 40 + r"\(\{1001\}"},
        {"regex": "(a{10}b){10}(c{10}d){10}" * 3},
        {"grammar": 'root ::= "' + "(" * 100 + '" | "{5000}"'},
        {"json_object": True},
        {"choice": "no list"},
        {"regex": 3, "json": 3},
    ],
)
def test_honest_constraints_pass(constraint: dict[str, Any]) -> None:
    assert not refusal({"structured_outputs": constraint})


def test_every_limit_is_a_setting_and_zero_lifts_it() -> None:
    many = {"structured_outputs": {"choice": ["a"] * 3}}
    assert refusal(many, Limits(choices=2)) and not refusal(many, Limits(choices=3))
    assert not refusal({"structured_outputs": {"choice": ["a"] * 5000}}, UNLIMITED)
    assert "20000 parts" in refusal(as_response_format(chain(20)), UNLIMITED), "bounded all the same"
    assert "itself" in refusal(as_response_format({"$ref": "#"}), UNLIMITED)


def test_the_limits_hold_for_all_tools_together() -> None:
    def tools(number: int) -> dict[str, Any]:
        parameters = {"properties": {f"p{i}": STRING for i in range(10)}}
        return {"tools": [{"function": {"name": f"t{i}", "parameters": parameters}} for i in range(number)]}

    assert not refusal(tools(51)) and "513 properties" in refusal(tools(52))
