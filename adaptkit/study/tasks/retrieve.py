"""Retrieval as a task of a study: queries and documents prepared once, an origin's vectors frozen or trained,
BM25 beside them.

A frozen arm (`probe`) pools the origin's own states; a trained one learns from the queries of the train split
by contrast. Both search all documents exactly, and every query is an item row.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from adaptkit import models
from adaptkit.compare.plan import adapter_kind
from adaptkit.compare.workspace import StudyFolder, tidy, with_trainer
from adaptkit.data.readers import DataConfig, Dataset, Row
from adaptkit.embed.examples import examples_of_set, hold_out, retrieval_folder
from adaptkit.embed.metrics import ranked, retrieval_row
from adaptkit.embed.retrieval import RetrievalSet, read_set, scored_split, splits
from adaptkit.errors import DataError
from adaptkit.run import Run, write_json, write_jsonl, write_text
from adaptkit.study.arms import Arm
from adaptkit.study.config import CorpusConfig, StudyConfig, TaskConfig

BASELINE = "BM25"
DEV_SHARE = 0.1
BATCH = 16
SAMPLE = 200


def read_queries(corpus: CorpusConfig) -> tuple[Dataset, Dataset]:
    """Training and test queries of a retrieval set, as rows that overlap is looked for in; dev queries are
    among the first."""
    train, test = _named(corpus)
    learnt = [read_set(train, name, corpus.train.max_bytes) for name in _train_splits(corpus)]
    tested = read_set(test, scored_split(test), (corpus.test or corpus.train).max_bytes)
    return _queries(learnt), _queries([tested])


def write_sets(folder: Path, corpus: CorpusConfig, train: Dataset, test: Dataset) -> None:
    """The prepared set: its documents, and the train, dev and test queries that were kept."""
    named, tested = _named(corpus)
    kept = {row.id for row in train.rows}
    parts = {
        name: read_set(named, name, corpus.train.max_bytes).with_queries(kept)
        for name in _train_splits(corpus)
    }
    if "dev" not in parts:
        parts["train"], parts["dev"] = _divided(parts["train"])
    parts["test"] = read_set(tested, scored_split(tested), (corpus.test or corpus.train).max_bytes)
    documents = {name: text for part in parts.values() for name, text in part.documents.items()}
    queries = {name: text for part in parts.values() for name, text in part.queries.items()}
    write_jsonl(folder / "corpus.jsonl", ({"_id": name, "text": text} for name, text in documents.items()))
    write_jsonl(folder / "queries.jsonl", ({"_id": name, "text": text} for name, text in queries.items()))
    for name, part in parts.items():
        lines = (
            f"{query}\t{document}\t{grade}\n"
            for query, of in part.grades.items()
            for document, grade in of.items()
        )
        write_text(folder / "qrels" / f"{name}.tsv", "query-id\tcorpus-id\tscore\n" + "".join(lines))


def baseline_rows(folder: Path) -> list[dict[str, Any]]:
    """Item rows of BM25 (Robertson and Zaragoza 2009) on the test split: k1 1.5, b 0.75, English stop words,
    no stemming."""
    import bm25s

    found = read_set(folder, "test")
    index = bm25s.BM25()
    words = bm25s.tokenize(list(found.documents.values()), stopwords="en", show_progress=False)
    index.index(words, show_progress=False)
    asked = bm25s.tokenize(
        list(found.queries.values()), stopwords="en", return_ids=False, show_progress=False
    )
    names = list(found.documents)
    return [
        retrieval_row(query, ranked(index.get_scores(tokens), names), found.grades[query])
        for query, tokens in zip(found.queries, asked, strict=True)
    ]


def frozen(
    folder: StudyFolder, task: TaskConfig, origin: Path, run: Run
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Test rows and dev scores of an origin's own vectors; writes what encoding cost."""
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.examples import Examples, set_of
    from adaptkit.embed.metrics import retrieval_scores
    from adaptkit.embed.retrieval import retrieval_rows
    from adaptkit.trainer import device

    begun, encoder = time.perf_counter(), Encoder.load(origin)
    encoder.limit(task.max_length)
    prepared = folder.data / task.name
    asked = read_set(prepared, "dev")
    dev = set_of(Examples(examples_of_set(asked), list(asked.documents.values())))
    scores = retrieval_scores(retrieval_rows(encoder, dev))
    rows = retrieval_rows(encoder, read_set(prepared, "test"))
    cost = {"flops": encoder.flops, "seconds": time.perf_counter() - begun, "tokens": encoder.num_tokens}
    write_json(run.cost_path, cost | {"peak_memory_bytes": device.peak_memory(encoder.model.device)})
    return rows, scores


def trained(
    folder: StudyFolder,
    task: TaskConfig,
    arm: Arm,
    seed: int,
    origin: Path,
    flops: float,
    trial: int | None,
    threads: int,
    rate: float,
) -> Run:
    """Train the origin by contrast on the train split; a trial stops at the dev scores."""
    from adaptkit.embed.config import EmbedConfig
    from adaptkit.embed.recipe import embed
    from adaptkit.embed.training import steps_for_budget

    data = DataConfig(files=[str(folder.data / task.name)])
    settings = EmbedConfig(
        name=f"{task.name}-{arm.name}",
        base=str(origin),
        train=data,
        test=None if trial is not None else data,
        adapter=folder.config.adapter.model_copy(
            update={"kind": adapter_kind(folder.config, arm.adaptation)}
        ),
        max_length=task.max_length,
    )
    when = {"learning_rate": rate, "seed": seed, "threads": threads, "global_batch_size": BATCH}
    settings = with_trainer(settings, **when)
    settings = with_trainer(settings, num_steps=steps_for_budget(settings, flops, task.max_epochs))
    run = folder.open(settings.name, settings)
    embed(settings, run, suite=task.name)
    tidy(run, keep_model=trial is None)
    return run


def flops_per_step(config: StudyConfig, task: TaskConfig) -> float:
    """About what a training step of the base's shape on this task costs, from its first queries and
    documents."""
    import torch

    from adaptkit.compare.speed import base_shape

    with torch.device("meta"):
        model = models.build(base_shape(config)[0], "encoder", seed=0)
    found = read_set(_named(task)[0], "train", task.train.max_bytes)
    rows = examples_of_set(found)[:SAMPLE]
    length = sum(min(len(text.encode()) / 3.0, task.max_length) for row in rows for text in row.texts) / len(
        rows
    )
    return models.flops_per_token(model, round(length / 2)).train * length * BATCH


def _named(corpus: CorpusConfig) -> tuple[Path, Path]:
    """The folders that training and test queries come from."""
    folders = [retrieval_folder(data) for data in (corpus.train, corpus.test or corpus.train)]
    for folder, data in zip(folders, (corpus.train, corpus.test or corpus.train), strict=True):
        if folder is None:
            fix = "give the one folder that holds corpus.jsonl, queries.jsonl and qrels/"
            raise DataError("is no retrieval set", where=data.files[0], fix=fix)
    return folders[0], folders[1]


def _train_splits(corpus: CorpusConfig) -> list[str]:
    """train, and dev where that is not the test split."""
    train, test = _named(corpus)
    spare = "dev" in splits(train) and (train != test or scored_split(test) != "dev")
    return ["train", "dev"] if spare else ["train"]


def _queries(parts: list[RetrievalSet]) -> Dataset:
    rows = [
        Row({"text": text}, found.where[name], name)
        for found in parts
        for name, text in found.queries.items()
    ]
    return Dataset(rows, "text", {"text": "text"})


def _divided(found: RetrievalSet) -> tuple[RetrievalSet, RetrievalSet]:
    """Training and dev queries: those whose answers hang together stay on one side."""
    _, held = hold_out(examples_of_set(found), DEV_SHARE)
    places = {row.where for row in held}
    dev = {query for query in found.queries if found.where[query] in places}
    return found.with_queries(set(found.queries) - dev), found.with_queries(dev)
