"""LangChain's and LlamaIndex's own OpenAI clients against a served embedder, unchanged: our vectors, or a
refusal with the hint."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_embed
from real_server import KEY

from adaptkit.embed.encoder import Encoder
from adaptkit.errors import DataError
from adaptkit.run import read_jsonl
from adaptkit.synthesis.driver import Order, Synthesis
from adaptkit.synthesis.generators import ServedGenerator

if TYPE_CHECKING:
    from real_server import Served

QUERY = "what does the engine measure?"


@pytest.fixture(scope="module")
def encoder(served: Served) -> Encoder:
    return Encoder.load(served.folder / "vectors")


def agree(encoder: Encoder, texts: list[str], found: list[list[float]]) -> bool:
    mine, theirs = encoder.encode(texts), np.array(found)
    return theirs.shape == mine.shape and (mine * theirs).sum(1).min() >= 0.999


def langchain(served: Served, **options: Any) -> Any:
    langchain_openai = pytest.importorskip(
        "langchain_openai", reason="LangChain is not installed: pip install adaptkit[test]"
    )
    return langchain_openai.OpenAIEmbeddings(
        model="vectors", base_url=f"{served.url}/v1", api_key=KEY, max_retries=0, **options
    )


def test_a_served_generator_asks_questions(served: Served, tmp_path: Path) -> None:
    """One of random weights: what it asks is nonsense, and all of it is kept, counted and refused."""
    rows = [
        {"_id": f"d{i}", "text": f"the engine {i} reads and the editor {i} writes again"} for i in range(6)
    ]
    files = [str(tiny_embed.write(tmp_path / "docs.jsonl", rows))]
    synthesis = Synthesis(Order(files, "questions", count=1, prompt="{text}", top=6))
    generator = ServedGenerator(served.client, "writer", 3)
    with contextlib.suppress(DataError):  # where no question passes
        synthesis.write(tmp_path / "out", generator)
    answers = [row["answer"] for row in read_jsonl(tmp_path / "out/answers.jsonl")]
    assert len(answers) == synthesis.counts["passages asked about"] == 6 and all(answers)
    assert (tmp_path / "out/rejected.jsonl").exists()
    assert KEY not in "".join(path.read_text() for path in (tmp_path / "out").iterdir())


def test_a_named_prompt_gives_the_vectors_of_sentence_transformers(
    served: Served, tiny_text: list[str]
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="pip install adaptkit[test]")
    [model] = [model for model in served.client.models() if model.name == "vectors"]
    assert model.prompts == ("query", "passage")
    theirs = sentence_transformers.SentenceTransformer(str(served.folder / "vectors"), device="cpu")
    for name in (*model.prompts, None):
        options = {} if name is None else {"prompt_name": name}
        expected = theirs.encode(tiny_text[:6], **options)
        vectors = np.array(served.client.embed("vectors", tiny_text[:6], **options))
        cosines = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1)
        assert cosines.min() >= 0.9999, name
    plain = np.array(served.client.embed("vectors", tiny_text[:6]))
    prompted = theirs.encode(tiny_text[:6], prompt_name="query")
    assert (plain * prompted).sum(1).max() < 0.9999, "the words before a text must show in its vector"


def test_langchain_gets_our_vectors(served: Served, encoder: Encoder, tiny_text: list[str]) -> None:
    client = langchain(served, check_embedding_ctx_length=False)
    assert agree(encoder, tiny_text[:6], client.embed_documents(tiny_text[:6]))
    assert agree(encoder, [QUERY], [client.embed_query(QUERY)])


def test_langchains_default_is_refused_with_the_hint(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends token ids of OpenAI's vocabulary, which tiktoken would fetch from the internet: bytes stand in
    for it here."""
    openai, tiktoken = pytest.importorskip("openai"), pytest.importorskip("tiktoken")
    client = langchain(served)
    plain = tiktoken.Encoding(
        "bytes", pat_str=".", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: plain)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embed_documents([QUERY])


def test_llama_index_gets_our_vectors(served: Served, encoder: Encoder, tiny_text: list[str]) -> None:
    module = pytest.importorskip(
        "llama_index.embeddings.openai", reason="LlamaIndex is not installed: pip install adaptkit[test]"
    )
    client = module.OpenAIEmbedding(
        model_name="vectors", api_base=f"{served.url}/v1", api_key=KEY, max_retries=0
    )
    assert agree(encoder, tiny_text[:6], client.get_text_embedding_batch(tiny_text[:6]))
    assert agree(encoder, [QUERY], [client.get_query_embedding(QUERY)])
