"""Fuzz a running `adaptkit serve` with requests that schemathesis draws from vLLM's own schemas: no answer may be a 5xx.

    adaptkit serve writer=FOLDER vectors=FOLDER --key-file key -- ...        # in one shell
    python benchmarks/fuzz_server.py schema openapi.json                     # with the Python that holds vLLM
    python benchmarks/fuzz_server.py load http://127.0.0.1:8000 key writer   # 16 clients for 3 minutes: nothing lost
    schemathesis run openapi.json --url http://127.0.0.1:8000 -H "Authorization: Bearer $(cat key)" \\
        --checks not_a_server_error --mode all --max-examples 200

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

from adaptkit.errors import ServerError
from adaptkit.serve.client import Client

CLIENTS, SECONDS = 16, 180


def schemas() -> dict[str, Any]:
    """OpenAPI paths of the served routes, with the request models of the installed vLLM."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.pooling.classify.protocol import ClassificationCompletionRequest
    from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest
    from vllm.entrypoints.pooling.pooling.protocol import PoolingCompletionRequest
    from vllm.entrypoints.pooling.scoring.protocol import RerankRequest, ScoreTextRequest
    from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest, TokenizeChatRequest, TokenizeCompletionRequest

    return {
        "/v1/completions": CompletionRequest,
        "/v1/chat/completions": ChatCompletionRequest,
        "/v1/embeddings": EmbeddingCompletionRequest,
        "/classify": ClassificationCompletionRequest,
        "/pooling": PoolingCompletionRequest,
        "/score": ScoreTextRequest,
        "/v1/rerank": RerankRequest,
        "/rerank": TokenizeChatRequest,  # on purpose the wrong shape
        "/tokenize": TokenizeCompletionRequest,
        "/detokenize": DetokenizeRequest,
    }


def write_schema(path: Path, models: list[str]) -> None:
    """One OpenAPI document; `model` is drawn from the served names, so that requests reach an engine."""
    paths, parts = {}, {}
    for route, request in schemas().items():
        schema = request.model_json_schema(ref_template="#/components/schemas/{model}")
        parts |= schema.pop("$defs", {})
        schema["properties"]["model"] = {"enum": models}
        schema["required"] = sorted({*schema.get("required", []), "model"})
        content = {"application/json": {"schema": schema}}
        responses = {"default": {"description": "any"}}
        paths[route] = {"post": {"requestBody": {"required": True, "content": content}, "responses": responses}}
    info = {"title": "adaptkit serve", "version": "1"}
    path.write_text(json.dumps({"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": parts}}))


def load(url: str, key: str, model: str) -> int:
    """Clients that ask without a pause; the number of requests that were not answered with tokens."""
    until, seconds, lost = time.monotonic() + SECONDS, [], Counter()

    def ask() -> None:
        with Client(url, key) as client:
            while time.monotonic() < until:
                began = time.monotonic()
                try:
                    assert client.complete(model, "the engine", max_tokens=16, ignore_eos=True).output_tokens == 16
                except (ServerError, AssertionError) as error:
                    lost[str(error)] += 1
                seconds.append(time.monotonic() - began)

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    seconds.sort()
    found = {"requests": len(seconds), "lost": sum(lost.values()), "errors": dict(lost), "p50_s": seconds[len(seconds) // 2],
             "p99_s": seconds[int(0.99 * len(seconds))], "max_s": seconds[-1]}  # fmt: skip
    print(json.dumps(found, indent=1))
    return sum(lost.values())


def main() -> int:
    """0 if nothing was lost."""
    if sys.argv[1] == "schema":
        write_schema(Path(sys.argv[2]), sys.argv[3:] or ["writer", "vectors", "classes"])
        return 0
    url, key_file, model = sys.argv[2:5]
    return min(1, load(url, Path(key_file).read_text().strip(), model))


if __name__ == "__main__":
    sys.exit(main())
