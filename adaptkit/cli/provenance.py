"""The command that goes from weights back to the rows that made them, offline, and checks every digest.

adaptkit provenance FOLDER                          sources, what was removed and why, compute, thresholds
adaptkit provenance FOLDER --document report.txt    which runs learnt it, and what retraining without it costs
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptkit.cli import render
from adaptkit.cli.arguments import find_run
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Root
from adaptkit.errors import EXIT_USER

if TYPE_CHECKING:
    from adaptkit.provenance.record import (
        DataSetRecord,
        DocumentRecord,
        PlaceRecord,
        ProvenanceRecord,
        ReaderRecord,
        RetrainingRecord,
        SourceRecord,
    )

app = typer.Typer()
DIGITS = 12
"""Of a sha256 in a table; --json has all."""
MOST_TRAININGS = 40
"""Rows of the table of a study's trainings; --json has all."""
HOW = {
    "whole": "as a whole",
    "part": "in pieces",
    "within": "inside a longer text",
    "near": "nearly equal",
    "id": "as a whole, by its digest",
}


@command(
    app,
    "provenance",
    [
        "adaptkit provenance runs/tickets-5e6f7a8b",
        "adaptkit provenance runs/finetune-1a2b3c4d/export/int8 --json",
        "adaptkit provenance models/support/model.safetensors --root runs",
        "adaptkit provenance tickets --document complaint.txt",
        "adaptkit provenance finetune-1a2b3c4d --base-flops 2e23",
    ],
    exits="0 every digest that is here matches",
)
def provenance(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="A study, run or export, or a weights file in one.", show_default=False
        ),
    ],
    document: Annotated[
        str | None,
        typer.Option(metavar="FILE|TEXT", help="Say which of the runs were trained on this document."),
    ] = None,
    base_flops: Annotated[
        float | None,
        typer.Option(help="What training the base took, in FLOPs, for the EU's thresholds.", min=0),
    ] = None,
    root: Root = Path("runs"),
) -> Outcome:
    """Trace weights back to their rows: sources, digests, licences, what was removed and why.

    Offline. Every file that is here is held against its recorded digest; one that does not match is named,
    and the exit code is 2. Source files are looked for where they were read: run it from the same folder.
    """
    from adaptkit.provenance.ancestry import find_ancestry

    ancestry = find_ancestry(find_run(folder, root), root)
    if document is not None:
        from adaptkit.provenance.documents import document_of, find_document

        found = find_document(ancestry, document_of(document))
        return Outcome(tuple(_document_view(found)), found.model_dump(mode="json"))
    from adaptkit.provenance.driver import trace_ancestry

    record = trace_ancestry(ancestry, base_flops)
    return Outcome(tuple(_view(record)), record.model_dump(mode="json"), EXIT_USER if record.problems else 0)


def _table(title: str, left: Sequence[str], right: Sequence[str] = ()) -> Any:
    """An empty table: columns of words, then columns of numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    return table


def _view(record: ProvenanceRecord) -> Iterator[Any]:
    yield f"{record.kind} {record.folder}"
    for name, sha256 in record.weights.items():
        yield f"{name}: sha256 {sha256}"
    yield _trainings(record)
    for model in record.foreign:
        known = (
            "its weights are not here" if model.weights is None else f"{len(model.weights)} files digested"
        )
        licence = model.licence or "licence: see its card"
        yield f"{model.role} from elsewhere: {model.name} ({licence}; {known})"
    yield from _sources(record.data)
    removed = [(of, each) for of in record.data for each in of.removed]
    if removed:
        table = _table("not among the training rows, and why", ("data", "why"), ("rows", "bytes"))
        for of, each in removed:
            table.add_row(of.name, each.why, _number(each.rows), _number(each.num_bytes))
        yield table
    yield from (f"- {note}" for note in record.notes)
    if record.thresholds:
        yield from _thresholds(record)
    yield from (f"- not checked: {sentence}" for sentence in record.unverified)
    if record.problems:
        yield from (f"error: {problem}" for problem in record.problems)
    else:
        yield "every digest that could be checked matches"


def _trainings(record: ProvenanceRecord) -> Any:
    title = "trainings, the last one first"
    if len(record.trainings) > MOST_TRAININGS:
        title += f" (the first {MOST_TRAININGS} of {len(record.trainings)}; --json has all)"
    table = _table(
        title, ("run", "recipe", "began with", "learnt from", "its files"), ("tokens", "FLOPs", "time")
    )
    for each in record.trainings[:MOST_TRAININGS]:
        learnt = ", ".join([*each.reads, *([f"taught by {each.teacher}"] if each.teacher else [])])
        flops = "-" if each.flops is None else f"{each.flops:.3g}"
        time = "-" if each.seconds is None else render.duration(each.seconds)
        cells = each.run, each.recipe, each.base, learnt, each.state
        table.add_row(*cells, _number(each.tokens), flops, time)
    return table


def _sources(data: Sequence[DataSetRecord]) -> Iterator[Any]:
    """The files of training data with what came from each, and below them licences and held-out files."""
    table = _table(
        "training data, as it was trained on",
        ("data", "source", "sha256", "file"),
        ("rows", "bytes", "share", "tokens", "share"),
    )
    for of in data:
        if of.part in ("train", "replay"):
            for number, source in enumerate(of.sources):
                table.add_row(_named(of) if number == 0 else "", *_source_cells(source))
    yield table
    for of in data:
        if of.part in ("train", "replay"):
            listed = ", ".join(f"{name} ({count:,} rows)" for name, count in of.licences.items())
            counted = f"; tokens as {of.tokens_by} has them" if of.tokens_by else ""
            size = f"{of.rows:,} rows, {of.num_bytes:,} bytes"
            yield f"{_named(of)}: {size}; licences as read: {listed or '-'}{counted}"
    held_out = [of for of in data if of.part not in ("train", "replay")]
    if held_out:
        table = _table("held out, never trained on", ("data", "source", "sha256", "file"), ("rows",))
        for of in held_out:
            for number, source in enumerate(of.sources):
                first = (_named(of), str(of.rows)) if number == 0 else ("", "")
                table.add_row(first[0], source.name, source.sha256[:DIGITS], source.state, first[1])
        yield table


def _named(of: DataSetRecord) -> str:
    return of.name if of.part == "train" else f"{of.name} {of.part}"


def _source_cells(source: SourceRecord) -> tuple[str, ...]:
    counts = (
        _number(source.rows),
        _number(source.text_bytes),
        _share(source.share),
        _number(source.tokens),
        _share(source.token_share),
    )
    return (source.name, source.sha256[:DIGITS], source.state, *counts)


def _thresholds(record: ProvenanceRecord) -> Iterator[Any]:
    from adaptkit.export.papers.compute_thresholds import NO_ADVICE

    table = _table(
        "training compute and the EU's AI Act", ("threshold", "answer", "source"), ("limit", "FLOPs")
    )
    for check in record.thresholds:
        answer = f"{check.answer}: {check.why}" if check.why else check.answer
        limit = "-" if check.limit is None else f"{check.limit:.3g}"
        table.add_row(check.rule, answer, f"{check.source}, {check.date}", limit, f"{check.flops:.3g}")
    yield table
    yield NO_ADVICE


def _document_view(found: DocumentRecord) -> Iterator[Any]:
    yield f"document: {found.num_bytes:,} bytes, sha256 {found.sha256}"
    if not found.readers:
        yield "no run here was trained on it, or judged on it"
        return
    table = _table("who learnt it", ("run", "how", "where"), ("FLOPs", "time"))
    for reader in found.readers:
        flops = "-" if reader.flops is None else f"{reader.flops:.3g}"
        time = "-" if reader.seconds is None else render.duration(reader.seconds)
        table.add_row(reader.run, reader.how, _where(reader), flops, time)
    yield table
    if found.retraining.runs:
        yield f"training without it again: {_cost(found.retraining)}"
        yield f"all runs looked at, if they are to be compared again without it: {_cost(found.everything)}"
        yield "times are those that these trainings took, at the speed of the machine that they ran on"
    for folder in (folder for reader in found.readers for folder in reader.exports):
        yield f"- {folder} was made from one of them: copies of it have learnt the document as well"
    yield from (f"- {path} holds it: passages are looked up there" for path in found.library)
    if any(reader.how == "cannot say" for reader in found.readers):
        yield "- of runs that say `cannot say` it is open; they are not in the costs"


def _where(reader: ReaderRecord) -> str:
    return "; ".join([*map(_place, reader.places), *([reader.why] if reader.why else [])])


def _place(place: PlaceRecord) -> str:
    rows = "1 row" if place.rows == 1 else f"{place.rows} rows"
    alike = "" if place.similarity is None else f" ({place.similarity:.0%} alike)"
    return f"{place.part}: {HOW[place.how]}{alike}, {rows}, {place.where}"


def _cost(again: RetrainingRecord) -> str:
    runs = "1 run" if again.runs == 1 else f"{again.runs} runs"
    least = "" if again.complete else ", at least: not every run recorded its cost"
    return f"{runs}, {again.flops:.3g} FLOPs, {render.duration(again.seconds)}{least}"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
