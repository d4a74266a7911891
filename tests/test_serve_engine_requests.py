"""Replicas that die under requests, over stand-ins of vLLM: who is asked again, how often, and who is not."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import dataclasses
import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from fake_serving import eventually, fake_launch, running
from prometheus_client.parser import text_string_to_metric_families

from adaptkit.client.openai import Client
from adaptkit.client.relay import AnswerLate, Relay, RelayedAnswer
from adaptkit.serve.engine.launches import replicated
from adaptkit.serve.engine.lora_flags import Adapter, AdapterRoom
from adaptkit.serve.server import Server

LOAD = 24


@dataclasses.dataclass
class Replicas:
    """Three engines of one model, all ready, and what had happened to them before."""

    client: Client
    server: Server
    before: list[int] = dataclasses.field(default_factory=list)
    retried_before: float = 0

    def ask(self, prompt: str, **fields: object) -> httpx.Response:
        return self.client._http.post("/v1/completions", json={"model": "fake", "prompt": prompt, **fields})

    def counted(self) -> float:
        """Requests that were asked again, of any engine."""
        families = text_string_to_metric_families(self.client._http.get("/metrics").text)
        family = next(each for each in families if each.name == "adaptkit_retried_requests")
        assert {sample.labels["engine"] for sample in family.samples} <= {"fake", "fake#2", "fake#3"}
        return sum(sample.value for sample in family.samples if sample.name.endswith("_total"))

    @property
    def retried(self) -> float:
        return self.counted() - self.retried_before

    @property
    def restarts(self) -> list[int]:
        return [engine.restarts - old for engine, old in zip(self.server.engines, self.before, strict=True)]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Server]]:
    folder = tmp_path_factory.mktemp("three")
    launch = dataclasses.replace(fake_launch(folder), room=AdapterRoom(4, 16))
    with running(replicated([launch], 3), folder) as both:
        yield both


@pytest.fixture
def three(started: tuple[Client, Server]) -> Iterator[Replicas]:
    made = Replicas(*started)
    eventually(lambda: all(engine.state == "ready" for engine in made.server.engines), "all three are up")
    made.before, made.retried_before = [engine.restarts for engine in made.server.engines], made.counted()
    yield made
    assert [(engine.under_way, engine.answering) for engine in made.server.engines] == [(0, 0)] * 3


def test_no_request_fails_when_one_of_three_is_killed_under_load(
    three: Replicas, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, go = three.server, tmp_path / "go"
    caplog.set_level(logging.WARNING, "adaptkit.serve")
    victim = server.engines[1]
    with ThreadPoolExecutor(LOAD) as callers:
        whole = [callers.submit(three.ask, f"until {go}") for _ in range(LOAD // 2)]
        streams = [callers.submit(three.ask, f"until {go}", stream=True) for _ in range(LOAD // 2)]
        eventually(
            lambda: sum(engine.under_way for engine in server.engines) == LOAD, "every request is under way"
        )
        lost = victim.under_way
        os.kill(victim.process_id, signal.SIGKILL)
        after = [three.ask("a") for _ in range(8)]  # it has the least to do, and is still thought well
        go.touch()
        answers = [each.result() for each in (*whole, *streams)]
    assert {answer.status_code for answer in (*answers, *after)} == {200}
    assert all(stream.result().text.count("data: ") == 4 for stream in streams), "and each came once"
    assert three.retried >= lost > 4
    assert f"lost with engine {victim.label}, goes to fake" in caplog.text
    eventually(lambda: victim.state == "ready", "it comes back")
    assert three.restarts == [0, 1, 0]


@pytest.mark.parametrize(
    ("prompt", "stream"), [("exit", False), ("engine dies", False), ("exit", True), ("dies late", True)]
)
def test_a_request_that_ends_engines_ends_two_and_is_told_so(
    three: Replicas, prompt: str, stream: bool
) -> None:
    answer = three.ask(prompt, stream=stream)
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    assert "two engines died under this request" in answer.json()["error"]["message"]
    assert three.ask("a").status_code == 200, "the third one goes on"
    eventually(lambda: sum(three.restarts) == 2, "both deaths are noticed")
    assert sorted(three.restarts) == [0, 1, 1] and three.retried == 1


def test_a_stream_that_has_begun_is_not_begun_again(three: Replicas) -> None:
    answer = three.ask("exit in stream", stream=True)
    assert answer.status_code == 200 and answer.text.count('"text"') == 2 and "died under" in answer.text
    eventually(lambda: sum(three.restarts) == 1, "its death is noticed")
    assert three.retried == 0


def test_an_adapter_that_ends_the_engine_which_loads_it_is_loaded_into_no_other(three: Replicas) -> None:
    served = three.server.router.served
    served.adapters["kills"] = Adapter("kills", Path("kills"), 4, base="fake")
    answer = three.ask("a", model="kills")
    assert answer.status_code == 503 and "as it loaded the adapter" in answer.json()["error"]["message"]
    eventually(lambda: sum(three.restarts) == 1, "its death is noticed")
    assert three.retried == 0


def test_what_comes_too_late_is_not_asked_of_another(
    three: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def post(relay: Relay, url: str, key: str, content: bytes, headers: object) -> RelayedAnswer:
        asked.append(url)
        raise AnswerLate("no answer: SocketTimeoutError")

    with monkeypatch.context() as patch:
        patch.setattr(Relay, "post", post)
        answer = three.ask("a")
    assert answer.status_code == 503 and "'fake' does not answer" in answer.json()["error"]["message"]
    assert len(asked) == 1 and three.retried == 0 and three.restarts == [0, 0, 0]


def test_one_that_is_suspected_or_was_asked_is_the_last_to_be_found(three: Replicas) -> None:
    first, second, third = three.server.engines
    served = three.server.router.served
    try:
        third.answering = 2
        assert served.find("fake") == (first, None)
        assert served.find("fake", other_than=first) == (second, None)
        second._suspected.set()
        assert served.find("fake", other_than=first) == (third, None)
    finally:
        third.answering = 0
        second._suspected.clear()
