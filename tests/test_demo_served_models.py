"""One look at the server, and its failures in plain words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from demo_study import IDENTITIES, MODELS
from fake_openai import KEY, FakeServer

from adaptkit.client.openai import BadAnswer, Model, Refusal
from adaptkit.demo.served_models import Look, Server, explain
from adaptkit.errors import ServerError


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.002) as server:
        yield server


@pytest.fixture
def server(fake: FakeServer) -> Server:
    return Server(fake.url, KEY)


def test_a_model_that_vanished_a_wrong_key_and_a_server_that_is_away(
    fake: FakeServer, server: Server
) -> None:
    gone = explain(Refusal("404: no such model", status=404), fake.url, "nobody")
    assert gone.kind == "missing" and "nobody is no longer served" in gone.what
    refused = Server(fake.url, "another-key-entirely").look().failure
    assert refused is not None and refused.kind == "refused" and "ADAPTKIT_API_KEY" in refused.do
    away = Server("http://127.0.0.1:9", "").look().failure
    assert away is not None and away.kind == "away" and "adaptkit serve" in away.do
    fake.loading = True
    loading = server.look().failure
    assert loading is not None and loading.kind == "busy" and "Try again in 7 s" in loading.do
    odd = explain(BadAnswer("no models in it"), "http://h:1")
    assert odd.kind == "refused" and "does not answer like" in odd.what
    assert "too many" in explain(Refusal("429: slow down", status=429, retry_after_s=3), "u").what


def test_each_refusal_is_explained_by_its_status() -> None:
    def kind(status: int, **more: bool) -> str:
        return explain(Refusal(f"{status}: no", status=status), "http://h:1", **more).kind

    assert [kind(status) for status in (429, 503, 404, 401, 403, 400)] == (
        ["busy", "busy", "missing", "refused", "refused", "refused"]
    )
    assert kind(400, started=True) == "cut"
    assert explain(ServerError("gone"), "http://h:1").kind == "away"
    assert "loading or restarting" in explain(Refusal("503: x", status=503), "u").what
    assert explain(Refusal("503: x", status=503, retry_after_s=2.1), "u").do == "Try again in 3 s."


@pytest.mark.parametrize(
    ("status", "theirs", "ours"),
    [
        (400, "This model's maximum context length is 128 tokens. However, you requested", "do not fit into"),
        (400, "As of transformers v4.44, default chat template is no longer allowed", "never taught to chat"),
        (400, "VLLMValidationError: echo with logprobs (parameter=echo)", "does not take this text"),
        (413, "8 texts at once do not fit into the engine's queue", "more text than"),
        (500, "EngineCore encountered an issue. See stack trace", "failed on this request"),
        (200, "the engine died under this request", "failed on this request"),
    ],
)
def test_refusals_are_in_our_words(status: int, theirs: str, ours: str) -> None:
    failure = explain(Refusal(f"{status}: {theirs}", status=status), "http://h:1")
    assert failure.kind == "refused" and ours in failure.what and failure.do.endswith(".")
    assert not any(
        word in failure.what + failure.do for word in ("VLLM", "EngineCore", "transformers", "400")
    )


def test_a_model_without_a_kind_may_generate(server: Server) -> None:
    look = Look((Model("a"), Model("b", "embed")))
    assert [model.name for model in look.of_kind("generate")] == ["a"]
    assert [model.name for model in look.of_kind("embed")] == ["b"]


def test_what_the_server_tells_of_a_model_is_read(server: Server) -> None:
    identities = {model.name: model.identity for model in server.look().models}
    assert identities["own"] is not None and identities["own"].role == "pretrained"
    assert identities["sorter"] is not None and identities["sorter"].task == "rct_role"
