"""The commands of the second half: from a finished study to something that answers.

    adaptkit export runs/STUDY         a model folder in a format that is served, measured against its source
    adaptkit serve runs/STUDY          a vLLM server behind a guard, ready when it has given one real answer
    adaptkit demo runs/STUDY           a page on which people try the models and see what was found

Everything heavy is imported inside the command that needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from adaptkit.cli.console import Outcome, command
from adaptkit.errors import AdaptkitError, ConfigError

if TYPE_CHECKING:
    from adaptkit.serve.api_keys import Keys
    from adaptkit.serve.engine.command import Launch
    from adaptkit.serve.gateway.request_body import Limits

app = typer.Typer()

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL", help="Studies, runs, model folders, each also as NAME=FOLDER.", show_default=False
    ),
]


@command(
    app,
    "export",
    [
        "adaptkit export runs/quickstart-1a2b3c4d",
        "adaptkit export runs/quickstart-1a2b3c4d --arm generic+lora --task intent --format int8",
        "adaptkit export runs/pretrain-5e6f7a8b --format int4 --method gptq",
        "adaptkit export models/general --format int8 --out models/general-int8 --eval notes.jsonl",
        "adaptkit export --list",
    ],
    exits="0 exported, within the stated loss",
)
def export(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="A study's, run's or model's folder.")
    ] = None,
    format: Annotated[
        Literal["bf16", "fp32", "int8", "int4", "fp8"], typer.Option(help="What weights are stored in.")
    ] = "bf16",
    method: Annotated[
        Literal["rtn", "gptq"], typer.Option(help="Round to nearest, or calibrated on training text.")
    ] = "rtn",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; the run's export/FORMAT if not given.")
    ] = None,
    arm: Annotated[str | None, typer.Option(help="Of a study, instead of its winner.")] = None,
    task: Annotated[str | None, typer.Option(help="Of a study, instead of its primary task.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of a study, instead of the seed with the best dev score.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text for gptq, instead of the run's.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", metavar="FILE", help="Text to measure on, instead of the run's.")
    ] = None,
    max_loss_bpb: Annotated[
        float | None, typer.Option(help="Bits per byte it may lose; by format if not given.")
    ] = None,
    max_loss_score: Annotated[
        float | None, typer.Option(help="Task score it may lose; by format if not given.")
    ] = None,
    sign_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Sign the folder (needs model-signing).")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Only say which formats this machine can serve.")
    ] = False,
) -> Outcome:
    """Write a model folder for transformers, vLLM and others.

    Merged weights, tokenizer, card, digests and bill of materials; refused where it answers worse than
    stated.
    """
    from adaptkit.export import export as exporting
    from adaptkit.export.source import resolve
    from adaptkit.serve.status import Teller

    if list_:
        from adaptkit.export import formats, hardware

        rows = formats.listing(hardware.look())
        return Outcome(formats.table(rows), {"formats": rows})
    if model is None:
        raise ConfigError(
            "no model was given",
            where="command line",
            fix="give a study's, run's or model's folder, or --list",
        )
    options = exporting.Options(out, method, evaluation, calibration, max_loss_bpb, max_loss_score, sign_key)
    source = resolve(model, arm=arm, task=task, seed=seed)
    teller = Teller()
    try:
        done = exporting.export(source, format, options, lambda text: teller.phase(source.name, text))
    finally:
        teller.quiet()
    return Outcome(done.summary(), done.as_json())


@command(
    app,
    "serve",
    [
        "adaptkit serve runs/quickstart-1a2b3c4d",
        "adaptkit serve runs/quickstart-1a2b3c4d --arm generic+lora --arm scratch+full --port 9000",
        "adaptkit serve teacher=runs/pretrain-1a2b3c4d student=runs/distill-5e6f7a8b vectors=models/embedder",
        "adaptkit serve base=models/general notes=runs/finetune-9c0d1e2f/adapter",
        "adaptkit serve runs/quickstart-1a2b3c4d --format int8 --print",
        "adaptkit serve models/large -- --tensor-parallel-size 4 --max-model-len 8192",
    ],
    exits="0 stopped by SIGTERM or Ctrl-C, requests under way answered",
)
def serve(
    models: Models,
    port: Annotated[int, typer.Option(help="The one port for all models.", min=1, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    format: Annotated[
        str | None, typer.Option(help="Serve the export of this format: fp32, bf16, int8, int4 or fp8.")
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="Of a study, instead of its winner; may be repeated.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Of a study, instead of its primary task.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of a study, instead of the seed with the best dev score.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Keys, one per line; else ADAPTKIT_API_KEY, else one is made.")
    ] = None,
    signed_by: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Serve only folders signed with this public key's other half."),
    ] = None,
    max_body: Annotated[
        int, typer.Option(help="Bytes of a request's body; 0 for no limit.", min=0)
    ] = 1_048_576,
    max_tokens: Annotated[
        int, typer.Option(help="Tokens a request may ask for; 0 for no limit.", min=0)
    ] = 4096,
    rate: Annotated[int, typer.Option(help="Requests per minute and key; 0 for no limit.", min=0)] = 6000,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the exact vLLM commands and start nothing.")
    ] = False,
) -> Outcome:
    """Serve models behind an OpenAI-compatible endpoint.

    vLLM runs as a child, is restarted when it dies, and counts as ready after one real answer.
    """
    from adaptkit.export import hardware
    from adaptkit.serve import api_keys, preflight
    from adaptkit.serve.engine import launches
    from adaptkit.serve.gateway.request_body import Limits

    wishes, extra = launches.divide(models)
    limits = Limits(body_bytes=max_body, max_tokens=max_tokens, requests_per_minute=rate)
    options = {"extra": extra, "format": format, "arms": arm or [], "task": task, "seed": seed}
    planned, notes = launches.make_launches(wishes, hardware.look(), **options)
    keys = api_keys.load(key_file)
    preflight.check(planned, signed_by=signed_by)
    if print_:
        return _commands(planned, notes, port, host, keys, limits)
    return _run(planned, notes, port, host, keys, limits)


def _commands(
    launches: list[Launch], notes: list[str], port: int, host: str, api_keys: Keys, limits: Limits
) -> Outcome:
    from adaptkit.serve.status import Teller

    for note in notes:  # beside the commands: standard output is for the shell
        Teller().note("serving", note)
    lines = [
        launch.printed(port + place, host, api_keys.origin, limits) for place, launch in enumerate(launches)
    ]
    return Outcome("\n".join(lines), {"commands": lines, "notes": notes, "key": api_keys.origin})


def _run(
    launches: list[Launch], notes: list[str], port: int, host: str, api_keys: Keys, limits: Limits
) -> Outcome:
    import logging

    from adaptkit.serve import api_keys, preflight
    from adaptkit.serve.engine.supervisor import Engine
    from adaptkit.serve.server import Server
    from adaptkit.serve.status import Teller

    teller = Teller()
    listening = preflight.listen(host, port)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logs = api_keys.state_folder() / "logs"
    logs.mkdir(exist_ok=True, mode=0o700)
    for note in notes:
        teller.note("serving", note)
    if not preflight.is_loopback(host):
        teller.note("serving", f"listens on {host} without encryption: put a TLS proxy in front of it")
    engines = [Engine(launch, logs / f"{port}-{launch.name}.log", teller) for launch in launches]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    found = {
        "url": f"{url}/v1",
        "models": [name for launch in launches for name in launch.names],
        "key": api_keys.origin,
    }

    def ready() -> None:
        teller.note(
            "serving", f"ready: {found['url']} serves {', '.join(found['models'])}; key: {api_keys.origin}"
        )

    Server(engines, listening, api_keys, limits, on_ready=ready).run()
    return Outcome(f"stopped {url}", {**found, "restarts": sum(engine.restarts for engine in engines)})


@command(
    app,
    "bench",
    [
        "adaptkit bench runs/quickstart-1a2b3c4d --format int8",
        "adaptkit bench teacher=runs/finetune-1a2b3c4d student=runs/distill-5e6f7a8b",
        "adaptkit bench runs/quickstart-1a2b3c4d --usd-per-hour 0.35 --price-source 'provider, 8 vCPU' --price-date 2026-11-21",
        "adaptkit bench models/embedder --concurrency 1 --concurrency 16 --json",
    ],
    exits="0 measured",
)
def bench(
    models: Models,
    format: Annotated[
        list[str] | None, typer.Option(help="Also measure the export of this format; may be repeated.")
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="Of a study, instead of its winner; may be repeated.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Of a study, instead of its primary task.")] = None,
    concurrency: Annotated[
        list[int] | None, typer.Option(help="Requests in flight; may be repeated (1, 8 and 32).", min=1)
    ] = None,
    input_tokens: Annotated[int, typer.Option(help="Tokens of each request.", min=1)] = 64,
    output_tokens: Annotated[int, typer.Option(help="Tokens of each answer.", min=1)] = 32,
    prompts: Annotated[
        int, typer.Option(help="Requests per measurement; 0 = eight per request in flight.", min=0)
    ] = 0,
    rounds: Annotated[int, typer.Option(help="Turns of each model; the median counts.", min=1)] = 3,
    usd_per_hour: Annotated[float | None, typer.Option(help="Price of this machine.", min=0)] = None,
    price_source: Annotated[str, typer.Option(help="Where the price was read.")] = "",
    price_date: Annotated[str, typer.Option(help="When it was read.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; bench.json of the study or run if not given."),
    ] = None,
) -> Outcome:
    """Measure what a model serves: requests/s, waiting, memory, cost.

    vLLM's own benchmark; all models are up, measured in turns, and divided by the first.
    """
    from adaptkit.cli import render
    from adaptkit.export import hardware
    from adaptkit.serve import bench as benching
    from adaptkit.serve import preflight
    from adaptkit.serve.engine.launches import divide
    from adaptkit.serve.status import Teller

    price = None
    if usd_per_hour is not None:
        if not (price_source and price_date):
            raise ConfigError(
                "a price without source and date",
                where="command line",
                fix="add --price-source and --price-date",
            )
        price = benching.Price(usd_per_hour, price_source, price_date)
    wishes, extra = divide(models)
    launches = benching.plan_launches(
        wishes, hardware.look(), format or [], extra=extra, arms=arm or [], task=task
    )
    preflight.check(launches)
    load = benching.Load(input_tokens, output_tokens, tuple(concurrency or (1, 8, 32)), prompts, rounds)
    teller = Teller()
    try:
        found = benching.measure(launches, load, price, teller)
    finally:
        teller.quiet()
    path = benching.save(found, launches[0].source, out)
    written = f"written: {path}" if path else "written nowhere: give --out, or measure a study or a run"
    return Outcome((render.table(benching.table(found)), written), found)


@command(
    app,
    "demo",
    [
        "adaptkit demo runs/quickstart-1a2b3c4d",
        "adaptkit demo runs/quickstart-1a2b3c4d --server http://10.0.0.5:8000 --key-file key --prices prices.yaml",
        "adaptkit demo runs/quickstart-1a2b3c4d --corpus notes.jsonl --host 0.0.0.0 --password-file password",
    ],
    exits="0 stopped by SIGTERM or Ctrl-C",
)
def demo(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study's, run's or model's folder.", show_default=False)
    ],
    server: Annotated[str, typer.Option(help="Where `adaptkit serve` answers.")] = "http://127.0.0.1:8000",
    host: Annotated[
        str, typer.Option(help="The address to listen on; any but loopback asks for a login.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The page's port.", min=1, max=65535)] = 7860,
    key_file: Annotated[
        Path | None, typer.Option(help="The server's key; else ADAPTKIT_API_KEY, else this machine's.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="The login's password; else ADAPTKIT_DEMO_PASSWORD, else one is made.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prices of a server and an API, with their sources.")
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text to search in, instead of the study's.")
    ] = None,
    share_publicly: Annotated[
        bool,
        typer.Option(
            "--share-publicly", help="Also make a public address, through Gradio's relay; asks for a login."
        ),
    ] = False,
) -> Outcome:
    """Show a study to the people who decide.

    Compare, classify, search, and a break-even to play with, in a browser; works without internet.
    """
    from adaptkit.demo import launch
    from adaptkit.demo.search_index import from_file

    launch.check_installed()
    door = launch.door(host, port, password_file, share_publicly)
    shown = _shown(study, prices)
    passages = from_file(corpus) if corpus else []
    page = launch.page(launch.server(server, key_file), shown, passages, door, _card(study))
    launch.run(page, door)
    return Outcome(f"stopped {door.url}", {"url": door.url, "server": server})


def _shown(folder: Path, prices: Path | None) -> Any:
    """What the page tells of a folder: a study's findings, or that nothing was compared."""
    from adaptkit.demo.study_view import NoStudy

    if (folder / "study.json").is_file():
        from adaptkit.report.demo_view import StudyView

        return StudyView(folder, prices)
    return NoStudy(folder)


def _card(folder: Path) -> str:
    """The card of the model that the folder stands for, if it was exported; else one sentence on which model
    that is."""
    from adaptkit.export.source import resolve

    try:
        source = resolve(folder)
    except AdaptkitError as error:
        if (folder / "study.json").is_file():  # it has findings to show, and perhaps no model or no report
            return f"There is no card: {error.what}."
        raise
    exports = sorted((source.run / "export").glob("*/README.md")) if source.run else []
    card = next((path for path in (source.folder / "README.md", *exports) if path.is_file()), None)
    return (
        card.read_text(encoding="utf-8").split("\n---\n", 1)[-1] if card else f"{source.name}: {source.why}."
    )
