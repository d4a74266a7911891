"""Measure what the gateway itself costs a request, over a stand-in of vLLM that answers at once.

    PYTHONPATH=.:tests python benchmarks/front_cost.py [REQUESTS]

Two ways are measured in turns: straight to the engine, and through guard and router. Prints the p50 of both
in milliseconds, what the front adds, and the same for the first piece of a stream; then the processor time
that the front's thread took for one request, which a busy machine does not change.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from fake_serving import KEY, fake_launch, running

BODY = {"model": "fake", "prompt": "a" * 2000, "max_tokens": 5}
WARM = 20


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
            [front] = [thread for thread in threading.enumerate() if thread.name.endswith("(run)")]
            clock = time.pthread_getcpuclockid(front.ident or 0)
            for what, ask in {"whole answer": _whole, "first streamed piece": _first_piece}.items():
                began = time.clock_gettime(clock)
                p50 = _measure(ways, ask, requests)
                own = 1000 * (time.clock_gettime(clock) - began) / (requests + WARM)
                print(f"{_line(what, p50)}; the front's own processor time {own:.2f} ms")


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
