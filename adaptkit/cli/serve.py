"""The commands that put models behind an endpoint and measure what they serve.

adaptkit serve runs/STUDY          a vLLM server behind a guard, ready when it has given one real answer
adaptkit bench runs/STUDY          requests/s, waiting, memory and cost of the same server
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptkit.cli import arguments, render
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Arms, Models, Seed, Task
from adaptkit.doctor import extras
from adaptkit.errors import ConfigError
from adaptkit.serve.limits import HIGHEST

if TYPE_CHECKING:
    from adaptkit.export.source import Source
    from adaptkit.serve.api_keys import Keys
    from adaptkit.serve.bench_results import Price
    from adaptkit.serve.engine.command import Launch
    from adaptkit.serve.engine.launches import ModelWord
    from adaptkit.serve.gateway.router import Search
    from adaptkit.serve.limits import Limits

app = typer.Typer()

Port = Annotated[int, typer.Option(help="The one port for all models.", min=1, max=65535)]
Host = Annotated[str, typer.Option(help="The address to listen on.")]
Format = Annotated[
    str | None, typer.Option(help="Serve the export of this format: fp32, bf16, int8, int4 or fp8.")
]
KeyFile = Annotated[
    Path | None, typer.Option(help="Keys, one per line; else ADAPTKIT_API_KEY, else one is made.")
]
SignedBy = Annotated[
    Path | None,
    typer.Option(metavar="PEM", help="Serve only folders signed with this public key's other half."),
]
MaxBody = Annotated[int, typer.Option(help="Bytes of a request's body; 0 for no limit.", min=0, max=HIGHEST)]
MaxTokens = Annotated[
    int, typer.Option(help="Tokens a request may ask for; 0 for no limit.", min=0, max=HIGHEST)
]
Rate = Annotated[int, typer.Option(help="Requests per minute and key; 0 for no limit.", min=0, max=HIGHEST)]
IndexFolder = Annotated[
    Path | None, typer.Option("--index", metavar="INDEX", help="Answer /v1/search over this index.")
]
Print = Annotated[bool, typer.Option("--print", help="Print the exact vLLM commands and start nothing.")]

Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="Also measure the export of this format; may be repeated."),
]
Concurrency = Annotated[
    list[int] | None,
    typer.Option(help="Requests in flight; may be repeated (1, 8 and 32).", min=1, max=10_000),
]
InputTokens = Annotated[int, typer.Option(help="Tokens of each request.", min=1, max=10_000_000)]
OutputTokens = Annotated[int, typer.Option(help="Tokens of each answer.", min=1, max=10_000_000)]
Prompts = Annotated[
    int,
    typer.Option(help="Requests per measurement; 0 = eight per request in flight.", min=0, max=10_000_000),
]
Rounds = Annotated[int, typer.Option(help="Turns of each model; the median counts.", min=1, max=1000)]
UsdPerHour = Annotated[float | None, typer.Option(help="Price of this machine.", min=0, max=1e6)]
PriceSource = Annotated[str, typer.Option(help="Where the price was read.")]
PriceDate = Annotated[str, typer.Option(help="When it was read.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where to; bench.json of the study or run if not given.")
]


@command(
    app,
    "serve",
    [
        "adaptkit serve runs/quickstart-1a2b3c4d",
        "adaptkit serve runs/quickstart-1a2b3c4d --task package",
        "adaptkit serve runs/quickstart-1a2b3c4d --arm generic+lora --arm scratch+full --port 9000",
        "adaptkit serve teacher=runs/pretrain-1a2b3c4d student=runs/distill-5e6f7a8b vectors=models/embedder",
        "adaptkit serve base=models/general notes=runs/finetune-9c0d1e2f/adapter",
        "adaptkit serve vectors=models/minilm judge=runs/rerank-1a2b3c4d --index index",
        "adaptkit serve runs/quickstart-1a2b3c4d --format int8 --print",
        "adaptkit serve models/large -- --tensor-parallel-size 4 --max-model-len 8192",
    ],
    exits="0 stopped by SIGTERM or Ctrl-C, requests under way answered",
)
def serve(
    models: Models,
    port: Port = 8000,
    host: Host = "127.0.0.1",
    format: Format = None,
    arm: Arms = None,
    task: Task = None,
    seed: Seed = None,
    key_file: KeyFile = None,
    signed_by: SignedBy = None,
    max_body: MaxBody = 1_048_576,
    max_tokens: MaxTokens = 4096,
    rate: Rate = 6000,
    index: IndexFolder = None,
    print_: Print = False,
) -> Outcome:
    """Serve models behind an OpenAI-compatible endpoint.

    A study is served as its demo asks it: to write, to classify, to search, as far as memory allows; with
    --arm, --task, --seed or --format that one model alone. vLLM runs as a child, is restarted when it dies,
    and counts as ready after one real answer.
    """
    extras.require_server()
    from adaptkit.export import hardware
    from adaptkit.serve import api_keys, preflight
    from adaptkit.serve.engine import launches, layout_check
    from adaptkit.serve.limits import choose_limits

    if signed_by is not None:
        extras.require("sign", extras.SIGNING_MODULES, "--signed-by")
    words, extra = _models(models)
    options = {"body_bytes": max_body, "max_tokens": max_tokens, "requests_per_minute": rate}
    limits = choose_limits(options, os.environ)
    choice = launches.Choice(format, tuple(arm or ()), task, seed, for_demo=signed_by is None)
    planned, notes = launches.make_launches(words, hardware.look(), choice, extra)
    keys = api_keys.load(key_file)
    preflight.check(planned, signed_by=signed_by)
    layout_check.check(launch.source for launch in planned)
    if index is not None:
        from adaptkit.serve.gateway.search_answers import check_index

        if print_:
            fix = "leave one of them out"
            raise ConfigError("vLLM alone searches no index", where="--index with --print", fix=fix)
        check_index(index, [launch.source for launch in planned])
    if print_:
        return _print_commands(planned, notes, port, host, keys, limits)
    return _run_server(planned, notes, port, host, keys, limits, index)


def _print_commands(
    launches: list[Launch], notes: list[str], port: int, host: str, keys: Keys, limits: Limits
) -> Outcome:
    from adaptkit.serve.status import StatusLine

    for note in notes:  # beside the commands: standard output is for the shell
        StatusLine().note("serving", note)
    lines = [launch.printed(port + place, host, keys.origin, limits) for place, launch in enumerate(launches)]
    return Outcome("\n".join(lines), {"commands": lines, "notes": notes, "key": keys.origin})


def _run_server(
    launches: list[Launch],
    notes: list[str],
    port: int,
    host: str,
    keys: Keys,
    limits: Limits,
    index: Path | None,
) -> Outcome:
    """Start every engine and answer requests until a signal stops this process."""
    from adaptkit.serve import api_keys
    from adaptkit.serve.address import http_url, is_loopback, listen
    from adaptkit.serve.engine.preloaded import Preloaded
    from adaptkit.serve.engine.supervisor import Engine
    from adaptkit.serve.server import Server, load_at_once
    from adaptkit.serve.status import StatusLine

    status = StatusLine()
    listening = listen(host, port)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logs = api_keys.log_folder()
    for note in notes:
        status.note("serving", note)
    if not is_loopback(host):
        status.note("serving", f"listens on {host} without encryption: put a TLS proxy in front of it")
    preloaded = Preloaded.of(launches)
    engines = [
        Engine(launch, logs / f"{port}-{launch.name}.log", status, preloaded=preloaded) for launch in launches
    ]
    address = http_url(host, port)
    models = [name for launch in launches for name in launch.names]

    def say_ready(names: list[str]) -> None:
        status.note("serving", f"ready: {address}/v1 serves {', '.join(names)}; key: {keys.origin}")
        status.note("serving", f"next: adaptkit demo {place_of(launches[0].source)} --server {address}")

    at_once = load_at_once(launches[0].hardware)
    search: Search | None = None
    if index is not None:
        from adaptkit.serve.gateway.search_answers import SearchAnswers

        search = SearchAnswers(index, engines).answer
    try:
        server = Server(engines, listening, keys, limits, at_once=at_once, search=search, on_ready=say_ready)
        server.run()
    finally:
        if preloaded is not None:
            preloaded.close()
    served = {"url": f"{address}/v1", "models": models, "key": keys.origin}
    return Outcome(f"stopped {address}", {**served, "restarts": sum(engine.restarts for engine in engines)})


@command(
    app,
    "bench",
    [
        "adaptkit bench runs/quickstart-1a2b3c4d --format int8",
        "adaptkit bench teacher=runs/finetune-1a2b3c4d student=runs/distill-5e6f7a8b",
        "adaptkit bench runs/quickstart-1a2b3c4d --usd-per-hour 0.35 "
        "--price-source 'provider, 8 vCPU' --price-date 2026-11-21",
        "adaptkit bench models/embedder --concurrency 1 --concurrency 16 --json",
    ],
    exits="0 measured",
)
def bench(
    models: Models,
    format: Formats = None,
    arm: Arms = None,
    task: Task = None,
    concurrency: Concurrency = None,
    input_tokens: InputTokens = 64,
    output_tokens: OutputTokens = 32,
    prompts: Prompts = 0,
    rounds: Rounds = 3,
    usd_per_hour: UsdPerHour = None,
    price_source: PriceSource = "",
    price_date: PriceDate = "",
    out: Out = None,
) -> Outcome:
    """Measure what a model serves: requests/s, waiting, memory, cost.

    vLLM's own benchmark; all models are up, measured in turns, and divided by the first.
    """
    extras.require_server()
    from adaptkit.export import hardware
    from adaptkit.serve import bench as benchmark
    from adaptkit.serve import preflight
    from adaptkit.serve.bench_results import table
    from adaptkit.serve.engine import launches, layout_check
    from adaptkit.serve.status import StatusLine

    price = _price(usd_per_hour, price_source, price_date)
    words, extra = _models(models)
    choice = launches.Choice(arms=tuple(arm or ()), task=task)
    planned = benchmark.plan_launches(words, hardware.look(), choice, format or [], extra)
    preflight.check(planned)
    layout_check.check(launch.source for launch in planned)
    load = benchmark.Load(input_tokens, output_tokens, tuple(concurrency or (1, 8, 32)), prompts, rounds)
    status = StatusLine()
    try:
        measured = benchmark.measure(planned, load, price, status)
    finally:
        status.quiet()
    where = "written nowhere: give --out, or measure a study or a run"
    if path := benchmark.save(measured, planned[0].source, out):
        where = f"written: {path}"
    place = place_of(planned[0].source)
    next_step = f"adaptkit serve {place}"
    if planned[0].source.study is not None:
        next_step += f"; adaptkit report {place}"
    view = (render.table(table(measured.models)), where, f"next: {next_step}")
    return Outcome(view, {**measured.as_json(), "next": next_step})


def place_of(source: Source) -> Path:
    """Name the folder by which other commands find the same model: its study, else its run, else itself."""
    return source.study or source.run or source.folder


def _models(given: list[str]) -> tuple[list[ModelWord], list[str]]:
    """The models named on the command line, runs also by their names, and vLLM's own flags."""
    from adaptkit.serve.engine import launches

    words, extra = launches.split_words(given)
    return [dataclasses.replace(word, folder=arguments.find_run(word.folder)) for word in words], extra


def _price(usd_per_hour: float | None, source: str, date: str) -> Price | None:
    from adaptkit.serve.bench_results import Price

    if usd_per_hour is None:
        return None
    if not (source and date):
        fix = "add --price-source and --price-date"
        raise ConfigError("a price without source and date", where="command line", fix=fix)
    return Price(usd_per_hour, source, date)
