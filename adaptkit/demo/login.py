"""What stands before the page: a login with a limit on wrong tries, and nothing else without it.

Gradio alone answers several routes to anyone even with its own `auth` set, and lets passwords be tried for
ever. This ASGI class stands before the whole application, so a route that a new release adds is closed as
well.

Without a password (on loopback only) the gate still refuses foreign Host and Origin headers: a web site that
makes a browser send requests to 127.0.0.1 gets nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adaptkit.demo.html import render

LOGIN, LOGOUT, HEALTH = "/login", "/logout", "/health"
COOKIE = "adaptkit_demo"
SESSION_S = 12 * 3600.0
MAX_SESSIONS, MAX_ADDRESSES = 1000, 10_000
MAX_LOGIN_BYTES, MAX_BODY_BYTES = 4096, 1_000_000
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = frozenset(
    {
        "/",
        "/config",
        "/theme.css",
        "/favicon.ico",
        "/gradio_api/queue/join",
        "/gradio_api/queue/data",
        "/gradio_api/cancel",
        "/gradio_api/reset",
        "/gradio_api/app_id",
        "/gradio_api/startup-events",
    }
)
OPEN_ROOTS = ("/assets/", "/static/", "/gradio_api/heartbeat/")
"""What the page needs of Gradio. Whatever else it offers (files, uploads, proxies, API descriptions) is not
there."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer a browser sends `Origin: null` with its own form
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
]


class Tries:
    """Wrong passwords, by address and in all.

    Five wrong ones in a row and an address waits 30 s, twice as long after each further one, up to 15
    minutes. All
    addresses together may be wrong 30 times a minute: many addresses do not help to guess.
    """

    FREE, FIRST_WAIT_S, LONGEST_WAIT_S, IN_ALL, WINDOW_S = 5, 30.0, 900.0, 30, 60.0

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._recent: list[float] = []

    def wait_s(self, address: str) -> float:
        """How long this address must wait before its next try; 0 for not at all."""
        now = self._clock()
        self._recent = [at for at in self._recent if now - at < self.WINDOW_S]
        count, last = self._wrong.get(_network(address), (0, 0.0))
        own = 0.0
        if count >= self.FREE:
            pause = min(self.FIRST_WAIT_S * 2 ** (count - self.FREE), self.LONGEST_WAIT_S)
            own = max(0.0, last + pause - now)
        crowded = self.WINDOW_S - (now - self._recent[0]) if len(self._recent) >= self.IN_ALL else 0.0
        return max(own, crowded)

    def wrong(self, address: str) -> None:
        network = _network(address)
        count, _ = self._wrong.pop(network, (0, 0.0))
        self._wrong[network] = (count + 1, self._clock())
        self._recent.append(self._clock())
        while len(self._wrong) > MAX_ADDRESSES:
            self._wrong.popitem(last=False)

    def right(self, address: str) -> None:
        self._wrong.pop(_network(address), None)


def _network(address: str) -> str:
    """An IPv6 caller owns 2**64 addresses: they count as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address


@dataclass(frozen=True)
class _Request:
    """What the gate needs of a request."""

    method: str
    path: str
    address: str
    headers: dict[bytes, bytes]
    scheme: str

    @classmethod
    def of(cls, scope: Scope) -> _Request:
        client = scope.get("client") or ("", 0)
        return cls(
            scope.get("method", "GET"),
            scope["path"],
            client[0],
            dict(scope["headers"]),
            scope.get("scheme", "http"),
        )

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def host(self) -> str:
        """Host without its port."""
        return _host_name(self.header(b"host"))

    @property
    def own_origin(self) -> bool:
        """False for a request that another site's page made the browser send."""
        origin = self.header(b"origin")
        return not origin or urlsplit(origin).netloc.lower() == self.header(b"host").lower()

    @property
    def session(self) -> str:
        try:
            cookie = SimpleCookie(self.header(b"cookie"))
        except CookieError:
            return ""
        return cookie[COOKIE].value if COOKIE in cookie else ""

    @property
    def body_bytes(self) -> int:
        length = self.header(b"content-length")
        return int(length) if length.isdecimal() else 0


def _host_name(netloc: str) -> str:
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower()
    except ValueError:
        return ""


class Gate:
    """Lets a request through to `app` if it may pass.

    Args:
        app: the whole application.
        password: what opens it; None for no login.
        hosts: names by which the page may be called; empty for any, which is safe behind a login only.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        app: ASGIApp,
        password: str | None,
        hosts: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ):
        self.app, self.password, self.hosts, self._clock = app, password, hosts, clock
        self.tries = Tries(clock)
        self._sessions: OrderedDict[str, float] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # the page uses no WebSockets
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        request = _Request.of(scope)
        answer = await self._stopped(request, receive)
        if answer is not None:
            return await _reply(send, *answer)
        return await self.app(scope, receive, _with_headers(send))

    async def _stopped(self, request: _Request, receive: Receive) -> tuple[int, str, dict[str, str]] | None:
        """(status, body, headers) of a request that ends here; None for one that may pass."""
        if self.hosts and request.host not in self.hosts:
            return _refuse(421, "this page answers to its own address only")
        if not request.own_origin:
            return _refuse(403, "sent by another site's page")
        if request.path == HEALTH:
            return 200, "ok", {}
        if self.password is not None:
            if request.path == LOGIN:
                return await self._login(request, receive)
            if not self._known(request.session):
                return self._unknown(request)
            if request.path == LOGOUT:
                return self._logout(request)
        if request.path not in OPEN_PATHS and not request.path.startswith(OPEN_ROOTS):
            return _refuse(404, "not found")
        if request.body_bytes > MAX_BODY_BYTES:
            return _refuse(413, f"at most {MAX_BODY_BYTES} bytes")
        return None

    def _unknown(self, request: _Request) -> tuple[int, str, dict[str, str]]:
        """The same for every path, so that nobody learns which there are."""
        if request.method == "GET" and "text/html" in request.header(b"accept"):
            return 303, "", {"location": LOGIN}
        return _refuse(401, "log in first")

    async def _login(self, request: _Request, receive: Receive) -> tuple[int, str, dict[str, str]]:
        if request.method == "GET":
            if self._known(request.session):
                return 303, "", {"location": "/"}
            return _login_page(200)
        if request.method != "POST":
            return _refuse(405, "GET or POST")
        if (wait := self.tries.wait_s(request.address)) > 0:
            return _login_page(429, f"Too many wrong tries. Try again in {_seconds(wait)}.", retry_after=wait)
        body = await _read(receive, MAX_LOGIN_BYTES)
        given = parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0] if body is not None else ""
        if not _same(given, self.password or ""):
            self.tries.wrong(request.address)
            return _login_page(401, "That is not the password.")
        self.tries.right(request.address)
        return 303, "", {"location": "/", "set-cookie": self._cookie(self._open(), request, SESSION_S)}

    def _logout(self, request: _Request) -> tuple[int, str, dict[str, str]]:
        self._sessions.pop(_digest(request.session), None)
        return 303, "", {"location": LOGIN, "set-cookie": self._cookie("", request, 0)}

    def _open(self) -> str:
        token = secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = self._clock() + SESSION_S
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def _known(self, token: str) -> bool:
        return bool(token) and self._sessions.get(_digest(token), -math.inf) > self._clock()

    def _cookie(self, token: str, request: _Request, age_s: float) -> str:
        secure = "; Secure" if request.scheme == "https" else ""
        return f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age_s:.0f}{secure}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _same(given: str, password: str) -> bool:
    """Takes the same time however much of it is right."""
    return hmac.compare_digest(
        hashlib.sha256(given.encode()).digest(), hashlib.sha256(password.encode()).digest()
    )


def _seconds(wait: float) -> str:
    return f"{math.ceil(wait)} seconds" if wait <= 90 else f"{math.ceil(wait / 60)} minutes"


def _login_page(status: int, problem: str = "", retry_after: float = 0.0) -> tuple[int, str, dict[str, str]]:
    headers = {"content-type": "text/html; charset=utf-8"} | (
        {"retry-after": str(math.ceil(retry_after))} if retry_after else {}
    )
    return status, render("login", problem=problem, path=LOGIN), headers


def _refuse(status: int, message: str) -> tuple[int, str, dict[str, str]]:
    return status, json.dumps({"error": message}), {"content-type": "application/json"}


async def _read(receive: Receive, most: int) -> bytes | None:
    """The body; None if it is longer than `most`."""
    body = b""
    while True:
        message: Message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return body


async def _reply(send: Send, status: int, body: str, headers: dict[str, str]) -> None:
    content = body.encode()
    told = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(content)), **headers}
    fields: list[Any] = [(key.encode(), value.encode("latin-1")) for key, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields + HEADERS})
    await send({"type": "http.response.body", "body": content})


def _with_headers(send: Send) -> Send:
    """Adds the security headers to what the application answers; files of the page itself may be kept by the
    browser."""
    ours = {name for name, _ in HEADERS}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            told = [(key.lower(), value) for key, value in message.get("headers", [])]
            kept = [
                (b"cache-control", value)
                for key, value in told
                if key == b"cache-control" and b"immutable" in value
            ]
            added = [pair for pair in HEADERS if pair[0] != b"cache-control" or not kept] + kept
            message = {**message, "headers": [pair for pair in told if pair[0] not in ours] + added}
        await send(message)

    return sending
