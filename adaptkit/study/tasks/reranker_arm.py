"""The arm `rerank` of a search task: a reranker of what words, or words and an origin's vectors, find.

Everything that it takes is paid from the arm's budget: choosing the first stage, searching by vectors where
those help, and reading `depth` documents again for every development query.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from adaptkit.data.readers import DataConfig
from adaptkit.embed.config import RerankConfig
from adaptkit.run import Run
from adaptkit.study.task import Assignment, TaskConfig
from adaptkit.study.task_size import TaskSize
from adaptkit.trainer.config import with_trainer

if TYPE_CHECKING:
    from adaptkit.data.beir import RetrievalSet
    from adaptkit.embed.first_stage import FirstStage

BATCH_QUERIES = 4
"""Queries of an optimizer step."""
NEGATIVES = 7
"""Documents beside the right one in a step, or as many as `depth` leaves."""


def pair_size(task: TaskConfig, size: TaskSize) -> TaskSize:
    """How much a reranker reads: a query and a document in one row, `depth` of them for each query."""
    row = min(size.row_tokens, task.max_length) if task.max_length else size.row_tokens
    return replace(
        size,
        row_tokens=(1 + _negatives(task)) * row,
        text_tokens=row,
        batch_rows=BATCH_QUERIES,
        dev_tokens=size.num_dev * task.depth * row,
        test_tokens=size.num_items * task.depth * row,
    )


def train_reranker(work: Assignment, development: RetrievalSet) -> Run:
    """Train one and score it under the task's name; the run is finished when this returns."""
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.first_stage import choose_first_stage
    from adaptkit.embed.reranking import rerank, steps_for_budget
    from adaptkit.study.spend import after_scoring, charge_scoring

    encoder = Encoder.load(work.origin)
    encoder.limit(work.task.max_length)
    first = choose_first_stage(development, work.task.score, encoder)
    settings = _settings(work, by_vectors=first.encoder is not None)
    scoring = encoder.flops + _reading(settings, first, development)
    searching = _searching(work, first, encoder.flops)
    spare = after_scoring(work.flops, scoring + searching, work.name)
    steps = steps_for_budget(settings, spare, work.task.max_epochs)
    settings = with_trainer(settings, num_steps=steps, learning_rate=work.rate_for(steps))
    run = work.open(settings.name, settings)
    rerank(settings, run, suite=work.task.name, metric=work.task.score)
    charge_scoring(run, scoring)
    return run


def _settings(work: Assignment, *, by_vectors: bool) -> RerankConfig:
    data = DataConfig(files=[str(work.files.folder)])
    settings = RerankConfig(
        name=work.name,
        base=str(work.origin),
        train=data,
        test=None if work.tuning else data,
        encoder=str(work.origin) if by_vectors else "",
        depth=work.task.depth,
        negatives=_negatives(work.task),
        max_length=work.task.max_length,
    )
    return with_trainer(settings, seed=work.seed, threads=work.threads, global_batch_size=BATCH_QUERIES)


def _negatives(task: TaskConfig) -> int:
    return min(NEGATIVES, task.depth - 1)


def _reading(settings: RerankConfig, first: FirstStage, development: RetrievalSet) -> float:
    """FLOPs of reading what the first stage finds for the development queries."""
    from adaptkit.embed.reranking import base_reranker
    from adaptkit.study.spend import forward_flops

    reranker = base_reranker(settings)
    lengths = [
        len(reranker.pairs.row(development.queries[query], development.documents[name]).ids)
        for query, names in first.candidates(development, settings.depth).items()
        for name in names
    ]
    return forward_flops(reranker.model, lengths)


def _searching(work: Assignment, first: FirstStage, choosing: float) -> float:
    """FLOPs of what the training searches by vectors before it begins: nothing where words alone rank."""
    from adaptkit.data.beir import read_set
    from adaptkit.study.spend import forward_flops

    if first.encoder is None:
        return 0.0
    learnt = read_set(work.files.folder, "train")
    texts = [*learnt.documents.values(), *learnt.queries.values()]
    everything = forward_flops(first.encoder.model, [len(ids) for ids in first.encoder.tokens(texts)])
    return everything + 2 * choosing  # the way is chosen again, and the development queries searched
