"""Refusals are written as OpenAI's clients read them."""

from __future__ import annotations

import json

import pytest

from adaptkit.serve.gateway.refused import Refused, error_body


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (429, "rate_limit_error"),
        (499, "invalid_request_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_errors_are_openais(status: int, kind: str) -> None:
    error = json.loads(error_body(status, "why", "n"))["error"]
    assert error == {"message": "why", "type": kind, "param": "n", "code": status}


def test_a_refusal_carries_its_field() -> None:
    refused = Refused(400, "why", param="n")
    assert json.loads(refused.body())["error"]["param"] == "n" and str(refused) == "why"
