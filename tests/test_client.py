"""The one HTTP client: what it reads, what it tries again, and how each failure is told. Home of
client.connection, client.openai and client.likelihood."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from types import SimpleNamespace

import httpx
import pytest
from fake_openai import KEY, FakeServer

from adaptkit.client import connection
from adaptkit.client.likelihood import http_bits_per_byte
from adaptkit.client.openai import BadAnswer, Client, Refusal
from adaptkit.config import load
from adaptkit.distill.config import DistillConfig
from adaptkit.errors import ConfigError, ServerError

Answer = Callable[[httpx.Request], httpx.Response]


def client_of(answer: Answer, **options: object) -> Client:
    return Client("http://host:1", KEY, transport=httpx.MockTransport(answer), **options)


def always(value: object, status: int = 200) -> Answer:
    return lambda request: httpx.Response(status, json=value)


class Flaky:
    """Fails some times in some way, then answers; counts."""

    def __init__(self, *failures: int | Exception, value: object = None):
        self.failures, self.value, self.num_requests = list(failures), value or {"data": []}, 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.num_requests += 1
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return httpx.Response(
                failure, json={"error": {"message": "not now"}}, headers={"retry-after": "0"}
            )
        return httpx.Response(200, json=self.value)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client waits, without the waiting."""
    seconds_slept: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        seconds_slept.append(seconds)
        clock[0] += seconds

    # The client's own name, not the module of everybody: other threads of the process sleep as well.
    own_time = SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(connection, "time", own_time)
    return seconds_slept


def test_an_overloaded_server_is_asked_again_with_growing_pauses(pauses):
    server = Flaky(503, 429, 503, 503, 503)
    assert client_of(server, patience_s=60).models() == []
    assert server.num_requests == 6 and pauses == [0.1, 0.2, 0.4, 0.8, 1.0]


def test_patience_ends(pauses):
    server = Flaky(*[503] * 100)
    with pytest.raises(Refusal, match="503: not now\n  fix: ask again later") as refused:
        client_of(server, patience_s=2.0).models()
    assert refused.value.status == 503 and sum(pauses) <= 2.0 and server.num_requests == len(pauses) + 1


def test_a_server_that_asks_for_more_time_than_there_is_gets_none(pauses):
    refuse = lambda request: httpx.Response(429, json={}, headers={"retry-after": "30"})  # noqa: E731
    with pytest.raises(Refusal) as refused:
        client_of(refuse, patience_s=20).models()
    assert refused.value.retry_after_s == 30 and pauses == []


def test_without_patience_nothing_is_tried_again(pauses):
    server = Flaky(503)
    with pytest.raises(Refusal):
        client_of(server).models()
    assert server.num_requests == 1 and pauses == []


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_other_refusals_are_final_and_say_what_to_do(pauses, status):
    server = Flaky(status)
    fix = {400: "change the request", 401: "key", 404: "/v1/models", 500: "log"}[status]
    with pytest.raises(Refusal, match=f"http://host:1/v1/models: {status}: not now\n  fix: .*{fix}"):
        client_of(server, patience_s=60).models()
    assert server.num_requests == 1


def test_a_lost_connection_is_waited_for_only_where_there_was_one(pauses):
    gone = httpx.ConnectError("refused")
    server = Flaky(gone)
    with pytest.raises(ServerError, match="no answer: refused\n  fix: start the server"):
        client_of(server, patience_s=60).models()
    assert server.num_requests == 1
    restarted = Flaky()
    with client_of(restarted, patience_s=60) as client:
        client.models()
        restarted.failures = [gone, httpx.ReadError("reset")]
        assert client.models() == [] and restarted.num_requests == 4


@pytest.mark.parametrize(
    "value", [[], {"data": None}, {"data": [{"name": "x"}]}, {"object": "list"}, "hello", {"data": [7]}]
)
def test_an_answer_of_something_else_is_told_as_that(value):
    with pytest.raises(BadAnswer, match="answers what no OpenAI-compatible server does"):
        client_of(always(value)).models()
    html = lambda request: httpx.Response(200, text="<html>a router</html>")  # noqa: E731
    with pytest.raises(BadAnswer, match="<html>"):
        client_of(html).complete("m", "Once")


def test_the_key_goes_to_the_server_and_into_no_message():
    seen = []

    def repeat(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(
            401, json={"error": {"message": f"{request.headers['authorization']} is wrong"}}
        )

    client = client_of(repeat)
    with pytest.raises(Refusal) as refused:
        client.models()
    assert seen == [f"Bearer {KEY}"] and KEY not in str(refused.value) and KEY not in repr(client)


@pytest.mark.parametrize(
    "address",
    [
        "http://user:hunter2@host:1/v1",
        "https://hunter2@host",
        "https://host/v1?key=hunter2",
        "http://h#hunter2",
    ],
)
def test_an_address_with_a_secret_is_refused_without_showing_it(address):
    with pytest.raises(ConfigError) as refused:
        Client(address)
    assert "hunter2" not in str(refused.value) and "key file" in str(refused.value.fix)
    with pytest.raises(ConfigError) as refused:
        load(DistillConfig, None, [f"teacher={address}", "signal=text", "student.start=x", "data.files=[a]"])
    assert "hunter2" not in str(refused.value) and "OPENAI_API_KEY" in str(refused.value.fix)


def test_no_proxy_of_the_environment_is_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with FakeServer([("writer", "generate")]) as server, Client(f"{server.url}/v1/", KEY) as client:
        assert client.base_url == server.url
        assert [(model.name, model.writes, model.max_len) for model in client.models()] == [
            ("writer", True, 512)
        ]


@pytest.mark.parametrize(("url", "key"), [("http://host:port", ""), ("http://host:1", "k\u00e9y")])
def test_an_address_or_key_that_cannot_be_one_is_refused(url, key):
    with pytest.raises(ServerError, match="is no address"):
        Client(url, key)


def test_answers_come_in_the_order_of_the_inputs_and_all_of_them():
    rows = [
        {"index": i, "embedding": [i], "label": str(i), "probs": [i], "relevance_score": i} for i in (1, 0)
    ]
    client = client_of(always({"data": rows, "results": rows}))
    assert client.embed("m", ["a", "b"]) == [[0], [1]]
    assert client.classify("m", ["a", "b"]) == [("0", [0]), ("1", [1])]
    assert client.rerank("m", "q", ["a", "b"]) == [0, 1]
    for short in (client.embed, client.classify):
        with pytest.raises(BadAnswer, match="2 answers to 3 inputs"):
            short("m", ["a", "b", "c"])


def test_completions_are_read_with_tokens_and_log_probabilities():
    bodies = []

    def complete(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        logprobs = [None, {"7": {"logprob": -0.5}, "8": {"logprob": -1.5}}]
        choice = {
            "text": "x",
            "finish_reason": "stop",
            "token_ids": [3],
            "logprobs": {"token_logprobs": [-2.0]},
        }
        choices = [{**choice, "index": i, "prompt_logprobs": logprobs, "text": str(i)} for i in (1, 0)]
        return httpx.Response(200, json={"choices": choices, "usage": {"completion_tokens": 1}})

    client = client_of(complete)
    both = client.complete_each("m", ["a", "b"], max_tokens=1, prompt_logprobs=1)
    assert [completion.text for completion in both] == ["0", "1"]
    assert both[0].prompt_logprobs == ({}, {7: -0.5, 8: -1.5})
    assert (both[0].token_ids, both[0].logprobs, both[0].output_tokens) == ((3,), (-2.0,), 1)
    wanted = {"model": "m", "prompt": ["a", "b"], "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 1}
    assert bodies == [wanted]


def test_a_request_is_answered_by_chat_or_by_continuing_where_there_is_no_template():
    with FakeServer([("writer", "generate")]) as server, Client(server.url, KEY) as client:
        server.answer = lambda request: f"to {request}"
        assert client.answer("writer", "a") == "to a"
        server.behave["writer"] = "no-template"
        assert client.answer("writer", "b") == "to b"
        assert [path for path, _ in server.requests] == ["/v1/chat/completions"] * 2 + ["/v1/completions"]
        server.behave["writer"] = "busy"
        with pytest.raises(Refusal, match="503"):
            client.answer("writer", "c")


def test_a_stream_comes_in_pieces_and_counts_its_tokens():
    with FakeServer([("writer", "generate")], delay_s=0) as server, Client(server.url, KEY) as client:
        counted: list[int] = []
        pieces = list(client.stream("writer", "Once", max_tokens=4, on_tokens=counted.append))
        assert "".join(pieces) == " the trial of a" and counted == [4]
        messages = [{"role": "user", "content": "Once"}]
        assert "".join(client.stream_chat("writer", messages, max_tokens=2)) == " the trial"
        server.behave["writer"] = "cut"
        with pytest.raises(ServerError):
            list(client.stream("writer", "Once", max_tokens=20))
        with pytest.raises(Refusal, match="404"):
            list(client.stream("other", "Once"))


@pytest.mark.parametrize(
    ("lines", "error", "match"),
    [
        (['{"error": {"message": "died"}}'], Refusal, "200: died"),
        (["no json"], BadAnswer, "no json"),
        (['{"choices": 7}'], BadAnswer, "TypeError"),
        (['{"choices": [{"text": "a"}]}'], ServerError, "cut before its end"),
    ],
)
def test_a_stream_that_fails_says_how(lines, error, match):
    text = "".join(f"data: {line}\n\n" for line in lines)
    with pytest.raises(error, match=match):
        list(client_of(lambda request: httpx.Response(200, text=text)).stream("m", "Once"))


def test_bits_per_byte_charges_every_token_once():
    """Each token costs one bit: as many bits as tokens, however long documents are cut into windows."""

    def serve(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.path == "/tokenize":
            ids = [0] if body["add_special_tokens"] else [1] * len(body["prompt"])
            return httpx.Response(200, json={"tokens": ids})
        entry = {"logprob": -math.log(2)}
        logprobs = [[None, *({str(token): entry} for token in ids[1:])] for ids in body["prompt"]]
        choices = [{"index": i, "text": "", "prompt_logprobs": entries} for i, entries in enumerate(logprobs)]
        return httpx.Response(200, json={"choices": choices})

    assert http_bits_per_byte(client_of(serve), "m", ["abcdefghij", "k" * 23], seq_len=6) == pytest.approx(
        1.0
    )
    with pytest.raises(ServerError, match="no text to score"):
        http_bits_per_byte(client_of(serve), "m", [""], seq_len=6)
    silent = lambda request: httpx.Response(  # noqa: E731
        200, json={"tokens": [1, 2], "choices": [{"index": 0, "text": ""}]}
    )
    with pytest.raises(ServerError, match="no log-probabilities of its prompts"):
        http_bits_per_byte(client_of(silent), "m", ["ab"], seq_len=6)
