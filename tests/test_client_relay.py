"""What a gateway hands on: requests with the server's own key, answers unread, and connections that break."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from adaptkit.client.relay import ConnectionLost, Relay

URL = "http://host:1/v1/completions"
Answer = Callable[[httpx.Request], httpx.Response]


class Broken(httpx.AsyncByteStream):
    """A body that ends too early."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"one"
        raise httpx.ReadError("reset")


def relay_to(answer: Answer) -> Relay:
    return Relay(httpx.MockTransport(answer))


def fails(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def breaks(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, stream=Broken())


def test_a_request_arrives_as_it_was_written_with_the_servers_own_key() -> None:
    arrived: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        arrived.append(request)
        return httpx.Response(418, text="short", headers={"content-type": "text/tea"})

    async def hand_on() -> None:
        async with relay_to(answer) as relay:
            relayed = await relay.post(URL, "secret", b'{"a": 1}', {"x-request-id": "7"})
            assert (relayed.status, relayed.media_type) == (418, "text/tea")
            assert await relayed.read() == b"short"

    asyncio.run(hand_on())
    (request,) = arrived
    assert (str(request.url), request.content) == (URL, b'{"a": 1}')
    assert request.headers["authorization"] == "Bearer secret" and request.headers["x-request-id"] == "7"


def test_an_answer_without_a_type_counts_as_json() -> None:
    async def media_type() -> str:
        async with relay_to(lambda request: httpx.Response(200, content=b"{}")) as relay:
            answer = await relay.post(URL, "", b"{}", {})
            await answer.close()
            return answer.media_type

    assert asyncio.run(media_type()) == "application/json"


@pytest.mark.parametrize("answer", [fails, breaks])
def test_a_server_that_dies_before_its_answer_is_complete_is_said_so(answer: Answer) -> None:
    async def hand_on() -> bytes:
        async with relay_to(answer) as relay:
            return await (await relay.post(URL, "", b"{}", {})).read()

    with pytest.raises(ConnectionLost, match="no answer: (Connect|Read)Error"):
        asyncio.run(hand_on())


def test_pieces_come_until_the_connection_breaks() -> None:
    pieces: list[bytes] = []

    async def hand_on() -> None:
        async with relay_to(breaks) as relay:
            answer = await relay.post(URL, "", b"{}", {})
            async for piece in answer.pieces():
                pieces.append(piece)

    with pytest.raises(ConnectionLost):
        asyncio.run(hand_on())
    assert pieces == [b"one"]


@pytest.mark.parametrize(
    ("answer", "healthy", "text"),
    [
        (lambda request: httpx.Response(200, text="fine"), True, "fine"),
        (lambda request: httpx.Response(503, text="fine"), False, ""),
        (fails, False, ""),
    ],
)
def test_health_and_texts_of_a_server_that_is_away_are_no_error(
    answer: Answer, healthy: bool, text: str
) -> None:
    async def look() -> tuple[bool, str]:
        async with relay_to(answer) as relay:
            return await relay.healthy("http://host:1", 1.0), await relay.get_text(URL, "", 1.0)

    assert asyncio.run(look()) == (healthy, text)


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert not Relay()._http._mounts


def test_each_piece_of_a_request_leaves_at_once() -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async def no_delay() -> int:
        server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with server, Relay() as relay:
            answer = await relay.post(f"http://{host}:{port}/", "key", b"{}", {})
            connection = answer._response.extensions["network_stream"].get_extra_info("socket")
            value = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await answer.read()
        return value

    assert asyncio.run(no_delay()) == 1
