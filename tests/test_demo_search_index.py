"""Vectors of passages: made once, kept on disk, told apart by model; and the nearest ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_study import DOMAIN_VECTORS, GENERIC_VECTORS, IDENTITIES, MODELS
from fake_openai import KEY, FakeServer

from adaptkit.demo import search_index
from adaptkit.demo.served_models import Server
from adaptkit.errors import ConfigError, DataError
from adaptkit.run import write_jsonl


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.002) as server:
        yield server


@pytest.fixture
def server(fake: FakeServer) -> Server:
    return Server(fake.url, KEY)


def passages(count: int) -> list[tuple[str, str]]:
    return [
        (f"notes.jsonl:{i}", f"passage {i} about {'asthma' if i % 7 == 0 else 'sleep'} number {i}")
        for i in range(count)
    ]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_vectors_are_made_once_kept_on_disk_and_told_apart_by_model(
    fake: FakeServer, server: Server, state: Path
) -> None:
    texts = passages(70)
    with server.client() as client:
        index = search_index.Index(texts)
        assert list(index.fill(client, DOMAIN_VECTORS)) == [32, 64, 70]
        assert list(index.fill(client, DOMAIN_VECTORS)) == []
        hits = index.nearest(client, DOMAIN_VECTORS, "asthma")
        again = search_index.Index(texts)
        assert list(again.fill(client, DOMAIN_VECTORS)) == []
        assert again.nearest(client, DOMAIN_VECTORS, "asthma") == hits
        assert list(again.fill(client, GENERIC_VECTORS)) == [32, 64, 70]
        assert list(search_index.Index(texts[:40]).fill(client, DOMAIN_VECTORS)) == [32, 40]
    assert len(hits) == 5 and "asthma" in hits[0].text
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
    assert search_index.in_both(hits, hits[:2]) == {hit.name for hit in hits[:2]}


def test_queries_and_passages_get_the_models_own_prompts(
    fake: FakeServer, server: Server, state: Path
) -> None:
    with server.client() as client:
        index, prompts = search_index.Index(passages(40)), ("query", "passage")
        list(index.fill(client, DOMAIN_VECTORS, prompts))
        index.nearest(client, DOMAIN_VECTORS, "asthma", prompts)
        assert list(index.fill(client, DOMAIN_VECTORS)) == [] and len(index._vectors) == 1
    names = [body.get("prompt_name") for path, body in fake.requests if path == "/v1/embeddings"]
    assert names[:3] == ["passage"] * 3 and names[-2:] == ["query", None]


def test_a_spoilt_file_of_vectors_is_made_again(server: Server, state: Path) -> None:
    with server.client() as client:
        list(search_index.Index(passages(40)).fill(client, DOMAIN_VECTORS))
        vectors = next((state / "adaptkit" / "vectors").glob("*.npy"))
        vectors.write_bytes(vectors.read_bytes()[:100])
        assert list(search_index.Index(passages(40)).fill(client, DOMAIN_VECTORS)) == [32, 40]


def test_a_sample_is_spread_evenly_and_cut() -> None:
    passages = search_index.sample([(str(i), "x" * 5000) for i in range(2000)])
    assert (
        len(passages) == search_index.MOST_PASSAGES
        and passages[-1][0] == "1995"
        and len(passages[0][1]) == search_index.MAX_PASSAGE_CHARS
    )
    assert search_index.sample([("a", "  "), ("b", "text")]) == [("b", "text")]


def test_a_file_of_text_can_be_searched(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "notes.jsonl", ({"text": f"note {i} about something"} for i in range(3)))
    assert [text for _, text in search_index.from_file(tmp_path / "notes.jsonl")] == [
        f"note {i} about something" for i in range(3)
    ]
    with pytest.raises((DataError, ConfigError)):
        search_index.from_file(tmp_path / "missing.jsonl")
