"""The commands of embeddings: train an encoder, encode a corpus, search it, score it.

adaptkit embed train embed.yaml            an encoder that sentence-transformers and vLLM load
adaptkit embed rerank rerank.yaml          a reranker: reads again what words or vectors have found
adaptkit embed encode MODEL FILES --out V  vectors with ids, resumable
adaptkit embed index, search, update, migrate      see cli/index.py
adaptkit embed evaluate MODEL SET          nDCG, recall, MRR and MAP as trec_eval counts them
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Dimensions, Documents, Dtype, EncoderFolder, Resume, Root, Words
from adaptkit.cli.train import run_config
from adaptkit.data.beir import read_set, scored_split
from adaptkit.data.cut_texts import tell_cuts
from adaptkit.embed.config import OWN_LIMIT, EmbedConfig, RerankConfig
from adaptkit.errors import ServerError
from adaptkit.run import Run, write_jsonl
from adaptkit.run_record import read_record

if TYPE_CHECKING:
    from adaptkit.client.openai import Client

app = typer.Typer(help="Train, use and judge embeddings.", no_args_is_help=True, rich_markup_mode=None)

PATIENCE_S = 120.0
"""How long to try again while a generator's server is overloaded."""


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
def train(words: Words = None, resume: Resume = True, root: Root = Path("runs")) -> Outcome:
    """Train an encoder.

    By contrast on pairs, by scores, or from plain text; all weights or LoRA.
    """
    from adaptkit.embed import recipe

    next_step = (
        'adaptkit try {run} "a question" --in FILE; '
        "adaptkit embed encode {run}/model FILES --out vectors; adaptkit serve {run}"
    )
    return run_config(EmbedConfig, recipe.embed, words, resume, root, next_step=next_step)


@command(
    app,
    "rerank",
    [
        "adaptkit embed rerank configs/rerank.yaml",
        "adaptkit embed rerank configs/rerank.yaml adapter.kind=lora depth=100",
        "adaptkit embed rerank configs/rerank.yaml encoder=runs/embed-1a2b3c4d/model",
    ],
)
def rerank(words: Words = None, resume: Resume = True, root: Root = Path("runs")) -> Outcome:
    """Train a reranker.

    It reads a question and a document together, and sorts what words, or words and vectors, have found.
    """
    from adaptkit.embed import reranking

    next_step = 'adaptkit try {run} "a question" --in FILE; adaptkit serve {run}'
    return run_config(
        RerankConfig, reranking.rerank, words, resume, root, beside=_first_stage, next_step=next_step
    )


def _first_stage(config: RerankConfig, run: Run) -> dict[str, object]:
    """What the first stage finds alone."""
    first = read_record(run).facts["first_stage"]
    found = first["test"] or first["dev"]
    return {f"the first stage alone ({first['name']})": found}


def server_key(key_file: Path | None) -> str:
    """The key in a file, else in the environment; empty where there is none."""
    from adaptkit.serve import api_keys

    if key_file is not None:
        return api_keys.load(key_file).values[0]
    return os.environ.get("OPENAI_API_KEY") or os.environ.get(api_keys.KEY_VARIABLE) or ""


def first_generator(client: Client) -> str:
    """Find the first model of a server that writes text."""
    served = client.models()
    for model in served:
        if model.writes:
            return model.name
    names = ", ".join(model.name for model in served) or "nothing"
    what = f"serves no generator ({names})"
    raise ServerError(what, where=client.base_url, fix="name one by --model, or serve one")


@command(
    app,
    "encode",
    [
        "adaptkit embed encode runs/embed-1a2b3c4d/model corpus.jsonl.gz --out vectors",
        "adaptkit embed encode models/minilm 'corpus/*.parquet' --out v --format parquet --dimensions 128",
    ],
)
def encode(
    model: EncoderFolder,
    files: Documents,
    out: Annotated[Path, typer.Option(help="The folder to write; run the same command again to go on.")],
    format: Annotated[
        Literal["npy", "parquet"], typer.Option(help="One array and a list of ids, or one table.")
    ] = "npy",
    prompt: Annotated[
        str | None, typer.Option(help="Name of the prompt before each text; else `document` if there is one.")
    ] = None,
    dimensions: Dimensions = 0,
    dtype: Dtype = "float32",
    whole: Annotated[
        bool, typer.Option("--whole", help="One vector a document; what the model does not read is lost.")
    ] = False,
) -> Outcome:
    """Turn documents into vectors.

    Documents longer than the model reads are cut into overlapping passages, where sentences end; each has a
    vector. Streams, batches by length, and goes on after a kill.
    """
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.encoding import encode_files

    encoder = Encoder.load(model, dtype=dtype)
    if prompt is None:
        prompt = encoder.layout.prompt_if_any("document")
    encoding = encode_files(
        encoder, files, out, prompt=prompt, dimensions=dimensions, format=format, whole=whole
    )
    info = encoding.info
    line = f"{info['count']:,} vectors of {info['dimensions']} in {encoding.folder}"
    if info["cut"]:
        reads = encoder.layout.max_length
        line += (
            f": {info['cut']:,} of {info['documents']:,} documents are longer than the {reads} tokens that "
        )
        line += "the model reads, and were cut into passages"
    next_step = f"adaptkit embed index {encoding.folder} --out index"
    return Outcome(f"{line}\nnext: {next_step}", {"folder": str(encoding.folder), **info, "next": next_step})


@command(
    app,
    "evaluate",
    [
        "adaptkit embed evaluate models/minilm data/retrieval/trials",
        "adaptkit embed evaluate runs/x/model set --split dev --json",
    ],
)
def evaluate(
    model: EncoderFolder,
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
    from adaptkit.embed.retrieval import retrieval_rows
    from adaptkit.embed.retrieval_metrics import retrieval_scores

    chosen = read_set(folder, split or scored_split(folder))
    encoder = Encoder.load(model, dtype=dtype)
    rows = retrieval_rows(encoder, chosen, dimensions)
    tell_cuts({"texts": encoder.cut}, OWN_LIMIT)
    if out is not None:
        write_jsonl(out, rows)
    scores = retrieval_scores(rows)
    result = {
        "scores": scores,
        "num_queries": len(rows),
        "num_documents": len(chosen.documents),
        "num_unjudged": chosen.num_unjudged,
    }
    lines = [f"{len(rows):,} queries, {len(chosen.documents):,} documents"]
    lines += [f"{name:14} {value:.4f}" for name, value in scores.items()]
    return Outcome("\n".join(lines), result)
