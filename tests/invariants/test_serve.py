"""A real vLLM behind the guard: one start of `adaptkit serve` for a model of every kind.

Checked through the front are the openai client, the routes that vLLM really has, hostile requests, bits per
byte against transformers, and, last, an engine that is killed under load and a SIGTERM that leaves no
process.
"""

from __future__ import annotations

import base64
import json
import math
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: `make serve-cpu`")

import openai
import psutil
import torch
from real_server import KEY, LENGTH, Served, command_of

from adaptkit import models
from adaptkit.client.likelihood import http_bits_per_byte
from adaptkit.client.openai import CUT, Client
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.index import Index
from adaptkit.models.control_tokens import control_tokens, encode_rendered
from adaptkit.serve.gateway import routes


@pytest.fixture(scope="session")
def client(served: Served) -> Any:
    """OpenAI's own client."""
    return openai.OpenAI(base_url=served.url + "/v1", api_key=KEY, max_retries=0, timeout=120)


def test_the_openai_client_talks_to_every_kind(client: Any) -> None:
    names = ["writer", "tuned", "vectors", "classes", "pairs", "tickets"]
    assert [model.id for model in client.models.list()] == names
    whole = {"ignore_eos": True}
    told = client.completions.create(
        model="writer", prompt="the engine", max_tokens=5, temperature=0, extra_body=whole
    )
    assert told.usage.completion_tokens == 5
    messages = [{"role": "user", "content": "hello"}]
    chat = client.chat.completions.create(model="writer", messages=messages, max_tokens=5, temperature=0)
    pieces = client.chat.completions.create(
        model="writer", messages=messages, max_tokens=5, temperature=0, stream=True
    )
    assert (
        "".join(piece.choices[0].delta.content or "" for piece in pieces) == chat.choices[0].message.content
    )
    vectors = client.embeddings.create(model="vectors", input=["the engine", "seven samples"]).data
    assert [len(row.embedding) for row in vectors] == [64, 64]
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=client.base_url, api_key="wrong-0123456789abcdef").models.list()
    with pytest.raises(openai.NotFoundError, match="did you mean"):
        client.completions.create(model="riter", prompt="a")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model="vectors", input=[[1, 2, 3]])


def test_greedy_tokens_and_logprobs_are_those_of_transformers(served: Served, tiny_text: list[str]) -> None:
    model, tokenizer = (
        models.load(served.folder / "writer", "causal"),
        models.load_tokenizer(served.folder / "writer"),
    )
    for text in tiny_text[:4]:
        ids = tokenizer(text)["input_ids"][:40]
        assert served.client.tokenize("writer", text, add_special_tokens=True)[:40] == ids, (
            "exactly one BOS, the same ids"
        )
        told = served.client.complete(
            "writer", ids, max_tokens=8, ignore_eos=True, logprobs=1, return_token_ids=True
        )
        for token, logprob in zip(told.token_ids, told.logprobs, strict=True):
            with torch.no_grad():
                scores = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            assert scores.argmax() == token
            assert abs(float(scores[token]) - logprob) < 1e-3
            ids.append(token)


def test_control_tokens_in_messages_are_text_and_the_templates_own_count(served: Served) -> None:
    """The template of `writer` begins with a BOS; a prompt is the caller's own template, and is obeyed."""
    tokenizer = models.load_tokenizer(served.folder / "writer")
    words = "hello </s> [PAD]<s>there"
    messages = [{"role": "user", "content": words}]
    rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
    start = rendered.index(words)
    spelt = [(start + a, start + b) for a, b in control_tokens(tokenizer).spans(words)]
    ids = [token for token, *_ in encode_rendered(tokenizer, rendered, spelt)]
    assert [token for token in ids if token in tokenizer.all_special_ids] == [tokenizer.bos_token_id]
    told = served.post("/tokenize", json={"model": "writer", "messages": messages}).json()
    assert told["tokens"] == ids
    body = {"model": "writer", "messages": messages, "max_tokens": 1}
    answered = served.post("/v1/chat/completions", json=body)
    assert answered.status_code == 200 and answered.json()["usage"]["prompt_tokens"] == len(ids)
    assert tokenizer.eos_token_id in served.client.tokenize("writer", "a </s> b")


def test_an_adapter_changes_answers_and_its_base_does_not_change(served: Served) -> None:
    from peft import PeftModel

    ids = served.client.tokenize("writer", "the engine reads", add_special_tokens=True)
    asked = {"max_tokens": 1, "ignore_eos": True, "logprobs": 1, "return_token_ids": True}
    base, tuned = (served.client.complete(name, ids, **asked) for name in ("writer", "tuned"))
    model = models.load(served.folder / "writer", "causal")
    model = PeftModel.from_pretrained(model, str(served.folder / "tuned"))
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    assert abs(float(scores[tuned.token_ids[0]]) - tuned.logprobs[0]) < 1e-3
    assert (base.token_ids, base.logprobs) != (tuned.token_ids, tuned.logprobs)


def test_a_base_and_its_adapter_asked_at_once_answer_as_alone(served: Served) -> None:
    """With as many slots as adapters vLLM 0.32 put the adapter on requests for the base, on a CPU."""

    def ask(name: str) -> str:
        return served.client.complete(name, "the engine reads", max_tokens=12, ignore_eos=True).text

    names = ("writer", "tuned")
    alone = {name: ask(name) for name in names}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, names * 8))
    assert together == [alone[name] for name in names * 8] and alone["writer"] != alone["tuned"]


@pytest.mark.parametrize("name", ["vectors", "classes", "pairs"])
def test_stored_answers_are_repeated_by_vllm(served: Served, name: str) -> None:
    from adaptkit.export.verify.answer_changes import Verdict, compare_answers, overall, tolerances
    from adaptkit.export.verify.server_answers import ask_server
    from adaptkit.export.verify.upgrade import make_record

    record = make_record(served.folder / name)
    given = ask_server(served.client, name, record, "float32")
    results = compare_answers(record, given, tolerances(record, given))
    assert overall(results) is Verdict.SAME, [result for result in results if result.verdict != "same"]
    assert {result.kind.value for result in results if result.verdict != "same"} == {"settings"}


def test_embeddings_are_those_of_transformers(served: Served, tiny_text: list[str]) -> None:
    model, tokenizer = (
        models.load(served.folder / "vectors", "encoder").eval(),
        models.load_tokenizer(served.folder / "vectors"),
    )
    for text, vector in zip(tiny_text[:4], served.client.embed("vectors", tiny_text[:4]), strict=True):
        with torch.no_grad():
            hidden = (
                model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False))
                .last_hidden_state[0]
                .mean(0)
            )
        assert torch.cosine_similarity(hidden, torch.tensor(vector), dim=0) > 0.999


def test_a_search_finds_what_the_index_finds_with_the_model_that_made_it(served: Served) -> None:
    index, encoder = Index.open(served.folder / "index"), Encoder.load(served.folder / "vectors")
    query, filter = index.document(3).text, {"even": ["false"]}
    wanted = {hit.id: hit for hit in index.search(encoder, [query], 10, filter=filter)[0]}
    found = served.post("/v1/search", json={"query": query, "filter": {"even": False}}).json()
    assert found["model"] == "vectors" and found["ranked_by"] == "words and vectors"
    assert found["hits"][0]["text"] == query
    assert {hit["id"] for hit in found["hits"]} == wanted.keys()
    judged = served.post("/v1/search", json={"query": query, "rerank": "pairs", "top_k": 5}).json()["hits"]
    relevance = served.client.rerank("pairs", query, [hit["text"] for hit in judged], **CUT)
    told = [hit["relevance"] for hit in judged]
    assert told == pytest.approx(relevance, abs=0.01) and told == sorted(told, reverse=True)


def test_classes_are_those_of_transformers(served: Served, tiny_text: list[str]) -> None:
    model, tokenizer = (
        models.load(served.folder / "classes", "classifier").eval(),
        models.load_tokenizer(served.folder / "classes"),
    )
    for text, (label, told) in zip(
        tiny_text[:4], served.client.classify("classes", tiny_text[:4]), strict=True
    ):
        with torch.no_grad():
            wanted = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1)
        assert torch.allclose(wanted, torch.tensor(told), atol=1e-3)
        assert label == model.config.id2label[int(wanted.argmax())]


def test_relevances_are_those_of_transformers(served: Served, tiny_text: list[str]) -> None:
    model, tokenizer = (
        models.load(served.folder / "pairs", "classifier").eval(),
        models.load_tokenizer(served.folder / "pairs"),
    )
    query, *documents = [text.partition(".")[0] for text in tiny_text[:6]]
    with torch.no_grad():
        logits = [
            float(model(**tokenizer(query, text, return_tensors="pt")).logits[0, 0]) for text in documents
        ]
    wanted = [1 / (1 + math.exp(-logit)) for logit in logits]
    assert len({round(value, 3) for value in wanted}) == 5, (
        "a reranker that tells nothing apart tests nothing"
    )
    assert served.client.rerank("pairs", query, documents) == pytest.approx(wanted, abs=1e-3)
    assert served.client.rerank("pairs", query, documents, use_activation=False) == pytest.approx(
        logits, abs=1e-3
    )
    best = sorted(range(5), key=lambda i: -wanted[i])[:2]
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        told = served.post(
            path, json={"model": "pairs", "query": query, "documents": documents, "top_n": 2}
        ).json()["results"]
        assert [row["index"] for row in told] == best
    for path in ("/score", "/v1/score"):
        for first, second in (
            ("text_1", "text_2"),
            ("queries", "documents"),
            ("queries", "items"),
            ("data_1", "data_2"),
        ):
            told = served.post(path, json={"model": "pairs", first: query, second: documents}).json()["data"]
            assert [row["score"] for row in told] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("path", "changed", "said"),
    [
        ("/v1/rerank", {"documents": ["a"] * 2049}, "holds 2049 items, at most 2048"),
        ("/v1/rerank", {"query": "a " * LENGTH}, "maximum context length"),
        ("/v1/rerank", {"documents": ["a", "b " * LENGTH]}, "maximum context length"),
        (
            "/v1/rerank",
            {"documents": [{"content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]},
            "only text",
        ),
        ("/v1/score", {"queries": "a", "items": ["a"] * 2049}, "at most 2048"),
        ("/v1/score", {"queries": ["a", "b"], "items": ["a", "b", "c"]}, ""),
        ("/classify", {"input": "a"}, "is a model of kind rerank, which answers"),
        ("/v1/embeddings", {"input": "a"}, "is a model of kind rerank, which answers"),
    ],
)
def test_caveats_hold_for_query_and_documents(
    served: Served, path: str, changed: dict[str, Any], said: str
) -> None:
    base = {"query": "a", "documents": ["b"]} if "rerank" in path else {}
    answer = served.post(path, json={"model": "pairs", **base, **changed})
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]


def vllm_routes(served: Served) -> set[tuple[str, str]]:
    """(method, path) of every route that the running vLLM processes have, from their logs."""
    text = "".join(path.read_text() for path in served.logs.glob("*.log"))
    found = re.findall(r"Route: (\S+), Methods: ([A-Z, ]+)", text)
    return {(method, path) for path, methods in found for method in methods.split(", ")}


def test_of_all_routes_that_vllm_has_only_health_is_open(served: Served) -> None:
    there = vllm_routes(served)
    assert len({path for _, path in there}) > 25, "the log no longer lists routes"
    children = [command_of(process) for process in served.fronts()]
    urls = [served.url, *(f"http://127.0.0.1:{words[words.index('--port') + 1]}" for words in children)]
    models = [row for row in served.client.get("/v1/models", dict)["data"] if row["parent"] is None]
    assert len(urls) == 1 + len(models) >= 5, "the gateway and one for each model"
    for url in urls:
        for method, path in sorted(there | {("GET", "/docs"), ("GET", "/openapi.json")}):
            answer = served.http.request(method, url + path.replace("{response_id}", "x"))
            assert answer.status_code == (200 if (method, path) == ("GET", "/health") else 401), (
                url,
                method,
                path,
            )
    for method, path in sorted(there):
        if path not in routes.ROUTES:
            answer = served.http.request(
                method, served.url + path, headers={"authorization": f"Bearer {KEY}"}
            )
            assert answer.status_code == 404, (method, path)


def test_every_listening_socket_is_on_loopback(served: Served) -> None:
    processes = [
        psutil.Process(served.process.pid),
        *psutil.Process(served.process.pid).children(recursive=True),
    ]
    addresses = {
        c.laddr.ip for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_the_key_and_prompts_are_written_nowhere(served: Served) -> None:
    canary = "canary-4711-of-the-prompt"
    for name in ("writer", "tuned"):
        served.post("/v1/completions", json={"model": name, "prompt": canary, "max_tokens": 2})
    served.post("/v1/completions", json={"model": "writer", "prompt": canary, "max_tokens": "many"})
    served.post("/v1/completions", content=b'{"model": "writer", "prompt": "' + canary.encode())
    served.post("/v1/embeddings", json={"model": "vectors", "input": canary * 100})
    processes = [
        psutil.Process(served.process.pid),
        *psutil.Process(served.process.pid).children(recursive=True),
    ]
    written = [" ".join(process.cmdline()) for process in processes]
    written += [path.read_text(errors="replace") for path in served.logs.rglob("*") if path.is_file()]
    written += [served.log.read_text(), served.client._http.get("/metrics").text]
    assert not [text for text in written if canary in text or KEY in text]


DEEP = "[" * 500 + "]" * 500
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63 - 1,
    -(2**63),
    1e308,
    -1e-308,
    "",
    "a",
    "\x00",
    "\u202e",
    "\U0010ffff",
    "a" * 50_000,
    [],
    [[]],
    [None],
    [""],
    ["a", None],
    [1, "a"],
    {},
    {"a": {}},
    [[[1]]],
    json.loads(DEEP),
]
FIELDS = {
    "/v1/completions": [
        "prompt",
        "max_tokens",
        "temperature",
        "top_p",
        "n",
        "seed",
        "stop",
        "logprobs",
        "prompt_logprobs",
        "stream",
        "echo",
        "logit_bias",
        "response_format",
        "structured_outputs",
        "stream_options",
        "suffix",
        "user",
        "priority",
        "min_tokens",
        "stop_token_ids",
        "truncate_prompt_tokens",
        "top_k",
        "allowed_token_ids",
        "bad_words",
        "repetition_penalty",
        "best_of",
        "use_beam_search",
        "return_token_ids",
        "request_id",
    ],
    "/v1/chat/completions": [
        "messages",
        "max_completion_tokens",
        "tools",
        "tool_choice",
        "logprobs",
        "top_logprobs",
        "response_format",
        "stream",
        "documents",
        "chat_template_kwargs",
        "add_generation_prompt",
        "continue_final_message",
        "temperature",
        "stop",
        "n",
        "reasoning_effort",
        "parallel_tool_calls",
    ],
    "/v1/embeddings": [
        "input",
        "dimensions",
        "encoding_format",
        "truncate_prompt_tokens",
        "messages",
        "priority",
    ],
    "/classify": ["input", "truncate_prompt_tokens", "use_activation", "messages"],
    "/pooling": ["input", "encoding_format", "task", "data", "dimensions"],
    "/score": ["text_1", "text_2", "queries", "documents"],
    "/v1/score": [
        "queries",
        "items",
        "data_1",
        "use_activation",
        "instruction",
        "max_tokens_per_query",
        "priority",
    ],
    "/rerank": ["query", "documents", "top_n"],
    "/v1/rerank": [
        "query",
        "documents",
        "top_n",
        "max_tokens_per_doc",
        "truncate_prompt_tokens",
        "truncation_side",
        "padding",
    ],
    "/v2/rerank": [
        "query",
        "documents",
        "chat_template_kwargs",
        "cache_salt",
        "request_id",
        "use_activation",
    ],
    "/v1/search": ["query", "top_k", "filter", "every_passage", "rerank", "rerank_depth", "rerank_share"],
    "/tokenize": ["prompt", "messages", "add_special_tokens", "return_token_strs", "chat_template_kwargs"],
    "/detokenize": ["tokens"],
}
BASES = {
    "/v1/completions": {"model": "writer", "prompt": "a", "max_tokens": 1},
    "/v1/chat/completions": {
        "model": "writer",
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 1,
    },
    "/v1/embeddings": {"model": "vectors", "input": "a"},
    "/classify": {"model": "classes", "input": "a"},
    "/pooling": {"model": "vectors", "input": "a", "task": "embed"},
    "/score": {"model": "vectors", "text_1": "a", "text_2": "b"},
    "/v1/score": {"model": "pairs", "queries": "a", "items": ["b", "c"]},
    "/rerank": {"model": "vectors", "query": "a", "documents": ["b"]},
    "/v1/rerank": {"model": "pairs", "query": "a", "documents": ["b", "c"]},
    "/v2/rerank": {"model": "pairs", "query": "a", "documents": ["b"]},
    "/v1/search": {"query": "a", "rerank": "pairs"},
    "/tokenize": {"model": "writer", "prompt": "a"},
    "/detokenize": {"model": "writer", "tokens": [1]},
}
URLS = [
    "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd",
    "http://[::1]:1/",
    "gopher://127.0.0.1:1/_",
    "//h/x",
]
RAW = [
    b"",
    b"\xff\xfe{\x00}\x00",
    b"{",
    b"null",
    b"[1]",
    b'{"model": "writer", "prompt": "\\ud800"}',
    b'{"prompt": "a"} trailing',
    b"\xef\xbb\xbf{}",
    b"a" * 100_000,
    b"[" * 200_000,
    b'{"model":"writer","model":"x","prompt":"a"}',
    b"%7B%7D",
]


def hostile() -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, arguments of one POST): wrong types, sizes and encodings in every field of every route, and
    things to fetch."""
    for path, fields in FIELDS.items():
        yield from ((path, {"json": {**BASES[path], name: value}}) for name in fields for value in VALUES)
        yield from ((path, {"content": raw}) for raw in RAW)
        yield path, {"json": {**BASES[path], "model": "../../etc/passwd"}}
        yield path, {"json": BASES[path], "headers": {"content-type": "text/xml", "x-request-id": "../" * 20}}
        yield path, {"json": BASES[path], "headers": {"content-encoding": "gzip", "host": "a/health?x="}}
        yield path, {"json": {**BASES[path], "x" * 10_000: "y", "__proto__": {}, "constructor": 1}}
    for url in URLS:
        for kind in ("image_url", "audio_url", "video_url", "input_audio", "file"):
            content = [{"type": kind, kind: {"url": url}}]
            yield (
                "/v1/chat/completions",
                {"json": {"model": "writer", "messages": [{"role": "user", "content": content}]}},
            )
            yield (
                "/v1/rerank",
                {"json": {"model": "pairs", "query": "a", "documents": [{"content": content}]}},
            )
            yield "/v1/score", {"json": {"model": "pairs", "queries": {"content": content}, "items": "b"}}
        yield "/v1/embeddings", {"json": {"model": "vectors", "input": url}}
    for trick in (
        "/v1/models/../../health",
        "/%2e%2e/etc/passwd",
        "/v1//completions",
        "/v1/completions%00",
        "/static/../../x",
    ):
        yield trick, {"json": {}}


def test_hostile_requests_are_answered_below_500(served: Served) -> None:
    def ask(case: tuple[str, dict[str, Any]]) -> tuple[int, str]:
        path, arguments = case
        answer = served.post(path, **arguments)
        return (
            answer.status_code,
            f"{path} {str(arguments)[:300]} -> {answer.status_code} {answer.text[:300]}",
        )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, hostile()))
    assert FIELDS.keys() == {path for path, route in routes.ROUTES.items() if route.method == "POST"}
    assert len(answers) > 1500
    assert not [told for status, told in answers if status >= 500]
    assert not [told for _, told in answers if "root:" in told or "Traceback" in told]
    assert served.client.healthy() and served.client.complete("writer", "a", max_tokens=1).output_tokens == 1
    assert (
        len(
            base64.b64decode(
                served.post(
                    "/v1/embeddings", json={**BASES["/v1/embeddings"], "encoding_format": "base64"}
                ).json()["data"][0]["embedding"]
            )
        )
        == 4 * 64
    )


SLOW = {
    "anyOf": [
        {"type": "array", "items": {"type": "string", "minLength": i, "maxLength": 900}, "maxItems": 900}
        for i in range(400)
    ]
}
"""Within the limits, and minutes to compile."""


def test_a_constraint_that_takes_too_long_fails_alone(served: Served) -> None:
    body = {"model": "writer", "prompt": "a", "max_tokens": 5, "structured_outputs": {"json": SLOW}}
    others = 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(served.post, "/v1/completions", json=body)
        while not waiting.done():
            assert served.client.complete("writer", "a", max_tokens=1).output_tokens == 1
            others += 1
    answer = waiting.result()
    assert answer.status_code == 400 and "not in the time that is allowed" in answer.text
    assert others > 3, "the others did not wait"
    fine = {**body, "structured_outputs": {"choice": ["yes", "no"]}}
    assert served.post("/v1/completions", json=fine).json()["choices"][0]["text"] in ("yes", "no")


def test_bits_per_byte_over_http_are_those_of_the_model(
    tmp_path: Path, served: Served, tiny_text: list[str]
) -> None:
    """Through the merged path: the front refuses prompt logprobs beside adapters, so the child is asked, one
    request at a time."""
    from adaptkit.client import likelihood
    from adaptkit.models.bits_per_byte import bits_per_byte, score_documents

    refused = served.post("/v1/completions", json={"model": "writer", "prompt": "a", "prompt_logprobs": 0})
    assert refused.status_code == 400 and "adapters" in refused.json()["error"]["message"]
    texts = [*tiny_text[:5], " ".join(tiny_text[5:12])]
    model, tokenizer = (
        models.load(served.folder / "writer", "causal"),
        models.load_tokenizer(served.folder / "writer"),
    )
    wanted = bits_per_byte(
        score_documents(
            model, tokenizer, [(str(i), text) for i, text in enumerate(texts)], seq_len=LENGTH - 2
        )
    )
    child = next(p for p in served.fronts() if "writer" in " ".join(p.cmdline()))
    port = command_of(child)[command_of(child).index("--port") + 1]
    with (
        Client(f"http://127.0.0.1:{port}", served.key_of(child)) as direct,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(likelihood, "PROMPTS_AT_ONCE", 1)
        told = http_bits_per_byte(direct, "writer", texts, seq_len=LENGTH - 2)
    assert math.isclose(told, wanted, abs_tol=1e-3)


def test_an_engine_killed_under_load_is_503_then_back(served: Served) -> None:
    family = psutil.Process(served.process.pid).children(recursive=True)
    engines = [p for p in family if "EngineCore" in " ".join([p.name(), *p.cmdline()])]
    child = next(p for p in served.fronts() if "writer" in " ".join(p.cmdline()))
    engine = next(p for p in engines if p.ppid() == child.pid)
    body = {"model": "writer", "prompt": "a", "max_tokens": 100, "ignore_eos": True}
    statuses: list[tuple[int, bool, float]] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            began = time.monotonic()
            answer = served.post("/v1/completions", json=body)
            statuses.append((answer.status_code, "retry-after" in answer.headers, time.monotonic() - began))
            time.sleep(0.05 if answer.status_code == 200 else 0.5)

    callers = [threading.Thread(target=load) for _ in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(1.0)
    engine.send_signal(signal.SIGKILL)
    time.sleep(3.0)
    assert served.post("/v1/completions", json=body).status_code == 503
    assert served.client.embed("vectors", ["a"]), "the other models go on"
    served.wait_healthy()
    time.sleep(1.0)
    done.set()
    for caller in callers:
        caller.join(120)
        assert not caller.is_alive(), "a request hangs"
    assert {status for status, _, _ in statuses} == {200, 503}
    assert all(told for status, told, _ in statuses if status == 503)
    assert statuses[-1][0] == 200
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_sigterm_leaves_no_process(served: Served) -> None:
    family = psutil.Process(served.process.pid).children(recursive=True)
    assert len(family) >= 6
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(90) == 0
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
