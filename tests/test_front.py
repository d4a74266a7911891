"""Front, engines and server over stand-ins of vLLM: routing, restarts, streams, drains, and no process left
behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import fake_engine
import httpx
import psutil
from fake_engine import KEY, FakeLaunch

from adaptkit.client.likelihood import _windows
from adaptkit.client.openai import Client
from adaptkit.errors import ModelError, ServerError
from adaptkit.serve.engine import supervisor as engine_module
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway import exposition
from adaptkit.serve.status import Teller

PATIENCE_S = 60.0


def eventually(true: Callable[[], object], what: str) -> None:
    """Wait until something holds; the machine may be busy."""
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def running(launches: list[FakeLaunch], folder: Path, **limits: int) -> Iterator[tuple[Client, object]]:
    """A whole server in a thread; ready."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "BACKOFF_S", 0.2)
        patch.setattr(engine_module, "POLL_S", 0.05)
        patch.setattr(engine_module, "HEALTH_EVERY_S", 0.2)
        patch.setattr(signal, "signal", lambda *_: None)  # threads may not
        server = fake_engine.server(launches, folder, **limits)
        thread = threading.Thread(target=server.run)
        thread.start()
        url = f"http://127.0.0.1:{server.listening.getsockname()[1]}"
        try:
            with Client(url, KEY) as client:
                eventually(client.healthy, "ready")
                yield client, server
        finally:
            server.uvicorn.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
            assert all(engine.state in ("stopped", "failed") for engine in server.engines)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A generator with an adapter, an embedder and a classifier behind one port."""
    folder = tmp_path_factory.mktemp("many")
    launches = [
        FakeLaunch(folder, name="writer", adapters=("tuned",)),
        FakeLaunch(folder, name="plain"),
        FakeLaunch(folder, name="classes", kind="classify"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Engine.__init__, "__defaults__", (lambda client, source, name: None, fake_engine.no_inspection)
        )
        with running(launches, folder) as (client, _):
            yield client


def post(client: Client, path: str, body: dict) -> httpx.Response:
    return client._http.post(path, json=body)


def test_models_are_listed_and_found_without_showing_a_path(many: Client) -> None:
    found = many.get("/v1/models", dict)
    assert [row["id"] for row in found["data"]] == ["writer", "tuned", "plain", "classes"]
    assert [row["parent"] for row in found["data"]] == [None, "writer", None, None]
    assert all(row["ready"] and row["max_model_len"] == 64 for row in found["data"])
    assert "/" not in json.dumps([row["id"] for row in found["data"]]) and os.sep + "tmp" not in json.dumps(
        found
    )
    assert many.get("/v1/models/tuned", dict)["id"] == "tuned"
    with pytest.raises(ServerError, match="404.*did you mean 'tuned'"):
        many.get("/v1/models/tune", dict)


def test_a_request_goes_to_the_child_that_serves_its_model(many: Client) -> None:
    for name in ("writer", "tuned", "plain"):
        answer = post(many, "/v1/completions", {"model": name, "prompt": "a"}).json()
        assert answer["body"] == {"model": name, "prompt": "a"}
        assert KEY not in json.dumps(answer["headers"]), "children get a key of their own"
    one, two = (
        post(many, "/v1/completions", {"model": n, "prompt": "a"}).json()["headers"]
        for n in ("writer", "plain")
    )
    assert one["authorization"] != two["authorization"]
    assert one["x-request-id"] != two["x-request-id"]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/completions", {"model": "writter", "prompt": "a"}, 404, "did you mean 'writer'"),
        ("/v1/completions", {"prompt": "a"}, 400, "served: writer, tuned, plain, classes"),
        ("/v1/completions", {"model": 3, "prompt": "a"}, 400, "must name one"),
        ("/v1/completions", {"model": "classes", "prompt": "a"}, 400, "which answers /classify, /pooling"),
        ("/v1/embeddings", {"model": "writer", "input": "a"}, 400, "of kind generate"),
        ("/v1/completions", {"model": "writer", "prompt": "a", "prompt_logprobs": 0}, 400, "adapters"),
        ("/v1/completions", {"model": "tuned", "prompt": "a", "echo": True}, 400, "adapters"),
        ("/v1/completions", {"model": "x" * 100_000, "prompt": "a"}, 404, "no model"),
    ],
)
def test_requests_that_no_child_can_answer_go_to_none(
    many: Client, path: str, body: dict, status: int, said: str
) -> None:
    answer = post(many, path, body)
    assert answer.status_code == status and said in answer.json()["error"]["message"]
    assert len(answer.content) < 2000


def test_without_adapters_prompts_may_be_scored(many: Client) -> None:
    assert (
        post(many, "/v1/completions", {"model": "plain", "prompt": "a", "prompt_logprobs": 0}).status_code
        == 200
    )


def test_only_health_is_open_and_it_names_nothing(many: Client) -> None:
    bare = httpx.get(many.base_url + "/health")
    assert (bare.status_code, bare.json()) == (200, {"status": "ready"})
    assert httpx.get(many.base_url + "/v1/models").status_code == 401


def test_streams_come_piece_by_piece(many: Client) -> None:
    times = [time.monotonic() for _ in many.stream("plain", "paced")]
    assert len(times) == 3 and times[-1] - times[0] > 0.4, "buffered: all pieces came at once"


def test_metrics_of_all_children_are_one_page(many: Client) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    families = {
        family.name: family for family in text_string_to_metric_families(many._http.get("/metrics").text)
    }
    waiting = families["vllm:num_requests_running"]
    assert {sample.labels["engine"] for sample in waiting.samples} == {"writer", "plain", "classes"}
    assert "adaptkit_requests" in families
    assert exposition.merge(exposition.CollectorRegistry(), {"a": ""}) == b""


def test_many_callers_at_once_lose_nothing(many: Client) -> None:
    async def all_at_once() -> list[int]:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=many.base_url, headers=headers, timeout=60) as http:
            asked = [
                http.post("/v1/completions", json={"model": "plain", "prompt": str(i)}) for i in range(64)
            ]
            answers = await asyncio.gather(*asked)
        assert [answer.json()["body"]["prompt"] for answer in answers] == [str(i) for i in range(64)]
        return [answer.status_code for answer in answers]

    assert asyncio.run(all_at_once()) == [200] * 64


@pytest.mark.parametrize("how", ["exit", "engine dies"])
def test_a_child_that_dies_is_503_meanwhile_and_comes_back(tmp_path: Path, how: str) -> None:
    launches = [FakeLaunch(tmp_path, name="one"), FakeLaunch(tmp_path, name="two")]
    with running(launches, tmp_path) as (client, server):
        first = server.engines[0]
        body = {"model": "one", "prompt": how}
        answer = post(client, "/v1/completions", body)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        eventually(lambda: first.state == "restarting", "the death is noticed")
        answer = post(client, "/v1/completions", {"model": "one", "prompt": "a"})
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert post(client, "/v1/completions", {"model": "two", "prompt": "a"}).status_code == 200, (
            "the others go on"
        )
        assert httpx.get(client.base_url + "/health").status_code == 503
        eventually(client.healthy, "it comes back")
        assert post(client, "/v1/completions", {"model": "one", "prompt": "a"}).status_code == 200
        assert (first.restarts, server.engines[1].restarts) == (1, 0)


def test_a_child_that_dies_in_a_stream_ends_it_with_an_error(tmp_path: Path) -> None:
    with running([FakeLaunch(tmp_path)], tmp_path) as (client, server):
        with pytest.raises(ServerError, match="died"):
            list(client.stream("fake", "exit in stream"))
        eventually(lambda: server.engines[0].restarts == 1 and client.healthy(), "it comes back")


def test_a_child_that_hangs_is_found_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "HEALTH_S", 0.2)
    with running([FakeLaunch(tmp_path)], tmp_path) as (client, server):
        stopped = server.engines[0]._process.pid
        os.kill(stopped, signal.SIGSTOP)
        eventually(lambda: server.engines[0].restarts == 1, "the hang is noticed")
        eventually(client.healthy, "it comes back")
        assert not psutil.pid_exists(stopped)


def test_a_patient_client_waits_for_a_restart(tmp_path: Path) -> None:
    with (
        running([FakeLaunch(tmp_path)], tmp_path) as (client, _),
        Client(client.base_url, KEY, patience_s=PATIENCE_S) as patient,
    ):
        assert post(client, "/v1/completions", {"prompt": "exit"}).status_code == 503
        assert patient.complete("fake", "a").text == "x"
        with pytest.raises(ServerError, match="no model 'other'"):
            patient.complete("other", "a")


@pytest.mark.parametrize(
    ("mode", "said"), [("exit 0", "exit code 0"), ("exit 1", "no weights in this folder")]
)
def test_a_first_start_that_fails_ends_the_server_with_the_reason(
    tmp_path: Path, mode: str, said: str
) -> None:
    engine = Engine(FakeLaunch(tmp_path, mode), tmp_path / "log", Teller(), inspect=fake_engine.no_inspection)
    with pytest.raises(ServerError, match=said):
        asyncio.run(engine.run())
    assert engine.state == "failed"


def test_a_folder_that_is_found_wanting_while_vllm_starts_is_not_served(tmp_path: Path) -> None:
    async def inspect(source: object) -> None:
        raise ModelError("tensors missing: 1", where="folder")

    engine = Engine(FakeLaunch(tmp_path), tmp_path / "log", Teller(), inspect=inspect)
    with pytest.raises(ModelError, match="tensors missing"):
        asyncio.run(engine.run())
    assert engine._process is None


def test_healthy_is_not_ready_until_there_is_an_answer(tmp_path: Path) -> None:
    def check(client: Client, source: object, name: str) -> None:
        client.complete(name, "engine dies")

    engine = Engine(FakeLaunch(tmp_path), tmp_path / "log", Teller(), check, fake_engine.no_inspection)
    with pytest.raises(ServerError):
        asyncio.run(engine.run())


def test_restarts_wait_longer_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(FakeLaunch(tmp_path), tmp_path / "log", Teller(), inspect=fake_engine.no_inspection)
    engine.load_s, waits, stable = 1.0, [], iter([0.0, 0.0, 0.0, 100.0, 0.0] + [0.0] * 8)

    async def start() -> None:
        monkeypatch.setattr(engine_module, "STABLE_S", -1.0 if next(stable) else 60.0)

    async def watch() -> str:
        return "died"

    async def wait_for(awaitable: object, seconds: float) -> None:
        awaitable.close()
        waits.append(seconds)
        if len(waits) == 12:
            engine._stopping.set()

    monkeypatch.setattr(engine_module, "BACKOFF_S", 1.0)
    monkeypatch.setattr(engine, "_start", start)
    monkeypatch.setattr(engine, "_watch", watch)
    monkeypatch.setattr(engine_module.asyncio, "wait_for", wait_for)
    asyncio.run(engine.run())
    assert waits[:7] == [1, 2, 4, 1, 2, 4, 8] and waits[-1] == 60


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A server as a process of its own, ready, with its URL."""
    code = "import fake_engine, sys; fake_engine.main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, "serve", str(tmp_path)]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    try:
        url = f"http://127.0.0.1:{int(served.stdout.readline())}"
        with Client(url, KEY) as client:
            eventually(client.healthy, "ready")
        yield served, url
    finally:
        served.kill()
        served.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_end_and_leaves_no_process(
    process: tuple[subprocess.Popen, str], number: int
) -> None:
    served, url = process
    children = psutil.Process(served.pid).children(recursive=True)
    assert children
    answers: list[int] = []
    headers = {"authorization": f"Bearer {KEY}"}
    slow = threading.Thread(
        target=lambda: answers.append(
            httpx.post(
                f"{url}/v1/completions", json={"prompt": "slow"}, headers=headers, timeout=30
            ).status_code
        )
    )
    slow.start()
    time.sleep(0.7)  # the request is under way: it takes 1.5 s
    served.send_signal(number)
    assert served.wait(PATIENCE_S) == 0
    slow.join()
    assert answers == [200]
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_killing_the_server_ends_its_children_too(process: tuple[subprocess.Popen, str]) -> None:
    served, _ = process
    children = psutil.Process(served.pid).children(recursive=True)
    assert children
    served.kill()
    eventually(
        lambda: not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children),
        "children end",
    )


def test_what_a_killed_child_leaves_behind_is_killed(tmp_path: Path) -> None:
    with running([FakeLaunch(tmp_path, "grandchild")], tmp_path) as (client, server):
        child = psutil.Process(server.engines[0]._process.pid)
        (grandchild,) = child.children()
        child.kill()
        eventually(
            lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE,
            "the orphan ends",
        )
        eventually(client.healthy, "it comes back")


def test_logs_of_children_are_for_their_owner_only(tmp_path: Path) -> None:
    with running([FakeLaunch(tmp_path)], tmp_path):
        assert (tmp_path / "fake.log").stat().st_mode & 0o777 == 0o600


def test_scoring_windows_charge_each_token_once() -> None:
    for length in range(2, 40):
        token_ids, charged = list(range(length)), []
        for window in _windows(token_ids, 8):
            assert len(window.token_ids) <= 9
            charged += window.token_ids[window.skipped + 1 :]
            assert window.token_ids[0] == 0 or window.skipped >= 4, (
                "a charged token sees at least half a window"
            )
        assert charged == token_ids[1:]
