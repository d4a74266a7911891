"""Bound what one visitor sends to the page: bodies, functions that exist, and a share of the queue.

Gradio alone reads bodies of any size where no length is announced, fails (500) on a function that does not
exist, and has one queue for all: one visitor could fill it. This ASGI class stands between the login and
Gradio.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Container

from starlette.types import ASGIApp, Message, Receive, Scope, Send

READ_AND_DROPPED = 16_000_000  # a larger body is hung up on in the middle
BODY_S = 30.0
SHARE = 8  # requests of one visitor that wait or run at the same time
RETRY_S = 5
JOIN = "/gradio_api/queue/join"
VISITOR = "adaptkit.visitor"
"""Where a request's scope holds who sent it: a session, or an address where there is no login."""


class VisitorRequests:
    """Lets a request through to `app` if it is small, known and within its visitor's share.

    Args:
        app: Gradio's application.
        functions: numbers of the functions that the page may call.
        pending: number of a visitor's requests that wait or run.
        most_bytes: of one body.
    """

    def __init__(
        self, app: ASGIApp, functions: Container[object], pending: Callable[[str], int], most_bytes: int
    ):
        self.app, self.functions, self.pending, self.most_bytes = app, functions, pending, most_bytes
        self._joining: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(BODY_S):
                body = await read_body(receive, self.most_bytes)
        except TimeoutError:
            return await _refuse(send, 408, f"the body did not come within {BODY_S:g} s")
        if body is None:
            return await _refuse(send, 413, f"at most {self.most_bytes} bytes")
        if scope["path"] == JOIN:
            if not self._names_function(body):
                return await _refuse(send, 404, "no such function")
            visitor = scope.get(VISITOR, "")
            if self.pending(visitor) + self._joining[visitor] >= SHARE:
                what = f"{SHARE} of your requests are under way: wait for one of them"
                return await _refuse(send, 429, what, retry_after_s=RETRY_S)
            return await self._join(visitor, scope, _replaying(body, receive), send)
        return await self.app(scope, _replaying(body, receive), send)

    async def _join(self, visitor: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the queue; until Gradio lists it there, it is counted here."""
        self._joining[visitor] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._joining[visitor] -= 1
            if not self._joining[visitor]:
                del self._joining[visitor]

    def _names_function(self, body: bytes) -> bool:
        """False for a request that names a function the page does not have; Gradio judges what is no JSON."""
        try:
            joined = json.loads(body)
        except (ValueError, RecursionError):
            return True
        if not isinstance(joined, dict) or joined.get("fn_index") is None:
            return True
        number = joined["fn_index"]
        return isinstance(number, int) and not isinstance(number, bool) and number in self.functions


async def read_body(receive: Receive, most: int) -> bytes | None:
    """Read the body to its end, whatever length it announces; None if it is longer than `most`."""
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= max(READ_AND_DROPPED, most):
        message: Message = await receive()
        size += len(message.get("body", b""))
        if size <= most:
            parts.append(message.get("body", b""))
        more = message["type"] != "http.disconnect" and message.get("more_body", False)
    if size > most:
        return None
    return b"".join(parts)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Make a `receive` that gives the body once more, then what the visitor does next."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        if pending:
            return pending.pop()
        return await receive()

    return replay


async def _refuse(send: Send, status: int, what: str, retry_after_s: int = 0) -> None:
    content = json.dumps({"error": what, "detail": what}).encode()  # Gradio's page shows `detail`
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if retry_after_s:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
