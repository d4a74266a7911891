"""`/v1/search` over stand-ins of vLLM: what is found, what is refused, and two models never meet. Home of
serve.gateway.search_answers."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
from fake_engine import vector_of
from fake_serving import eventually, fake_launch, no_inspection, running

from adaptkit.client.openai import Client
from adaptkit.embed.canary_vectors import TEXTS, Canaries
from adaptkit.embed.index import Index
from adaptkit.embed.index_update import apply_update, plan_update
from adaptkit.embed.index_writing import build
from adaptkit.embed.stored_documents import FILE, Document, write_documents
from adaptkit.errors import ConfigError
from adaptkit.export.source import Source
from adaptkit.run import model_digest, write_json
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway.refused import Refused
from adaptkit.serve.gateway.search_answers import EngineClients, SearchAnswers, check_index

DOCUMENTS = [
    Document("aspirin", "aspirin helps. " * 4, "Pain", {"source": "pubmed", "year": 2019}),
    Document("zinc", "zinc for zebras", "", {"source": "registry", "year": 2020}),
    Document("knees", "knees kneel on quilts in a queue", "", {"source": "registry", "year": 2019}),
]


def make_index(folder: Path, model: Path, *, words: bool = False) -> Path:
    """An index of three documents, the first in two passages, by the stand-in's vectors."""

    class Vectors:
        info = {
            "model": model_digest(model),
            "encoder": str(model),
            "dimensions": len(vector_of("")),
            "normalised": True,
            "prompt": "",
            "prompt_name": None,
            "whole": False,
            "files": "f" * 64,
            "sources": [],
            "documents": len(DOCUMENTS),
        }

        def vectors(self) -> np.ndarray:
            texts = [text for document in documents for text in document.passages()]
            return np.array([vector_of(text) for text in texts], np.float32)

    documents = [
        Document(
            d.id, d.text, d.title, d.fields, ((0, 15), (15, len(d.text))) if d.title else ((0, len(d.text)),)
        )
        for d in DOCUMENTS
    ]
    Vectors.folder = folder.with_name(f"{folder.name}-vectors")
    write_documents(Vectors.folder / FILE, documents)
    rows = tuple(tuple(vector_of(text)) for text in TEXTS)
    noise = {"float32": 1e-6, "bfloat16": 1e-3}
    canaries = Canaries(texts=TEXTS, words="", vectors=rows, precision="float32", noise=noise)
    write_json(Vectors.folder / "canaries.json", canaries.model_dump(mode="json"))
    return build(Vectors(), folder, words=words).folder.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def searched(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    """An embedding model, a reranker and a writer, with an index of the first."""
    folder = tmp_path_factory.mktemp("served")
    index = make_index(folder / "index", model)
    launches = [
        fake_launch(model, name="vectors", kind="embed"),
        fake_launch(folder, name="judge", kind="rerank"),
        fake_launch(folder, name="writer"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine.__init__, "__defaults__", (lambda client, source, name: None, no_inspection))
        with running(launches, folder, index=index) as (client, _):
            yield client, index


def search(client: Client, **body: Any) -> httpx.Response:
    return client._http.post("/v1/search", json=body)


def test_hits_come_with_scores_and_the_characters_that_match(searched: tuple[Client, Path]) -> None:
    answer = search(searched[0], query="aspirin helps", top_k=2).json()
    assert answer["model"] == "vectors" and answer["ranked_by"] == "vectors"
    best, second = answer["hits"]
    assert (best["id"], best["title"], best["start"]) == ("aspirin", "Pain", 15)
    assert best["text"] == DOCUMENTS[0].text[15:] and second["id"] != "aspirin"
    by_hand = np.dot(vector_of("aspirin helps"), vector_of(f"Pain\n{DOCUMENTS[0].text[15:]}"))
    assert best["score"] == pytest.approx(by_hand, abs=1e-5)
    assert best["fields"] == {"source": "pubmed", "year": 2019}
    twice = search(searched[0], query="aspirin helps", every_passage=True).json()["hits"]
    assert [hit["id"] for hit in twice].count("aspirin") == 2 and len(twice) == 4


def test_filters_and_a_reranker_apply(searched: tuple[Client, Path]) -> None:
    client = searched[0]
    found = search(client, query="aspirin", filter={"source": "registry", "year": [2019, 2021]}).json()
    assert [hit["id"] for hit in found["hits"]] == ["knees"]
    read = search(client, query="aspirin helps", rerank="judge", top_k=3).json()
    assert read["ranked_by"] == "vectors, then judge"
    assert [hit["id"] for hit in read["hits"]][0] == "zinc", "the shortest, for this stand-in"
    assert read["hits"][0]["relevance"] == pytest.approx(1 / len("zinc for zebras"))
    shallow = search(client, query="aspirin helps", rerank="judge", rerank_depth=1).json()["hits"]
    assert shallow[0]["id"] == "aspirin" and [("relevance" in hit) for hit in shallow] == [True, False, False]
    first = search(client, query="aspirin helps", rerank="judge", rerank_share=0).json()["hits"]
    assert first[0]["id"] == "aspirin"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "`query` must be a text"),
        ({"query": " "}, 400, "`query` must be a text"),
        ({"query": ["a"]}, 400, "`query` must be a text"),
        ({"query": "a", "top_k": 0}, 400, "`top_k` must be a whole number from 1 to 1000"),
        ({"query": "a", "top_k": True}, 400, "`top_k` must be a whole number"),
        ({"query": "a", "filter": ["b"]}, 400, "`filter` must be an object"),
        ({"query": "a", "filter": {"source": {"b": 1}}}, 400, "`filter` must be an object"),
        ({"query": "a", "filter": {"sorce": "b"}}, 400, "did you mean 'source'"),
        ({"query": "a", "every_passage": 1}, 400, "true or false"),
        ({"query": "a", "rerank": "jude"}, 404, "did you mean 'judge'"),
        ({"query": "a", "rerank": "vectors"}, 404, "served: judge"),
        ({"query": "a", "rerank": 1}, 400, "must name a served reranker"),
        ({"query": "a", "rerank_depth": 5}, 400, "goes with `rerank`"),
        ({"query": "a", "rerank": "judge", "rerank_share": 2}, 400, "from 0 to 1"),
        ({"query": "a", "topk": 3}, 400, "did you mean 'top_k'"),
    ],
)
def test_bad_requests_are_refused_in_our_words(
    searched: tuple[Client, Path], body: dict[str, Any], status: int, said: str
) -> None:
    answer = search(searched[0], **body)
    assert answer.status_code == status and said in answer.json()["error"]["message"]


def test_a_server_without_an_index_says_how_to_start_with_one(model: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine.__init__, "__defaults__", (lambda client, source, name: None, no_inspection))
        with running([fake_launch(model, name="vectors", kind="embed")], tmp_path) as (client, _):
            answer = search(client, query="a")
            assert answer.status_code == 404 and "--index" in answer.json()["error"]["message"]


def test_updates_are_followed(searched: tuple[Client, Path]) -> None:
    client, folder = searched
    assert search(client, query="zinc for zebras").json()["hits"][0]["id"] == "zinc"
    apply_update(
        folder, plan_update(Index.open(folder), delete=["zinc"]), lambda index: pytest.fail("encodes")
    )
    eventually(
        lambda: "zinc" not in {hit["id"] for hit in search(client, query="zinc for zebras").json()["hits"]},
        "the update answers",
    )


def test_a_model_that_gives_other_vectors_than_were_kept_never_answers(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, other = Source(model, "embed", "vectors", ""), []

    def answer(request: httpx.Request) -> httpx.Response:
        vectors = [vector_of(text)[:: -1 if other else 1] for text in json.loads(request.content)["input"]]
        rows = [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        return httpx.Response(200, json={"data": rows})

    client = Client("http://engine", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(EngineClients, "of", lambda clients, engine: client)
    engine = SimpleNamespace(
        name="vectors", launch=SimpleNamespace(source=source), state="ready", answering=0
    )
    answers = SearchAnswers(make_index(tmp_path / "index", model, words=True), [engine])
    found = json.loads(asyncio.run(answers.answer({"query": "zinc for zebras"})))
    assert found["hits"][0]["id"] == "zinc" and found["ranked_by"] == "words and vectors"
    other.append(True)
    with pytest.raises(Refused, match="cannot be searched now") as refused:
        asyncio.run(answers.answer({"query": "zinc for zebras"}))
    assert refused.value.status == 503 and "does not give the vectors" in caplog.text


def test_an_index_of_a_model_that_is_not_served_is_refused_before_anything_starts(
    model: Path, tmp_path: Path
) -> None:
    index = make_index(tmp_path / "index", model)
    check_index(index, [Source(model, "embed", "vectors", "")])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"other": 1}')
    for sources in ([Source(tmp_path / "other", "embed", "other", "")], [Source(model, "generate", "w", "")]):
        with pytest.raises(ConfigError, match="was made by") as refused:
            check_index(index, sources)
        assert "embed migrate" in refused.value.fix
