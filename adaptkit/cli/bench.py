"""The command that measures what models serve, beside each other.

adaptkit bench runs/STUDY          requests/s, waiting, memory and cost of the server that `serve` starts
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptkit.cli import render
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Arms, Models, Task
from adaptkit.cli.serve import DraftModel, DraftTokens, find_draft, find_models, place_of
from adaptkit.doctor import extras
from adaptkit.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from adaptkit.serve.bench_results import Price
    from adaptkit.serve.engine.command import Launch

app = typer.Typer()

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
DraftText = Annotated[
    Path | None,
    typer.Option(
        "--text", metavar="FILE", help="Ask beginnings of these texts; with --draft the run's held-out ones."
    ),
]
UsdPerHour = Annotated[float | None, typer.Option(help="Price of this machine.", min=0, max=1e6)]
PriceSource = Annotated[str, typer.Option(help="Where the price was read.")]
PriceDate = Annotated[str, typer.Option(help="When it was read.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where to; bench.json of the study or run if not given.")
]


@command(
    app,
    "bench",
    [
        "adaptkit bench runs/quickstart-1a2b3c4d --format int8",
        "adaptkit bench teacher=runs/finetune-1a2b3c4d student=runs/distill-5e6f7a8b",
        "adaptkit bench runs/pretrain-1a2b3c4d --draft runs/distill-5e6f7a8b",
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
    draft: DraftModel = None,
    draft_tokens: DraftTokens = 3,
    text: DraftText = None,
    usd_per_hour: UsdPerHour = None,
    price_source: PriceSource = "",
    price_date: PriceDate = "",
    out: Out = None,
) -> Outcome:
    """Measure what a model serves: requests/s, waiting, memory, cost.

    vLLM's own benchmark; all models are up, measured in turns, and divided by the first. With --draft the
    first one is also measured with a smaller model that drafts for it, on text of its domain.
    """
    extras.require_server()
    from adaptkit.export import hardware
    from adaptkit.serve import bench as benchmark
    from adaptkit.serve import preflight
    from adaptkit.serve.bench_results import table
    from adaptkit.serve.engine import launches, layout_check
    from adaptkit.serve.engine.draft import Draft
    from adaptkit.serve.status import StatusLine

    price = _price(usd_per_hour, price_source, price_date)
    words, extra = find_models(models)
    choice = launches.Choice(arms=tuple(arm or ()), task=task)
    drafting = Draft(find_draft(draft, words), draft_tokens) if draft is not None else None
    planned = benchmark.plan_launches(words, hardware.look(), choice, format or [], extra, drafting)
    preflight.check(planned)
    layout_check.check(launch.source for launch in planned)
    load = benchmark.Load(input_tokens, output_tokens, tuple(concurrency or (1, 8, 32)), prompts, rounds)
    texts: list[str] = []
    if drafting is not None or text is not None:
        texts, origin = _domain_texts(planned, text)
        load = dataclasses.replace(load, text=origin)
    status = StatusLine()
    try:
        measured = benchmark.measure(planned, load, price, status, texts)
    finally:
        status.quiet()
    where = "written nowhere: give --out, or measure a study or a run"
    if path := benchmark.save(measured, planned[0].source, out):
        where = f"written: {path}"
    place = place_of(planned[0].source)
    next_step = f"adaptkit serve {place}"
    if planned[0].source.study is not None:
        next_step += f"; adaptkit report {place}"
    drafts = [model.draft.in_words() for model in measured.models if model.draft]
    asked = f"asked: {load.text}"
    view = (render.table(table(measured.models)), asked, *drafts, where, f"next: {next_step}")
    return Outcome(view, {**measured.as_json(), "next": next_step})


def _domain_texts(planned: list[Launch], file: Path | None) -> tuple[list[str], str]:
    """Text that the first model was not trained on, and where it comes from, in words.

    Raises: ModelError for a model that does not write; ConfigError where no text is known.
    """
    from adaptkit.export.parity.evaluation_data import find_evaluation_data

    for source in (launch.source for launch in planned):
        if source.kind != "generate":
            what = f"texts are continued by models that write, and {source.name} is one of kind {source.kind}"
            raise ModelError(what, where="--text", fix="measure it by itself, without --text and --draft")
    data = find_evaluation_data(planned[0].source, evaluation=file)
    if not data.digest:
        what = f"no held-out text of {planned[0].source.name} is known, on which a draft could be measured"
        raise ConfigError(what, where="--draft", fix="give text of its domain: --text FILE")
    return data.texts, data.origin


def _price(usd_per_hour: float | None, source: str, date: str) -> Price | None:
    from adaptkit.serve.bench_results import Price

    if usd_per_hour is None:
        return None
    if not (source and date):
        fix = "add --price-source and --price-date"
        raise ConfigError("a price without source and date", where="command line", fix=fix)
    return Price(usd_per_hour, source, date)
