"""Objects within the object of extracted fields: schemas, spelling, scores, the baseline, training rows.

Home of data.row_fields.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from test_extract import dataset, nested_in, placed

from adaptkit.data.json_fields import Schema, facts
from adaptkit.data.row_fields import object_of, schema_of_rows
from adaptkit.errors import DataError
from adaptkit.finetune.extraction import as_answers, field_row, field_scores
from adaptkit.study.tasks.copied_fields import CopiedFields

DESCRIBED = {
    "vendor": {"name": "string", "address": {"city": "string"}},
    "status": ["open", "paid"],
    "items": [{"name": "string", "price": "number", "tags": "list of string"}],
}
SCHEMA = Schema.of(DESCRIBED)
BILL = {
    "items": [{"price": 2.0, "name": " nut "}, {"name": "bolt", "price": 1.5}],
    "vendor": {"address": {"city": "Bonn"}, "name": "Ames"},
}


def test_a_schema_with_objects_is_written_read_and_understood_by_servers() -> None:
    assert SCHEMA.described == DESCRIBED and Schema.of(SCHEMA.described) == SCHEMA
    checked = jsonschema.Draft202012Validator(SCHEMA.json_schema)
    assert checked.is_valid(BILL)
    for wrong in ({"vendor": "Ames"}, {"items": {"name": "nut"}}, {"vendor": {"nam": "Ames"}}):
        assert not checked.is_valid(wrong) and SCHEMA.fault(wrong)
    assert SCHEMA.sentence == (
        "vendor (object with name (string), address (object with city (string))), "
        "status (one of open, paid), "
        "items (list of objects with name (string), price (number), tags (list of string))"
    )


@pytest.mark.parametrize(
    ("described", "what"),
    [
        ({"a": {}}, "field 'a': an object has fields"),
        ({"a": [{}]}, "field 'a': an object has fields"),
        ({"a": [{"b": "string"}, {"c": "string"}]}, "the values that it may have are a list of texts"),
        ({"a": {"b": "strin"}}, "field 'b': 'strin' is no type"),
        ({"a": 5}, "field 'a': 5 is no type"),
        ({"a": {"x": {"x": {"x": {"x": {"x": {"x": {"x": {"x": "string"}}}}}}}}}, "8 deep at most"),
    ],
)
def test_objects_that_are_none_are_refused(described: dict, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Schema.of(described)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"vendor": {"address": {"city": 5}}}, "'vendor.address.city' is an integer"),
        ({"vendor": {"nam": "Ames"}}, "field 'vendor.nam' is not in the schema (did you mean 'name'"),
        ({"items": [{"name": "nut"}, {"price": "2"}]}, "'items.price' is a string"),
        ({"items": [{"tags": ["a", 1]}]}, "'items.tags' is an integer"),
        ({"vendor": []}, "'vendor' is a list, and the schema wants an object"),
        ({"items": [3]}, "'items' is an integer, and the schema wants an object"),
    ],
)
def test_a_fault_names_the_way_to_it(values: dict, fault: str) -> None:
    assert SCHEMA.fault(values).startswith(fault)


def test_one_answer_has_one_spelling_whatever_the_order_within() -> None:
    spelt = SCHEMA.canonical(BILL)
    assert spelt == (
        '{"vendor": {"name": "Ames", "address": {"city": "Bonn"}}, '
        '"items": [{"name": "nut", "price": 2}, {"name": "bolt", "price": 1.5}]}'
    )
    assert sorted(facts(json.loads(spelt))) == sorted(facts(BILL))
    with_nulls = '{"vendor": {"name": "Ames", "address": null}, "items": [{"name": "nut", "price": null}]}'
    assert SCHEMA.parsed(with_nulls) == {"vendor": {"name": "Ames"}, "items": [{"name": "nut"}]}
    assert SCHEMA.parsed('{"vendor": {"name": 5}}') is None


def test_each_value_of_an_object_counts_and_an_object_of_a_list_as_a_whole() -> None:
    answers = {
        "one value": {**BILL, "vendor": {"name": "Bolt", "address": {"city": "Bonn"}}},
        "prices changed places": {
            **BILL,
            "items": [{"name": "nut", "price": 1.5}, {"name": "bolt", "price": 2}],
        },
    }
    scores = {
        name: field_scores([field_row("0", BILL, answer)])
        for name, answer in {"right": BILL, **answers}.items()
    }
    assert scores["right"]["field_f1"] == scores["right"]["json_exact_match"] == 1
    assert scores["one value"]["field_f1"] == pytest.approx(3 / 4), "of name, city and two items"
    assert scores["prices changed places"]["field_f1"] == pytest.approx(1 / 2), "what belongs together is one"
    assert scores["prices changed places"]["json_exact_match"] == 0


def test_fields_of_objects_are_those_of_the_rows() -> None:
    rows = placed(
        {"v": {"n": "a"}, "i": [{"p": 1}]}, {"v": {"c": True}, "i": [{"p": 2.5}, {"q": "x"}]}, {"i": []}
    )
    assert schema_of_rows(rows).described == {
        "v": {"n": "string", "c": "boolean"},
        "i": [{"p": "number", "q": "string"}],
    }
    with pytest.raises(
        DataError, match="field 'v.n' is an integer here and a string in 2 of 3 rows"
    ) as refused:
        schema_of_rows(placed({"v": {"n": "a"}}, {"v": {"n": 3}}, {"v": {"n": "b"}}))
    assert refused.value.where == "f:2"
    with pytest.raises(DataError, match="field 'v' is a string here and an object"):
        schema_of_rows(placed({"v": {"n": "a"}}, {"v": "a"}, {"v": {"n": "b"}}))
    with pytest.raises(DataError, match="no row has a field of 'v'"):
        schema_of_rows(placed({"v": {}}))
    assert object_of(nested_in(7), "fields") == nested_in(7)


def test_the_baseline_fills_objects_and_leaves_lists_of_them_out(tmp_path: Path) -> None:
    rows = [
        {
            "text": f"{vendor} of {city} sells a nut at 2.00",
            "fields": {
                "vendor": {"name": vendor, "address": {"city": city}},
                "items": [{"name": "nut", "price": 2}],
            },
        }
        for vendor, city in (("Ames", "Bonn"), ("Dorn", "Trier")) * 10
    ]
    parts = [dataset(tmp_path / f"{i}.jsonl", rows) for i in (0, 1)]
    copied = CopiedFields(SCHEMA, *parts)
    assert copied.values("from Dorn of Bonn") == {"vendor": {"name": "Dorn", "address": {"city": "Bonn"}}}
    taught = as_answers(parts[0], SCHEMA).rows[0].values["completion"]
    assert SCHEMA.parsed(taught) == rows[0]["fields"]
