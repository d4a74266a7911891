"""The command that puts models behind an endpoint.

adaptkit serve runs/STUDY          a vLLM server behind a guard, ready when it has given one real answer
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from adaptkit.cli import arguments
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Arms, Models, Seed, Task
from adaptkit.doctor import extras
from adaptkit.errors import ConfigError
from adaptkit.serve.limits import HIGHEST

if TYPE_CHECKING:
    from adaptkit.export.source import Source
    from adaptkit.serve.api_keys import Keys
    from adaptkit.serve.engine.adapter_folder import AdapterFolder
    from adaptkit.serve.engine.command import Launch
    from adaptkit.serve.engine.launches import ModelWord
    from adaptkit.serve.engine.lora_flags import AdapterRoom
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
Replicas = Annotated[int, typer.Option(help="Engines for each model, behind the same name.", min=1, max=64)]
EngineChoice = Annotated[
    Literal["vllm", "adaptkit", "auto"],
    typer.Option(
        "--engine",
        help="What serves embedding models: vllm, adaptkit (our own encoder, in float32), or auto: the "
        "faster one, measured once for each model and machine.",
    ),
]
DraftModel = Annotated[
    Path | None,
    typer.Option(
        "--draft", metavar="MODEL", help="A small model that drafts for the first one: a folder, run, or arm."
    ),
]
DraftTokens = Annotated[int, typer.Option(help="Tokens drafted before they are judged.", min=1, max=32)]
AdaptersFolder = Annotated[
    Path | None,
    typer.Option(
        "--adapters", metavar="FOLDER", help="Serve each LoRA adapter that lies in it, as they come and go."
    ),
]
Slots = Annotated[
    int, typer.Option(help="Adapters of --adapters that an engine holds at once.", min=1, max=256)
]
Rank = Annotated[
    int,
    typer.Option(
        help="Rank to make room for; 0 = the largest in --adapters at the start, at least 16.", min=0, max=256
    ),
]
Print = Annotated[bool, typer.Option("--print", help="Print the exact vLLM commands and start nothing.")]


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
        "adaptkit serve models/minilm --engine auto",
        "adaptkit serve models/general --adapters adapters --replicas 3",
        "adaptkit serve runs/pretrain-1a2b3c4d --draft runs/distill-5e6f7a8b",
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
    replicas: Replicas = 1,
    engine: EngineChoice = "vllm",
    draft: DraftModel = None,
    draft_tokens: DraftTokens = 3,
    adapters: AdaptersFolder = None,
    adapter_slots: Slots = 16,
    adapter_rank: Rank = 0,
    print_: Print = False,
) -> Outcome:
    """Serve models behind an OpenAI-compatible endpoint.

    A study is served as its demo asks it: to write, to classify, to search, as far as memory allows; with
    --arm, --task, --seed or --format that one model alone. vLLM runs as a child, is restarted when it dies,
    and counts as ready after one real answer. Adapters of a folder (--adapters) come and go without a
    restart.
    """
    extras.require_server(vllm=engine != "adaptkit")
    from adaptkit.export import hardware
    from adaptkit.serve import api_keys, preflight
    from adaptkit.serve.engine import launches, layout_check
    from adaptkit.serve.limits import choose_limits

    if signed_by is not None:
        extras.require("sign", extras.SIGNING_MODULES, "--signed-by")
    words, extra = find_models(models)
    options = {"body_bytes": max_body, "max_tokens": max_tokens, "requests_per_minute": rate}
    limits = choose_limits(options, os.environ)
    choice = launches.Choice(format, tuple(arm or ()), task, seed, for_demo=signed_by is None)
    planned, notes = launches.make_launches(words, hardware.look(), choice, extra)
    if adapters is not None:
        planned = launches.with_room(planned, _adapter_room(adapters, adapter_slots, adapter_rank, print_))
    if draft is not None:
        drafting = find_draft(draft, words)
        planned = launches.with_draft(planned, drafting, draft_tokens)
        notes.append(f"{drafting.name} drafts {draft_tokens} tokens at a time: {drafting.why}")
    if engine == "adaptkit":
        planned = launches.with_our_encoder(planned)
    keys = api_keys.load(key_file)
    preflight.check(planned, signed_by=signed_by)
    layout_check.check(launch.source for launch in planned)
    if engine == "auto":
        planned, choices = _choose_engines(planned, print_)
        notes += choices
    if index is not None:
        _check_index(index, planned, print_)
    planned = launches.replicated(planned, replicas)
    preflight.check_memory(planned)
    if print_:
        return _print_commands(planned, notes, port, host, keys, limits)
    with _watched(adapters, planned, signed_by) as folder:
        return _run_server(planned, notes, port, host, keys, limits, index, folder)


def _check_index(index: Path, planned: list[Launch], print_: bool) -> None:
    """Raises: ConfigError for an index that none of the models can search, or where nobody would."""
    from adaptkit.serve.gateway.search_answers import check_index

    if print_:
        fix = "leave one of them out"
        raise ConfigError("vLLM alone searches no index", where="--index with --print", fix=fix)
    check_index(index, [launch.source for launch in planned])


def _choose_engines(planned: list[Launch], print_: bool) -> tuple[list[Launch], list[str]]:
    """Let each embedding model be served by the engine that is faster here, and say why.

    Raises: ConfigError where nothing is started, so that nothing can be measured, or where none embeds.
    """
    from adaptkit.serve import engine_choice
    from adaptkit.serve.engine.launches import with_our_encoder
    from adaptkit.serve.status import StatusLine

    if print_:
        what, fix = "auto starts both engines once to measure them", "name one: --engine vllm or adaptkit"
        raise ConfigError(what, where="--engine with --print", fix=fix)
    return engine_choice.choose(planned, with_our_encoder(planned), StatusLine())


def find_draft(word: Path, words: list[ModelWord]) -> Source:
    """Find the model that drafts, of a run also by its name."""
    from adaptkit.serve.engine import launches

    return launches.find_draft(launches.ModelWord(None, arguments.find_run(word)), words)


def _adapter_room(folder: Path, slots: int, rank: int, print_: bool) -> AdapterRoom:
    """Choose how many adapters fit, of which rank.

    Raises: ConfigError for a folder that cannot be read, or where nobody would watch it.
    """
    from adaptkit.serve.engine.adapter_folder import largest_rank
    from adaptkit.serve.engine.lora_flags import AdapterRoom

    if print_:
        what = "a printed command is vLLM's own, which watches no folder"
        raise ConfigError(what, where="--adapters", fix="name the adapters: adaptkit serve BASE NAME=ADAPTER")
    return AdapterRoom(slots, rank or largest_rank(folder))


@contextlib.contextmanager
def _watched(
    folder: Path | None, planned: list[Launch], signed_by: Path | None
) -> Iterator[AdapterFolder | None]:
    """The folder of adapters, with a place for copies of what is served that goes in the end."""
    from adaptkit.serve.engine.adapter_folder import AdapterFolder

    rooms = [launch.room for launch in planned if launch.room is not None]
    if folder is None or not rooms:
        yield None
        return
    bases = list({launch.name: launch.source for launch in planned if launch.room is not None}.values())
    names = {name for launch in planned for name in launch.names}
    with tempfile.TemporaryDirectory(prefix="adaptkit-adapters-") as store:
        watched = AdapterFolder(folder, bases, rooms[0], taken=names, store=Path(store), signed_by=signed_by)
        watched.scan()
        yield watched


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
    adapters: AdapterFolder | None,
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
        Engine(launch, logs / f"{port}-{launch.label}.log", status, preloaded=preloaded)
        for launch in launches
    ]
    address = http_url(host, port)
    models = list(dict.fromkeys(name for launch in launches for name in launch.names))

    def say_ready(names: list[str]) -> None:
        status.note("serving", f"ready: {address}/v1 serves {', '.join(names)}; key: {keys.origin}")
        status.note("serving", f"next: {demo_command(launches[0].source, host, port, keys)}")

    at_once = load_at_once(launches[0].hardware)
    search: Search | None = None
    if index is not None:
        from adaptkit.serve.gateway.search_answers import SearchAnswers

        search = SearchAnswers(index, engines).answer
    try:
        Server(
            engines,
            listening,
            keys,
            limits,
            at_once=at_once,
            search=search,
            adapters=adapters,
            on_ready=say_ready,
        ).run()
    finally:
        if preloaded is not None:
            preloaded.close()
    served = {"url": f"{address}/v1", "models": models, "key": keys.origin}
    return Outcome(f"stopped {address}", {**served, "restarts": sum(engine.restarts for engine in engines)})


def place_of(source: Source) -> Path:
    """Name the folder by which other commands find the same model: its study, else its run, else itself."""
    return source.study or source.run or source.folder


def demo_command(source: Source, host: str, port: int, keys: Keys) -> str:
    """Write the command whose page asks this server from this machine, with a key that it finds."""
    from adaptkit.serve import api_keys
    from adaptkit.serve.address import http_url, is_loopback, reached_at

    place = reached_at(host)
    words = ["adaptkit", "demo", str(place_of(source)), "--server", http_url(place, port)]
    found = keys.file == api_keys.own_file() and is_loopback(place)
    if keys.file is not None and not found:
        words += ["--key-file", str(keys.file)]
    return shlex.join(words)


def find_models(given: list[str]) -> tuple[list[ModelWord], list[str]]:
    """The models named on the command line, runs also by their names, and vLLM's own flags."""
    from adaptkit.serve.engine import launches

    words, extra = launches.split_words(given)
    return [dataclasses.replace(word, folder=arguments.find_run(word.folder)) for word in words], extra
