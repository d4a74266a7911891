"""Search as a task: an origin's vectors, frozen or trained, and BM25 beside them or fused with them.

A frozen arm (`probe`) pools the origin's own states, and `hybrid` fuses such vectors with BM25 in the way
that is best on development queries; a trained one learns from the queries of the train split by contrast. All
search all documents exactly, and every query is an item row. `rerank` reads again what words, or words and
vectors, find (`reranker_arm`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from adaptkit.data.beir import read_set
from adaptkit.data.readers import DataConfig
from adaptkit.embed.config import EmbedConfig
from adaptkit.model_uses import Use
from adaptkit.run import Run
from adaptkit.study.arms import Adaptation
from adaptkit.study.task import (
    Assignment,
    CorpusConfig,
    CorpusRows,
    LearningRates,
    TaskConfig,
    TaskFiles,
    TaskKind,
)
from adaptkit.study.task_answers import Answers, Baseline
from adaptkit.study.task_size import TaskSize
from adaptkit.study.tasks.reranker_arm import pair_size, train_reranker
from adaptkit.trainer.config import with_trainer

if TYPE_CHECKING:
    from adaptkit.data.beir import RetrievalSet

BM25 = "BM25: word counts, no language model"


class Retrieve(TaskKind):
    """Find the documents that answer a query."""

    name = "retrieve"
    family = "retrieve"
    metrics = ("ndcg_at_10", "mrr_at_10", "map", "recall_at_10", "recall_at_100")
    cannot = frozenset(  # a prompt gives no vectors
        {Adaptation.PROMPT, Adaptation.RAG, Adaptation.QLORA, Adaptation.RAG_LORA}
    )
    searches = True
    rates = LearningRates(full=0.1, adapters=0.5)
    batch_rows = 16

    def use(self, adaptation: Adaptation) -> Use:
        return Use.CLASSIFY if adaptation is Adaptation.RERANK else Use.EMBED

    def read(self, corpus: CorpusConfig) -> CorpusRows:
        from adaptkit.study.tasks.retrieval_sets import read_queries

        return read_queries(corpus)

    def prepare(self, files: TaskFiles, corpus: CorpusConfig, rows: CorpusRows) -> None:
        from adaptkit.study.tasks.retrieval_sets import write_sets

        write_sets(files.folder, corpus, rows)

    def size(self, task: TaskConfig) -> TaskSize:
        from adaptkit.study.tasks.retrieval_sets import set_size

        return set_size(task, task.max_length, self.batch_rows)

    def size_for(self, task: TaskConfig, size: TaskSize, adaptation: Adaptation) -> TaskSize:
        return pair_size(task, size) if adaptation is Adaptation.RERANK else size

    def texts(self, task: TaskConfig) -> list[str]:
        from adaptkit.study.tasks.retrieval_sets import set_texts

        return set_texts(task)

    def frozen(self, work: Assignment) -> Answers:
        from adaptkit.embed.encoder import Encoder
        from adaptkit.embed.hybrid import choose_fusion, hybrid_rows
        from adaptkit.embed.retrieval import retrieval_rows
        from adaptkit.embed.retrieval_metrics import retrieval_scores
        from adaptkit.trainer import device

        begun, encoder = time.perf_counter(), Encoder.load(work.origin)
        encoder.limit(work.task.max_length)
        held, tested = _development_set(work.files), read_set(work.files.folder, "test")
        facts: dict[str, Any] = {}
        if work.arm.adaptation is Adaptation.HYBRID:
            fusion, tried = choose_fusion(encoder, held, work.task.score, work.trials)
            scores = {work.task.score: max(each[work.task.score] for each in tried)}
            rows = hybrid_rows(encoder, tested, fusion)
            facts = {"chosen": fusion.as_json(), "trials": tried}
        else:
            scores = retrieval_scores(retrieval_rows(encoder, held))
            rows = retrieval_rows(encoder, tested)
        cost = {
            "flops": encoder.flops,
            "seconds": time.perf_counter() - begun,
            "tokens": encoder.num_tokens,
            "peak_memory_bytes": device.peak_memory(next(encoder.model.parameters()).device),
        }
        return Answers(rows, scores, cost, facts)

    def train(self, work: Assignment) -> Run:
        from adaptkit.embed.recipe import embed
        from adaptkit.embed.start import steps_for_budget
        from adaptkit.study.spend import after_scoring, charge_scoring

        if work.arm.adaptation is Adaptation.RERANK:
            return train_reranker(work, _development_set(work.files))
        data = DataConfig(files=[str(work.files.folder)])
        settings = EmbedConfig(
            name=work.name,
            base=str(work.origin),
            train=data,
            test=None if work.tuning else data,
            adapter=work.adapter,
            max_length=work.task.max_length,
        )
        settings = with_trainer(
            settings, seed=work.seed, threads=work.threads, global_batch_size=self.batch_rows
        )
        scoring = self.pass_flops(work)
        spare = after_scoring(work.flops, scoring, work.name)
        steps = steps_for_budget(settings, spare, work.task.max_epochs)
        settings = with_trainer(settings, num_steps=steps, learning_rate=work.rate_for(steps))
        run = work.open(settings.name, settings)
        embed(settings, run, suite=work.task.name)
        charge_scoring(run, scoring)
        return run

    def pass_flops(self, work: Assignment) -> float:
        """What encoding the development questions takes, and the documents that they are searched in."""
        from adaptkit.embed.encoder import Encoder
        from adaptkit.study.spend import forward_flops

        encoder = Encoder.load(work.origin)
        encoder.limit(work.task.max_length)
        dev = _development_set(work.files)
        texts = [*dev.queries.values(), *dev.documents.values()]
        return forward_flops(encoder.model, [len(ids) for ids in encoder.tokens(texts)])

    def baseline(self, task: TaskConfig, files: TaskFiles) -> Baseline | None:
        from adaptkit.study.tasks.retrieval_sets import bm25_rows

        begun = time.perf_counter()
        rows, answering = bm25_rows(files.folder)
        return Baseline("bm25", BM25, rows, time.perf_counter() - begun, len(rows) / answering)

    def tuning_score(self, dev: dict[str, float], metric: str) -> float:
        """What lacks to the best score: the loss of a small batch tells less than the ranks do."""
        return 1 - dev[metric]


def _development_set(files: TaskFiles) -> RetrievalSet:
    """The questions that candidates are compared by, and the documents that these are searched in."""
    from adaptkit.embed.examples import Examples, examples_of_set, set_of

    held = read_set(files.folder, "dev")
    return set_of(Examples(examples_of_set(held), list(held.documents.values())))
