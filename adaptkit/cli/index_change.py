"""Change an index while it answers: its documents, or its model.

adaptkit embed update I FILES              add, replace and delete documents
adaptkit embed migrate I MODEL             another model, without a time when nothing answers
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptkit.cli.console import Outcome, command
from adaptkit.cli.index import IndexFolder
from adaptkit.cli.options import Dimensions, Dtype, EncoderFolder
from adaptkit.errors import ConfigError, first_line
from adaptkit.notices import tell
from adaptkit.run import Run
from adaptkit.run_lock import hold

if TYPE_CHECKING:
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.index import Index
    from adaptkit.embed.index_update import Change
    from adaptkit.embed.migration import Overlap, Prepared

app = typer.Typer(rich_markup_mode=None)

LEAST_OVERLAP = 0.2
SHOWN_CHARS = 70


@command(
    app,
    "update",
    [
        "adaptkit embed update index new.jsonl",
        "adaptkit embed update index new.jsonl --delete PMC101395 --delete PMC101396",
        "adaptkit embed update index --delete-from gone.txt",
    ],
)
def update(
    folder: IndexFolder,
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Documents to add; an id that is there is replaced.", show_default=False),
    ] = None,
    delete: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A document to delete; may be repeated.")
    ] = None,
    delete_from: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ids to delete, one per line.")
    ] = None,
    model: Annotated[str, typer.Option(help="Where the index's model lies now; else where it lay.")] = "",
    dtype: Dtype = "float32",
) -> Outcome:
    """Add, replace and delete documents of an index.

    It answers meanwhile, and switches in one step. What is there already is not encoded again.
    """
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.index import Index
    from adaptkit.embed.index_update import apply_update, plan_update
    from adaptkit.embed.index_writing import encoder_of

    hold(Run(folder))
    leaving = list(delete or [])
    if delete_from is not None:
        leaving += _lines(delete_from)
    if not (files or leaving):
        fix = "name files with documents, or --delete ID"
        raise ConfigError("nothing to add and nothing to delete", where="command line", fix=fix)
    change = plan_update(Index.open(folder), files or [], leaving)
    for name in change.missing:
        tell(f"'{name}' is not in {folder}: nothing to delete there")

    def encoder(index: Index) -> Encoder:
        return Encoder.load(model, dtype=dtype) if model else encoder_of(index, dtype)

    made = apply_update(folder, change, encoder)
    counts = _counts(change)
    said = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    lines = [said or "nothing to do", f"{folder} holds {made.info['documents']:,} documents"]
    result = {"folder": str(folder), **counts, "encoded": len(change.to_encode)}
    return Outcome("\n".join(lines), {**result, "documents": made.info["documents"]})


def _lines(file: Path) -> list[str]:
    """Raises: ConfigError for a file that cannot be read."""
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        fix = "give a text file with an id on each line"
        raise ConfigError(f"cannot be read: {first_line(error)}", where=str(file), fix=fix) from None


def _counts(change: Change) -> dict[str, int]:
    return {
        "added": len(change.new),
        "replaced": len(change.replaced),
        "with other fields": len(change.relabelled),
        "deleted": len(change.deleted),
        "unchanged": change.num_unchanged,
    }


@command(
    app,
    "migrate",
    [
        "adaptkit embed migrate index models/new",
        "adaptkit embed migrate index models/new --queries asked.jsonl --overlap 0.4",
        "adaptkit embed migrate index models/new --drop-old",
    ],
)
def migrate(
    folder: IndexFolder,
    model: EncoderFolder,
    queries: Annotated[
        list[str] | None,
        typer.Option(help="Questions (`text` in each row) to compare both by; else a sample of documents."),
    ] = None,
    overlap: Annotated[
        float,
        typer.Option(
            help="Switch where both have at least this part of the ten best in common, beyond chance.",
            min=0,
            max=1,
        ),
    ] = LEAST_OVERLAP,
    dimensions: Dimensions = 0,
    dtype: Dtype = "float32",
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Then delete every version but the one that answers.")
    ] = False,
) -> Outcome:
    """Bring an index to another model, and switch when its version is whole.

    The old version answers meanwhile, and stays for a way back. Goes on after a kill.
    """
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.index_folder import drop_others, switch
    from adaptkit.embed.migration import check_overlap, prepare

    hold(Run(folder))
    encoder = Encoder.load(model, dtype=dtype)
    prepared = prepare(folder, encoder, dimensions=dimensions)
    lines, result = _describe(prepared, model)
    if prepared.new.folder != prepared.old.folder:
        found = _compare(prepared, encoder, queries or [])
        result["overlap"] = _as_json(found)
        lines += _overlap_lines(found)
        if found.beyond_chance < overlap:
            typer.echo("\n".join(lines), err=True)
        check_overlap(found, overlap, folder)
        switch(prepared.folder, prepared.new.folder)
        lines.append(f"switched: {folder} answers {model} from now on")
    next_step = f'adaptkit embed search {folder} {model} "a question"'
    if drop_old:
        result["dropped"] = drop_others(prepared.folder)
        lines.append(f"deleted {result['dropped']} older versions")
    elif prepared.new.folder != prepared.old.folder:
        back = prepared.old.info.get("encoder") or "OLDMODEL"
        lines.append(
            f"the old version is kept: `adaptkit embed migrate {folder} {back}` goes back, encoding nothing"
        )
        next_step = f"adaptkit embed migrate {folder} {model} --drop-old, when nobody wants to go back"
    lines.append(f"next: {next_step}")
    return Outcome("\n".join(lines), {**result, "next": next_step})


def _describe(prepared: Prepared, model: str) -> tuple[list[str], dict[str, Any]]:
    """Say what was encoded, and what was there."""
    info, result = prepared.new.info, {"folder": str(prepared.folder), "encoded": prepared.num_encoded}
    result |= {name: getattr(prepared, name).info["model"] for name in ("old", "new")}
    if prepared.new.folder == prepared.old.folder:
        return [f"{prepared.folder} answers {model} already: nothing was encoded"], result
    if not prepared.num_encoded:
        return [f"the vectors of {model} are there: nothing was encoded"], result
    return [
        f"encoded {prepared.num_encoded:,} documents with {model}: vectors of {info['dimensions']}"
    ], result


def _compare(prepared: Prepared, encoder: Encoder, queries: list[str]) -> Overlap:
    from adaptkit.embed.index_writing import encoder_of
    from adaptkit.embed.migration import overlap_of, overlap_on

    if not queries:
        return overlap_of(prepared.old, prepared.new)
    return overlap_on(prepared.old, encoder_of(prepared.old), prepared.new, encoder, queries)


def _overlap_lines(found: Overlap) -> list[str]:
    low, high = found.interval()
    lines = [
        f"in common among the {found.depth} best: {found.mean:.0%} [{low:.0%}, {high:.0%}], by chance "
        f"{found.by_chance:.0%}, of {found.asked}",
        "least in common:",
    ]
    for question, share in found.least():
        shown = question if len(question) <= SHOWN_CHARS else f"{question[: SHOWN_CHARS - 3]}..."
        lines.append(f"  {share:.0%}  {' '.join(shown.split())}")
    return lines


def _as_json(found: Overlap) -> dict[str, Any]:
    return {
        "asked": found.asked,
        "depth": found.depth,
        "mean": found.mean,
        "by_chance": found.by_chance,
        "beyond_chance": found.beyond_chance,
        "interval": list(found.interval()),
        "least": [{"question": question, "share": share} for question, share in found.least()],
    }
