"""ASGI middleware that lets callers with a key reach known routes with requests of a bounded size.

The same class stands before adaptkit's own gateway and inside vLLM:

    ADAPTKIT_API_KEY_FILE=key vllm serve FOLDER --middleware adaptkit.serve.gateway.guard.Guard

(vLLM's `--api-key` covers paths that begin with /v1 and leaves /invocations, /tokenize, /metrics and others
open.) Every request but `GET /health` needs a key; a path that is not in the table of routes is 404; bodies
are read up to a limit, parsed strictly and checked before anything behind the guard sees them. Nothing of a
body is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adaptkit.errors import ConfigError
from adaptkit.serve import api_keys
from adaptkit.serve.api_keys import Keys
from adaptkit.serve.gateway import routes
from adaptkit.serve.gateway.counters import Metrics, Rates
from adaptkit.serve.gateway.refused import Refused, error_body
from adaptkit.serve.gateway.request_body import check, parse
from adaptkit.serve.limits import Limits, limits_from_environment

REQUEST_ID = b"x-request-id"
PARSED, RAW = "adaptkit.body", "adaptkit.raw"  # where the scope holds the body for the application behind
BODY_S = 30.0  # seconds that a caller may take to send its body
DRAIN_S, DRAIN_BYTES = 5.0, 32 * 2**20  # how much of a refused body is still read, and thrown away
LONGEST_LENGTH = 18  # digits of a content-length that are worth reading

log = logging.getLogger("adaptkit.serve")


@dataclass
class _Exchange:
    """One request under way: what its log line and its metrics say."""

    method: str
    route: str | None
    id: str
    key: str = "-"
    status: int = 500
    started: bool = False


class _Incoming:
    """What a caller sends. Refused in the middle of it, a caller would see a broken connection and no answer,
    so the rest is read first, within bounds."""

    def __init__(self, receive: Receive):
        self._receive, self._more = receive, True

    async def __call__(self) -> Message:
        message = await self._receive()
        self._more = message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Throw away the rest of the body."""
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._more and dropped < DRAIN_BYTES:
                    dropped += len((await self()).get("body", b""))


class Guard:
    """ASGI middleware; without arguments, as vLLM makes it, keys and limits come from the environment.

    Args:
        app: the application behind.
        keys: who may call.
        limits: what one request may ask for.
        metrics: where requests are counted.
        own_fields: route -> fields that `app` reads itself; vLLM, which reads none of them, has none.
    Raises: ConfigError where no key is set, so that nothing is served unguarded.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys | None = None,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        own_fields: Mapping[str, Collection[str]] | None = None,
    ):
        self.app = app
        self.keys = keys or _keys_of_environment()
        self.limits = limits or limits_from_environment(os.environ)
        self.metrics = metrics or Metrics()
        self.own_fields = own_fields or {}
        self.rates = Rates(self.limits.requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # no route speaks WebSocket
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        exchange = _Exchange(scope["method"], routes.find_route(scope["path"]), _request_id(headers))
        began = time.monotonic()
        reply, incoming = _replying(exchange, send), _Incoming(receive)
        self.metrics.running.inc()
        try:
            inner, replay = await self._admit(exchange, scope, headers, incoming)
            await self.app(inner, replay, reply)
        except Refused as refused:
            if refused.status != 408 and _announces_body(headers):
                await incoming.drain()
            await _answer(reply, refused.status, refused.body(), refused.headers)
        except Exception:
            log.exception("request %s failed", exchange.id)
            if exchange.started:
                raise
            await _answer(reply, 500, error_body(500, "the server failed on this request"), {})
        finally:
            self.metrics.running.dec()
            self._record(exchange, time.monotonic() - began)

    async def _admit(
        self, exchange: _Exchange, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive
    ) -> tuple[Scope, Receive]:
        """Check key, route and body; the scope and the body for the application behind.

        Raises: Refused.
        """
        route = routes.ROUTES.get(exchange.route or "")
        if not (route and route.open and exchange.method == route.method):
            self._check_key(exchange, headers)
        if route is None:
            raise Refused(404, routes.not_served(scope["path"]))
        if exchange.method != route.method:
            raise Refused(405, f"this route takes {route.method}", headers={"allow": route.method})
        others = [pair for pair in scope["headers"] if pair[0] != REQUEST_ID]
        # vLLM names a running request by this id, so that a caller's own choice could stand for two requests.
        inner_id = f"{exchange.id}-{uuid.uuid4().hex[:8]}".encode()
        inner = {**scope, "headers": [*others, (REQUEST_ID, inner_id)]}
        if route.method == "GET":
            return inner, receive
        try:
            async with asyncio.timeout(BODY_S):  # wait_for would make a task of it
                body = await self._body(headers, receive)
        except TimeoutError:
            what = f"the body did not come within {BODY_S:g} s"
            raise Refused(408, what, headers={"connection": "close"}) from None
        parsed = parse(body)
        check(scope["path"], parsed, self.limits, self.own_fields.get(scope["path"], ()))
        return {**inner, PARSED: parsed, RAW: body}, _replaying(body, receive)

    def _check_key(self, exchange: _Exchange, headers: Mapping[bytes, bytes]) -> None:
        key = self.keys.match(headers.get(b"authorization", b""))
        if key is None:
            what = "a key is needed: send the header `Authorization: Bearer KEY`"
            if b"authorization" in headers:
                what = "this key is wrong: send one that this server knows as `Authorization: Bearer KEY`"
            raise Refused(401, what, headers={"www-authenticate": "Bearer"})
        exchange.key = key
        if wait := self.rates.take(key):
            what = f"more than {self.limits.requests_per_minute} requests per minute"
            raise Refused(429, what, headers={"retry-after": str(math.ceil(wait))})
        self.metrics.by_key.labels(key).inc()

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        limit = self.limits.body_bytes
        too_large = Refused(413, f"the body is larger than {limit} bytes", headers={"connection": "close"})
        if limit and _content_length(headers) > limit:
            raise too_large
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the caller went away before the body was complete")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if limit and size > limit:
                raise too_large
            more = message.get("more_body", False)
        return b"".join(parts)

    def _record(self, exchange: _Exchange, seconds: float) -> None:
        route = exchange.route or "other"
        self.metrics.requests.labels(route, exchange.status).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        fields = (exchange.id, exchange.key, exchange.method, route, exchange.status, 1000 * seconds)
        log.info("request %s key %s %s %s -> %d in %.0f ms", *fields)


def _keys_of_environment() -> Keys:
    if not (os.environ.get(api_keys.KEY_VARIABLE) or os.environ.get(api_keys.FILE_VARIABLE)):
        fix = f"set {api_keys.KEY_VARIABLE}, or {api_keys.FILE_VARIABLE} to a file that holds one"
        raise ConfigError("the guard needs a key", where="environment", fix=fix)
    return api_keys.load()


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """Take the caller's own id if it is short and plain, else make a new one."""
    own = headers.get(REQUEST_ID, b"").decode("latin-1")
    if re.fullmatch(r"[\w.-]{1,100}", own, re.ASCII):
        return own
    return uuid.uuid4().hex


def _announces_body(headers: Mapping[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _content_length(headers: Mapping[bytes, bytes]) -> float:
    """Read the size that a caller announces; 0 where it says none, infinite for an absurdly long number."""
    digits = headers.get(b"content-length", b"0")
    if not digits.isdigit():
        return 0
    if len(digits) > LONGEST_LENGTH:
        return math.inf
    return int(digits)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Make a `receive` that gives the body once more, then what the caller does next: it goes away."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        if pending:
            return pending.pop()
        return await receive()

    return replay


def _replying(exchange: _Exchange, send: Send) -> Send:
    """Make a `send` that adds the request id and notes the status."""

    async def reply(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status, exchange.started = message["status"], True
            others = [pair for pair in message.get("headers", []) if pair[0].lower() != REQUEST_ID]
            message = {**message, "headers": [*others, (REQUEST_ID, exchange.id.encode())]}
        await send(message)

    return reply


async def _answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    pairs = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
