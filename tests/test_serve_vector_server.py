"""Our own encoder as an engine: the answers of vLLM's routes, the vectors of `embed.Encoder`, words for the
rest."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import asyncio
import base64
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tiny_embed
from fake_serving import eventually, running
from prometheus_client import CollectorRegistry
from tiny_served import SMALL

from adaptkit.embed.encoder import Encoder
from adaptkit.errors import ModelError, ServerError
from adaptkit.export.source import Source
from adaptkit.models.sentence.layout import changed
from adaptkit.serve import preflight
from adaptkit.serve.api_keys import Keys
from adaptkit.serve.engine import vector_server
from adaptkit.serve.engine.command import Launch
from adaptkit.serve.engine.vector_server import VectorServer
from adaptkit.serve.gateway.counters import Metrics
from adaptkit.serve.gateway.guard import Guard
from adaptkit.serve.limits import UNLIMITED

KEY = "k" * 20
TEXTS = ["the engine reads the river 7", "what of cheese?", "", "the patient explains the planet 31"]
LONG = "the market records the winter " * 40
Post = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    made = Encoder.load(tiny_embed.bert(tmp_path_factory.mktemp("bert")))
    made.layout = changed(made.layout, made.width, dimensions=(32, 8))
    return made


@pytest.fixture
def post(encoder: Encoder) -> Iterator[Post]:
    """Ask the server, within one event loop for each request."""
    metrics = Metrics(CollectorRegistry())

    def ask(path: str, method: str = "POST", **body: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            server = VectorServer(encoder, "vectors")
            guarded = Guard(server.application(), Keys((KEY,), "test"), UNLIMITED, metrics)
            batches = asyncio.create_task(server.batches.run())
            headers = {"authorization": f"Bearer {KEY}"}
            transport = httpx.ASGITransport(guarded)
            async with httpx.AsyncClient(transport=transport, base_url="http://e", headers=headers) as http:
                answer = await http.request(method, path, json=body if method == "POST" else None)
                pages.append((await http.get("/metrics")).text)
            batches.cancel()
            return answer

        return asyncio.run(asked())

    pages: list[str] = []
    ask.pages = pages  # type: ignore[attr-defined]
    yield ask


def vectors_of(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float32)


def test_vectors_are_those_of_the_encoder_in_every_form(post: Post, encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    answer = post("/v1/embeddings", model="vectors", input=TEXTS)
    assert np.array_equal(vectors_of(answer), expected)
    content = answer.json()
    assert content["model"] == "vectors" and [row["index"] for row in content["data"]] == [0, 1, 2, 3]
    tokens = sum(map(len, encoder.tokens(TEXTS)))
    assert content["usage"]["prompt_tokens"] == content["usage"]["total_tokens"] == tokens
    assert f"encoder_tokens_total {tokens}" in post.pages[0] and "encoder_batches_total 1" in post.pages[0]
    coded = post("/v1/embeddings", input=TEXTS[0], encoding_format="base64").json()["data"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(coded), "<f4"), encoder.encode(TEXTS[:1])[0])
    short = vectors_of(post("/v1/embeddings", input=TEXTS[0], dimensions=8, user="me"))
    assert np.allclose(short, encoder.encode(TEXTS[:1], dimensions=8), atol=1e-6) and short.shape == (1, 8)


def test_a_long_text_is_refused_or_cut_as_the_request_says(post: Post, encoder: Encoder) -> None:
    window = encoder.layout.max_length
    refused = post("/v1/embeddings", input=["a", LONG])
    assert refused.status_code == 400
    assert f"maximum context length is {window} tokens" in refused.json()["error"]["message"]
    cut = vectors_of(post("/v1/embeddings", input=LONG, truncate_prompt_tokens=-1))
    assert np.array_equal(cut, encoder.encode([LONG]))
    shorter = vectors_of(post("/v1/embeddings", input=LONG, truncate_prompt_tokens=5))
    assert np.array_equal(shorter, encoder.encode_tokens(encoder.tokens_up_to([LONG], 5)))
    assert not np.allclose(shorter, cut, atol=1e-3)


def test_tokens_are_the_encoders(post: Post, encoder: Encoder) -> None:
    whole = post("/tokenize", model="vectors", prompt=TEXTS[0]).json()
    assert whole["tokens"] == encoder.tokens(TEXTS[:1])[0] and whole["count"] == len(whole["tokens"])
    bare = post("/tokenize", model="vectors", prompt=TEXTS[0], add_special_tokens=False).json()
    assert bare["tokens"] == whole["tokens"][1:-1] and bare["max_model_len"] == encoder.layout.max_length
    assert post("/v1/models", "GET").json()["data"][0]["id"] == "vectors"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/embeddings", {"input": []}, 400, "a list of one or more"),
        ("/v1/embeddings", {"input": [[1, 2]]}, 400, "token ids"),
        ("/v1/embeddings", {"input": "a", "dimensions": 9}, 400, "come with 32, 8"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, 400, "float or base64"),
        ("/v1/embeddings", {"input": "a", "truncate_prompt_tokens": 10_000}, 400, "-1, or from 3 to 64"),
        ("/v1/embeddings", {"input": "a", "truncate_prompt_tokens": 2}, 400, "-1, or from 3 to 64"),
        ("/v1/embeddings", {"input": "a", "use_activation": False}, 400, "serve with --engine vllm"),
        ("/v1/embeddings", {"input": "a", "model": "other"}, 404, "`other` does not exist"),
        ("/tokenize", {"prompt": ["a"]}, 400, "`prompt` must be a text"),
        ("/rerank", {"query": "a", "documents": ["b"]}, 404, "answers /v1/embeddings and /tokenize"),
    ],
)
def test_what_it_does_not_do_is_said(
    post: Post, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    answer = post(path, **body)
    assert answer.status_code == status and said in answer.json()["error"]["message"]


def test_it_is_supervised_behind_the_gateway_as_vllm_is(tmp_path: Path) -> None:
    folder = tiny_embed.bert(tmp_path / "bert")
    encoder = Encoder.load(folder)
    encoder.save(folder)  # with modules.json, by which its answers are held against transformers'
    launch = Launch(Source(folder, "embed", "vectors", ""), SMALL, engine="adaptkit")
    with running([launch], tmp_path) as (client, server):
        assert np.allclose(client.embed("vectors", TEXTS), encoder.encode(TEXTS), atol=1e-6)
        with pytest.raises(ServerError, match="in adaptkit's own encoder .--engine vllm answers more"):
            client.rerank("vectors", "a", ["b"])
        row = client.get("/v1/models/vectors", dict)
        assert row["routes"] == ["/v1/embeddings", "/tokenize"] and row["max_model_len"] == 64
        assert 'encoder_texts_total{engine="vectors"}' in client._http.get("/metrics").text
        os.kill(server.engines[0].process_id, signal.SIGKILL)
        eventually(lambda: server.engines[0].restarts == 1 and client.healthy(), "it comes back")
        assert np.allclose(client.embed("vectors", TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_a_folder_that_it_cannot_load_ends_it_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_server.sys, "argv", ["server", str(tmp_path), "vectors", "127.0.0.1", "1"])
    with pytest.raises(SystemExit, match="ModelError: "):
        vector_server.main()


def test_quantised_weights_are_left_to_vllm(tmp_path: Path) -> None:
    folder = tiny_embed.bert(tmp_path / "bert")
    source = Source(folder, "embed", "vectors", "")
    launch = Launch(source, SMALL, engine="adaptkit")
    preflight.check([launch], {})  # without vLLM
    assert launch.exact and launch.program == "adaptkit's encoder"
    config = (folder / "config.json").read_text().replace("{", '{"quantization_config": {"bits": 8},', 1)
    (folder / "config.json").write_text(config)
    with pytest.raises(ModelError, match="reads whole ones"):
        preflight.check([dataclasses.replace(launch)], {})
