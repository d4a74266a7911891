"""The guard: who gets in, what reaches the application, and that nothing of a request is written anywhere."""

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
from adaptkit.serve.gateway.counters import Metrics, Rates
from adaptkit.serve.gateway.guard import Guard
from adaptkit.serve.limits import Limits, limits_to_environment

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
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], answered, json.loads(sent[1]["body"])


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
            status, answered, _ = call(path, method, headers=headers)
            assert status == (200 if (path, method) == ("/health", "GET") else 401), (path, method)
            assert status == 200 or answered["www-authenticate"] == "Bearer"


def test_with_the_key_the_table_answers_and_nothing_else(call: Caller) -> None:
    for path, route in routes.ROUTES.items():
        wanted = 500 if path == "/version" else 200  # the app behind breaks there
        body = {"query": "a"} if path == routes.SEARCH else {"model": "a"}
        assert call(path, route.method, body)[0] == wanted
        assert call(path, "PUT")[0] == 405
    assert call("/v1/models/a.b-c@1", "GET")[0] == 200
    for path in ODD:
        for method in ("GET", "POST"):
            assert call(path, method)[0] == 404, path
    assert call("/classify", headers={"authorization": "bEARER another-key-0123456789"})[0] == 200


def test_a_wrong_key_is_called_wrong_and_a_missing_one_needed(call: Caller) -> None:
    assert "a key is needed" in call("/classify", headers=None)[2]["error"]["message"]
    wrong = call("/classify", headers={"authorization": "Bearer of-bad-news-0123456789"})
    assert wrong[0] == 401 and "this key is wrong" in wrong[2]["error"]["message"]


def test_what_openai_serves_and_we_do_not_is_said_with_what_to_use(call: Caller) -> None:
    status, _, answer = call("/v1/responses")
    assert status == 404 and "use /v1/chat/completions" in answer["error"]["message"]
    assert not routes.NOT_SERVED.keys() & routes.ROUTES.keys()


@pytest.mark.parametrize("headers", [GOOD, None])
def test_a_refused_body_is_read_to_its_end_so_that_the_answer_arrives(
    headers: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    async def receive() -> dict[str, Any]:
        taken.append(1)
        return {"type": "http.request", "body": b"a" * 1000, "more_body": len(taken) < 50}

    async def send(message: dict[str, Any]) -> None:
        assert not message.get("status") or len(taken) == wanted

    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": "/classify"}
    scope["headers"] = [*pairs, (b"transfer-encoding", b"chunked")]
    for drained, wanted in ((guard.DRAIN_BYTES, 50), (0, 6 if headers else 0)):
        monkeypatch.setattr(guard, "DRAIN_BYTES", drained)
        taken.clear()
        asyncio.run(Caller(body_bytes=5500).guard(scope, receive, send))
        assert len(taken) == wanted


def test_a_websocket_is_closed() -> None:
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(Caller().guard({"type": "websocket", "path": "/health"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_the_application_gets_the_body_whole_and_an_id_of_ours(call: Caller) -> None:
    status, answered, seen = call(
        "/tokenize", body={"prompt": "a" * 1000}, headers={**GOOD, "x-request-id": "mine-1"}, chunks=7
    )
    assert (status, answered["x-request-id"]) == (200, "mine-1")
    assert json.loads(seen["body"]) == {"prompt": "a" * 1000}
    assert seen["id"].startswith("mine-1-") and len(seen["id"]) == len("mine-1-") + 8
    again = call("/tokenize", headers={**GOOD, "x-request-id": "mine-1"})[2]
    assert again["id"] != seen["id"], "two requests of one id would be one request to vLLM"
    for odd in ("a b", "x" * 101, "<script>", ""):
        assert len(call("/tokenize", headers={**GOOD, "x-request-id": odd})[1]["x-request-id"]) == 32


def test_bodies_over_the_limit_are_not_read() -> None:
    caller = Caller(body_bytes=100)
    frame = len(json.dumps({"input": ""}))
    for chunks in (1, 5):
        assert caller("/classify", body={"input": "a" * (100 - frame)}, chunks=chunks)[0] == 200
        assert caller("/classify", body={"input": "a" * (101 - frame)}, chunks=chunks)[0] == 413
    for announced, status in (("100", 200), ("101", 413), ("9" * 30, 413), ("-5", 200), ("x", 200)):
        answer = caller("/classify", headers={**GOOD, "content-length": announced})
        assert answer[0] == status, announced
    assert Caller(body_bytes=0)("/classify", body={"input": "a" * 10_000})[0] == 200


def test_a_body_that_is_refused_is_an_openai_error(call: Caller) -> None:
    for body, said in ((b"[]", "one JSON object"), (b'{"n": 9}', "at most 8")):
        status, _, answer = call("/v1/completions", body=body)
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert said in answer["error"]["message"] and answer["error"]["code"] == 400
    assert call("/classify", headers=None)[2]["error"]["type"] == "authentication_error"


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


def test_logs_and_metrics_hold_no_text_no_key_and_no_path_of_a_callers_making(
    call: Caller, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for path in ("/v1/completions", "/version", "/canary-path"):
        call(path, body={"prompt": "canary-text"})
        call(path, "GET", body={"prompt": "canary-text"})
    call("/v1/completions", body=b'{"prompt": "canary-text", ')
    call("/v1/completions", headers={"authorization": "Bearer canary-key"})
    written = caplog.text + generate_latest(call.metrics.registry).decode() + "".join(capfd.readouterr())
    assert "canary" not in written and KEY not in written
    assert 'adaptkit_requests_total{route="/v1/completions",status="200"} 1.0' in written
    assert 'adaptkit_requests_total{route="other",status="404"} 2.0' in written
    assert "POST /v1/completions -> 401" in written


def test_a_failing_application_is_500_without_details(call: Caller) -> None:
    status, _, body = call("/version", "GET")
    assert (status, "broken" in json.dumps(body)) == (500, False)
    assert call.metrics.running._value.get() == 0


def test_as_vllm_makes_it_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "Metrics", lambda: Metrics(CollectorRegistry()))
    for name in ("ADAPTKIT_API_KEY", "ADAPTKIT_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="needs a key"):
        Guard(_app)
    monkeypatch.setenv("ADAPTKIT_API_KEY", KEY)
    for name, value in limits_to_environment(Limits(max_tokens=7)).items():
        monkeypatch.setenv(name, value)
    made_by_vllm = Guard(_app)
    assert (made_by_vllm.keys.values, made_by_vllm.limits) == ((KEY,), Limits(max_tokens=7))
    monkeypatch.setenv("ADAPTKIT_LIMIT_ITEMS", "many")
    with pytest.raises(ConfigError, match="ADAPTKIT_LIMIT_ITEMS"):
        Guard(_app)
