"""Ask an engine, and one other replica of its model where it dies before its answer begins.

    async with contextlib.AsyncExitStack() as holding:
        reply = await requests.reply(engine, adapter, scope, content, holding)
        await reply.send(send)

Nothing has gone to the caller then, and no request changes anything in an engine, so it may be sent again. No
third replica is asked: the request may be what they die of.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from adaptkit.client.relay import JSON, AnswerLate, ConnectionLost, Relay
from adaptkit.errors import ServerError
from adaptkit.serve.engine.lora_flags import Adapter
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway import routes
from adaptkit.serve.gateway.calibrated_answers import with_abstention
from adaptkit.serve.gateway.constraints import has_constraint
from adaptkit.serve.gateway.counters import Metrics
from adaptkit.serve.gateway.guard import PARSED, REQUEST_ID
from adaptkit.serve.gateway.replies import DIED, EVENTS, Reply, begin, busy, error, tells_death
from adaptkit.serve.gateway.request_body import count_sequences
from adaptkit.serve.gateway.served_names import ServedNames
from adaptkit.serve.limits import MOST_WAITING

QUEUE_FULL = "the engine's queue is full"
DIED_TWICE = "two engines died under this request, and no third is asked: it may be what ends them"
UNEXPLAINED = b"Internal server error"  # all that vLLM 0.32 says of a constraint that it could not compile
NOT_COMPILED = (
    "the constraint (`response_format`, `structured_outputs` or `tools`) cannot be compiled, or not in the "
    "time that is allowed: make it simpler, for example without a large `maxLength` or nested repeats"
)
_HEADERS = {"content-type": JSON, "accept-encoding": "identity"}

log = logging.getLogger("adaptkit.serve")


@dataclass(frozen=True)
class EngineRequest:
    """A request as engines are sent it.

    Attributes:
        model: the name that it asks.
        body: what was parsed of it.
        content: the bytes for the engine.
        path: its route.
        id: what the engine calls it.
        adapter: of a watched folder, that it needs.
    """

    model: str
    body: dict[str, Any]
    content: bytes
    path: str
    id: str
    adapter: Adapter | None = None

    @classmethod
    def of(cls, scope: Scope, model: str, content: bytes, adapter: Adapter | None) -> EngineRequest:
        """The request that the guard admitted in this scope."""
        inner_id = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"")
        return cls(model, scope[PARSED], content, scope["path"], inner_id.decode("latin-1"), adapter)


class EngineRequests:
    """Sends requests to engines.

    Args:
        served: where other replicas are found.
        metrics: where a request is counted that was asked again.
        relay: what carries them.
    """

    def __init__(self, served: ServedNames, metrics: Metrics, relay: Relay):
        self._served, self._metrics, self._relay = served, metrics, relay

    async def reply(
        self, request: EngineRequest, engine: Engine, holding: contextlib.AsyncExitStack
    ) -> Reply:
        """Ask the engine, and once another replica if it dies before its answer begins.

        Args:
            holding: takes over what must last until the answer is complete.
        """
        try:
            return await self._try(request, engine, holding)
        except ConnectionLost as lost:
            other = self._other_replica(request, engine)
            if other is None or isinstance(lost, AnswerLate):  # another one would not be faster
                return _lost(request, engine, lost)
        log.warning("request %s, lost with engine %s, goes to %s", request.id, engine.label, other.label)
        self._metrics.retried.labels(engine.label).inc()
        try:
            return await self._try(request, other, holding)
        except ConnectionLost as lost:
            return _lost(request, other, lost, DIED_TWICE)

    def _other_replica(self, request: EngineRequest, engine: Engine) -> Engine | None:
        """Find another engine that is ready for a request; None where there is none."""
        found = self._served.find(request.model, other_than=engine)
        if found is None:
            return None
        other, adapter = found
        return other if other.state == "ready" and adapter == request.adapter else None

    async def _try(self, request: EngineRequest, engine: Engine, holding: contextlib.AsyncExitStack) -> Reply:
        """Ask an engine, with the adapter loaded that the request is for.

        Raises: ConnectionLost if it dies before its answer begins.
        """
        if engine.state != "ready":
            return busy(engine, f"model '{request.model}' is {engine.state}")
        if engine.under_way >= MOST_WAITING:
            return busy(engine, QUEUE_FULL)
        sequences = count_sequences(request.body)
        engine.under_way += sequences
        try:
            async with contextlib.AsyncExitStack() as trying:
                trying.enter_context(_counted(engine))
                if request.adapter is not None:
                    await _load(engine, request.adapter, trying)
                reply = await self._ask(request, engine, sequences)
                await holding.enter_async_context(trying.pop_all())
                return reply
        except ConnectionLost as lost:
            engine.suspect()
            log.warning("engine %s failed on a request: %s", engine.label, lost.what)
            raise
        except ServerError as unloaded:
            log.warning("engine %s has no adapter for a request: %s", engine.label, unloaded.what)
            return busy(engine, unloaded.what)
        finally:
            engine.under_way -= sequences

    async def _ask(self, request: EngineRequest, engine: Engine, sequences: int) -> Reply:
        """Send one request of so many sequences to the engine and pass its answer on.

        Raises: ConnectionLost if the engine dies before its answer is complete, or a stream begins.
        """
        headers = {**_HEADERS, REQUEST_ID.decode(): request.id}
        # The bytes as they came: written anew as ASCII, each letter of a Cyrillic text takes three times as
        # many. No parser behind can read them otherwise than the guard did, which refuses repeated names.
        answer = await self._relay.post(engine.url + request.path, engine.key, request.content, headers)
        if answer.status == 200 and answer.media_type.startswith(EVENTS):
            pieces = await begin(engine, answer)
            return Reply(200, media_type=f"{EVENTS}; charset=utf-8", pieces=pieces)
        body = await answer.read()
        if answer.status == 200 and request.path == routes.CLASSIFY:
            export = engine.launch.source.export
            if export is not None and export.confidence is not None:
                body = with_abstention(body, export.confidence)
        if answer.status == 503:
            if sequences > 1 and engine.under_way <= sequences:  # nothing else is in the way
                return error(413, f"{sequences} texts at once do not fit into the engine's queue: send fewer")
            return busy(engine, QUEUE_FULL)
        if answer.status == 500 and UNEXPLAINED in body and has_constraint(request.body):
            return error(400, NOT_COMPILED)  # see engine/bounded_compile.py: the engine itself is well
        if answer.status >= 500:
            if tells_death(body):
                raise ConnectionLost("the engine's own process ended", fix="ask again")
            engine.suspect()
            log.error("engine %s answered %d", engine.label, answer.status)
        if answer.status in (401, 404) and b'"message"' not in body:
            status = 404 if answer.status == 404 else 502
            return error(status, "this model does not answer this route")
        return Reply(answer.status, body, answer.media_type)


async def _load(engine: Engine, adapter: Adapter, trying: contextlib.AsyncExitStack) -> None:
    """Keep an adapter loaded until the end. One that ends an engine as it is loaded is loaded into no other.

    Raises: ServerError, and no ConnectionLost, which would be a reason to ask another.
    """
    try:
        await trying.enter_async_context(engine.residents.hold(adapter))
    except ConnectionLost as lost:
        engine.suspect()
        what = f"the engine ended as it loaded the adapter ({lost.what})"
        raise ServerError(what, where=engine.label, fix="ask again") from None


@contextlib.contextmanager
def _counted(engine: Engine) -> Iterator[None]:
    engine.answering += 1
    try:
        yield
    finally:
        engine.answering -= 1


def _lost(request: EngineRequest, engine: Engine, lost: ConnectionLost, died: str = DIED) -> Reply:
    """Tell a caller that no answer came of the engine that was asked last."""
    if isinstance(lost, AnswerLate):
        return busy(engine, f"model '{request.model}' does not answer")
    return busy(engine, died)
