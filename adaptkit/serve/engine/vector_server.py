"""Serve an embedding model by adaptkit's own encoder, as the gateway asks vLLM for one.

    python -m adaptkit.serve.engine.vector_server FOLDER NAME HOST PORT

The routes are /health, /metrics, /v1/models, /v1/embeddings and /tokenize, behind the guard that vLLM has
too; whatever else vLLM reads of a request is refused by name. It computes in float32. Requests that come
together are encoded together (`vector_batches`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from adaptkit.client.relay import JSON
from adaptkit.embed.encoder import UNCUT, Encoder
from adaptkit.errors import AdaptkitError
from adaptkit.models.batching import fast_batch_tokens
from adaptkit.models.control_tokens import encode
from adaptkit.models.sentence.pooling import cut
from adaptkit.serve.engine.entrypoint import LIFELINE, end_with_parent
from adaptkit.serve.engine.vector_batches import VectorBatches
from adaptkit.serve.gateway.guard import PARSED, Guard
from adaptkit.serve.gateway.refused import Refused, error_body
from adaptkit.serve.gateway.replies import unless_gone
from adaptkit.serve.gateway.request_fields import WITHOUT_EFFECT

EMBEDDINGS, TOKENIZE = "/v1/embeddings", "/tokenize"
FIELDS = {
    EMBEDDINGS: frozenset({"model", "input", "dimensions", "encoding_format", "truncate_prompt_tokens"}),
    TOKENIZE: frozenset({"model", "prompt", "add_special_tokens"}),
}
"""Route -> the fields that are read there."""
NO_MATTER = WITHOUT_EFFECT | {"request_id", "cache_salt"}
"""Fields that change no answer of an encoder's."""
CUT_AT_END = -1
"""As `truncate_prompt_tokens`: where the model's window ends."""
ROUNDS = 8
"""A batch has so many times the tokens that the encoder reads at once: short and long texts are sorted."""
Answer = Callable[[dict[str, Any]], Awaitable[Response]]


class VectorServer:
    """The application behind the guard.

    Args:
        encoder: the model.
        name: what requests call it.
    """

    def __init__(self, encoder: Encoder, name: str):
        self.encoder, self.name = encoder, name
        device = next(encoder.model.parameters()).device.type
        self.batches = VectorBatches(encoder.encode_tokens, ROUNDS * fast_batch_tokens(device))
        self._tokenizing = ThreadPoolExecutor(1)  # beside the model; a tokenizer is set up for each length

    def application(self) -> ASGIApp:
        """An ASGI application of its routes."""
        routes = [
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/v1/models", self._models),
            Route(EMBEDDINGS, self._answering(EMBEDDINGS, self.embed), methods=["POST"]),
            Route(TOKENIZE, self._answering(TOKENIZE, self.tokenize), methods=["POST"]),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={404: _no_route})

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(self.batches.run())
        try:
            yield
        finally:
            running.cancel()

    async def embed(self, body: dict[str, Any]) -> Response:
        """Answer /v1/embeddings.

        Raises: Refused for what this model cannot do.
        """
        texts = _texts(body.get("input"))
        dimensions, limit = self._dimensions(body.get("dimensions")), self._limit(body)
        as_base64 = _one_of(body, "encoding_format", ("float", "base64")) == "base64"
        rows = await self._tokens(texts, limit or UNCUT)
        longest, window = max(map(len, rows)), self.encoder.layout.max_length
        if longest > window:
            what = f"this model's maximum context length is {window} tokens, and a text has {longest}: "
            raise Refused(400, f"{what}shorten it, or send `truncate_prompt_tokens`: -1", param="input")
        vectors_ND = await self.batches.vectors(rows)
        if dimensions:
            shorter_ND = cut(
                torch.from_numpy(vectors_ND), dimensions, normalised=self.encoder.layout.normalised
            )
            vectors_ND = shorter_ND.numpy()
        content = await asyncio.to_thread(self._written, vectors_ND, sum(map(len, rows)), as_base64)
        return Response(content, media_type=JSON)

    async def tokenize(self, body: dict[str, Any]) -> Response:
        """Answer /tokenize.

        Raises: Refused.
        """
        prompt, special = body.get("prompt"), body.get("add_special_tokens", True)
        if not isinstance(prompt, str) or not isinstance(special, bool):
            raise Refused(400, "`prompt` must be a text, `add_special_tokens` true or false", param="prompt")
        if special:
            [ids] = await self._tokens([prompt], UNCUT)
        else:
            [ids] = await self._in_thread(lambda: encode(self.encoder.tokenizer, [prompt], special=False))
        window = self.encoder.layout.max_length
        return JSONResponse({"count": len(ids), "max_model_len": window, "tokens": ids, "token_strs": None})

    def _limit(self, body: dict[str, Any]) -> int:
        """The tokens after which a request wants texts cut; 0 where it wants long ones refused."""
        value, window = body.get("truncate_prompt_tokens"), self.encoder.layout.max_length
        if value is None:
            return 0
        least = self.encoder.tokenizer.num_special_tokens_to_add() + 1
        if value == CUT_AT_END:
            return window
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= window:
            what = f"`truncate_prompt_tokens` must be -1, or from {least} to {window}"
            raise Refused(400, what, param="truncate_prompt_tokens")
        return value

    def _dimensions(self, value: Any) -> int:
        """The numbers of a vector that a request wants; 0 for all."""
        sizes = self.encoder.layout.dimensions
        if value is None or (value == self.encoder.size and not isinstance(value, bool)):
            return 0
        if isinstance(value, bool) or value not in sizes:
            known = ", ".join(map(str, sizes)) or f"{self.encoder.size} alone"
            raise Refused(400, f"`dimensions`: this model's vectors come with {known}", param="dimensions")
        return int(value)

    async def _tokens(self, texts: list[str], longest: int) -> list[list[int]]:
        return await self._in_thread(lambda: self.encoder.tokens_up_to(texts, longest))

    async def _in_thread(self, work: Callable[[], list[list[int]]]) -> list[list[int]]:
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def _written(self, vectors_ND: np.ndarray, num_tokens: int, as_base64: bool) -> bytes:
        """An answer of OpenAI's."""
        if as_base64:
            values: list[Any] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors_ND]
        else:
            values = vectors_ND.tolist()
        rows = [{"index": i, "object": "embedding", "embedding": value} for i, value in enumerate(values)]
        answer = {
            "id": f"embd-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": self.name,
            "data": rows,
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens, "completion_tokens": 0},
        }
        return json.dumps(answer).encode()

    def _answering(self, path: str, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: refusals become answers, and the work ends when the caller goes away."""

        async def endpoint(request: Request) -> Response:
            reply: Response = Response(status_code=499)

            async def work() -> None:
                nonlocal reply
                try:
                    body = request.scope[PARSED]
                    self._check(path, body)
                    reply = await answer(body)
                except Refused as refused:
                    reply = Response(refused.body(), refused.status, refused.headers, JSON)

            await unless_gone(request.receive, work())
            return reply

        return endpoint

    def _check(self, path: str, body: dict[str, Any]) -> None:
        """Raises: Refused for another model, or a field that would be passed over."""
        if body.get("model") not in (None, self.name):
            raise Refused(404, f"The model `{str(body['model'])[:100]}` does not exist.", param="model")
        for field, value in body.items():
            if value is not None and field not in FIELDS[path] | NO_MATTER:
                what = f"`{field[:100]}` is not read by adaptkit's own encoder: serve with --engine vllm"
                raise Refused(400, what, param=field[:100])

    async def _health(self, request: Request) -> Response:
        return Response()

    async def _metrics(self, request: Request) -> Response:
        """What was encoded, as Prometheus reads it."""
        counts = {
            "batches": self.batches.num_batches,
            "texts": self.batches.num_texts,
            "tokens": self.batches.num_tokens,
        }
        lines = [
            f"# HELP encoder_{what} Encoded\n# TYPE encoder_{what} counter\nencoder_{what}_total {count}\n"
            for what, count in counts.items()
        ]
        return PlainTextResponse("".join(lines))

    async def _models(self, request: Request) -> Response:
        row = {"id": self.name, "object": "model", "max_model_len": self.encoder.layout.max_length}
        return JSONResponse({"object": "list", "data": [row]})


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Refused(400, "`input` must be a text, or a list of one or more", param="input")
    return texts


def _one_of(body: dict[str, Any], field: str, values: tuple[str, ...]) -> str:
    value = body.get(field)
    if value is None:
        return values[0]
    if value not in values:
        raise Refused(400, f"`{field}` must be {' or '.join(values)}", param=field)
    return str(value)


async def _no_route(request: Request, error: Exception) -> Response:
    what = f"adaptkit's own encoder answers {EMBEDDINGS} and {TOKENIZE}: serve with --engine vllm for others"
    return Response(error_body(404, what), 404, media_type=JSON)


def main() -> None:
    """Load the model and serve it until a signal comes, or the process that started this one goes."""
    if descriptor := os.environ.pop(LIFELINE, ""):
        threading.Thread(target=end_with_parent, args=(int(descriptor),), daemon=True).start()
    folder, name, host, port = sys.argv[1:]
    print("Starting to load model", flush=True)
    try:
        encoder = Encoder.load(folder)
    except AdaptkitError as error:
        sys.exit(f"{type(error).__name__}: {error.what}")
    application = Guard(VectorServer(encoder, name).application())
    uvicorn.run(application, host=host, port=int(port), access_log=False, server_header=False)


if __name__ == "__main__":
    main()
