"""Addresses: a taken port is said at once, and loopback is told from the network."""

from __future__ import annotations

import asyncio
import socket

import pytest

from adaptkit.errors import ConfigError
from adaptkit.serve.address import free_port, http_url, is_loopback, listen


def test_a_taken_port_is_said_at_once() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port + 1}"):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match="cannot listen"):
        listen("203.0.113.1", 8000)
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("example")
    if socket.has_ipv6:
        listen("::1", 0).close()


def test_an_impossible_port_is_said() -> None:
    with pytest.raises(ConfigError, match="no such port"):
        listen("127.0.0.1", 70_000)


def test_a_free_port_can_be_taken() -> None:
    with listen("127.0.0.1", free_port()) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"


def test_addresses_are_written_as_urls() -> None:
    assert http_url("127.0.0.1", 8000) == "http://127.0.0.1:8000"
    assert http_url("::1", 80) == "http://[::1]:80"


def test_what_is_answered_leaves_at_once() -> None:
    async def accepted() -> int:
        sockets: list[socket.socket] = []

        def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            sockets.append(writer.get_extra_info("socket"))

        server = await asyncio.start_server(note, sock=listen("127.0.0.1", 0))
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            while not sockets:
                await asyncio.sleep(0.01)
            no_delay = sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
        return no_delay

    assert asyncio.run(accepted()) == 1, "else each answer's second packet waits 40 ms"
