"""Request bodies: strict JSON, limits at their exact boundary, and what vLLM would misread or fetch.

Home of serve.gateway.request_fields.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from adaptkit.serve.gateway.refused import Refused
from adaptkit.serve.gateway.request_body import check, count_sequences, parse
from adaptkit.serve.gateway.request_fields import (
    INSTEAD,
    OURS,
    PLAIN,
    READ_BY_VLLM,
    WITHOUT_EFFECT,
    check_fields,
)
from adaptkit.serve.gateway.routes import ROUTES
from adaptkit.serve.limits import Limits


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"3",
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b"\xff\xfe",
        b'{"a": "\xe2\x28"}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"9" * 400 + b"}",
        b'{"a": 9223372036854775808}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\x00",
        b'{"a": 1} x',
        b'{"n": 1, "n": 9}',
        b'{"a": [{"b": 1, "c": 2, "b": 1}]}',
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-16-le"),
    ],
)
def test_what_is_not_plain_json_is_400(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse(body)
    assert refused.value.status == 400


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_numbers_of_64_bits_pass_and_one_more_does_not(number: int) -> None:
    assert parse(b'{"a": %d}' % number) == {"a": number}
    with pytest.raises(Refused, match="64 bits"):
        parse(b'{"a": %d}' % (number + (1 if number > 0 else -1)))


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/embeddings", {"input": [1, 2]}, "check_embedding_ctx_length=False"),
        ("/v1/embeddings", {"input": [[1, 2], [3]]}, "check_embedding_ctx_length=False"),
        ("/v1/embeddings", {"input": ["text", [3]]}, "check_embedding_ctx_length=False"),
        ("/v1/completions", {"max_tokens": 4097}, "at most 4096"),
        ("/v1/chat/completions", {"max_completion_tokens": 10**9}, "at most 4096"),
        ("/v1/completions", {"max_tokens": 1e12}, "at most 4096"),
        ("/v1/completions", {"n": 16384}, "at most 8"),
        ("/classify", {"input": ["a"] * 2049}, "at most 2048"),
        ("/v1/completions", {"prompt": [[1]] * 2049}, "at most 2048"),
        ("/v1/rerank", {"query": "a", "documents": ["a"] * 2049}, "at most 2048"),
        (
            "/v1/rerank",
            {"query": "a", "documents": {"content": [{"type": "text", "text": "a"}] * 2049}},
            "at most 2048",
        ),
        ("/v1/score", {"queries": ["a"] * 2049, "items": "b"}, "at most 2048"),
        ("/v1/score", {"queries": "a", "items": ["b"] * 2049}, "at most 2048"),
        ("/v1/completions", {"guided_json": {}}, "structured_outputs"),
        ("/v1/completions", {"structured_outputs": "yes"}, "must be an object"),
        ("/v1/chat/completions", {"chat_template": "{{ x }}"}, "own template"),
        ("/v1/completions", {"prompt_embeds": "AAAA"}, "text or token ids"),
        ("/v1/chat/completions", {"messages": [{"content": [{"type": "image_url"}]}]}, "only text"),
        (
            "/v1/chat/completions",
            {"messages": [{"content": [{"image_url": {"url": "file:///etc/passwd"}}]}]},
            "only text",
        ),
        ("/v1/embeddings", {"messages": [{"content": [{"type": "audio_url"}]}]}, "only text"),
        ("/score", {"documents": [{"content": [{"type": "video_url"}]}]}, "only text"),
        ("/rerank", {"documents": {"content": [{"type": "image_embeds"}]}}, "only text"),
        (
            "/rerank",
            {"query": {"content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]}},
            "only text",
        ),
        ("/v1/score", {"queries": "a", "items": [{"content": [{"type": "image_url"}]}]}, "only text"),
        (
            "/v1/completions",
            {"a_field_of_tomorrow": [{"image_url": {"url": "http://10.0.0.1/"}}]},
            "only text",
        ),
    ],
)
def test_what_would_be_misread_ignored_or_fetched_is_400(path: str, body: dict, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        check(path, body, Limits())
    assert refused.value.status == 400


def test_honest_requests_pass() -> None:
    honest = [
        ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "base64"}),
        ("/v1/completions", {"prompt": list(range(5000)), "max_tokens": 4096, "n": 8, "echo": True}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "\\u00e9 \ud83d\ude00"}]}]},
        ),
        ("/v1/completions", {"guided_json": None, "prompt": "x", "temperature": 1e-3, "seed": 2**63 - 1}),
        ("/v1/rerank", {"query": "a", "documents": ["b"] * 2048, "top_n": 3}),
        (
            "/v1/chat/completions",
            {"messages": [], "tools": [{"function": {"parameters": {"properties": {"image_url": {}}}}}]},
        ),
        (
            "/v1/chat/completions",
            {"messages": [], "response_format": {"json_schema": {"schema": {"properties": {"file": {}}}}}},
        ),
    ]
    for path, body in honest:
        check(path, parse(json.dumps(body).encode()), Limits())


@pytest.mark.parametrize("path", READ_BY_VLLM)
def test_a_field_that_would_be_passed_over_is_refused_by_its_name(path: str) -> None:
    for field in READ_BY_VLLM[path] | WITHOUT_EFFECT:
        check_fields(path, {field: "any"})
        for wrong in (field[:-1], f"{field}x", field.upper(), field.title()):
            if wrong in READ_BY_VLLM[path] | WITHOUT_EFFECT:
                continue
            with pytest.raises(Refused, match=f"`{wrong}` is no") as refused:
                check_fields(path, {field: "any", wrong: "any"})
            assert refused.value.status == 400 and refused.value.param == wrong
            check_fields(path, {wrong: None})
    for field, what in INSTEAD.items():
        with pytest.raises(Refused, match=f"`{field}` is not served: {what[:9]}"):
            check_fields(path, {field: [3]})
    for field, values in PLAIN.items():
        for value in values:
            check_fields(path, {field: value})


def test_the_field_that_was_meant_is_named() -> None:
    with pytest.raises(Refused, match=r"no field of /v1/completions \(did you mean 'temperature'\?\)"):
        check("/v1/completions", {"prompt": "a", "temprature": 0}, Limits())
    with pytest.raises(Refused) as refused:
        check("/v1/completions", {"x" * 10**6: 1}, Limits())
    assert len(refused.value.message) < 300


def test_every_route_that_reads_a_body_knows_its_fields() -> None:
    assert {*READ_BY_VLLM, *OURS} == {path for path, route in ROUTES.items() if route.method == "POST"}


def test_caveats_of_zero_lift_them() -> None:
    body = {"max_tokens": 10**9, "n": 1000, "prompt": ["a"] * 5000}
    check("/v1/completions", body, Limits(max_tokens=0, sequences=0, items=0))
    with pytest.raises(Refused):
        check("/v1/completions", body, Limits())
    assert parse(b'{"a": [1, 2.5, "b"]}') == {"a": [1, 2.5, "b"]}


SMALL = Limits(max_tokens=7, sequences=3, items=4, logprobs=5)


def is_refused(path: str, body: dict[str, Any]) -> bool:
    """Whether SMALL refuses it, naming the field."""
    try:
        check(path, body, SMALL)
    except Refused as refused:
        assert refused.param in body
        return True
    return False


@pytest.mark.parametrize(
    ("field", "limit"), [("max_tokens", 7), ("max_completion_tokens", 7), ("min_tokens", 7), ("n", 3)]
)
def test_a_number_at_its_limit_passes_and_one_more_does_not(field: str, limit: int) -> None:
    assert not is_refused("/v1/chat/completions", {field: limit})
    assert is_refused("/v1/chat/completions", {field: limit + 1})
    assert is_refused("/v1/chat/completions", {field: limit + 0.5})


@pytest.mark.parametrize(
    ("field", "limit"),
    [("max_tokens", 7), ("max_completion_tokens", 7), ("min_tokens", 7), ("n", 3)]
    + [("logprobs", 5), ("top_logprobs", 5), ("prompt_logprobs", 5)],
)
def test_limits_hold_for_numbers_that_are_sent_as_text(field: str, limit: int) -> None:
    for text in ("{}", " {} ", "{}.0", "+{}"):
        assert not is_refused("/v1/chat/completions", {field: text.format(limit)})
        assert is_refused("/v1/chat/completions", {field: text.format(limit + 1)})
    for text in ("1e5", "100_000", "\uff11\uff10\uff10", "nan", "inf", "many", "", [1], {"a": 1}):
        assert is_refused("/v1/chat/completions", {field: text}), text
    assert not is_refused("/v1/chat/completions", {field: None})


@pytest.mark.parametrize("field", ["logprobs", "top_logprobs", "prompt_logprobs"])
def test_log_probabilities_of_the_whole_vocabulary_are_refused(field: str) -> None:
    for all_of_them in (-1, "-1", -1.0, 10**6):
        assert is_refused("/v1/chat/completions", {field: all_of_them})
    assert not is_refused("/v1/chat/completions", {field: True})
    assert not is_refused("/v1/chat/completions", {field: 0})


def test_a_mark_of_utf8_is_no_error() -> None:
    assert parse(b'\xef\xbb\xbf{"a": "\xd1\x8f"}') == {"a": "\u044f"}


def test_a_constraint_is_checked_with_the_rest() -> None:
    assert is_refused("/v1/completions", {"structured_outputs": {"choice": ["a"] * 1001}})


@pytest.mark.parametrize(
    "field",
    ["prompt", "input", "messages", "stop", "tools", "documents", "items", "queries"]
    + ["text_1", "text_2", "data_1", "data_2"],
)
def test_a_list_at_its_limit_passes_and_one_more_does_not(field: str) -> None:
    path = next(path for path, fields in READ_BY_VLLM.items() if field in fields and path != "/v1/embeddings")
    assert not is_refused(path, {field: ["a"] * 4})
    assert is_refused(path, {field: ["a"] * 5})
    assert is_refused(path, {field: {"content": ["a"] * 5}})
    assert not is_refused(path, {field: [1] * 5}), "token ids of one text"
    assert is_refused(path, {field: [1, 2, 3, 4, "a"]})


def test_token_ids_are_refused_where_vectors_are_made_and_nowhere_else() -> None:
    assert is_refused("/v1/embeddings", {"input": [1]}) and is_refused(
        "/v1/embeddings", {"input": [["a", 1]]}
    )
    assert not is_refused("/v1/embeddings", {"input": ["1"]})
    assert not is_refused("/classify", {"input": [1]})


@pytest.mark.parametrize(
    ("body", "sequences"),
    [
        ({"prompt": "a"}, 1),
        ({"prompt": ["a", "b", "c"]}, 3),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]], "n": 4}, 8),
        ({"prompt": ["a", "b"], "n": "4"}, 8),
        ({"input": ["a"] * 300}, 300),
        ({"query": "q", "documents": ["a"] * 7}, 7),
        ({"text_1": "q", "text_2": ["a", "b"]}, 2),
        ({"messages": [{}, {}, {}], "stop": ["a", "b"], "n": 2}, 2),
        ({}, 1),
    ],
)
def test_the_work_of_a_request_is_counted_in_sequences(body: dict, sequences: int) -> None:
    assert count_sequences(body) == sequences
