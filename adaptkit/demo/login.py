"""Ask for a password before the page answers anything, and slow down who tries wrong ones.

Gradio alone answers several routes to anyone even with its own `auth` set, and lets passwords be tried for
ever. This ASGI class stands before the whole application, so a route that a new release adds is closed as
well.

Without a password (on loopback only) the gate still refuses foreign Host and Origin headers: a web site that
makes a browser send requests to 127.0.0.1 gets nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adaptkit.demo.html import render
from adaptkit.demo.throttle import Tries
from adaptkit.demo.visitor_requests import VISITOR, read_body

LOGIN, LOGOUT, HEALTH = "/login", "/logout", "/health"
COOKIE, BROWSER_COOKIE = "adaptkit_demo", "adaptkit_demo_browser"
SESSION_S, BROWSER_S = 12 * 3600.0, 30 * 86400.0
MAX_SESSIONS = MAX_BROWSERS = 1000
MAX_LOGIN_BYTES, MAX_BODY_BYTES, LOGIN_BODY_S = 4096, 1_000_000, 10.0
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
"""What the page needs of Gradio. Its other routes (files, uploads, proxies, API descriptions) are closed."""
POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer a browser sends `Origin: null` with its own form
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
]


@dataclass(frozen=True)
class _Reply:
    """What the gate answers by itself."""

    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cookies: tuple[str, ...] = ()


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
        return self._cookie(COOKIE)

    @property
    def browser(self) -> str:
        """What a browser that has logged in before shows, so that others' wrong tries do not count for it."""
        return self._cookie(BROWSER_COOKIE)

    def _cookie(self, name: str) -> str:
        try:
            cookie = SimpleCookie(self.header(b"cookie"))
        except CookieError:
            return ""
        if name not in cookie:
            return ""
        return cookie[name].value


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
        self._browsers: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # the page uses no WebSockets
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        request = _Request.of(scope)
        reply = await self._own_reply(request, receive)
        if reply is not None:
            return await _send_reply(send, reply)
        visitor = request.address
        if self.password is not None:
            visitor = _digest(request.session)
        return await self.app({**scope, VISITOR: visitor}, receive, _with_headers(send))

    async def _own_reply(self, request: _Request, receive: Receive) -> _Reply | None:
        """Answer a request that ends here; None for one that may pass."""
        if self.hosts and request.host not in self.hosts:
            return _refuse(421, "this page answers to its own address only")
        if not request.own_origin:
            return _refuse(403, "sent by another site's page")
        if request.path == HEALTH:
            return _Reply(200, "ok")
        if self.password is not None:
            if request.path == LOGIN:
                return await self._login(request, receive)
            if not self._is_open(request.session):
                return _ask_to_log_in(request)
            if request.path == LOGOUT:
                return self._logout(request)
        if request.path not in OPEN_PATHS and not request.path.startswith(OPEN_ROOTS):
            return _refuse(404, "not found")
        return None

    async def _login(self, request: _Request, receive: Receive) -> _Reply:
        if request.method == "GET":
            if self._is_open(request.session):
                return _redirect("/")
            return _login_page(200)
        if request.method != "POST":
            return _refuse(405, "GET or POST")
        caller = self._caller(request)
        if (wait := self.tries.wait_s(caller)) > 0:
            problem = f"Too many wrong tries. Try again in {_duration(wait)}."
            return _login_page(429, problem, retry_after_s=wait)
        try:
            async with asyncio.timeout(LOGIN_BODY_S):
                body = await read_body(receive, MAX_LOGIN_BYTES)
        except TimeoutError:
            return _refuse(408, f"the form did not come within {LOGIN_BODY_S:g} s")
        if self.tries.wait_s(caller) > 0:  # tries that came while the form did
            return _refuse(429, "too many wrong tries")
        form = parse_qs((body or b"").decode("utf-8", "replace"))
        if not _same(form.get("password", [""])[0], self.password or ""):
            self.tries.wrong(caller)
            return _login_page(401, "That is not the password.")
        self.tries.right(caller)
        browser = request.browser
        if not self._knows(browser):
            browser = self._remember_browser()
        session = _cookie(COOKIE, self._open(), request, SESSION_S)
        return _redirect("/", session, _cookie(BROWSER_COOKIE, browser, request, BROWSER_S))

    def _caller(self, request: _Request) -> str:
        """Whose wrong tries count: a browser's that has logged in before, else all of its address."""
        if self._knows(request.browser):
            return f"browser {_digest(request.browser)}"
        return request.address

    def _knows(self, browser: str) -> bool:
        return bool(browser) and _digest(browser) in self._browsers

    def _remember_browser(self) -> str:
        token = secrets.token_urlsafe(32)
        self._browsers[_digest(token)] = None
        while len(self._browsers) > MAX_BROWSERS:
            self._browsers.popitem(last=False)
        return token

    def _logout(self, request: _Request) -> _Reply:
        self._sessions.pop(_digest(request.session), None)
        return _redirect(LOGIN, _cookie(COOKIE, "", request, 0))

    def _open(self) -> str:
        token = secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = self._clock() + SESSION_S
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def _is_open(self, token: str) -> bool:
        return bool(token) and self._sessions.get(_digest(token), -math.inf) > self._clock()


def _cookie(name: str, token: str, request: _Request, age_s: float) -> str:
    """Write a cookie that scripts and other sites do not get."""
    cookie = f"{name}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age_s:.0f}"
    if request.scheme == "https":
        cookie += "; Secure"
    return cookie


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _same(candidate: str, password: str) -> bool:
    """Compare two passwords; takes the same time however much of the candidate is right."""
    digests = [hashlib.sha256(text.encode()).digest() for text in (candidate, password)]
    return hmac.compare_digest(*digests)


def _duration(seconds: float) -> str:
    if seconds <= 90:
        return f"{math.ceil(seconds)} seconds"
    return f"{math.ceil(seconds / 60)} minutes"


def _ask_to_log_in(request: _Request) -> _Reply:
    """Send a browser to the login, and refuse all else; the same for every path, so that nobody learns which
    there are."""
    if request.method == "GET" and "text/html" in request.header(b"accept"):
        return _redirect(LOGIN)
    return _refuse(401, "log in first")


def _login_page(status: int, problem: str = "", retry_after_s: float = 0.0) -> _Reply:
    headers = {"content-type": "text/html; charset=utf-8"}
    if retry_after_s:
        headers["retry-after"] = str(math.ceil(retry_after_s))
    return _Reply(status, render("login", problem=problem, path=LOGIN), headers)


def _redirect(location: str, *cookies: str) -> _Reply:
    return _Reply(303, headers={"location": location}, cookies=cookies)


def _refuse(status: int, message: str) -> _Reply:
    return _Reply(status, json.dumps({"error": message}), {"content-type": "application/json"})


async def _send_reply(send: Send, reply: _Reply) -> None:
    content = reply.body.encode()
    length = str(len(content))
    fields = {"content-type": "text/plain; charset=utf-8", "content-length": length, **reply.headers}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
    pairs += [(b"set-cookie", cookie.encode("latin-1")) for cookie in reply.cookies]
    await send({"type": "http.response.start", "status": reply.status, "headers": pairs + HEADERS})
    await send({"type": "http.response.body", "body": content})


def _with_headers(send: Send) -> Send:
    """Add the security headers to what the application answers; a browser may keep the page's own files."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": _secured(message.get("headers", []))}
        await send(message)

    return sending


def _secured(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Put our headers in place of the application's own, but for files that never change."""
    theirs = [(name.lower(), value) for name, value in headers]
    ours = dict(HEADERS)
    for name, value in theirs:
        if name == b"cache-control" and b"immutable" in value:
            ours[name] = value
    return [pair for pair in theirs if pair[0] not in ours] + list(ours.items())
