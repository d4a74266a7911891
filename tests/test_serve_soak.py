"""Many clients, an engine that is killed under them, and sockets that are held open and say nothing."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="the serve extra is not installed")
pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import contextlib
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
from fake_serving import KEY, PATIENCE_S, eventually, fake_launch, running
from soak import count, soaked

CLIENTS, KILLS, SOCKETS = 16, 2, soaked(60, 300)
SECONDS = soaked(6, 600)
HEADERS = {"authorization": f"Bearer {KEY}"}


def child_of(engine) -> psutil.Process:
    """The engine's process, which the server started."""
    name = engine.launch.name
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # one that has just ended has no command line
            if name in child.cmdline() and child.is_running():
                return child
    raise AssertionError(f"{name} has no process")


def test_clients_get_an_answer_or_a_503_whoever_dies_and_then_answers_again(tmp_path: Path) -> None:
    statuses: Counter[int | str] = Counter()
    end, together = threading.Event(), threading.Lock()

    def ask_until_told(url: str) -> None:
        with httpx.Client(base_url=url, headers=HEADERS, timeout=PATIENCE_S) as client:
            while not end.is_set():
                try:
                    status: int | str = client.post("/v1/completions", json={"prompt": "a"}).status_code
                except httpx.HTTPError as error:
                    status = type(error).__name__
                with together:
                    statuses[status] += 1
                if status != 200:
                    time.sleep(0.05)

    def answered_again() -> None:
        before = statuses[200]
        eventually(lambda: statuses[200] > before + CLIENTS, "all clients get answers")

    often = {"requests_per_minute": 1_000_000}  # the long form asks more often than one key may
    with running([fake_launch(tmp_path)], tmp_path, **often) as (client, server):
        url = f"http://127.0.0.1:{server.listening.getsockname()[1]}"
        threads = [threading.Thread(target=ask_until_told, args=(url,)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            time.sleep(SECONDS / (KILLS + 1))
            answered_again()
            os.kill(child_of(server.engines[0]).pid, signal.SIGKILL)
            eventually(lambda: server.engines[0].state != "ready", "its death is seen")
        eventually(lambda: server.engines[0].state == "ready", "the engine is back")
        time.sleep(SECONDS / (KILLS + 1))
        answered_again()
        end.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert client.healthy()
    for status, number in statuses.items():
        count(f"requests of {CLIENTS} clients, engine killed {KILLS} times: {status}", number)
    assert set(statuses) <= {200, 502, 503}, statuses
    assert statuses[200] > (KILLS + 1) * CLIENTS


def test_sockets_held_open_keep_nobody_from_an_answer(tmp_path: Path) -> None:
    """Some say nothing, some half a request line, some a head without its body, some dribble."""
    key = KEY.encode()
    begun = (
        b"",
        b"POST /v1/comp",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-slow: ",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-length: 9\r\n\r\n{"
        % key,
    )
    with running([fake_launch(tmp_path)], tmp_path) as (_, server), contextlib.ExitStack() as stack:
        address = server.listening.getsockname()
        held = [
            stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S)) for _ in range(SOCKETS)
        ]
        for number, each in enumerate(held):
            each.sendall(begun[number % len(begun)])
        seconds = []
        url = f"http://127.0.0.1:{address[1]}"
        with httpx.Client(base_url=url, headers=HEADERS, timeout=PATIENCE_S) as client:
            for number in range(20):
                started = time.monotonic()
                assert client.post("/v1/completions", json={"prompt": "a"}).status_code == 200
                seconds.append(time.monotonic() - started)
                with contextlib.suppress(OSError):  # the server may have given it up
                    held[number].sendall(b"x")
            assert client.get("/health").status_code == 200
        count(f"sockets held open; 20 requests beside them took at most {max(seconds):.2f} s each", SOCKETS)
