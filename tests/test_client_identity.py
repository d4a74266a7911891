"""What a served model is travels as fields, in both directions."""

from __future__ import annotations

import pytest

from adaptkit.client.identity import ModelIdentity


def test_what_is_written_is_read_back() -> None:
    identity = ModelIdentity("tickets", "generic+lora", "generic", "lora", "intent", "finetuned", "classify")
    assert ModelIdentity.from_row({"id": "x", "adaptkit": identity.as_json()}) == identity
    assert identity.as_json() == {
        "study": "tickets",
        "arm": "generic+lora",
        "origin": "generic",
        "adaptation": "lora",
        "task": "intent",
        "role": "finetuned",
        "kind": "classify",
    }


@pytest.mark.parametrize("value", [None, "text", [], 3])
def test_a_foreign_server_tells_nothing(value: object) -> None:
    assert ModelIdentity.from_row({"id": "x"}) is None
    assert ModelIdentity.from_row({"id": "x", "adaptkit": value}) is None


def test_fields_of_another_release_do_no_harm() -> None:
    row = {"adaptkit": {"role": "generic", "arm": None, "of_tomorrow": [1]}}
    assert ModelIdentity.from_row(row) == ModelIdentity(role="generic")
