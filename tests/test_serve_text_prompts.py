"""Prompts of an embedding folder: listed, put before texts by name or by default, refused where unknown.

Home of `adaptkit.prompt_names`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from fake_serving import fake_launch, no_inspection, running

from adaptkit.client.openai import prompt_option
from adaptkit.errors import ModelError
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway.refused import Refused
from adaptkit.serve.gateway.text_prompts import FILE, TextPrompts, read_prompts

WORDS = {"query": "query: ", "passage": "passage: "}
PLAIN, DEFAULTED = TextPrompts(WORDS), TextPrompts(WORDS, "query")


def prompted(prompts: TextPrompts, path: str, body: dict[str, Any]) -> dict[str, Any]:
    written = prompts.body_with_prompts(path, body)
    return body if written is None else json.loads(written)


@pytest.mark.parametrize(
    ("prompts", "body", "sent"),
    [
        (PLAIN, {"input": "a"}, {"input": "a"}),
        (PLAIN, {"input": "a", "prompt_name": "query"}, {"input": "query: a"}),
        (PLAIN, {"input": ["a", "\u044f"], "prompt_name": "query"}, {"input": ["query: a", "query: \u044f"]}),
        (PLAIN, {"input": "a", "prompt_name": None}, {"input": "a"}),
        (DEFAULTED, {"input": ["a"]}, {"input": ["query: a"]}),
        (DEFAULTED, {"input": ["a"], "prompt_name": ""}, {"input": ["a"]}),
        (DEFAULTED, {"input": ["a"], "prompt_name": "passage"}, {"input": ["passage: a"]}),
        (DEFAULTED, {"input": [1, 2]}, {"input": [1, 2]}),
        (TextPrompts(), {"input": "a", "prompt_name": ""}, {"input": "a"}),
    ],
)
def test_the_named_prompt_or_the_default_stands_before_each_text(
    prompts: TextPrompts, body: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert prompted(prompts, "/v1/embeddings", body) == sent
    assert prompted(prompts, "/pooling", body) == sent


def test_bytes_stay_as_they_came_where_no_prompt_belongs() -> None:
    assert PLAIN.body_with_prompts("/v1/embeddings", {"input": "a", "dimensions": 8}) is None


@pytest.mark.parametrize("name", ["querry", 3, ["query"]])
def test_a_prompt_that_the_model_lacks_is_refused_with_those_it_has(name: Any) -> None:
    with pytest.raises(Refused, match="it has: query, passage") as refused:
        PLAIN.body_with_prompts("/v1/embeddings", {"input": "a", "prompt_name": name})
    assert refused.value.status == 400
    with pytest.raises(Refused, match="it has: none"):
        TextPrompts().body_with_prompts("/v1/embeddings", {"input": "a", "prompt_name": "query"})


def test_a_prompt_without_texts_is_refused() -> None:
    with pytest.raises(Refused, match="goes with texts"):
        PLAIN.body_with_prompts("/pooling", {"input": [1, 2], "prompt_name": "query"})


def test_routes_that_name_their_texts_get_the_prompts_of_these() -> None:
    sent = prompted(PLAIN, "/rerank", {"query": "a", "documents": ["b", "c"]})
    assert sent == {"query": "query: a", "documents": ["passage: b", "passage: c"]}
    sent = prompted(DEFAULTED, "/score", {"text_1": "a", "text_2": ["b"]})
    assert sent == {"text_1": "query: a", "text_2": ["query: b"]}


@pytest.mark.parametrize(
    ("names", "option"),
    [
        (["query", "passage"], {"prompt_name": "passage"}),
        (["corpus", "document"], {"prompt_name": "document"}),
        (["query"], {}),
    ],
)
def test_documents_have_several_names(names: list[str], option: dict[str, str]) -> None:
    assert prompt_option("document", names) == option
    assert prompt_option("query", names) == ({"prompt_name": "query"} if "query" in names else {})


def test_a_folder_without_prompts_has_none_and_a_spoilt_one_is_refused(tmp_path: Path) -> None:
    assert read_prompts(tmp_path) == TextPrompts()
    (tmp_path / FILE).write_text(json.dumps({"prompts": {"query": None}, "default_prompt_name": None}))
    assert read_prompts(tmp_path) == TextPrompts({"query": ""})
    (tmp_path / FILE).write_text(json.dumps({"prompts": ["query: "]}))
    with pytest.raises(ModelError, match="no texts by name"):
        read_prompts(tmp_path)


def test_a_server_lists_the_prompts_and_hands_on_no_field_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    folder.mkdir()
    (folder / FILE).write_text(json.dumps({"prompts": WORDS}))
    launches = [fake_launch(folder, name="vectors", kind="embed"), fake_launch(tmp_path, name="writer")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine.__init__, "__defaults__", (lambda client, source, name: None, no_inspection))
        with running(launches, tmp_path) as (client, _):
            vectors, writer = client.get("/v1/models", dict)["data"]
            assert vectors["prompts"] == WORDS and vectors["default_prompt_name"] is None
            assert "prompts" not in writer
            assert [model.prompts for model in client.models()] == [("query", "passage"), ()]
            body = {"model": "vectors", "input": "a", "prompt_name": "query"}
            answer = client._http.post("/v1/embeddings", json=body)
            assert answer.json()["body"] == {"model": "vectors", "input": "query: a"}
            refused = client._http.post("/v1/embeddings", json={**body, "prompt_name": "qury"})
            assert refused.status_code == 400 and "did you mean 'query'" in refused.json()["error"]["message"]
            elsewhere = {"model": "writer", "prompt": "a", "prompt_name": "query"}
            assert client._http.post("/v1/completions", json=elsewhere).status_code == 400
