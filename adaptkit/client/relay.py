"""Hand requests on to the servers behind a gateway, and their answers back as they come, unread.

    async with Relay() as relay:
        answer = await relay.post("http://127.0.0.1:8001/v1/completions", key, body, headers)
        async for piece in answer.pieces(): ...

`connection` asks one server and reads what it answers; here nothing is read, and nothing is tried again. The
key goes to the named server only, never through a proxy of the environment.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

import httpx

from adaptkit.errors import ServerError

CONNECT_S, ANSWER_S = 5.0, 600.0
IDLE_S = 2.0
"""How long an idle connection is kept: vLLM closes it after 5 s, and a request just then would be lost."""
IDLE_CONNECTIONS = 64


class ConnectionLost(ServerError):
    """No answer came, or only a part of one."""


class RelayedAnswer:
    """A server's answer, whose body has not been read yet.

    Attributes:
        status: its HTTP status.
        media_type: its content type, JSON where the server names none.
    """

    def __init__(self, response: httpx.Response):
        self.status = response.status_code
        self.media_type = response.headers.get("content-type", "application/json")
        self._response = response

    async def read(self) -> bytes:
        """Read the whole body, then hang up.

        Raises: ConnectionLost.
        """
        try:
            return await self._response.aread()
        except httpx.HTTPError as error:
            raise _lost(error) from None
        finally:
            await self.close()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; whoever asks for it must `close` the answer.

        Raises: ConnectionLost, also in the middle.
        """
        try:
            async for piece in self._response.aiter_raw():
                yield piece
        except httpx.HTTPError as error:
            raise _lost(error) from None

    async def close(self) -> None:
        """Hang up; the server then stops working on the request."""
        await self._response.aclose()


class Relay:
    """Sends requests to any number of servers over connections that are kept for a moment.

    Args:
        transport: for tests; httpx's own by default.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None):
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=IDLE_CONNECTIONS, keepalive_expiry=IDLE_S
        )
        # Each piece leaves at once, however small.
        no_delay = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        transport = transport or httpx.AsyncHTTPTransport(limits=limits, socket_options=no_delay)
        self._http = httpx.AsyncClient(timeout=timeout, trust_env=False, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up on every server."""
        await self._http.aclose()

    async def post(self, url: str, key: str, content: bytes, headers: Mapping[str, str]) -> RelayedAnswer:
        """Send one request; its answer comes as soon as the headers are there. `read` or `close` it.

        Raises: ConnectionLost.
        """
        fields = {**headers, "authorization": f"Bearer {key}"}
        request = self._http.build_request("POST", url, content=content, headers=fields)
        try:
            return RelayedAnswer(await self._http.send(request, stream=True))
        except httpx.HTTPError as error:
            raise _lost(error) from None

    async def get_text(self, url: str, key: str, timeout_s: float) -> str:
        """Read the text at an address; empty where there is none in time."""
        try:
            headers = {"authorization": f"Bearer {key}"}
            answer = await self._http.get(url, headers=headers, timeout=timeout_s)
        except httpx.HTTPError:
            return ""
        if answer.status_code != 200:
            return ""
        return answer.text

    async def healthy(self, base_url: str, timeout_s: float) -> bool:
        """Ask whether the server at `http://host:port` says in time that it is well."""
        try:
            answer = await self._http.get(f"{base_url}/health", timeout=timeout_s)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200


def _lost(error: httpx.HTTPError) -> ConnectionLost:
    return ConnectionLost(f"no answer: {type(error).__name__}", fix="ask again")
