"""The command that has a generator write rows from text.

adaptkit data synthesise corpus.jsonl --kind questions --server http://127.0.0.1:8000 --out questions
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from adaptkit.cli import arguments, render
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.data import data
from adaptkit.cli.embed import PATIENCE_S, first_generator, server_key
from adaptkit.cli.labels import Column, config_of
from adaptkit.cli.options import Documents
from adaptkit.errors import ConfigError

if TYPE_CHECKING:
    from adaptkit.synthesis.driver import Forecast
    from adaptkit.synthesis.generators import Generator
    from adaptkit.synthesis.record import SynthesisRecord

NEXT = {
    "questions": "adaptkit embed train configs/embed.yaml train.files=[{out}/rows.jsonl]",
    "rows": "adaptkit data check {train} {out}/rows.jsonl",
    "instructions": "adaptkit finetune configs/finetune.yaml kind=sft train.files=[{train},{out}/rows.jsonl]",
}
"""What to do with the rows of each kind, beside the real ones."""
LIMITS = {
    "questions": "BM25 keeps questions that use the passage's words; --encoder judges by meaning.",
    "rows": "Word counts keep what they know already; a row that teaches more may be among the rejected.",
    "instructions": "That an answer uses the passage's words does not make it right.",
}


@dataclasses.dataclass(frozen=True)
class _Where:
    """Where the generator is, and what it costs: dollars per million tokens, or nothing."""

    model: str
    server: str
    key_file: Path | None
    jobs: int
    usd_in: float | None
    usd_out: float | None
    ceiling: float | None


@command(
    data,
    "synthesise",
    [
        "adaptkit data synthesise notes/ --kind questions --server http://127.0.0.1:8000 --out questions",
        "adaptkit data synthesise notes/ --kind instructions --model models/writer --out instructions",
        "adaptkit data synthesise notes/ --kind rows --train train.csv --against test.csv"
        " --model models/writer --out more",
        "adaptkit data synthesise notes/ --kind questions --server https://api.example.com --key-file key"
        " --usd-in 0.15 --usd-out 0.6 --ceiling 2 --out questions --dry-run",
    ],
)
def data_synthesise(
    files: Documents,
    kind: Annotated[
        Literal["questions", "rows", "instructions"],
        typer.Option(help="Pairs of question and passage, labelled texts, or prompts with answers."),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; run the same command again to go on.")],
    model: Annotated[
        str, typer.Option(help="A causal model's folder; with --server its name there, else the first.")
    ] = "",
    server: Annotated[str, typer.Option(help="Address of an OpenAI-compatible server.")] = "",
    key_file: Annotated[
        Path | None, typer.Option(help="The server's key; else OPENAI_API_KEY or ADAPTKIT_API_KEY.")
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Real training rows; none is repeated. `rows` need them."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Dev and test rows, which nothing may overlap. May be repeated."),
    ] = None,
    column: Column = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=MEANING", help="What a label means. May be repeated.")
    ] = None,
    count: Annotated[int, typer.Option(help="Rows to ask for per passage.", min=1, max=50)] = 3,
    passages: Annotated[
        int, typer.Option(help="Passages to ask about at most, drawn by hash; 0 takes all.", min=0)
    ] = 0,
    top: Annotated[
        int, typer.Option(help="A question must find its passage among so many.", min=1, max=1000)
    ] = 10,
    encoder: Annotated[
        str, typer.Option(metavar="FOLDER", help="Finds passages for questions, in place of BM25.")
    ] = "",
    least_support: Annotated[
        float, typer.Option(help="Share of an answer's words that its passage must hold.", min=0, max=1)
    ] = 0.5,
    prompt_file: Annotated[
        Path | None,
        typer.Option(
            help="Your own request, with {text} in it; for rows also {label}.", exists=True, dir_okay=False
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Requests to a server at once.", min=1, max=10_000)] = 8,
    usd_in: Annotated[
        float | None, typer.Option(help="Dollars per million tokens of requests.", min=0)
    ] = None,
    usd_out: Annotated[
        float | None, typer.Option(help="Dollars per million tokens of answers.", min=0)
    ] = None,
    ceiling: Annotated[
        float | None, typer.Option(help="Dollars to spend at most, earlier tries included.", min=0)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what asking takes, and ask nothing.")
    ] = False,
) -> Outcome:
    """Have a generator write rows from text, and keep those that pass.

    Each row must come back by a judge that is not the generator, overlap with no test, and repeat nothing.
    Rows are marked `source: synthetic`. What is left out is counted, and kept with its reason.
    """
    from adaptkit.synthesis.driver import Order, Synthesis

    where = _Where(model, server, key_file, jobs, usd_in, usd_out, ceiling)
    _check_place(where)
    order = Order(
        files=files,
        kind=kind,
        count=count,
        prompt=prompt_file.read_text(encoding="utf-8") if prompt_file else None,
        most_passages=passages,
        train=config_of(train, column) if train else None,
        meanings=arguments.pairs(label or [], "--label"),
        against=tuple(config_of(file, column) for file in against or []),
        top=top,
        encoder=encoder,
        least_support=least_support,
    )
    synthesis = Synthesis(order)
    with _generator(where, out) as generator:
        if dry_run:
            return _forecast(synthesis.forecast(out, generator), generator.identity)
        record = synthesis.write(out, generator)
    next_step = NEXT[kind].format(out=out, train=train or "REAL.jsonl")
    view = (*_view(record, out), f"next: {next_step}")
    return Outcome(view, {"folder": str(out), **record.model_dump(mode="json"), "next": next_step})


def _check_place(where: _Where) -> None:
    """Raises: ConfigError where neither folder nor server is named, and for a price without a ceiling or a
    server."""
    if not (where.model or where.server):
        fix = "name a folder with --model, or an address with --server"
        raise ConfigError("no generator is named", where="command line", fix=fix)
    given = [value is not None for value in (where.usd_in, where.usd_out, where.ceiling)]
    if any(given) and not (all(given) and where.server):
        fix = "give --server, --usd-in, --usd-out and --ceiling together"
        raise ConfigError("a price needs a server and a ceiling", where="command line", fix=fix)


@contextmanager
def _generator(where: _Where, out: Path) -> Iterator[Generator]:
    """Raises: ServerError, ModelError."""
    from adaptkit.client.openai import Client
    from adaptkit.client.paid import Ledger, PaidClient, TokenPrice
    from adaptkit.synthesis.generators import FolderGenerator, PaidGenerator, ServedGenerator

    if not where.server:
        yield FolderGenerator(where.model)
        return
    with Client(where.server, server_key(where.key_file), patience_s=PATIENCE_S) as client:
        name = where.model or first_generator(client)
        if where.usd_in is None or where.usd_out is None or where.ceiling is None:
            yield ServedGenerator(client, name, where.jobs)
            return
        fewer = "ask about fewer passages (--passages)"
        ledger = Ledger(out / "spent.json", where.ceiling, setting="--ceiling", fewer=fewer)
        price, replies = TokenPrice(where.usd_in, where.usd_out), out / "replies"
        paid = PaidClient(client, name, price, replies=replies, ledger=ledger, at_once=where.jobs)
        yield PaidGenerator(paid)


def _forecast(forecast: Forecast, identity: str) -> Outcome:
    """What asking would take."""
    known = forecast.requests - forecast.missing
    lines = [
        f"{identity}: {forecast.requests:,} requests about {forecast.passages:,} passages, "
        f"{known:,} of them answered already",
        f"the others: about {forecast.tokens_in:,.0f} tokens in, at most {forecast.tokens_out:,.0f} out",
    ]
    if forecast.usd is not None:
        lines.append(f"about ${forecast.usd:.2f} where every answer is as long as it may be")
    data = {"generator": identity, **dataclasses.asdict(forecast)}
    return Outcome(tuple(lines), data)


def _view(record: SynthesisRecord, out: Path) -> list[object]:
    """How many rows there are, what became of everything else, and what the judge cannot see."""
    table = [(f"{number:,}", what) for what, number in record.counts.items() if number]
    return [
        f"{out}/rows.jsonl: {record.num_rows:,} {record.kind} by {record.generator}",
        f"round trip: {record.judge}",
        "",
        render.table(table),
        "",
        f"- {LIMITS[record.kind]}",
        "- Never test on synthetic rows; what they are worth shows on real ones, with them and without.",
    ]
