"""Search as a task: an origin's vectors, frozen or trained, and BM25 beside them.

A frozen arm (`probe`) pools the origin's own states; a trained one learns from the queries of the train split
by contrast. Both search all documents exactly, and every query is an item row.
"""

from __future__ import annotations

import time
from typing import Any

from adaptkit.data.beir import read_set
from adaptkit.data.readers import DataConfig
from adaptkit.embed.config import EmbedConfig
from adaptkit.run import Run
from adaptkit.study.arms import Adaptation
from adaptkit.study.task import (
    Answers,
    Assignment,
    CorpusConfig,
    CorpusRows,
    LearningRates,
    TaskConfig,
    TaskFiles,
    TaskKind,
)
from adaptkit.trainer.config import with_trainer

BM25 = "BM25"
BATCH = 16


class Retrieve(TaskKind):
    """Find the documents that answer a query."""

    name = "retrieve"
    family = "retrieve"
    metrics = ("ndcg_at_10", "mrr_at_10", "map", "recall_at_10", "recall_at_100")
    cannot = frozenset({Adaptation.PROMPT, Adaptation.QLORA})  # a prompt gives no vectors
    rates = LearningRates(full=0.1, adapters=0.5)

    def read(self, corpus: CorpusConfig) -> CorpusRows:
        from adaptkit.study.tasks.retrieval_sets import read_queries

        return read_queries(corpus)

    def prepare(self, files: TaskFiles, corpus: CorpusConfig, rows: CorpusRows) -> None:
        from adaptkit.study.tasks.retrieval_sets import write_sets

        write_sets(files.folder, corpus, rows)

    def step_flops(self, task: TaskConfig, shape: Any, flops_per_token: float) -> float:
        import torch

        from adaptkit import models
        from adaptkit.study.tasks.retrieval_sets import first_examples

        with torch.device("meta"):
            model = models.build(shape, "encoder", seed=0)
        rows = first_examples(task)
        num_tokens = sum(min(len(text.encode()) / 3.0, task.max_length) for row in rows for text in row.texts)
        length = num_tokens / len(rows)
        return models.flops_per_token(model, round(length / 2)).train * length * BATCH

    def frozen(self, work: Assignment) -> Answers:
        from adaptkit.embed.encoder import Encoder
        from adaptkit.embed.examples import Examples, examples_of_set, set_of
        from adaptkit.embed.retrieval import retrieval_rows
        from adaptkit.embed.retrieval_metrics import retrieval_scores
        from adaptkit.trainer import device

        begun, encoder = time.perf_counter(), Encoder.load(work.origin)
        encoder.limit(work.task.max_length)
        held = read_set(work.files.folder, "dev")
        dev = set_of(Examples(examples_of_set(held), list(held.documents.values())))
        scores = retrieval_scores(retrieval_rows(encoder, dev))
        rows = retrieval_rows(encoder, read_set(work.files.folder, "test"))
        cost = {
            "flops": encoder.flops,
            "seconds": time.perf_counter() - begun,
            "tokens": encoder.num_tokens,
            "peak_memory_bytes": device.peak_memory(next(encoder.model.parameters()).device),
        }
        return Answers(rows, scores, cost)

    def train(self, work: Assignment) -> Run:
        from adaptkit.embed.recipe import embed
        from adaptkit.embed.start import steps_for_budget

        data = DataConfig(files=[str(work.files.folder)])
        settings = EmbedConfig(
            name=f"{work.task.name}-{work.arm.name}",
            base=str(work.origin),
            train=data,
            test=None if work.tuning else data,
            adapter=work.adapter,
            max_length=work.task.max_length,
        )
        when = {"learning_rate": work.learning_rate, "seed": work.seed, "threads": work.threads}
        settings = with_trainer(settings, **when, global_batch_size=BATCH)
        steps = steps_for_budget(settings, work.flops, work.task.max_epochs)
        settings = with_trainer(settings, num_steps=steps)
        run = work.open(settings.name, settings)
        embed(settings, run, suite=work.task.name)
        return run

    def baseline(self, task: TaskConfig, files: TaskFiles) -> tuple[str, Answers] | None:
        from adaptkit.study.tasks.retrieval_sets import bm25_rows

        return BM25, Answers(bm25_rows(files.folder))

    def tuning_score(self, dev: dict[str, float], metric: str) -> float:
        """What lacks to the best score: the loss of a small batch tells less than the ranks do."""
        return 1 - dev[metric]
