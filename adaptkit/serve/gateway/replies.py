"""What a caller of the gateway gets: a whole body or a stream, and the end of work for callers that went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Send

from adaptkit.client.relay import JSON, ConnectionLost, RelayedAnswer
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway.refused import error_body

EVENTS = "text/event-stream"
DIED = "the engine died under this request"


@dataclass(frozen=True)
class Reply:
    """What a caller gets: a whole body, or pieces of one as they come."""

    status: int
    body: bytes = b""
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: AsyncIterator[bytes] | None = None

    async def send(self, send: Send) -> None:
        """Answer a request with it."""
        fields = {"content-type": self.media_type, **self.headers}
        if self.pieces is None:
            fields["content-length"] = str(len(self.body))
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})
        if self.pieces is not None:
            async for piece in self.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": self.body})


async def begin(engine: Engine, answer: RelayedAnswer) -> AsyncIterator[bytes]:
    """Wait for the first of some server-sent events: the stream from there on.

    Raises: ConnectionLost if the engine dies before it.
    """
    pieces = answer.pieces()
    try:
        first = await anext(pieces, b"")
        if first.startswith(b'data: {"error"') and tells_death(first):
            raise ConnectionLost("the engine died before the stream began", fix="ask again")
    except BaseException:  # also a caller that went away
        await answer.close()
        raise
    return _events(engine, answer, first, pieces)


async def _events(
    engine: Engine, answer: RelayedAnswer, first: bytes, pieces: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Pass server-sent events on as they come; add one error event if the engine dies."""
    try:
        yield first
        async for piece in pieces:
            yield piece
    except ConnectionLost:
        engine.suspect()
        yield b"data: " + error_body(503, DIED) + b"\n\n"
    finally:
        await answer.close()


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
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


def tells_death(error: bytes) -> bool:
    """Whether an error of vLLM's says that its engine has ended, as its own process will in a moment."""
    return b"EngineCore" in error or b"EngineDead" in error


def busy(engine: Engine, message: str) -> Reply:
    """Tell a caller when to come again."""
    seconds = engine.retry_after
    return error(503, f"{message}; try again in {seconds} s", retry_after=str(seconds))


def error(status: int, message: str, **headers: str) -> Reply:
    """Answer with an error as OpenAI writes it; `retry_after="3"` is a header."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, error_body(status, message), headers=fields)
