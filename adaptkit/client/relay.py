"""Hand requests on to the servers behind a gateway, and their answers back as they come, unread.

    async with Relay() as relay:
        answer = await relay.post("http://127.0.0.1:8001/v1/completions", key, body, headers)
        async for piece in answer.pieces(): ...

`connection` asks one server and reads what it answers; here nothing is read, and no request is sent twice.
The key goes to the named server only, never through a proxy of the environment or to where it redirects.
aiohttp, which the extras of serving bring, parses in C: with httpx a request took several times as long here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

import aiohttp

from adaptkit.errors import ServerError

CONNECT_S, ANSWER_S = 5.0, 600.0
IDLE_S = 2.0
"""How long an idle connection is kept: vLLM closes it after 5 s, and a request just then would be lost."""
JSON = "application/json"
FAILURES = (aiohttp.ClientError, TimeoutError, OSError)


class ConnectionLost(ServerError):
    """No answer came, or only a part of one."""


class AnswerLate(ConnectionLost):
    """The connection stands, and nothing came over it in time."""


class RelayedAnswer:
    """A server's answer, whose body has not been read yet.

    Attributes:
        status: its HTTP status.
        media_type: its content type, JSON where the server names none.
    """

    def __init__(self, response: aiohttp.ClientResponse):
        self.status = response.status
        self.media_type = response.headers.get("content-type", JSON)
        self._response = response

    async def read(self) -> bytes:
        """Read the whole body, then hang up.

        Raises: ConnectionLost.
        """
        try:
            return await self._response.read()
        except FAILURES as error:
            raise _lost(error) from None
        finally:
            await self.close()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; whoever asks for it must `close` the answer.

        Raises: ConnectionLost, also in the middle.
        """
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except FAILURES as error:
            raise _lost(error) from None

    async def close(self) -> None:
        """Hang up, which ends the server's work; a connection that was read to its end stays open."""
        self._response.close()


class Relay:
    """Sends requests to any number of servers over connections that are kept for a moment."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        """The session, made once a loop runs."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S)
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S)  # it sets TCP_NODELAY
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        """Hang up on every server."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, url: str, key: str, content: bytes, headers: Mapping[str, str]) -> RelayedAnswer:
        """Send one request; its answer comes as soon as the headers are there. `read` or `close` it.

        Raises: ConnectionLost.
        """
        fields = {**headers, "authorization": f"Bearer {key}"}
        try:
            answer = await self._http.post(url, data=content, headers=fields, allow_redirects=False)
        except FAILURES as error:
            raise _lost(error) from None
        return RelayedAnswer(answer)

    async def get_text(self, url: str, key: str, timeout_s: float) -> str:
        """Read the text at an address; empty where there is none in time."""
        status, text = await self._get(url, timeout_s, {"authorization": f"Bearer {key}"})
        return text if status == 200 else ""

    async def healthy(self, base_url: str, timeout_s: float) -> bool:
        """Ask whether the server at `http://host:port` says in time that it is well."""
        status, _ = await self._get(f"{base_url}/health", timeout_s, {})
        return status == 200

    async def _get(self, url: str, timeout_s: float, headers: Mapping[str, str]) -> tuple[int, str]:
        """The status and the text at an address; 0 and nothing where no answer comes."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._http.get(url, headers=headers, timeout=timeout, allow_redirects=False) as answer:
                return answer.status, (await answer.read()).decode(errors="replace")
        except FAILURES:
            return 0, ""


def _lost(error: Exception) -> ConnectionLost:
    kind = AnswerLate if isinstance(error, TimeoutError) else ConnectionLost
    return kind(f"no answer: {type(error).__name__}", fix="ask again")
