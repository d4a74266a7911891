"""Indexes of vectors: make one, search it.

adaptkit embed index V --out I             exact, or FAISS
adaptkit embed search I MODEL "question"   the nearest documents
adaptkit embed update, migrate             see cli/index_change.py
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptkit.cli.console import Outcome, command
from adaptkit.cli.embed import server_key
from adaptkit.errors import ConfigError
from adaptkit.run import Run
from adaptkit.run_lock import hold

if TYPE_CHECKING:
    from adaptkit.embed.index import Hit, Index

app = typer.Typer(rich_markup_mode=None)

LINE_CHARS = 160
IndexFolder = Annotated[
    Path, typer.Argument(metavar="INDEX", help="The folder that `index` wrote.", show_default=False)
]


@command(
    app,
    "index",
    [
        "adaptkit embed index vectors --out index",
        "adaptkit embed index vectors --out index --words",
        "adaptkit embed index vectors --out index --faiss HNSW32",
    ],
)
def index(
    vectors: Annotated[
        Path, typer.Argument(metavar="VECTORS", help="The folder that `encode` wrote.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    faiss: Annotated[
        str, typer.Option(help="A FAISS factory string for approximate search; else exact.")
    ] = "",
    words: Annotated[
        bool, typer.Option("--words", help="Rank by words (BM25) too: both ranks are added, reciprocally.")
    ] = False,
) -> Outcome:
    """Make vectors searchable.

    Exact unless FAISS is asked for; bound to the model that made them.
    """
    from adaptkit.embed.encoding import Encoding
    from adaptkit.embed.index_writing import build

    hold(Run(out))
    built = build(Encoding.open(vectors), out, faiss=faiss, words=words)
    kind = "exact, with words" if words else faiss or "exact"
    line = f"{built.info['count']:,} vectors of {built.info['documents']:,} documents, {kind}, in {out}"
    next_step = f'adaptkit embed search {out} MODEL "a question"'
    return Outcome(f"{line}\nnext: {next_step}", {"folder": str(out), **built.info, "next": next_step})


@command(
    app,
    "search",
    [
        'adaptkit embed search index runs/embed-1a2b3c4d/model "does aspirin help?" -k 5',
        'adaptkit embed search index models/minilm "does aspirin help?" --filter source=pubmed',
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
    filter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE", help="Only documents with this value; one field twice: either of both."
        ),
    ] = None,
    every_passage: Annotated[
        bool, typer.Option("--every-passage", help="Rank passages: a document may be found several times.")
    ] = False,
) -> Outcome:
    """Find the nearest documents, and show the passage of each that fits best.

    Refuses a model other than the one that made the vectors.
    """
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.index import Index

    options: dict[str, Any] = {"filter": _filter(filter or []), "every_passage": every_passage}
    index = Index.open(folder)
    if server:
        nearest = _by_server(index, server, server_key(key_file), model, queries, k, options)
    else:
        nearest = index.search(Encoder.load(model), queries, k, **options)
    lines, results = [], []
    for query, hits in zip(queries, nearest, strict=True):
        lines += [query, *map(_hit_line, hits)]
        results.append({"query": query, "found": [hit._asdict() for hit in hits]})
    return Outcome("\n".join(lines), {"results": results})


def _filter(words: list[str]) -> dict[str, list[str]]:
    """Field -> values.

    Raises: ConfigError for a word without a field.
    """
    values: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise ConfigError(f"'{word}' names no field and value", where="--filter", fix="write FIELD=VALUE")
        values.setdefault(name, []).append(value)
    return values


def _hit_line(hit: Hit) -> str:
    """`0.4413  PMC7 [760-1504]  the passage begins ...`; without characters where it begins the document."""
    place = f" [{hit.start}-{hit.end}]" if hit.start else ""
    title = f"{hit.title}: " if hit.title else ""
    shown = " ".join(f"{title}{hit.text}".split())
    if len(shown) > LINE_CHARS:
        shown = f"{shown[: LINE_CHARS - 3].rstrip()}..."
    return f"  {hit.score:.4f}  {hit.id}{place}  {shown}".rstrip()


def _by_server(
    index: Index, server: str, key: str, model: str, queries: list[str], k: int, options: dict[str, Any]
) -> list[list[Hit]]:
    from adaptkit.client.openai import Client
    from adaptkit.embed.served_encoder import ServedEncoder

    words = index.canaries.words if index.canaries else ""
    with Client(server, key) as client:
        served = ServedEncoder.of(client, model, words=words, normalised=index.info["normalised"])
        return index.search(served, queries, k, **options)
