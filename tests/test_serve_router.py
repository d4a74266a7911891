"""The router over stand-ins of vLLM: which engine answers, streams, metrics, and engines that die."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from fake_serving import KEY, PATIENCE_S, eventually, fake_launch, no_inspection, running

from adaptkit.client.openai import Client
from adaptkit.errors import ServerError
from adaptkit.export.record import ConfidenceRecord, ExportRecord
from adaptkit.serve.engine.supervisor import Engine

ABSTAINS = ExportRecord(
    name="classes",
    kind="classify",
    format="bf16",
    stores="bfloat16",
    needs="any",
    serving_dtype={},
    licence="unknown",
    confidence=ConfidenceRecord(temperature=0.5, threshold=0.7, wanted_accuracy=0.97, num_fitted=100),
)
WRITER = {"study_name": "tickets", "arm": "continued+full", "origin": "continued", "adaptation": "full"}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A generator with an adapter, an embedder and a classifier behind one port."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "config.json").write_text("{}")  # an export is looked at for what it stores
    launches = [
        fake_launch(folder, name="writer", adapters=("tuned",), **WRITER),
        fake_launch(folder, name="plain"),
        fake_launch(folder, name="classes", kind="classify", export=ABSTAINS),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine.__init__, "__defaults__", (lambda client, source, name: None, no_inspection))
        with running(launches, folder) as (client, _):
            yield client


def post(client: Client, path: str, body: dict) -> httpx.Response:
    return client._http.post(path, json=body)


def test_models_are_listed_and_found_without_showing_a_path(many: Client) -> None:
    answer = many.get("/v1/models", dict)
    assert [row["id"] for row in answer["data"]] == ["writer", "tuned", "plain", "classes"]
    assert [row["parent"] for row in answer["data"]] == [None, "writer", None, None]
    assert all(row["ready"] and row["max_model_len"] == 64 for row in answer["data"])
    assert "/" not in json.dumps([row["id"] for row in answer["data"]]) and os.sep + "tmp" not in json.dumps(
        answer
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


def test_what_a_model_is_travels_as_fields_beside_openais(many: Client) -> None:
    rows = {row["id"]: row for row in many.get("/v1/models", dict)["data"]}
    assert all({"id", "object", "created", "owned_by"} <= row.keys() for row in rows.values())
    assert rows["writer"]["adaptkit"] == {
        "study": "tickets",
        "arm": "continued+full",
        "origin": "continued",
        "adaptation": "full",
        "task": None,
        "role": "pretrained",
        "kind": "generate",
    }
    assert many.get("/v1/models/writer", dict)["adaptkit"] == rows["writer"]["adaptkit"]
    assert rows["tuned"]["adaptkit"]["role"] == "finetuned" and rows["tuned"]["adaptkit"]["arm"] is None
    assert {model.name: model.identity.role for model in many.models() if model.identity} == {
        "writer": "pretrained",
        "tuned": "finetuned",
        "plain": "other",
        "classes": "other",
    }


def test_an_exported_classifier_says_when_a_person_should_decide(many: Client) -> None:
    row = post(many, "/classify", {"model": "classes", "input": "a"}).json()["data"][0]
    assert row["probs"] == [0.6, 0.4] and row["label"] == "a"
    assert row["calibrated_probs"] == pytest.approx([0.36 / 0.52, 0.16 / 0.52])
    assert row["confidence"] == max(row["calibrated_probs"]) and row["abstain"] is True
    assert many.classify("classes", ["a"]) == [("a", [0.6, 0.4])]


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


def test_a_request_of_any_allowed_size_is_admitted_whole(many: Client) -> None:
    answer = post(many, "/v1/completions", {"model": "plain", "prompt": ["a"] * 2048})
    assert answer.status_code == 200 and len(answer.json()["body"]["prompt"]) == 2048


@pytest.mark.parametrize("letter", ["\u044f", "\u4e2d", "\U0001f600"])
def test_a_body_is_judged_and_handed_on_as_its_bytes_came(tmp_path: Path, letter: str) -> None:
    size = len(letter.encode())
    with running([fake_launch(tmp_path)], tmp_path, body_bytes=60_100) as (client, server):
        for letters, status in ((60_000 // size, 200), (60_200 // size, 413), (500_000 // size, 413)):
            body = json.dumps({"model": "fake", "prompt": letter * letters}, ensure_ascii=False).encode()
            answer = client._http.post("/v1/completions", content=body)
            assert answer.status_code == status, letters
            if status == 200:
                assert answer.json()["body"]["prompt"] == letter * letters
                assert answer.json()["headers"]["content-length"] == str(len(body))
        assert not server.engines[0]._suspected.is_set() and server.engines[0].restarts == 0


def test_a_constraint_that_does_not_compile_is_its_callers_fault_and_not_the_engines(tmp_path: Path) -> None:
    with running([fake_launch(tmp_path)], tmp_path) as (client, server):
        body = {"prompt": "constraint fails", "structured_outputs": {"regex": "a{9}"}}
        answer = post(client, "/v1/completions", body)
        assert answer.status_code == 400 and "make it simpler" in answer.json()["error"]["message"]
        assert not server.engines[0]._suspected.is_set()
        assert post(client, "/v1/completions", {"prompt": "constraint fails"}).status_code == 500


def test_a_refusal_for_ever_is_not_told_as_one_for_now(many: Client) -> None:
    alone = post(many, "/v1/completions", {"model": "plain", "prompt": ["full"] * 3})
    assert alone.status_code == 413 and "send fewer" in alone.json()["error"]["message"]
    assert "retry-after" not in alone.headers
    busy = post(many, "/v1/completions", {"model": "plain", "prompt": "full"})
    assert busy.status_code == 503 and "retry-after" in busy.headers


def test_a_full_queue_is_told_before_it_is_fuller(many: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptkit.serve.gateway import engine_requests

    monkeypatch.setattr(engine_requests, "MOST_WAITING", 0)
    answer = post(many, "/v1/completions", {"model": "plain", "prompt": "a"})
    assert answer.status_code == 503 and "queue is full; try again" in answer.json()["error"]["message"]


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


def test_many_callers_at_once_lose_nothing(many: Client) -> None:
    async def all_at_once() -> list[int]:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=many.base_url, headers=headers, timeout=60) as http:
            requests = [
                http.post("/v1/completions", json={"model": "plain", "prompt": str(i)}) for i in range(64)
            ]
            answers = await asyncio.gather(*requests)
        assert [answer.json()["body"]["prompt"] for answer in answers] == [str(i) for i in range(64)]
        return [answer.status_code for answer in answers]

    assert asyncio.run(all_at_once()) == [200] * 64


@pytest.mark.parametrize("how", ["exit", "engine dies"])
def test_a_child_that_dies_is_503_meanwhile_and_comes_back(tmp_path: Path, how: str) -> None:
    launches = [fake_launch(tmp_path, name="one"), fake_launch(tmp_path, name="two")]
    with running(launches, tmp_path) as (client, server):
        first = server.engines[0]
        body = {"model": "one", "prompt": how}
        answer = post(client, "/v1/completions", body)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert "the engine died under this request" in answer.text, "and no other was asked"
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
    with running([fake_launch(tmp_path)], tmp_path) as (client, server):
        with pytest.raises(ServerError, match="died"):
            list(client.stream("fake", "exit in stream"))
        eventually(lambda: server.engines[0].restarts == 1 and client.healthy(), "it comes back")


def test_a_patient_client_waits_for_a_restart(tmp_path: Path) -> None:
    with (
        running([fake_launch(tmp_path)], tmp_path) as (client, _),
        Client(client.base_url, KEY, patience_s=PATIENCE_S) as patient,
    ):
        assert post(client, "/v1/completions", {"prompt": "exit"}).status_code == 503
        assert patient.complete("fake", "a").text == "x"
        with pytest.raises(ServerError, match="no model 'other'"):
            patient.complete("other", "a")
