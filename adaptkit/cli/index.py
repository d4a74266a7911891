"""Indexes of vectors: make one, search it, bring it to another model while it answers.

adaptkit embed index V --out I             exact, or FAISS
adaptkit embed search I MODEL "question"   the nearest documents
adaptkit embed migrate I MODEL             another model, without a time when nothing answers
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptkit.cli.console import Outcome, command
from adaptkit.cli.embed import OWN_LIMIT, server_key
from adaptkit.cli.options import Dimensions, Dtype, EncoderFolder
from adaptkit.data.cut_texts import tell_cuts
from adaptkit.run import Run
from adaptkit.run_lock import hold

if TYPE_CHECKING:
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.index import Index
    from adaptkit.embed.migration import Overlap, Prepared

app = typer.Typer(rich_markup_mode=None)

LEAST_OVERLAP = 0.2
SHOWN_CHARS = 70
IndexFolder = Annotated[
    Path, typer.Argument(metavar="INDEX", help="The folder that `index` wrote.", show_default=False)
]


@command(
    app,
    "index",
    ["adaptkit embed index vectors --out index", "adaptkit embed index vectors --out index --faiss HNSW32"],
)
def index(
    vectors: Annotated[
        Path, typer.Argument(metavar="VECTORS", help="The folder that `encode` wrote.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    faiss: Annotated[
        str, typer.Option(help="A FAISS factory string for approximate search; else exact.")
    ] = "",
) -> Outcome:
    """Make vectors searchable.

    Exact unless FAISS is asked for; bound to the model that made them.
    """
    from adaptkit.embed.encoding import Encoding
    from adaptkit.embed.index import build

    hold(Run(out))
    built = build(Encoding.open(vectors), out, faiss=faiss)
    line = f"{built.info['count']:,} vectors, {faiss or 'exact'}, in {out}"
    next_step = f'adaptkit embed search {out} MODEL "a question"'
    return Outcome(f"{line}\nnext: {next_step}", {"folder": str(out), **built.info, "next": next_step})


@command(
    app,
    "search",
    [
        'adaptkit embed search index runs/embed-1a2b3c4d/model "does aspirin help?" -k 5',
        'adaptkit embed search index vectors "does aspirin help?" --server http://127.0.0.1:8000',
    ],
)
def search(
    folder: IndexFolder,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="An encoder's folder or hub id; a server's name for it.")
    ],
    queries: Annotated[list[str], typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", help="Documents per query.", min=1, max=1_000_000)] = 10,
    server: Annotated[
        str, typer.Option(help="Address of an OpenAI-compatible server that encodes the queries.")
    ] = "",
    key_file: Annotated[
        Path | None, typer.Option(help="The server's key; else OPENAI_API_KEY or ADAPTKIT_API_KEY.")
    ] = None,
) -> Outcome:
    """Find the nearest documents, and show how each begins.

    Refuses a model other than the one that made the vectors.
    """
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.index import Index

    index = Index.open(folder)
    if server:
        nearest = _by_server(index, server, server_key(key_file), model, queries, k)
    else:
        nearest = index.search(Encoder.load(model), queries, k)
    lines, results = [], []
    for query, hits in zip(queries, nearest, strict=True):
        rows = [{"id": name, "score": score, "text": index.texts.get(name, "")} for name, score in hits]
        lines += [query, *(f"  {row['score']:.4f}  {row['id']}  {row['text']}".rstrip() for row in rows)]
        results.append({"query": query, "found": rows})
    return Outcome("\n".join(lines), {"results": results})


def _by_server(
    index: Index, server: str, key: str, model: str, queries: list[str], k: int
) -> list[list[tuple[str, float]]]:
    from adaptkit.client.openai import Client
    from adaptkit.embed.served_encoder import ServedEncoder

    words = index.canaries.words if index.canaries else ""
    with Client(server, key) as client:
        served = ServedEncoder.of(client, model, words=words, normalised=index.info["normalised"])
        return index.search(served, queries, k)


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
            help="Switch where both find at least this part of the ten best in common.", min=0, max=1
        ),
    ] = LEAST_OVERLAP,
    files: Annotated[
        list[str] | None, typer.Option(help="Where the indexed files lie now, if they were moved.")
    ] = None,
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
    prepared = prepare(folder, encoder, files=files or [], dimensions=dimensions)
    tell_cuts({"texts": encoder.cut}, OWN_LIMIT)
    lines, result = _describe(prepared, model)
    if prepared.new.folder != prepared.old.folder:
        found = _compare(prepared, encoder, queries or [])
        result["overlap"] = _as_json(found)
        lines += _overlap_lines(found)
        if found.mean < overlap:
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
    from adaptkit.embed.migration import overlap_of, overlap_on
    from adaptkit.embed.searcher import encoder_of

    if not queries:
        return overlap_of(prepared.old, prepared.new)
    return overlap_on(prepared.old, encoder_of(prepared.old), prepared.new, encoder, queries)


def _overlap_lines(found: Overlap) -> list[str]:
    low, high = found.interval()
    lines = [
        f"in common among the {found.depth} best: {found.mean:.0%} [{low:.0%}, {high:.0%}], of {found.asked}",
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
        "interval": list(found.interval()),
        "least": [{"question": question, "share": share} for question, share in found.least()],
    }
