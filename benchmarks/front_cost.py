"""Measure what the gateway itself costs a request, over a stand-in of vLLM that answers at once.

    PYTHONPATH=.:tests python benchmarks/front_cost.py [REQUESTS]

Ways are measured in turns: straight to the engine, through guard and router, and through a relay that does
nothing but read and pass on, with the same libraries: what no front in Python goes below. Prints the p50 in
milliseconds and what the front adds, for whole answers and for the first piece of a stream. Then the
processor time for one request, of the front's thread and of the bare relay's: the median of rounds, and the
least one, which a busy machine changes less.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fake_serving import KEY, fake_launch, running

from adaptkit.client.relay import Relay

BODY = {"model": "fake", "prompt": "a" * 2000, "max_tokens": 5}
WARM = 20
ROUND = 20
"""Requests of one way before the next has its turn, where processor time is measured."""


def main() -> None:
    """Print one line per way and kind of answer."""
    requests = 300
    if len(sys.argv) > 1:
        requests = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        launches = [fake_launch(Path(folder))]
        with running(launches, Path(folder), requests_per_minute=0) as (client, server):
            engine = server.engines[0]
            ways = {"engine": (engine.url, engine.key), "front": (client.base_url, KEY)}
            for what, ask in {"whole answer": _whole, "first streamed piece": _first_piece}.items():
                print(_line(what, _measure(ways, ask, requests)))
            [front] = [thread for thread in threading.enumerate() if thread.name.endswith("(run)")]
            relay, address = _bare_relay(engine.url, engine.key)
            threads = {"front": (client.base_url, front), "bare relay": (address, relay)}
            for name, times in _processor_times(threads, max(1, requests // ROUND)).items():
                median, least = statistics.median(times), min(times)
                print(f"processor time of the {name}: {median:.2f} ms a request, at least {least:.2f} ms")


def _bare_relay(engine_url: str, engine_key: str) -> tuple[threading.Thread, str]:
    """Start what no front goes below: uvicorn reads a request, aiohttp hands it on; nothing is looked at."""
    relay = Relay()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        headers = {"content-type": "application/json"}
        answer = await relay.post(engine_url + scope["path"], engine_key, body, headers)
        content = await answer.read()
        length = (b"content-length", str(len(content)).encode())
        await send({"type": "http.response.start", "status": answer.status, "headers": [length]})
        await send({"type": "http.response.body", "body": content})

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, access_log=False, lifespan="off"))

    def run() -> None:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[listening]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, f"http://127.0.0.1:{listening.getsockname()[1]}"


def _processor_times(threads: dict[str, tuple[str, threading.Thread]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each thread's own processor time for a request, round by round."""
    times: dict[str, list[float]] = {name: [] for name in threads}
    headers = {"authorization": f"Bearer {KEY}"}
    clients = {name: httpx.Client(base_url=url, headers=headers) for name, (url, _) in threads.items()}
    for turn in range(rounds + 1):
        for name, (_, thread) in threads.items():
            clock = time.pthread_getcpuclockid(thread.ident or 0)
            began = time.clock_gettime(clock)
            for _ in range(ROUND):
                _whole(clients[name])
            if turn:  # the first round opens connections
                times[name].append(1000 * (time.clock_gettime(clock) - began) / ROUND)
    for client in clients.values():
        client.close()
    return times


def _measure(
    ways: dict[str, tuple[str, str]], ask: Callable[[httpx.Client], float], requests: int
) -> dict[str, float]:
    """Ask each way in turns; the p50 of each, in milliseconds."""
    clients = {
        name: httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"})
        for name, (url, key) in ways.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(requests + WARM):
        for name, client in clients.items():
            took = ask(client)
            if turn >= WARM:  # the first ones open connections
                seconds[name].append(took)
    for client in clients.values():
        client.close()
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def _whole(client: httpx.Client) -> float:
    began = time.perf_counter()
    client.post("/v1/completions", json=BODY).raise_for_status()
    return time.perf_counter() - began


def _first_piece(client: httpx.Client) -> float:
    began = time.perf_counter()
    with client.stream("POST", "/v1/completions", json={**BODY, "stream": True}) as answer:
        pieces = answer.iter_raw()
        next(pieces)
        took = time.perf_counter() - began
        for _ in pieces:
            continue
    return took


def _line(what: str, p50: dict[str, float]) -> str:
    added = p50["front"] - p50["engine"]
    return (
        f"{what}: engine {p50['engine']:.2f} ms, through the front {p50['front']:.2f} ms, "
        f"added {added:.2f} ms, ratio {p50['front'] / p50['engine']:.2f}"
    )


if __name__ == "__main__":
    main()
