"""The commands of embeddings: train an encoder, encode a corpus, search it, judge it.

    adaptkit embed train embed.yaml            an encoder that sentence-transformers and vLLM load
    adaptkit embed questions FILES --server URL --out Q   pairs to train on, asked by a served generator
    adaptkit embed encode MODEL FILES --out V  vectors with ids, resumable
    adaptkit embed index V --out I             exact, or FAISS
    adaptkit embed search I MODEL "question"   the nearest documents
    adaptkit embed evaluate MODEL SET          nDCG, recall, MRR and MAP as trec_eval counts them

Everything heavy is imported inside the command that needs it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import typer

from adaptkit.cli.console import Outcome, command

if TYPE_CHECKING:
    from adaptkit.client.openai import Client

app = typer.Typer(help="Train, use and judge embeddings.", no_args_is_help=True, rich_markup_mode=None)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="An encoder's folder or hub id.", show_default=False)
]
Dimensions = Annotated[int, typer.Option(help="Cut vectors to this Matryoshka size; 0 keeps all.", min=0)]
PATIENCE_S, TOKENS_PER_QUESTION = 120.0, 60
Dtype = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(help="Arithmetic; bfloat16 is faster where there are units for it."),
]


@command(
    app,
    "train",
    [
        "adaptkit embed train configs/embed.yaml",
        "adaptkit embed train configs/embed.yaml adapter.kind=lora dimensions=[128,64]",
        "adaptkit embed train configs/embed.yaml trainer.global_batch_size=4k trainer.microbatch_size=32",
        "torchrun --nproc-per-node 8 -m adaptkit embed train configs/embed.yaml",
    ],
)
def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG.yaml [key=value ...]", help="A config and overrides."),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on where an earlier run of the same config stopped.")
    ] = True,
    root: Annotated[Path, typer.Option(help="The folder that holds all runs.")] = Path("runs"),
) -> Outcome:
    """Train an encoder.

    By contrast on pairs, by scores, or from plain text; all weights or LoRA.
    """
    from adaptkit.cli import arguments, render
    from adaptkit.config import load
    from adaptkit.embed import recipe
    from adaptkit.embed.config import EmbedConfig

    path, overrides = arguments.divide(words, needed=True)
    loaded = load(EmbedConfig, path, overrides)
    run = arguments.open_run(loaded.config, root, resume=resume)
    found = render.result_json(run, recipe.embed(loaded.config, run))
    return Outcome(render.result(found), found)


@command(
    app,
    "questions",
    [
        "adaptkit embed questions corpus.jsonl.gz --server http://127.0.0.1:8000 --out questions",
        "adaptkit embed questions 'docs/*.parquet' --server https://api.example.com --model large --key-file key --out q",
        "adaptkit embed train configs/embed.yaml train.files=[questions/pairs.jsonl]",
    ],
)
def questions(
    files: Annotated[list[str], typer.Argument(help="Files, folders or globs with text, and _id or id.")],
    server: Annotated[str, typer.Option(help="Address of an OpenAI-compatible server.")],
    out: Annotated[Path, typer.Option(help="The folder to write; run the same command again to go on.")],
    model: Annotated[
        str, typer.Option(help="The generator's name there; else the first that the server names.")
    ] = "",
    key_file: Annotated[
        Path | None, typer.Option(help="The server's key; else OPENAI_API_KEY or ADAPTKIT_API_KEY.")
    ] = None,
    count: Annotated[int, typer.Option(help="Questions per document.", min=1, max=50)] = 3,
    prompt_file: Annotated[
        Path | None, typer.Option(help="Your own request, with {count} and {text} in it.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Requests at once.", min=1)] = 8,
) -> Outcome:
    """Have a served generator ask questions about documents.

    Pairs to train on where nobody has asked yet. Streams, filters, and goes on after a kill.
    """
    from adaptkit.client.openai import Client
    from adaptkit.embed.questions import PROMPT, write_questions
    from adaptkit.serve import api_keys

    environment = os.environ.get("OPENAI_API_KEY") or os.environ.get(api_keys.KEY_VARIABLE) or ""
    key = api_keys.load(key_file).values[0] if key_file is not None else environment
    prompt = prompt_file.read_text(encoding="utf-8") if prompt_file is not None else PROMPT
    with Client(server, key, patience_s=PATIENCE_S) as client:
        name = model or _first_generator(client)
        generator = {"model": name, "server": urlsplit(client.base_url).netloc.rpartition("@")[2]}

        def ask(request: str) -> str:
            return client.answer(name, request, max_tokens=TOKENS_PER_QUESTION * count, temperature=0.7)

        found = write_questions(files, out, ask, generator, count=count, prompt=prompt, jobs=jobs)
    counts = found["counts"]
    left_out = ", ".join(
        f"{number:,} {what}"
        for what, number in counts.items()
        if number and what not in ("pairs", "documents")
    )
    line = f"{counts['pairs']:,} pairs from {counts['documents']:,} documents in {out}" + (
        f"; {left_out}" if left_out else ""
    )
    return Outcome(line, {"folder": str(out), **found})


def _first_generator(client: Client) -> str:
    from adaptkit.errors import ServerError

    served = client.models()
    name = next((model.name for model in served if model.writes), None)
    if name is None:
        what = f"serves no generator ({', '.join(model.name for model in served) or 'nothing'})"
        raise ServerError(what, where=client.base_url, fix="name one by --model, or serve one")
    return name


@command(
    app,
    "encode",
    [
        "adaptkit embed encode runs/embed-1a2b3c4d/model corpus.jsonl.gz --out vectors",
        "adaptkit embed encode models/minilm 'corpus/*.parquet' --out vectors --format parquet --dimensions 128",
    ],
)
def encode(
    model: Model,
    files: Annotated[list[str], typer.Argument(help="Files, folders or globs with text, and _id or id.")],
    out: Annotated[Path, typer.Option(help="The folder to write; run the same command again to go on.")],
    format: Annotated[
        Literal["npy", "parquet"], typer.Option(help="One array and a list of ids, or one table.")
    ] = "npy",
    prompt: Annotated[
        str | None, typer.Option(help="Name of the prompt before each text; else `document` if there is one.")
    ] = None,
    dimensions: Dimensions = 0,
    dtype: Dtype = "float32",
) -> Outcome:
    """Turn documents into vectors.

    Streams, batches by length, and goes on after a kill.
    """
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.encoding import encode_files

    encoder = Encoder.load(model, dtype=dtype)
    name = "document" if prompt is None and "document" in encoder.layout.prompts else prompt
    made = encode_files(encoder, files, out, prompt=name, dimensions=dimensions, format=format)
    found = {"folder": str(made.folder), **made.info}
    return Outcome(f"{found['count']:,} vectors of {found['dimensions']} in {made.folder}", found)


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

    made = build(Encoding.open(vectors), out, faiss=faiss)
    return Outcome(
        f"{made.info['count']:,} vectors, {faiss or 'exact'}, in {out}", {"folder": str(out), **made.info}
    )


@command(app, "search", ['adaptkit embed search index runs/embed-1a2b3c4d/model "does aspirin help?" -k 5'])
def search(
    folder: Annotated[
        Path, typer.Argument(metavar="INDEX", help="The folder that `index` wrote.", show_default=False)
    ],
    model: Model,
    queries: Annotated[list[str], typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", help="Documents per query.", min=1)] = 10,
) -> Outcome:
    """Find the nearest documents.

    Refuses a model other than the one that made the vectors.
    """
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.index import Index

    found = Index.open(folder).search(Encoder.load(model), queries, k)
    told = [
        {"query": query, "found": [{"id": name, "score": s} for name, s in row]}
        for query, row in zip(queries, found, strict=True)
    ]
    lines = [
        line
        for row in told
        for line in (row["query"], *(f"  {hit['score']:.4f}  {hit['id']}" for hit in row["found"]))
    ]
    return Outcome("\n".join(lines), {"results": told})


@command(
    app,
    "evaluate",
    [
        "adaptkit embed evaluate models/minilm data/retrieval/trials",
        "adaptkit embed evaluate runs/x/model set --split dev --json",
    ],
)
def evaluate(
    model: Model,
    folder: Annotated[
        Path, typer.Argument(metavar="SET", help="A retrieval set in BEIR's layout.", show_default=False)
    ],
    split: Annotated[str, typer.Option(help="Which qrels; else test, else dev.")] = "",
    dimensions: Dimensions = 0,
    dtype: Dtype = "float32",
    out: Annotated[
        Path | None, typer.Option(help="Also write one row per query to this .jsonl file.")
    ] = None,
) -> Outcome:
    """Score an encoder on a retrieval set.

    nDCG@10, MRR@10, MAP and recall, with trec_eval's definitions.
    """
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.metrics import retrieval_scores
    from adaptkit.embed.retrieval import read_set, retrieval_rows, scored_split
    from adaptkit.run import write_jsonl

    chosen = read_set(folder, split or scored_split(folder))
    rows = retrieval_rows(Encoder.load(model, dtype=dtype), chosen, dimensions)
    if out is not None:
        write_jsonl(out, rows)
    scores = retrieval_scores(rows)
    told = {
        "metrics": scores,
        "num_queries": len(rows),
        "num_documents": len(chosen.documents),
        "num_unjudged": chosen.num_unjudged,
    }
    lines = [f"{name:14} {value:.4f}" for name, value in scores.items()]
    return Outcome("\n".join([f"{len(rows):,} queries, {len(chosen.documents):,} documents", *lines]), told)
