"""The guard: who gets in, which routes there are, what a request may hold; and that nothing of it is written
anywhere."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")
from prometheus_client import CollectorRegistry, generate_latest

from adaptkit.errors import ConfigError
from adaptkit.serve.api_keys import Keys
from adaptkit.serve.gateway import guard, routes
from adaptkit.serve.gateway.guard import Guard
from adaptkit.serve.gateway.metrics import Metrics, Rates
from adaptkit.serve.gateway.request_body import Limits, Refused, check, parse

KEY = "a-key-of-the-tests-0123456789"
GOOD = {"authorization": f"Bearer {KEY}"}


async def _app(scope: dict, receive: Any, send: Any) -> None:
    """Answers every path with what it was given."""
    if scope["path"] == "/version":
        raise RuntimeError("broken")
    body = (await receive())["body"] if scope["method"] == "POST" else b""
    seen = {
        "body": body.decode(),
        "path": scope["path"],
        "id": dict(scope["headers"])[b"x-request-id"].decode(),
    }
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"inner")]})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


class Caller:
    """Sends one request at a time to a guarded app."""

    def __init__(self, **limits: int):
        self.metrics = Metrics(CollectorRegistry())
        self.guard = Guard(
            _app, Keys((KEY, "another-key-0123456789"), "test"), Limits(**limits), self.metrics
        )

    def __call__(
        self,
        path: str,
        method: str = "POST",
        body: Any = None,
        headers: dict[str, str] | None = GOOD,
        chunks: int = 1,
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        size = max(1, len(data) // chunks)
        parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        asyncio.run(
            self.guard({"type": "http", "method": method, "path": path, "headers": pairs}, receive, send)
        )
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], told, json.loads(sent[1]["body"])


@pytest.fixture
def call() -> Caller:
    return Caller()


ODD = [
    "/",
    "/v1",
    "/v1/",
    "//v1/models",
    "/V1/models",
    "/v1/models/",
    "/v1/./models",
    "/health/",
    "/docs",
    "/openapi.json",
    "/invocations",
    "/ping",
    "/load",
    "/scale_elastic_ep",
    "/v1/load_lora_adapter",
    "/v1/models/a/b",
    "/v1/models/..",
    "/v1/models/a%2fb",
    "/metrics/x",
    "/inference/v1/generate",
    "/v1/responses",
    "/\u0130",
]


STRANGERS = [
    None,
    {"authorization": "Bearer wrong"},
    {"authorization": KEY},
    {"authorization": f"Basic {KEY}"},
    {"authorization": "Bearer "},
    {"authorization": f"Bearer {KEY}x"},
    {"x-api-key": KEY},
]


@pytest.mark.parametrize("headers", STRANGERS)
def test_without_the_key_only_health_answers(call: Caller, headers: dict[str, str] | None) -> None:
    for path in [*routes.ROUTES, *ODD, "/v1/models/name"]:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "X"):
            status, told, _ = call(path, method, headers=headers)
            assert status == (200 if (path, method) == ("/health", "GET") else 401), (path, method)
            assert status == 200 or told["www-authenticate"] == "Bearer"


def test_with_the_key_the_table_answers_and_nothing_else(call: Caller) -> None:
    for path, route in routes.ROUTES.items():
        wanted = 500 if path == "/version" else 200  # the app behind breaks there
        assert call(path, route.method, {"input": "a"})[0] == wanted
        assert call(path, "PUT")[0] == 405
    assert call("/v1/models/a.b-c@1", "GET")[0] == 200
    for path in ODD:
        for method in ("GET", "POST"):
            assert call(path, method)[0] == 404, path
    assert call("/classify", headers={"authorization": "bEARER another-key-0123456789"})[0] == 200


def test_a_websocket_is_closed() -> None:
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(Caller().guard({"type": "websocket", "path": "/health"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_the_application_gets_the_body_whole_and_an_id_of_ours(call: Caller) -> None:
    status, told, seen = call(
        "/tokenize", body={"prompt": "a" * 1000}, headers={**GOOD, "x-request-id": "mine-1"}, chunks=7
    )
    assert (status, told["x-request-id"]) == (200, "mine-1")
    assert json.loads(seen["body"]) == {"prompt": "a" * 1000}
    assert seen["id"].startswith("mine-1-") and len(seen["id"]) == len("mine-1-") + 8
    again = call("/tokenize", headers={**GOOD, "x-request-id": "mine-1"})[2]
    assert again["id"] != seen["id"], "two requests of one id would be one request to vLLM"
    for odd in ("a b", "x" * 101, "<script>", ""):
        assert len(call("/tokenize", headers={**GOOD, "x-request-id": odd})[1]["x-request-id"]) == 32


def test_bodies_over_the_limit_are_not_read(call: Caller) -> None:
    caller = Caller(body_bytes=100)
    assert caller("/classify", body={"input": "a" * 60})[0] == 200
    assert caller("/classify", body={"input": "a" * 101})[0] == 413
    assert caller("/classify", body={"input": "a" * 101}, chunks=5)[0] == 413
    for told in ("101", "9" * 30):
        assert caller("/classify", headers={**GOOD, "content-length": told})[0] == 413
    assert caller("/classify", headers={**GOOD, "content-length": "-5"})[0] == 200


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.01)
    sent: list[dict] = []

    async def receive() -> dict:
        await asyncio.sleep(10)
        raise AssertionError

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/classify",
        "headers": [(b"authorization", f"Bearer {KEY}".encode())],
    }
    asyncio.run(Caller().guard(scope, receive, send))
    assert sent[0]["status"] == 408


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
    ],
)
def test_what_is_not_plain_json_is_400(call: Caller, body: bytes) -> None:
    status, _, told = call("/v1/completions", body=body)
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")


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
def test_what_would_be_misread_ignored_or_fetched_is_400(
    call: Caller, path: str, body: dict, said: str
) -> None:
    status, _, told = call(path, body=body)
    assert status == 400 and said in told["error"]["message"] and told["error"]["code"] == 400


def test_honest_requests_pass(call: Caller) -> None:
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
        assert call(path, body=body)[0] == 200, body


def test_limits_of_zero_lift_them() -> None:
    body = {"max_tokens": 10**9, "n": 1000, "input": ["a"] * 5000}
    check("/v1/completions", body, Limits(max_tokens=0, sequences=0, items=0))
    with pytest.raises(Refused):
        check("/v1/completions", body, Limits())
    assert parse(b'{"a": [1, 2.5, "b"]}') == {"a": [1, 2.5, "b"]}


def test_each_key_has_its_own_rate() -> None:
    caller = Caller(requests_per_minute=3)
    now = [0.0]
    caller.guard.rates = Rates(3, clock=lambda: now[0])
    assert [caller("/v1/models", "GET")[0] for _ in range(5)] == [200, 200, 200, 429, 429]
    assert caller("/v1/models", "GET")[1]["retry-after"] == "20"
    assert caller("/v1/models", "GET", headers={"authorization": "Bearer another-key-0123456789"})[0] == 200
    assert caller("/health", "GET", headers=None)[0] == 200, "health is not counted"
    now[0] = 20.0
    assert [caller("/v1/models", "GET")[0] for _ in range(2)] == [200, 429]
    now[0] = 1e6
    assert [caller("/v1/models", "GET")[0] for _ in range(4)] == [200, 200, 200, 429], (
        "a rested key has no more than its share"
    )
    assert Rates(0).take("x") == 0.0


def test_logs_and_metrics_hold_no_text_no_key_and_no_path_of_a_callers_making(
    call: Caller, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for path in ("/v1/completions", "/version", "/canary-path"):
        call(path, body={"prompt": "canary-text"})
        call(path, "GET", body={"prompt": "canary-text"})
    call("/v1/completions", body=b'{"prompt": "canary-text", ')
    call("/v1/completions", headers={"authorization": "Bearer canary-key"})
    told = caplog.text + generate_latest(call.metrics.registry).decode() + "".join(capfd.readouterr())
    assert "canary" not in told and KEY not in told
    assert 'adaptkit_requests_total{route="/v1/completions",status="200"} 1.0' in told
    assert 'adaptkit_requests_total{route="other",status="404"} 2.0' in told
    assert "POST /v1/completions -> 401" in told


def test_a_failing_application_is_500_without_details(call: Caller) -> None:
    status, _, told = call("/version", "GET")
    assert (status, "broken" in json.dumps(told)) == (500, False)
    assert call.metrics.running._value.get() == 0


def test_as_vllm_makes_it_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "Metrics", lambda: Metrics(CollectorRegistry()))
    for name in ("ADAPTKIT_API_KEY", "ADAPTKIT_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="needs a key"):
        Guard(_app)
    monkeypatch.setenv("ADAPTKIT_API_KEY", KEY)
    for name, value in guard.as_environment(Limits(max_tokens=7)).items():
        monkeypatch.setenv(name, value)
    made = Guard(_app)
    assert (made.keys.values, made.limits) == ((KEY,), Limits(max_tokens=7))
    monkeypatch.setenv("ADAPTKIT_LIMIT_ITEMS", "many")
    with pytest.raises(ConfigError, match="ADAPTKIT_LIMIT_ITEMS"):
        Guard(_app)
