"""Fuzz a running `adaptkit serve` with requests that schemathesis draws from vLLM's own schemas: no answer
may be a 5xx.

    adaptkit serve writer=FOLDER vectors=FOLDER classes=FOLDER pairs=FOLDER --key-file key      # in one shell
    python benchmarks/fuzz_server.py schema http://127.0.0.1:8000 key openapi.json
    schemathesis run openapi.json --url http://127.0.0.1:8000 -H "Authorization: Bearer $(cat key)" \\
        --checks not_a_server_error --mode all --phases fuzzing --max-examples 200
    python benchmarks/fuzz_server.py counts http://127.0.0.1:8000 key       # requests by route and status
    python benchmarks/fuzz_server.py load http://127.0.0.1:8000 key writer  # 16 clients for 3 minutes

schemathesis is not a dependency: install it into an environment of its own.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from adaptkit.client.openai import Client
from adaptkit.errors import ServerError
from adaptkit.serve.gateway import request_body, routes

CLIENTS, SECONDS = 16, 180
TEXT: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 200}
TEXTS = {"anyOf": [TEXT, {"type": "array", "items": TEXT, "maxItems": 4}]}
IDS = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": 300},
    "minItems": 1,
    "maxItems": 16,
}
FEW = {"type": "integer", "minimum": 0, "maximum": 8}
TURN = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": {"enum": ["system", "user", "assistant"]}, "content": TEXT},
}
ANY = {"default": {"description": "any"}}
DRAWN: dict[str, Any] = {
    "messages": {"type": "array", "items": TURN, "minItems": 1, "maxItems": 4},
    "prompt": {"anyOf": [TEXT, IDS]},
    "query": TEXT,
    **dict.fromkeys(
        ("input", "documents", "queries", "items", "text_1", "text_2", "data_1", "data_2"), TEXTS
    ),
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "min_tokens", "n"), FEW),
}
"""In place of vLLM's own schemas of these fields: small, and of what is served, so that many requests reach
the engine."""


def request_models() -> dict[str, list[Any]]:
    """The request models of the installed vLLM by route."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.pooling.classify.protocol import (
        ClassificationChatRequest,
        ClassificationCompletionRequest,
    )
    from vllm.entrypoints.pooling.embed.protocol import EmbeddingChatRequest, EmbeddingCompletionRequest
    from vllm.entrypoints.pooling.pooling.protocol import PoolingChatRequest, PoolingCompletionRequest
    from vllm.entrypoints.pooling.scoring import protocol as scoring
    from vllm.entrypoints.serve.tokenize.protocol import (
        DetokenizeRequest,
        TokenizeChatRequest,
        TokenizeCompletionRequest,
    )

    scores = [
        scoring.ScoreTextRequest,
        scoring.ScoreQueriesItemsRequest,
        scoring.ScoreQueriesDocumentsRequest,
    ]
    return {
        "/v1/completions": [CompletionRequest],
        "/v1/chat/completions": [ChatCompletionRequest],
        "/v1/embeddings": [EmbeddingCompletionRequest, EmbeddingChatRequest],
        "/classify": [ClassificationCompletionRequest, ClassificationChatRequest],
        "/pooling": [PoolingCompletionRequest, PoolingChatRequest],
        **dict.fromkeys(("/score", "/v1/score"), scores),
        **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), [scoring.RerankRequest]),
        "/tokenize": [TokenizeCompletionRequest, TokenizeChatRequest],
        "/detokenize": [DetokenizeRequest],
    }


def write_schema(path: Path, client: Client) -> None:
    """One OpenAPI document of every route; `model` is drawn from the names that the server says answer it."""
    parts: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    served = client.get("/v1/models", dict)["data"]
    for route, kinds in request_models().items():
        names = [row["id"] for row in served if route in row["routes"]]
        body = {"anyOf": [_body(kind, names, parts) for kind in kinds]}
        content = {"application/json": {"schema": body}}
        paths[route] = {"post": {"requestBody": {"required": True, "content": content}, "responses": ANY}}
    for route in (path for path, known in routes.ROUTES.items() if known.method == "GET"):
        asked = {"name": "asked", "in": "query", "schema": {}}
        paths[route] = {"get": {"parameters": [asked], "responses": ANY}}
    name = {"name": "name", "in": "path", "required": True, "schema": TEXT}
    paths[f"{routes.MODELS}/{{name}}"] = {"get": {"parameters": [name], "responses": ANY}}
    info = {"title": "adaptkit serve", "version": "1"}
    path.write_text(
        json.dumps({"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": parts}})
    )


def _body(kind: Any, names: list[str], parts: dict[str, Any]) -> dict[str, Any]:
    """The schema of a request that names one of `names`; what it refers to goes into `parts`."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    parts |= schema.pop("$defs", {})
    fields = {
        field: DRAWN.get(field, told)
        for field, told in schema["properties"].items()
        if field not in request_body.UNSUPPORTED
    }
    schema["properties"] = {**fields, "model": {"enum": names}}
    schema["required"] = sorted(
        {*schema.get("required", []), "model", *({"prompt"} & fields.keys())}
    )  # vLLM needs a prompt
    return schema


def counts(client: Client) -> int:
    """Print answered requests by route and status; the number of 5xx."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, Counter[str]] = {}
    text = client._http.get(routes.METRICS).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "adaptkit_requests_total":
                found.setdefault(sample.labels["route"], Counter())[sample.labels["status"]] += int(
                    sample.value
                )
    for route, by_status in sorted(found.items()):
        told = ", ".join(f"{status}: {count}" for status, count in sorted(by_status.items()))
        print(f"{route:22s} {by_status.total():6d}   {told}")
    print(f"{'in all':22s} {sum(by_status.total() for by_status in found.values()):6d}")
    return sum(
        count for by_status in found.values() for status, count in by_status.items() if status >= "500"
    )


def load(url: str, key: str, model: str) -> int:
    """Clients that ask without a pause; the number of requests that were not answered with tokens."""
    until, seconds, lost = time.monotonic() + SECONDS, [], Counter()

    def ask() -> None:
        with Client(url, key) as client:
            while time.monotonic() < until:
                began = time.monotonic()
                try:
                    assert (
                        client.complete(model, "the engine", max_tokens=16, ignore_eos=True).output_tokens
                        == 16
                    )
                except (ServerError, AssertionError) as error:
                    lost[str(error)] += 1
                seconds.append(time.monotonic() - began)

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    seconds.sort()
    found = {
        "requests": len(seconds),
        "lost": sum(lost.values()),
        "errors": dict(lost),
        "p50_s": seconds[len(seconds) // 2],
        "p99_s": seconds[int(0.99 * len(seconds))],
        "max_s": seconds[-1],
    }
    print(json.dumps(found, indent=1))
    return sum(lost.values())


def main() -> int:
    """0 if nothing was lost, and nothing failed."""
    command, url, key_file, *rest = sys.argv[1:]
    key = Path(key_file).read_text().strip()
    if command == "load":
        return min(1, load(url, key, rest[0]))
    with Client(url, key) as client:
        return min(1, counts(client)) if command == "counts" else write_schema(Path(rest[0]), client) or 0


if __name__ == "__main__":
    sys.exit(main())
