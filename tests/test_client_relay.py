"""What a gateway hands on: requests with the server's own key, answers unread, and connections that break."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

pytest.importorskip("aiohttp", reason="the serve extra is not installed")

from adaptkit.client import relay as relay_module
from adaptkit.client.relay import AnswerLate, ConnectionLost, Relay

FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"
BUSY = FINE.replace(b"200 OK", b"503 Busy")
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
BREAKS = CHUNKED + b"3\r\none\r\n"
DIES = b""


@dataclass
class Stub:
    """A server that sends the same bytes to whatever is asked, and notes the requests and its connections."""

    answer: bytes
    keeps: bool = False
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
                body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
                self.requests.append(head + body)
                writer.write(self.answer)
                await writer.drain()
                if not self.keeps:
                    break
        self.gone.set()
        writer.close()


@contextlib.asynccontextmanager
async def serving(answer: bytes, *, keeps: bool = False) -> AsyncIterator[tuple[Stub, Relay]]:
    stub = Stub(answer, keeps)
    server = await asyncio.start_server(stub.talk, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    stub.url = f"http://{host}:{port}"
    async with server, Relay() as relay:
        yield stub, relay


def test_a_request_arrives_as_it_was_written_with_the_servers_own_key() -> None:
    async def hand_on() -> bytes:
        tea = b"HTTP/1.1 418 Teapot\r\ncontent-type: text/tea\r\ncontent-length: 5\r\n\r\nshort"
        async with serving(tea) as (stub, relay):
            sent = {"x-request-id": "7", "content-type": "application/json", "accept-encoding": "identity"}
            relayed = await relay.post(
                f"{stub.url}/v1/completions", "secret", '{"a": "\u00e9"}'.encode(), sent
            )
            assert (relayed.status, relayed.media_type) == (418, "text/tea")
            assert await relayed.read() == b"short"
        [request] = stub.requests
        return request

    request = asyncio.run(hand_on())
    assert request.startswith(b"POST /v1/completions HTTP/1.1\r\n")
    assert request.endswith('\r\n\r\n{"a": "\u00e9"}'.encode())
    lines = request.lower().split(b"\r\n")
    for line in (b"authorization: bearer secret", b"x-request-id: 7", b"content-type: application/json"):
        assert lines.count(line) == 1
    assert [line for line in lines if line.startswith(b"accept-encoding")] == [b"accept-encoding: identity"]


def test_an_answer_without_a_type_counts_as_json() -> None:
    async def media_type() -> str:
        async with serving(FINE) as (stub, relay):
            answer = await relay.post(stub.url, "", b"{}", {})
            await answer.close()
            return answer.media_type

    assert asyncio.run(media_type()) == "application/json"


@pytest.mark.parametrize("answer", [DIES, BREAKS, CHUNKED, FINE[:-1]])
def test_a_server_that_dies_before_its_answer_is_complete_is_said_so(answer: bytes) -> None:
    async def hand_on() -> None:
        async with serving(answer) as (stub, relay):
            try:
                await (await relay.post(stub.url, "", b"{}", {})).read()
            finally:
                assert len(stub.requests) == 1, "no request is sent twice"

    with pytest.raises(ConnectionLost, match="no answer: (ServerDisconnected|ClientPayload)Error"):
        asyncio.run(hand_on())


def test_a_server_that_is_not_there_is_said_so() -> None:
    async def hand_on() -> None:
        async with Relay() as relay:
            await relay.post("http://127.0.0.1:9", "", b"{}", {})

    with pytest.raises(ConnectionLost, match="no answer: ClientConnectorError") as gone:
        asyncio.run(hand_on())
    assert not isinstance(gone.value, AnswerLate)


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "ANSWER_S", 0.2)

    async def hand_on() -> None:
        async with serving(b"HTTP/1.1", keeps=True) as (stub, relay):
            await relay.post(stub.url, "", b"{}", {})

    with pytest.raises(AnswerLate, match="Timeout"):
        asyncio.run(hand_on())


def test_pieces_come_until_the_connection_breaks() -> None:
    pieces: list[bytes] = []

    async def hand_on() -> None:
        async with serving(BREAKS) as (stub, relay):
            answer = await relay.post(stub.url, "", b"{}", {})
            async for piece in answer.pieces():
                pieces.append(piece)

    with pytest.raises(ConnectionLost):
        asyncio.run(hand_on())
    assert pieces == [b"one"]


@pytest.mark.parametrize(
    ("answer", "healthy", "text"),
    [
        (FINE, True, "fine"),
        (BUSY, False, ""),
        (DIES, False, ""),
        (b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n", False, ""),
    ],
)
def test_health_and_texts_of_a_server_that_is_away_are_no_error(
    answer: bytes, healthy: bool, text: str
) -> None:
    async def look() -> tuple[bool, str]:
        async with serving(answer) as (stub, relay):
            return await relay.healthy(stub.url, 1.0), await relay.get_text(stub.url, "", 1.0)

    assert asyncio.run(look()) == (healthy, text)


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def look() -> bool:
        async with serving(FINE) as (stub, relay):
            return await relay.healthy(stub.url, 1.0)

    assert asyncio.run(look())


def test_a_connection_that_was_read_to_its_end_is_used_again_and_another_one_is_hung_up() -> None:
    async def hand_on() -> tuple[int, int]:
        async with serving(FINE, keeps=True) as (stub, relay):
            for _ in range(3):
                await (await relay.post(stub.url, "", b"{}", {})).read()
            used_again = stub.connections
            stub.answer = BREAKS
            stub.gone.clear()
            answer = await relay.post(stub.url, "", b"{}", {})
            await answer.close()
            await asyncio.wait_for(stub.gone.wait(), 10)
            return used_again, len(stub.requests)

    assert asyncio.run(hand_on()) == (1, 4)


def test_each_piece_of_a_request_leaves_at_once() -> None:
    async def no_delay() -> int:
        async with serving(CHUNKED, keeps=True) as (stub, relay):
            answer = await relay.post(stub.url, "key", b"{}", {})
            assert (
                answer._response.connection is not None and answer._response.connection.transport is not None
            )
            connection = answer._response.connection.transport.get_extra_info("socket")
            value: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await answer.close()
        return value

    assert asyncio.run(no_delay()) != 0
